//! Configurations that change places under load: no request notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::edge::{HOST, Plan};
use crate::support::{Connection, Edge, Ended, H2, Origin, Piece, Reply, pattern, until, within};

/// Length of a long download, in bytes.
const LONG: usize = 64 * 1024;

/// Time between two reloads.
const BEAT: Duration = Duration::from_millis(100);

/// What the visitors share.
#[derive(Clone)]
struct Visit {
    going: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Visit {
    fn goes_on(&self) -> bool {
        self.going.load(Ordering::SeqCst)
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// What came is whole, whatever was asked for.
    fn check(target: &str, body: &[u8]) {
        match target {
            "/long" => assert_eq!(body, pattern(LONG), "a long download"),
            _ => assert_eq!(body, b"hello", "{target}"),
        }
    }

    fn target(turn: usize) -> String {
        match turn % 20 {
            0 => "/long".to_owned(),
            1..=9 => "/stored".to_owned(),
            _ => format!("/pass/{turn}"),
        }
    }

    /// One connection of HTTP/1.1, request after request.
    async fn http1(self, edge: std::net::SocketAddr, first: usize) {
        let mut client = Connection::open(edge).await;
        let mut turn = first;
        while self.goes_on() {
            turn += 1;
            let target = Self::target(turn);
            client.ask(HOST, &target, &[]).await;
            let head = client.head("GET").await;
            assert_eq!((head.status, head.field("connection")), (200, None), "{target}");
            let (body, ended) = client.rest().await;
            assert_eq!(ended, Ended::Clean, "{target}");
            Self::check(&target, &body);
            self.answered();
        }
    }

    /// One connection of HTTP/2.
    async fn http2(self, edge: std::net::SocketAddr, first: usize) {
        let mut client = H2::plain(edge, HOST).await;
        let mut turn = first;
        while self.goes_on() {
            turn += 1;
            let target = Self::target(turn);
            let answer = client.get(&target, &[]).await;
            assert_eq!(answer.status(), 200, "{target}");
            Self::check(&target, &answer.body);
            self.answered();
        }
    }
}

/// Reloads for so long under load, between configurations that differ in sites, origins and limits.
async fn reload_under_load(time: Duration) {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/stored" => Reply::fresh("hello"),
        "/long" => {
            let whole = pattern(LONG);
            let mut pieces = Vec::new();
            for part in whole.chunks(LONG / 8) {
                pieces.push(Piece::data(part));
                pieces.push(Piece::Pause(Duration::from_millis(40)));
            }
            Reply::new(200).field("Cache-Control", "no-store").sized(LONG, pieces)
        }
        _ => Reply::new(200).field("Cache-Control", "no-store").body("hello"),
    });
    let other = Origin::serving(Reply::ok("other"));
    let plan = |turn: usize| -> Plan {
        let own = "name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"\n";
        let further = "name = \"other\"\nhosts = [\"other.test\"]\norigin = \"other\"\n";
        let plan = Edge::before(&origin).plain_h2().origin("other", &[other.address]);
        let plan = match turn % 3 {
            0 => plan.first_site(own).another_site(further),
            1 => plan.first_site(further).another_site(own),
            _ => plan.first_site(own),
        };
        // One in four changes what all origins depend on.
        let keep_alive = if turn % 4 == 3 { "keep_alive = \"70s\"" } else { "" };
        plan.limits(keep_alive)
    };
    let edge = plan(0).start_from_file();
    edge.fill("/stored").await;
    let visit = Visit { going: Arc::new(AtomicBool::new(true)), answered: Arc::default() };
    let mut visitors = Vec::new();
    for number in 0..6 {
        visitors.push(tokio::spawn(visit.clone().http1(edge.plain(), number * 7)));
        visitors.push(tokio::spawn(visit.clone().http2(edge.plain(), number * 7)));
    }
    until("load", || async { visit.answered.load(Ordering::SeqCst) > 50 }).await;
    let began = Instant::now();
    let mut reloads = 0;
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while began.elapsed() < time {
        beat.tick().await;
        reloads += 1;
        edge.becomes(&plan(reloads)).await;
    }
    let at_end = visit.answered.load(Ordering::SeqCst);
    until("answers after the last one", || async {
        visit.answered.load(Ordering::SeqCst) > at_end + 20
    })
    .await;
    visit.going.store(false, Ordering::SeqCst);
    for visitor in visitors {
        within("a visitor to end", visitor).await.expect("no failed request");
    }
    assert!(reloads >= 5, "{reloads}");
    edge.get("/stored").await.expect(200, "hello", "hit");
    assert_eq!(origin.count("/stored"), 1, "what was stored stayed");
}

#[tokio::test]
async fn no_request_fails_while_configurations_change_places() {
    reload_under_load(Duration::from_secs(3)).await;
}

#[tokio::test]
#[ignore = "half a minute, to be run by hand"]
async fn no_request_fails_for_half_a_minute() {
    reload_under_load(Duration::from_secs(30)).await;
}
