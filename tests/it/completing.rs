//! Completing a stored part: only what is missing is asked for, and what comes is never mixed up.

use crate::partial::{LENGTH, asked, is_part, is_whole, part, purges, ranged, serve};
use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, Gate, Origin, Piece, Reply, pattern};

async fn begun(edge: &Edge) -> Connection {
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[]).await;
    assert_eq!(client.head("GET").await.status, 200);
    client
}

/// The part first, then the rest in two pieces with a gate between.
fn gated(gate: &Gate, last: Piece) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| match seen.nth {
        2 => {
            let all = pattern(LENGTH);
            let pieces = vec![Piece::data(&all[500..600]), Piece::gate(&gate), last.clone()];
            part(500, 999).sized(500, pieces).field("ETag", "\"1\"").field("Surrogate-Key", "t")
        }
        _ => serve(seen).field("Surrogate-Key", "t"),
    })
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    let rows: [(&[&str], &str); 3] = [
        (&["bytes=0-599"], "bytes=600-"),
        (&["bytes=600-"], "bytes=0-599"),
        (&["bytes=0-99", "bytes=-100"], "bytes=100-899"),
    ];
    for (parts, rest) in rows {
        let origin = Origin::start(serve);
        let edge = Edge::start(&origin);
        for range in parts {
            ranged(&edge, range).await;
        }
        let whole = edge.fill("/a").await;
        is_whole(&whole, "fwd=partial");
        assert_eq!(whole.field("content-type"), Some("text/x"));
        let seen = origin.seen("/a", parts.len() + 1).await;
        let last = seen.last().unwrap();
        assert_eq!((last.field("range"), last.field("if-range")), (Some(rest), Some("\"1\"")));
        is_whole(&edge.get("/a").await, "hit");
        is_part(&ranged(&edge, "bytes=50-950").await, 50, 950, "hit");
        assert_eq!(origin.requests(), parts.len() + 1);
    }
}

#[tokio::test]
async fn the_rest_of_what_cannot_be_compared_is_asked_for_once() {
    for honours in [false, true] {
        let origin = Origin::start(move |seen| match (asked(seen), seen.nth) {
            (Some((first, last)), 1) => part(first, last),
            (Some((first, last)), _) if honours => part(first, last),
            _ => Reply::fresh(pattern(LENGTH)),
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-4").await;
        is_whole(&edge.fill("/a").await, "fwd=partial");
        let seen = origin.seen("/a", 2).await;
        let ranges: Vec<_> = seen.iter().skip(1).map(|seen| seen.field("range")).collect();
        let whole = [Some("bytes=5-"), None];
        assert_eq!(ranges, whole[..if honours { 2 } else { 1 }]);
        is_whole(&edge.get("/a").await, "hit");
    }
}

#[tokio::test]
async fn a_purge_while_the_rest_arrives() {
    for purge in purges() {
        let gate = Gate::new();
        let origin = gated(&gate, Piece::data(&pattern(LENGTH)[600..]));
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-499").await;
        let mut before = begun(&edge).await;
        before.body_bytes(600).await;
        edge.purge(purge.clone()).await;
        let mut after = edge.connect().await;
        after.ask(HOST, "/a", &[]).await;
        let fresh = after.response("GET").await;
        is_whole(&fresh, "fwd=uri-miss");
        gate.open();
        let (rest, ended) = before.rest().await;
        assert_eq!((&rest[..], ended), (&pattern(LENGTH)[600..], Ended::Clean), "begun before");
        edge.settled().await;
        is_whole(&edge.get("/a").await, "hit");
        let seen = origin.seen("/a", 3).await;
        assert_eq!((seen.len(), seen[2].field("range")), (3, None), "{purge}");
        edge.purge(purge).await;
        is_whole(&edge.get("/a").await, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn others_join_what_completes_a_part() {
    let gate = Gate::new();
    let origin = gated(&gate, Piece::data(&pattern(LENGTH)[600..]));
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-499").await;
    let mut first = begun(&edge).await;
    let mut second = begun(&edge).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.body_bytes(600).await, pattern(600));
    }
    gate.open();
    for client in [&mut first, &mut second] {
        let (rest, ended) = client.rest().await;
        assert_eq!((&rest[..], ended), (&pattern(LENGTH)[600..], Ended::Clean));
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_rest_that_breaks_off_cuts_the_client_off_and_leaves_the_part() {
    let gate = Gate::new();
    let origin = gated(&gate, Piece::Reset);
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-499").await;
    let mut client = begun(&edge).await;
    assert_eq!(client.body_bytes(600).await, pattern(600));
    gate.open();
    assert_eq!(client.rest().await.1, Ended::CutOff);
    edge.settled().await;
    is_part(&ranged(&edge, "bytes=0-499").await, 0, 499, "hit");
    is_whole(&edge.fill("/a").await, "fwd=partial");
    assert_eq!(origin.seen("/a", 3).await[2].field("range"), Some("bytes=500-"));
}

#[tokio::test]
async fn a_rest_that_is_not_what_was_asked_for_is_not_used() {
    let wrong: [fn() -> Reply; 8] = [
        || part(500, 999).field("ETag", "\"2\""),
        || part(500, 999),
        || part(500, 998).field("ETag", "\"1\""),
        || part(499, 998).field("ETag", "\"1\""),
        || part(500, 999).without("Content-Range").field("ETag", "\"1\""),
        || part(500, 999).body("short").field("ETag", "\"1\""),
        || Reply::new(416).field("Content-Range", "bytes */400"),
        || Reply::new(304).field("ETag", "\"1\""),
    ];
    for (row, wrong) in wrong.into_iter().enumerate() {
        let origin = Origin::start(move |seen| match (seen.nth, seen.field("range")) {
            (2, _) => wrong(),
            (_, None) => Reply::fresh("another").field("ETag", "\"2\""),
            _ => serve(seen),
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-499").await;
        edge.fill("/a").await.expect(200, "another", "fwd=partial");
        edge.get("/a").await.expect(200, "another", "hit");
        ranged(&edge, "bytes=0-1").await.expect(206, "an", "hit");
        assert_eq!(origin.requests(), 3, "row {row}");
    }
}

#[tokio::test]
async fn a_new_version_comes_whole() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => serve(seen),
        _ => Reply::fresh("another").field("ETag", "\"2\""),
    });
    let edge = Edge::start(&origin);
    ranged(&edge, "bytes=0-499").await;
    edge.fill("/a").await.expect(200, "another", "fwd=partial");
    ranged(&edge, "bytes=0-1").await.expect(206, "an", "hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn new_terms_that_forbid_storing_leave_nothing_to_the_next() {
    for (why, name, value) in
        [("private", "CDN-Cache-Control", "private"), ("set-cookie", "Set-Cookie", "user=1")]
    {
        let origin = Origin::start(move |seen| match seen.nth {
            2 => serve(seen).field(name, value),
            _ => serve(seen),
        });
        let edge = Edge::start(&origin);
        ranged(&edge, "bytes=0-499").await;
        let own = edge.fill("/a").await;
        is_whole(&own, "fwd=partial");
        let detail = format!("detail={why}");
        assert!(!own.says("stored") && own.says(&detail), "{}", own.cache());
        assert_eq!(own.field("set-cookie").is_some(), why == "set-cookie");
        let next = edge.get("/a").await;
        assert!(!next.says("hit") && next.field("set-cookie").is_none(), "{next:?}");
        assert_eq!(origin.seen("/a", 3).await[2].field("range"), None);
    }
}
