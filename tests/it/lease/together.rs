//! Many requests without a lease: they share the next question to the origin, never an earlier one.

use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Gate, Origin, Piece, Reply, side_by_side, until};

use super::{ASKED, is_an_error};

/// An origin whose first answer waits at a gate, and whose answers are numbered.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| {
        let reply = Reply::fresh(format!("v{}", seen.nth));
        if seen.nth == 1 { reply.gate(&gate) } else { reply }
    })
}

#[tokio::test]
async fn those_who_came_behind_a_fill_share_the_next_one() {
    for leased in [true, false] {
        let gate = Gate::new();
        let origin = held(&gate);
        let edge = Edge::start(&origin);
        if !leased {
            edge.no_lease();
        }
        let earlier = f64::from(u8::from(!leased));
        let (first, others) = tokio::join!(edge.get("/a"), async {
            gate.reached(1).await;
            edge.no_lease();
            let address = edge.plain();
            let asks = (0..20).map(move |_| async move {
                let mut connection = Connection::open(address).await;
                connection.ask(HOST, "/a", &[]).await;
                connection.response("GET").await
            });
            let others = tokio::spawn(side_by_side(asks));
            edge.metric_becomes(ASKED, 20.0 + earlier).await;
            assert_eq!(origin.count("/a"), 1, "they wait");
            gate.open();
            others.await.unwrap()
        });
        assert_eq!(first.text(), "v1");
        for answer in &others {
            assert_eq!((answer.status(), answer.text()), (200, "v2"), "{}", answer.cache());
        }
        // Who is late finds it stored: it left after all of them had come.
        let shared = others.iter().filter(|answer| answer.says("collapsed") || answer.says("hit"));
        assert_eq!((shared.count(), origin.count("/a")), (19, 2));
    }
}

#[tokio::test]
async fn a_background_refresh_from_before_answers_nobody() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::stale("v1", "\"1\"")
            .field("Cache-Control", "max-age=60, stale-while-revalidate=600"),
        2 => Reply::fresh("v2").gate(&held),
        nth => Reply::fresh(format!("v{nth}")),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "v1", "hit");
    gate.reached(1).await;
    edge.no_lease();
    let (answer, ()) = tokio::join!(edge.get("/a"), async {
        edge.metric_becomes(ASKED, 1.0).await;
        gate.open();
    });
    assert_eq!(answer.text(), "v3");
}

#[tokio::test]
async fn those_who_came_behind_a_fill_that_fails_get_its_error() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::fresh("v1").field("ETag", "\"1\""),
        _ => Reply::script(vec![Piece::gate(&held), Piece::Close]),
    });
    let edge = Edge::before(&origin).limits("retries = 0").start();
    edge.fill("/a").await;
    edge.no_lease();
    let (first, second) = tokio::join!(edge.get("/a"), async {
        gate.reached(1).await;
        let (second, ()) = tokio::join!(edge.get("/a"), async {
            edge.metric_becomes(ASKED, 2.0).await;
            gate.open();
        });
        second
    });
    assert!(is_an_error(&first) && is_an_error(&second), "{first:?} {second:?}");
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_long_body_that_began_before_is_not_waited_for() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::fresh("")
            .sized(4, vec![Piece::data("lo"), Piece::gate(&held), Piece::data("ng")]),
        _ => Reply::fresh("short"),
    });
    let edge = Edge::start(&origin);
    let mut early = edge.connect().await;
    early.ask(HOST, "/a", &[]).await;
    assert_eq!(early.head("GET").await.status, 200);
    gate.reached(1).await;
    edge.no_lease();
    edge.get("/a").await.expect(200, "short", "fwd=uri-miss");
    gate.open();
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_pipelined_request_is_judged_when_its_turn_comes() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match &*seen.target {
        "/slow" => Reply::fresh("slow").gate(&held),
        _ => Reply::fresh(format!("v{}", seen.nth)),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let mut client = edge.connect().await;
    let both = format!(
        "GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    );
    client.send(both).await;
    gate.reached(1).await;
    edge.no_lease();
    gate.open();
    assert_eq!(client.response("GET").await.text(), "slow");
    client.response("GET").await.expect(200, "v2", "detail=no-lease");
}

#[tokio::test]
async fn one_who_came_under_a_lease_is_answered_from_memory_after_it_is_lost() {
    let gate = Gate::new();
    let origin = held(&gate);
    let edge = Edge::start(&origin);
    edge.lease();
    let (first, second) = tokio::join!(edge.get("/a"), async {
        gate.reached(1).await;
        let (second, ()) = tokio::join!(edge.get("/a"), async {
            // Both have come under the lease, and wait for one fill.
            let joined = "atoll_collapsed_total";
            until("the second to join", || async { edge.metric(joined).await > 0.5 }).await;
            edge.no_lease();
            gate.open();
        });
        second
    });
    assert_eq!((first.text(), second.text()), ("v1", "v1"));
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn an_answer_to_a_change_that_left_before_is_no_answer_either() {
    let gates = [Gate::new(), Gate::new()];
    let [get, post] = gates.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::fresh(format!("{} {}", seen.method, seen.nth));
        match (&*seen.method, seen.nth) {
            ("POST", _) => reply.field("Content-Location", "/a").gate(&post),
            (_, 1) => reply.gate(&get),
            _ => reply,
        }
    });
    let [get, post] = gates;
    let edge = Edge::start(&origin);
    edge.no_lease();
    let (early, (posted, late)) = tokio::join!(edge.get("/a"), async {
        get.reached(1).await;
        tokio::join!(edge.post("/a", "x"), async {
            post.reached(1).await;
            let (late, ()) = tokio::join!(edge.get("/a"), async {
                edge.metric_becomes(ASKED, 2.0).await;
                post.open();
                edge.metric_becomes("atoll_store_entries{size_class=\"0\"}", 1.0).await;
                get.open();
            });
            late
        })
    });
    assert_eq!((early.text(), posted.text()), ("GET 1", "POST 2"));
    assert_eq!(late.text(), "GET 3", "{}", late.cache());
}
