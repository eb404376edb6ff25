//! The stale windows of RFC 5861: while refreshing, and on errors.

use std::time::Duration;

use crate::support::{Edge, Gate, Origin, Piece, Reply, until};

/// Stale by 40 seconds when it leaves the origin.
fn stale(body: &str, window: &str) -> Reply {
    Reply::ok(body).field("Cache-Control", &format!("max-age=60, {window}")).field("Age", "100")
}

#[tokio::test]
async fn stale_is_served_while_one_refresh_is_under_way() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => stale("v1", "stale-while-revalidate=600"),
        _ => Reply::fresh("v2").gate(&held),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    for _ in 0..20 {
        let answer = edge.get("/a").await;
        answer.expect(200, "v1", "hit");
        assert!(answer.ttl() < 0, "{}", answer.cache());
    }
    gate.reached(1).await;
    gate.open();
    edge.settled().await;
    edge.get("/a").await.expect(200, "v2", "hit");
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_stale_response_in_its_window() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => stale("v1", "stale-while-revalidate=600"),
        2 => Reply::new(500).body("oh"),
        3 => Reply::script(vec![Piece::Close]),
        _ => Reply::fresh("v2"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v1", "hit");
    until("the refresh that succeeds", || async {
        let answer = edge.fill("/a").await;
        assert!(matches!(answer.text(), "v1" | "v2"), "{answer:?}");
        answer.text() == "v2"
    })
    .await;
}

#[tokio::test]
async fn a_refresh_that_brings_something_private_ends_the_stale_response() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => stale("v1", "stale-while-revalidate=600"),
        nth => Reply::ok(format!("private {nth}")).field("Cache-Control", "private"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v1", "hit");
    let answer = edge.fill("/a").await;
    assert_eq!(answer.text(), "private 3", "{}", answer.cache());
}

#[tokio::test]
async fn stale_stands_in_for_an_origin_that_is_down() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => stale("v1", "stale-if-error=600"),
        _ => Reply::fresh("v2"),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    origin.stop().await;
    for _ in 0..3 {
        edge.fill("/a").await.expect(200, "v1", "detail=stale-if-error");
    }
    origin.start_again();
    edge.fill("/a").await.expect(200, "v2", "fwd=stale");
}

#[tokio::test]
async fn stale_stands_in_for_server_errors_only() {
    let origin = Origin::start(|seen| match (&*seen.target, seen.nth) {
        (_, 1) => stale("v1", "stale-if-error=600"),
        ("/404", _) => Reply::new(404).body("gone"),
        (target, _) => Reply::new(target[1..].parse().unwrap()).body("oh"),
    });
    let edge = Edge::start(&origin);
    for target in ["/500", "/502", "/503", "/504"] {
        edge.fill(target).await;
        edge.fill(target).await.expect(200, "v1", "detail=stale-if-error");
    }
    edge.fill("/404").await;
    edge.fill("/404").await.expect(404, "gone", "fwd=stale");
}

#[tokio::test]
async fn stale_stands_in_for_an_origin_that_does_not_answer_in_time() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => stale("v1", "stale-if-error=600"),
        _ => Reply::script(vec![Piece::Hang]),
    });
    let edge = Edge::before(&origin).limits("origin_first_byte = \"200ms\"").start();
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "v1", "detail=stale-if-error");
}

#[tokio::test]
async fn windows_end_and_some_responses_have_none() {
    let origin = Origin::start(|seen| {
        match &*seen.target {
            "/over" => stale("v1", "stale-if-error=10"),
            "/must" => stale("v1", "must-revalidate, stale-if-error=600"),
            _ => stale("v1", "no-cache, stale-if-error=600"),
        }
        .field("ETag", "\"1\"")
    });
    let edge = Edge::start(&origin);
    for target in ["/over", "/must", "/no-cache"] {
        edge.fill(target).await;
    }
    origin.stop().await;
    for target in ["/over", "/must", "/no-cache"] {
        let answer = edge.fill(target).await;
        assert!(matches!(answer.status(), 502..=504), "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn policy_lends_windows_where_the_origin_names_none() {
    let origin = Origin::start(|_| Reply::stale("v1", "\"1\""));
    let edge = Edge::before(&origin)
        .rule("/error", "stale_if_error = \"1h\"")
        .rule("/while", "stale_while_revalidate = \"1h\"")
        .start();
    edge.fill("/error/a").await;
    edge.fill("/while/a").await;
    edge.fill("/while/a").await.expect(200, "v1", "hit");
    origin.stop().await;
    edge.fill("/error/a").await.expect(200, "v1", "detail=stale-if-error");
}

#[tokio::test]
async fn what_was_fresh_turns_stale_with_time() {
    let origin = Origin::start(|seen| Reply::ok(format!("v{}", seen.nth)));
    let edge = Edge::before(&origin).site("lifetime = \"300ms\"").start();
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "v1", "hit");
    until("it to turn stale", || async { edge.fill("/a").await.text() == "v2" }).await;
}

#[tokio::test]
async fn a_hot_response_is_refreshed_before_it_turns_stale() {
    let origin = Origin::start(|seen| {
        let pause = Piece::Pause(Duration::from_millis(50));
        Reply::fresh(format!("v{}", seen.nth)).before(pause)
    });
    let keys = "lifetime = \"10s\"\nearly_refresh = 100.0";
    let edge = Edge::before(&origin).inexact().site(keys).start();
    edge.fill("/a").await;
    until("the early refresh", || async {
        let answer = edge.get("/a").await;
        assert!(answer.says("hit"), "{}", answer.cache());
        answer.text() == "v2"
    })
    .await;
}

#[tokio::test]
async fn a_user_with_credentials_is_not_shown_what_strangers_saw_when_the_origin_fails() {
    let origin = Origin::start(|seen| match (&*seen.target, seen.nth) {
        ("/stale", 1) => stale("everybody's", "stale-if-error=600"),
        (_, 1) => Reply::fresh("everybody's"),
        _ => Reply::new(503).body("oh"),
    });
    let edge = Edge::start(&origin);
    let secret = [("Authorization", "Basic YTpi")];
    for target in ["/stale", "/fresh"] {
        edge.fill(target).await.expect(200, "everybody's", "stored");
        assert_eq!(edge.get_with(target, &secret).await.status(), 503, "{target}");
    }
    edge.fill("/stale").await.expect(200, "everybody's", "detail=stale-if-error");
    origin.stop().await;
    for target in ["/stale", "/fresh"] {
        assert_eq!(edge.get_with(target, &secret).await.status(), 503, "{target}");
    }
}
