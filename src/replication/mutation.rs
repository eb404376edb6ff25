//! Bugs that can be planted, to prove that the simulation finds them.
//!
//! Production passes [`Mutation::None`]; `tests/tidy.rs` checks that no other room names another.

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// No bug: what production runs.
    #[default]
    None,
    /// A purge counts as acknowledged with the first acknowledgement.
    AcknowledgedBeforeMajority,
    /// A witness acknowledges a record although one before it is missing.
    AcknowledgedOverHole,
    /// What other witnesses know of restarts is not looked at: a reply from before a forgetful
    /// restart counts.
    DeadReplyCounted,
    /// A witness that forgot is content with what one other tells it.
    OnePeerTrusted,
    /// Votes belong to processes: two of one witness have two, whatever is known of restarts.
    TwoProcessesTwoVotes,
    /// The witness set is exchanged at once.
    SetChangedInOneStep,
    /// The lease runs from the arrival of the answer.
    LeaseFromAnswer,
    /// A lease is taken although records in the answers are still missing.
    LeaseBeforeCatchUp,
    /// Vectors are compared by the furthest record of a node, whichever its incarnation.
    MaximumAcrossIncarnations,
    /// A record that can't be read has no effect.
    UnknownSkipped,
    /// The vector jumps over records that are gone from all logs, and nothing is purged for them.
    JumpWithoutReset,
    /// A reset makes stale what it should make to be checked.
    SoftReset,
    /// A step of retirement is taken over without looking at what was missed.
    RetiredForgotten,
    /// Replies of two generations count together.
    GenerationsMixed,
    /// A new generation is taken over without a reset.
    GenerationWithoutReset,
    /// A witness acknowledges before its disk has the record.
    AcknowledgedBeforeDisk,
    /// A relay's answer counts as if its own questions had no age.
    RelayAgeForgotten,
    /// A wall clock that ran ahead of the boot clock ends no lease.
    WallClockIgnored,
    /// A restarted witness is answered, and its new life is not noted.
    RestartNotNoted,
    /// Sets of witnesses that bear one number count as one, whoever is in them.
    SetKnownByNumber,
    /// What a witness stands for is written down before what it took over for that.
    StateBeforeVector,
    /// A witness without memory begins a new generation of the set that it was told, and asks nobody
    /// whether there is a newer one.
    NewerSetNotAskedFor,
    /// A witness without memory joins the new generation of another one, which alone has asked that.
    JoinsUnasked,
    /// A joint set is left as soon as its witnesses serve, however few others know of it.
    SetSpreadTooThin,
    /// That its witnesses serve under a joint set counts as they said before enough others knew of it.
    ServiceHeardBefore,
    /// A joint set that too few nodes can know of for good is taken, and left when all of those know of it.
    SetLeftForTooFew,
    /// Who said once that it holds a joint set counts, however long ago.
    HoldersCountForever,
    /// That a purge was applied is said once: where that word is lost, its receipt stays open.
    AppliedOnce,
    /// An answer is taken for the answer to the newest question, whatever number it bears.
    QuestionNumberIgnored,
}
