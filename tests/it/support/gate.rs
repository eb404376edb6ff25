//! A barrier that a story holds: who comes to it waits until the story opens it.

use std::sync::Arc;

use tokio::sync::watch;

use super::within;

/// A gate, shut at first. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
    came: Arc<watch::Sender<usize>>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), came: Arc::new(watch::Sender::new(0)) }
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` have come to the gate.
    pub(crate) async fn reached(&self, count: usize) {
        let mut came = self.came.subscribe();
        let what = format!("{count} to come to the gate");
        within(&what, came.wait_for(|came| *came >= count)).await.unwrap();
    }

    /// Comes to the gate and waits until it is open. Bounded by whoever plays the script.
    pub(crate) async fn pass(&self) {
        self.came.send_modify(|came| *came += 1);
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}
