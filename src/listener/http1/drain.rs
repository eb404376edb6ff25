//! How a connection learns that the process drains, or that idle connections have to make room,
//! without paying for it on every request.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

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
    /// What [`Thinning`] had published when `end` was polled last.
    ///
    /// [`Thinning`]: crate::listener::Thinning
    moment: u64,
}

impl DrainWatch {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            from_the_start: context.draining().is_some(),
            end: None,
            over: false,
            waker: None,
            moment: 0,
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

    /// Whether a connection that has been idle since then should end, to make room for others.
    /// Asked after [`DrainWatch::is_over`], which sees to it that the task hears of a change.
    pub(super) fn is_in_the_way(&self, idle_since: Duration) -> bool {
        self.context.thinning.ends(idle_since)
    }

    /// Whether idle connections should end; else the task is woken when it should, or when some
    /// have to make room.
    pub(super) fn is_over(&mut self, task: &mut std::task::Context<'_>) -> bool {
        if self.over {
            return true;
        }
        let moment = self.context.thinning.moment();
        let known = self.moment == moment
            && self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker()));
        if known && !self.is_draining() {
            return false;
        }
        let end = self.end.get_or_insert_with(|| {
            let context = Arc::clone(&self.context);
            Box::pin(async move { end_of_idleness(&context).await })
        });
        self.waker = Some(task.waker().clone());
        self.moment = moment;
        self.over = end.as_mut().poll(task).is_ready();
        self.over
    }
}

/// Resolves when idle connections should end because the process drains; wakes the task beside
/// that whenever some have to make room.
async fn end_of_idleness(context: &Context) {
    let mut drained = pin!(context.idle_end());
    loop {
        let known = context.thinning.moment();
        tokio::select! {
            biased;
            () = &mut drained => return,
            () = context.thinning.moved(known) => {}
        }
    }
}
