//! How a connection learns that the process drains, without paying for it on every request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

use crate::listener::{Context, Pressure};

/// Watches the state of draining for one connection. As long as nothing was ever announced, a
/// look at it is a look at a version number that no other worker writes to.
pub(super) struct DrainWatch {
    context: Arc<Context>,
    /// Draining had begun before the connection did.
    from_the_start: bool,
    /// Registered once: later waits happen in the same task.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// `end` has come.
    over: bool,
    waker: Option<Waker>,
}

impl DrainWatch {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            from_the_start: context.draining().is_some(),
            end: None,
            over: false,
            waker: None,
        }
    }

    fn is_draining(&self) -> bool {
        self.from_the_start
            || (!matches!(self.context.drain.has_changed(), Ok(false))
                && self.context.draining().is_some())
    }

    /// Whether the connection should end after the answer at hand.
    pub(super) fn closing(&self) -> bool {
        self.context.pressure.step() >= Pressure::Shed || self.is_draining()
    }

    /// Whether idle connections should end; else the task is woken when it should.
    pub(super) fn is_over(&mut self, task: &mut std::task::Context<'_>) -> bool {
        if self.over {
            return true;
        }
        let known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker()));
        if known && !self.is_draining() {
            return false;
        }
        let end = self.end.get_or_insert_with(|| {
            let context = Arc::clone(&self.context);
            Box::pin(async move { context.idle_end().await })
        });
        self.waker = Some(task.waker().clone());
        self.over = end.as_mut().poll(task).is_ready();
        self.over
    }
}
