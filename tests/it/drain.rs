//! Going away without a failed request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, Gate, H2, Origin, Piece, Reply, until, within};

#[tokio::test]
async fn readiness_goes_first_and_connections_end_by_themselves() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).tls(&[]).drain_notice("500ms").start();
    let mut h1 = edge.connect().await;
    assert_eq!(h1.get(HOST, "/a", &[]).await.field("connection"), None);
    let mut h2 = H2::tls(edge.tls(), HOST).await;
    h2.get("/a", &[]).await;
    assert_eq!(edge.manage_as(None, "GET", "/readyz", None).await.status(), 200);
    edge.drain();
    assert_eq!(edge.manage_as(None, "GET", "/readyz", None).await.status(), 503);
    assert_eq!(edge.manage_as(None, "GET", "/healthz", None).await.status(), 200);
    // Whoever has not heard of it yet is served, and told to go elsewhere.
    let answer = edge.get("/b").await;
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    if h1.try_send(request("GET", HOST, "/c", &[])).await.is_ok()
        && let Some(head) = h1.try_head("GET").await
    {
        assert_eq!((head.status, head.field("connection")), (200, Some("close")));
        h1.rest().await;
    }
    assert!(h2.ended_by_edge().await.is_none_or(|reason| reason == Reason::NO_ERROR));
    edge.drained().await;
}

#[tokio::test]
async fn what_is_under_way_is_finished() {
    let gate = Gate::new();
    let pieces = vec![Piece::data("begun "), Piece::gate(&gate), Piece::data("ended")];
    let origin = Origin::serving(Reply::new(200).chunked(pieces));
    let edge = Edge::before(&origin).tls(&[]).start();
    let mut h1 = edge.connect().await;
    h1.ask(HOST, "/a", &[]).await;
    h1.head("GET").await;
    h1.body_bytes(6).await;
    let mut h2 = H2::tls(edge.tls(), HOST).await;
    let asked = h2.head("GET", "/b", &[]);
    let asked = h2.ask(asked, false).await;
    gate.reached(2).await;
    edge.drain();
    gate.open();
    assert_eq!(h1.rest().await, ("ended".into(), Ended::Clean));
    assert_eq!(asked.outcome().await.unwrap().text(), "begun ended");
    edge.drained().await;
}

#[tokio::test]
async fn the_deadline_cuts_off_what_does_not_end() {
    let gate = Gate::new();
    let origin =
        Origin::serving(Reply::new(200).chunked(vec![Piece::data("x"), Piece::gate(&gate)]));
    let edge = Edge::before(&origin).limits("drain = \"300ms\"").start();
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[]).await;
    client.head("GET").await;
    client.body_bytes(1).await;
    edge.drain();
    edge.drained().await;
    assert_eq!(client.rest().await, ("".into(), Ended::CutOff));
}

/// Asks over one connection again and again, and anew where it was closed in between, until there
/// is nobody to ask any more.
async fn load(address: std::net::SocketAddr, going: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while going.load(Ordering::SeqCst) {
        let mut client = Connection::open(address).await;
        loop {
            if client.try_send(request("GET", HOST, "/a", &[])).await.is_err() {
                break;
            }
            // Closed while idle: no answer has begun, and the request is safe to repeat.
            let Some(head) = client.try_head("GET").await else { break };
            assert_eq!(head.status, 200);
            assert_eq!(client.rest().await, ("hello".into(), Ended::Clean));
            answered.fetch_add(1, Ordering::SeqCst);
            if head.field("connection") == Some("close") || !going.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn no_request_fails_while_draining_under_load() {
    let origin = Origin::serving(Reply::ok("hello").before(Piece::Pause(Duration::from_millis(2))));
    let edge = Edge::before(&origin).drain_notice("600ms").start();
    let going = Arc::new(AtomicBool::new(true));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| tokio::spawn(load(edge.plain(), Arc::clone(&going), Arc::clone(&answered))))
        .collect();
    until("load", || async { answered.load(Ordering::SeqCst) > 200 }).await;
    edge.drain();
    let at_drain = answered.load(Ordering::SeqCst);
    until("answers while draining", || async { answered.load(Ordering::SeqCst) > at_drain + 50 })
        .await;
    // As a balancer does that has seen the readiness: no new connections from here on.
    going.store(false, Ordering::SeqCst);
    for client in clients {
        within("a client to end", client).await.expect("no failed request");
    }
    edge.drained().await;
}

#[tokio::test]
async fn the_admin_listener_can_tell_it_to_drain() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).drain_notice("300ms").start();
    let answer = edge.manage("POST", "/v1/drain", None).await;
    assert!(matches!(answer.status(), 200 | 202), "{answer:?}");
    assert_eq!(edge.manage_as(None, "GET", "/readyz", None).await.status(), 503);
    edge.drained().await;
}
