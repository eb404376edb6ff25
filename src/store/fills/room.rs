//! Memory for bodies that are copied while they pass, counted with all that is arriving.
//!
//! They go at the pace of one client each. So that slow ones cannot take the memory of fills, on
//! which everybody waits, all of them together get a share of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Fills;

/// Share of the memory for arriving bodies, as a divisor.
const SHARE: u64 = 4;

/// Room for one such body, for as long as this lives.
#[derive(Debug)]
pub struct Room {
    fills: Arc<Fills>,
    bytes: u64,
}

impl Fills {
    /// Room for a body of `bytes`; `None` where all such bodies together take too much.
    #[must_use]
    pub fn room(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let taken = self.copied.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { fills: Arc::clone(self), bytes };
        (taken.saturating_add(bytes) <= self.limits.bytes / SHARE).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.fills.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.fills.copied.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
