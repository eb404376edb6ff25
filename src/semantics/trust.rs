//! How far one request may trust what is in memory: a verdict that is reached once, when the
//! request has come, and goes with it wherever it goes.
//!
//! It never changes afterwards. A lease that held when the request had come vouches for every purge
//! that was acknowledged long enough before it was sent, however late the store is looked at; and a
//! request that came without one is answered with what the origin says after that, even if the lease
//! comes back meanwhile.

use super::policy::{Policy, WithoutLease};
use super::reason::Reason;

/// What a request may be answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Memory: no purge can have been missed that the request may count on.
    #[default]
    Lease,
    /// Memory: purges may have been missed, and policy serves on.
    Regardless,
    /// Only what the origin confirmed or sent to a request that left after this one had come: purges
    /// may have been missed.
    NoLease,
    /// The same, whatever policy says: the request names a purge that is not in force here.
    Behind,
}

impl Trust {
    /// The verdict on a request under `policy`. `lease`: it held when the request had come.
    #[must_use]
    pub fn of(lease: bool, policy: &Policy) -> Self {
        match (lease, policy.without_lease) {
            (true, _) => Self::Lease,
            (false, WithoutLease::Serve) => Self::Regardless,
            (false, WithoutLease::Revalidate) => Self::NoLease,
        }
    }

    /// Whether what was there before may answer.
    #[must_use]
    pub fn covers_memory(self) -> bool {
        self.reason().is_none()
    }

    /// Why the origin must be asked, where it must.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Lease | Self::Regardless => None,
            Self::NoLease => Some(Reason::NoLease),
            Self::Behind => Some(Reason::Behind),
        }
    }

    /// Word for `Cache-Status`, log and metric.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Self::Lease => None,
            Self::Regardless | Self::NoLease => Some(Reason::NoLease.label()),
            Self::Behind => Some(Reason::Behind.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_counts_only_where_the_lease_does_not_hold() {
        let rows = [
            (true, WithoutLease::Revalidate, Trust::Lease, true),
            (true, WithoutLease::Serve, Trust::Lease, true),
            (false, WithoutLease::Revalidate, Trust::NoLease, false),
            (false, WithoutLease::Serve, Trust::Regardless, true),
        ];
        for (lease, without_lease, trust, memory) in rows {
            let found = Trust::of(lease, &Policy { without_lease, ..Policy::default() });
            assert_eq!((found, found.covers_memory()), (trust, memory));
        }
        assert!(!Trust::Behind.covers_memory());
    }
}
