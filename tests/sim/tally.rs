//! Counts of what really happened, so that a fault that does not bite is noticed.

/// Something that must happen now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Thing {
    Lost,
    Duplicated,
    Overtaken,
    DelayedLong,
    CutOneWay,
    Isolated,
    CutBySplit,
    Flapped,
    PausedOverLease,
    RestartedWithLog,
    Forgot,
    ForgotAll,
    ForgotMost,
    TwoAtOnce,
    WallForward,
    WallBack,
    Suspended,
    Frozen,
    Drifted,
    Added,
    Removed,
    WitnessesChanged,
    Replayed,
    Garbage,
    Acknowledged,
    FirstAdoption,
    LogTruncated,
    Generation,
    RetiredReset,
    Retired,
    Reborn,
    Superseded,
    Serving,
    Unreadable,
    ThroughWire,
    Hit,
    TooMany,
    Burst,
    Misread,
    OtherWitnesses,
    Torn,
    FormerForgot,
    Unconfirmed,
    ChangeRefused,
    // What only nodes that lie, or a copied disk, would bring about; not demanded.
    Refused,
    Conflict,
    // What needs a roster that shrinks during a change.
    ChangeStuck,
    // What ends a run unjudged.
    Beyond,
}

/// Those that are demanded.
pub(crate) const DEMANDED: usize = Thing::Refused as usize;
pub(crate) const THINGS: usize = Thing::Beyond as usize + 1;

/// As they are told, in the same order.
pub(crate) const NAMES: [&str; THINGS] = [
    "Lost",
    "Duplicated",
    "Overtaken",
    "DelayedLong",
    "CutOneWay",
    "Isolated",
    "CutBySplit",
    "Flapped",
    "PausedOverLease",
    "RestartedWithLog",
    "Forgot",
    "ForgotAll",
    "ForgotMost",
    "TwoAtOnce",
    "WallForward",
    "WallBack",
    "Suspended",
    "Frozen",
    "Drifted",
    "Added",
    "Removed",
    "WitnessesChanged",
    "Replayed",
    "Garbage",
    "Acknowledged",
    "FirstAdoption",
    "LogTruncated",
    "Generation",
    "RetiredReset",
    "Retired",
    "Reborn",
    "Superseded",
    "Serving",
    "Unreadable",
    "ThroughWire",
    "Hit",
    "TooMany",
    "Burst",
    "Misread",
    "OtherWitnesses",
    "Torn",
    "FormerForgot",
    "Unconfirmed",
    "ChangeRefused",
    "Refused",
    "Conflict",
    "ChangeStuck",
    "Beyond",
];

#[derive(Clone, Debug)]
pub(crate) struct Tally(pub(crate) [u64; THINGS]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; THINGS])
    }
}

impl Tally {
    pub(crate) fn count(&mut self, thing: Thing) {
        self.0[thing as usize] += 1;
    }

    pub(crate) fn of(&self, thing: Thing) -> u64 {
        self.0[thing as usize]
    }

    pub(crate) fn told(&self) -> String {
        let told = NAMES.iter().zip(self.0).map(|(name, count)| format!("{name} {count}"));
        told.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
    }
}
