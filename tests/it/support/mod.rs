//! The vocabulary of the stories: an origin that plays a script, an edge before it, a client.
//!
//! Every wait is for a condition and bounded: a story that cannot go on says what it waited for.

pub(crate) mod binary;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod file;
pub(crate) mod gate;
pub(crate) mod h2;
pub(crate) mod h2_origin;
pub(crate) mod origin;
pub(crate) mod program;
pub(crate) mod relay;
pub(crate) mod reply;
pub(crate) mod traffic;
pub(crate) mod websocket;

use std::future::Future;
use std::time::Duration;

pub(crate) use binary::Binary;
pub(crate) use client::{Connection, Ended, Response};
pub(crate) use dns::Dns;
pub(crate) use edge::Edge;
pub(crate) use file::{File, Version};
pub(crate) use gate::Gate;
pub(crate) use h2::H2;
pub(crate) use h2_origin::H2Origin;
pub(crate) use origin::Origin;
pub(crate) use reply::{Piece, Reply};

/// Longest wait for one thing; far beyond what any of them takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// Waits for `future`, and says what was waited for if it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks again and again until `probe` is content, for conditions that nobody announces.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    within(what, async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for all of them, side by side.
pub(crate) async fn side_by_side<T: Send + 'static>(
    all: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    all.into_iter().collect::<tokio::task::JoinSet<T>>().join_all().await
}

/// A body whose every part differs, so that misplaced bytes show.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    let mut number = 0_u64;
    while out.len() < length {
        out.extend_from_slice(format!("{number:07}\n").as_bytes());
        number += 1;
    }
    out.truncate(length);
    out
}
