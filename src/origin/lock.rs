//! A mutex that a panic elsewhere does not take away from everyone else.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held for a few lines, never over an `.await`. What it guards is valid after every line, so a
/// panic of one holder says nothing to the next.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
