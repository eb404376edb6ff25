//! Requests that go to the origin alone although their answers may be kept: nobody joins them, but
//! who changes what they ask for must know of them.

use std::sync::Arc;

use super::{Fills, lock};

/// Such a request, until its answer is stored or gone.
#[derive(Debug)]
pub struct Passing {
    fills: Arc<Fills>,
    primary: u128,
    /// Epoch before it was sent.
    pub born: u64,
    /// Number of the last fill that began before it was sent: whatever began later is newer.
    pub number: u64,
}

impl Fills {
    /// Notes a request for what has this primary key. To be called before it is sent; `epoch` is
    /// read in between.
    #[must_use]
    pub fn passing(self: &Arc<Self>, primary: u128, epoch: impl FnOnce() -> u64) -> Passing {
        *lock(&self.passing).entry(primary).or_insert(0) += 1;
        let number = self.next_number().saturating_sub(1);
        Passing { fills: Arc::clone(self), primary, born: epoch(), number }
    }

    pub(super) fn is_passing(&self, primary: u128) -> bool {
        lock(&self.passing).contains_key(&primary)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut passing = lock(&self.fills.passing);
        if let Some(count) = passing.get_mut(&self.primary) {
            *count -= 1;
            if *count == 0 {
                passing.remove(&self.primary);
            }
        }
    }
}
