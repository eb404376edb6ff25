//! One round of the canary: what was read from each node and when, and what that proves.
//!
//! ```text
//! version n is kept everywhere    n+1 at the origin; n is purged    acknowledged        T later
//!   |----- read twice -----|---------------|------------------------------|-- read again --|-- read --> n?
//!                                                                            n may be seen     broken
//! ```
//!
//! From before the purge on, the origin answers nothing but n+1. So whoever shows n has kept it, and after
//! T nobody may. What could not be read proves nothing, and neither does a node that had kept nothing:
//! both are unknown, never kept promises.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::replication::PROMISE;

/// What the origin answers: a version, and something by which one answer is told from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    /// Drawn at the start of the prober, which is the only one to know its versions.
    pub(super) run: u64,
    /// Grows with each round.
    pub(super) version: u64,
    /// Number of the answer. Two readings that bear the same come from one stored response.
    pub(super) answer: u64,
}

/// Why a reading gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// No connection, or it broke.
    Connection,
    /// TLS was not agreed on, or the certificate is not trusted.
    Tls,
    /// It took too long.
    Time,
    /// Another status than 200.
    Status,
    /// Not this object.
    Content,
}

/// What a reading gave.
pub(super) type Reading = Result<Object, Unread>;

/// How the promise stands on one node after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// It had kept the old version, and answered with the new one after T.
    Kept,
    /// It showed the old version after T.
    Broken,
    /// Nothing is proved, and why.
    Unknown(&'static str),
}

/// An old version where none may be seen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    /// The version that was shown.
    pub(super) version: u64,
    /// How long after the acknowledgement it was asked for.
    pub(super) after: Duration,
}

/// A round for all nodes: what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// The prober's own number.
    pub(super) run: u64,
    /// The version that the origin answers from before the purge on.
    pub(super) newest: u64,
}

/// What was seen of one node in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    round: Round,
    had_kept: Result<(), &'static str>,
    old_until: Option<Duration>,
    breach: Option<Breach>,
    last: Result<(), &'static str>,
}

const NOT_ASKED: &str = "it was not read after the promise's time";
const KEEPS_NOTHING: &str = "it had not kept the former version";
const NOT_OURS: &str = "it shows the object of another prober, or of an earlier life of this one";

impl Unread {
    /// In a few words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Connection => "it cannot be connected to",
            Self::Tls => "its certificate is not accepted, or TLS failed",
            Self::Time => "it did not answer in time",
            Self::Status => "it answered with another status than 200",
            Self::Content => "it answered with something else than the object",
        }
    }
}

impl State {
    /// Its name in answers and metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl Seen {
    /// Before the purge: two readings show whether the node has kept the version before the newest.
    pub(super) fn before(round: Round, first: Reading, second: Reading) -> Self {
        let had_kept = match (first, second) {
            (Err(why), _) | (_, Err(why)) => Err(why.words()),
            (Ok(first), Ok(second)) if first.run != round.run || second.run != round.run => {
                Err(NOT_OURS)
            }
            (Ok(first), Ok(second)) if first == second && first.version < round.newest => Ok(()),
            (Ok(_), Ok(_)) => Err(KEEPS_NOTHING),
        };
        Self { round, had_kept, old_until: None, breach: None, last: Err(NOT_ASKED) }
    }

    /// A reading that was asked for `after` the acknowledgement. Gives the breach if it is the first.
    pub(super) fn read(&mut self, after: Duration, reading: Reading) -> Option<Breach> {
        let due = after > PROMISE;
        let shown = match reading {
            Err(why) => Err(why.words()),
            Ok(object) if object.run != self.round.run => Err(NOT_OURS),
            Ok(object) => Ok(object.version),
        };
        let old = shown.ok().filter(|version| *version < self.round.newest);
        if old.is_some() {
            self.old_until = self.old_until.max(Some(after));
        }
        if due {
            self.last = shown.map(|_| ());
        }
        let breach = old.filter(|_| due && self.breach.is_none());
        let breach = breach.map(|version| Breach { version, after });
        self.breach = self.breach.or(breach);
        breach
    }

    /// Whether what was asked for `after` the acknowledgement was an old version.
    pub(super) fn is_old_at(&self, after: Duration) -> bool {
        self.old_until == Some(after)
    }

    /// How long after the acknowledgement an old version was asked for and seen last.
    pub(super) fn old_until(&self) -> Option<Duration> {
        self.old_until
    }

    /// How the promise stands.
    pub(super) fn state(&self) -> State {
        match (self.breach, self.last, self.had_kept) {
            (Some(_), _, _) => State::Broken,
            (None, Ok(()), Ok(())) => State::Kept,
            (None, Err(why), _) | (None, Ok(()), Err(why)) => State::Unknown(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUND: Round = Round { run: 7, newest: 5 };
    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_millis(2_100);

    fn object(version: u64, answer: u64) -> Reading {
        Ok(Object { run: 7, version, answer })
    }

    fn kept() -> Seen {
        Seen::before(ROUND, object(4, 40), object(4, 40))
    }

    #[test]
    fn an_old_version_breaks_the_promise_only_after_its_time() {
        let mut seen = kept();
        assert_eq!(seen.read(SOON, object(4, 40)), None);
        assert_eq!(seen.read(PROMISE, object(4, 40)), None, "not later than T");
        assert_eq!(seen.state(), State::Unknown(NOT_ASKED));
        assert_eq!(seen.read(LATE, object(5, 50)), None);
        assert_eq!((seen.state(), seen.old_until()), (State::Kept, Some(PROMISE)));
    }

    #[test]
    fn a_breach_is_told_once_and_stays_whatever_follows() {
        let mut seen = kept();
        let breach = Breach { version: 4, after: LATE };
        assert_eq!(seen.read(LATE, object(4, 40)), Some(breach));
        assert!(seen.is_old_at(LATE));
        assert_eq!(seen.read(LATE * 2, object(3, 30)), None);
        assert_eq!(seen.read(LATE * 3, object(5, 50)), None);
        assert!(!seen.is_old_at(LATE * 3));
        assert_eq!((seen.state(), seen.old_until()), (State::Broken, Some(LATE * 2)));
    }

    #[test]
    fn what_proves_nothing_is_unknown() {
        let other = Ok(Object { run: 8, version: 4, answer: 40 });
        for (first, second, late, why) in [
            (object(4, 40), object(4, 41), object(5, 50), KEEPS_NOTHING),
            (object(5, 50), object(5, 50), object(5, 50), KEEPS_NOTHING),
            (other, other, object(5, 50), NOT_OURS),
            (object(4, 40), object(4, 40), other, NOT_OURS),
            (object(4, 40), Err(Unread::Status), object(5, 50), Unread::Status.words()),
            (object(4, 40), object(4, 40), Err(Unread::Time), Unread::Time.words()),
        ] {
            let mut seen = Seen::before(ROUND, first, second);
            assert_eq!(seen.read(LATE, late), None);
            assert_eq!(seen.state(), State::Unknown(why), "{first:?} {second:?} {late:?}");
        }
    }

    #[test]
    fn a_node_that_had_kept_nothing_can_still_break_it() {
        let mut seen = Seen::before(ROUND, Err(Unread::Connection), Err(Unread::Connection));
        assert!(seen.read(LATE, object(4, 40)).is_some());
        assert_eq!(seen.state(), State::Broken);
    }

    fn reading() -> impl Strategy<Value = Reading> {
        let unread = prop_oneof![Just(Unread::Connection), Just(Unread::Status)];
        prop_oneof![
            (6_u64..8, 3_u64..6, 0_u64..4).prop_map(|(run, version, answer)| Ok(Object {
                run,
                version,
                answer
            })),
            unread.prop_map(Err),
        ]
    }

    proptest! {
        #[test]
        fn broken_is_what_showed_an_old_version_late_and_kept_needs_the_new_one_late(
            before in (reading(), reading()),
            after in prop::collection::vec((0_u64..4_000, reading()), 0..12),
        ) {
            let mut seen = Seen::before(ROUND, before.0, before.1);
            let mut told = 0;
            for (millis, reading) in &after {
                told += usize::from(seen.read(Duration::from_millis(*millis), *reading).is_some());
            }
            let late = || after.iter().filter(|(millis, _)| *millis > 2_000);
            let shows = |reading: &Reading, old: bool| {
                reading.is_ok_and(|object| object.run == 7 && (object.version < 5) == old)
            };
            let broken = late().any(|(_, reading)| shows(reading, true));
            prop_assert_eq!(seen.state() == State::Broken, broken);
            prop_assert_eq!(told, usize::from(broken));
            if seen.state() == State::Kept {
                prop_assert!(late().any(|(_, reading)| shows(reading, false)));
                prop_assert!(shows(&before.0, true) && before.0 == before.1);
            }
        }
    }
}
