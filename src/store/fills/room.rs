//! Memory for bodies that are copied while they pass, counted with all that is arriving.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Fills;

/// Room for one such body, for as long as this lives.
#[derive(Debug)]
pub struct Room {
    fills: Arc<Fills>,
    bytes: u64,
}

impl Fills {
    /// Room for a body of `bytes`; `None` where all arriving bodies together take too much.
    #[must_use]
    pub fn room(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { fills: Arc::clone(self), bytes };
        (taken.saturating_add(bytes) <= self.limits.bytes).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.fills.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
