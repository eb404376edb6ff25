//! One timer for all waits of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that is armed when a wait begins and hardly ever moved: it may go off early, for a
/// deadline that has been left behind, and is then set to the one that counts. So a connection
/// that answers many requests within one idle time touches the timer wheel once.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Boot clock at which `sleep` goes off.
    armed: Option<Duration>,
}

impl Timer {
    /// Ready once `deadline`, by the boot clock, has passed; else the task is woken then or
    /// earlier. Several deadlines may be asked for in turn.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        loop {
            if self.armed.is_none_or(|armed| deadline < armed) {
                let left = deadline.saturating_sub(crate::clock::now().boot);
                if left.is_zero() {
                    return Poll::Ready(());
                }
                self.arm(deadline, left);
            }
            let Some(sleep) = &mut self.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
        }
    }

    fn arm(&mut self, deadline: Duration, left: Duration) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(Instant::now() + left),
            None => self.sleep = Some(Box::pin(tokio::time::sleep(left))),
        }
        self.armed = Some(deadline);
    }
}
