//! An address that is known before what stands behind it is: it passes connections on.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::origin;

/// A port that passes connections on to an address, once it has been told which.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, known) = watch::channel(None);
        let listener = listener.into_std().unwrap();
        let task = origin::runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, known.clone()));
            }
        });
        Self { address, to, task }
    }

    /// From here on connections go there, those that wait included.
    pub(crate) fn to(&self, address: SocketAddr) {
        self.to.send_replace(Some(address));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, mut known: watch::Receiver<Option<SocketAddr>>) {
    let Ok(to) = known.wait_for(Option::is_some).await.map(|to| *to) else { return };
    if let Some(to) = to
        && let Ok(mut far) = TcpStream::connect(to).await
    {
        // Either end may break; the other one sees its connection closed.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
