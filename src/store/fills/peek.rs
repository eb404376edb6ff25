//! Looking at a fill without joining it.

use std::sync::Arc;

use super::{Arrived, Fill, Fills, lock};

/// How far a fill has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Its number on this node.
    pub number: u64,
    /// Epoch before its request to the origin was sent.
    pub born: u64,
    /// The origin has begun to answer.
    pub head: bool,
    /// Bytes of its body so far.
    pub arrived_bytes: u64,
    /// Requests that read along or wait.
    pub readers: usize,
}

impl Fills {
    /// How far the fill of a key has come, where there is one.
    #[must_use]
    pub fn peek(&self, key: u128) -> Option<UnderWay> {
        let fill: Arc<Fill> = lock(self.shard(key)?).get(&key).map(Arc::clone)?;
        let state = lock(&fill.state);
        Some(UnderWay {
            number: fill.number,
            born: fill.born,
            head: matches!(state.arrived, Some(Arrived::Head(_))),
            arrived_bytes: state.arrived_bytes,
            readers: state.readers,
        })
    }

    /// Whether there is no room for another fill.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open() >= self.limits.fills || self.bytes() >= self.limits.bytes
    }
}
