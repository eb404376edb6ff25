//! A stranger who asks for one URL after another that nobody wants again cannot drive out what everybody
//! asks for.
//!
//! `SCAN_URLS` chooses how many URLs.

use std::net::SocketAddr;

use crate::support::program::Program;
use crate::support::{Connection, Origin, Reply, pattern};

/// What everybody asks for.
const HOT: usize = 300;
/// Of each.
const BODY: usize = 32 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_urls_asked_for_once_leave_the_hot_ones_in_the_store() {
    let urls: usize =
        std::env::var("SCAN_URLS").map_or(2_500, |text| text.parse().expect("a number"));
    let origin = Origin::serving(Reply::fresh(pattern(BODY)));
    // Of which 112 MiB are the store, and less than half of those are for bodies of this size: the others
    // alone would fill them one and a half times.
    let program = Program::start_with(origin.address, &["--memory", "160MiB"]);
    let mut client = Client::of(program.plain).await;
    for turn in 0..3 * HOT {
        client.ask("hot", turn % HOT).await;
    }
    let (mut before, mut during) = (0, 0);
    for turn in 0..HOT {
        before += usize::from(client.ask("hot", turn).await);
    }
    for turn in 0..urls {
        client.ask("once", turn).await;
        // Not in the order of their coming: nothing shall depend on that.
        during += usize::from(client.ask("hot", turn.wrapping_mul(0x9E37_79B1) % HOT).await);
    }
    let (before, during) = (before as f64 / HOT as f64, during as f64 / urls as f64);
    println!("hit ratio of the hot set: {before:.4} before, {during:.4} beside {urls} other URLs");
    assert!(before > 0.99, "{before}");
    assert!(during >= 0.95 * before, "{during} of {before}");
}

/// Asks over one connection, which is made anew where the edge ends it.
struct Client {
    edge: SocketAddr,
    connection: Connection,
}

impl Client {
    async fn of(edge: SocketAddr) -> Self {
        Self { edge, connection: Connection::open(edge).await }
    }

    /// Asks for a page, and says whether it was a hit.
    async fn ask(&mut self, of: &str, number: usize) -> bool {
        let response = self.connection.get("example.org", &format!("/{of}/{number}"), &[]).await;
        assert_eq!((response.status(), response.body.len()), (200, BODY), "{response:?}");
        let hit = response.says("hit");
        if response.field("connection") == Some("close") {
            self.connection = Connection::open(self.edge).await;
        }
        hit
    }
}
