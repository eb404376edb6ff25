//! How the peers of a node stand.

use std::net::SocketAddr;
use std::time::Duration;

use crate::replication::Name;

/// A node of the roster as seen from this one.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its name.
    pub name: Name,
    /// Its PoP, as the roster has it.
    pub pop: Name,
    /// Where it listens, if that is known.
    pub address: Option<SocketAddr>,
    /// How the link to it stands.
    pub state: LinkState,
    /// Since when the link is up, by the boot clock.
    pub up_since: Option<Duration>,
    /// Time there and back, measured on the link.
    pub round_trip: Option<Duration>,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Messages to it that were dropped.
    pub dropped: u64,
    /// What membership believes of it. No promise rests on that.
    pub member: MemberState,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Messages pass.
    Up,
    /// It is being dialled.
    Connecting,
    /// It is waited until it is dialled again, or nobody knows where it listens.
    Down,
}

impl LinkState {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Connecting => "connecting",
            Self::Down => "down",
        }
    }
}

/// What membership believes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer of late.
    Suspect,
    /// It does not answer, or has left.
    Down,
    /// Nothing has been heard of it.
    Unknown,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Unknown];

    /// Its name in answers and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}
