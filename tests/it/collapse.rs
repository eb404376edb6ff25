//! Many clients, one fill.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::edge::HOST;
use crate::support::{
    Connection, Edge, Ended, Gate, H2, Origin, Piece, Reply, pattern, side_by_side, until,
};

/// Waits until the edge has got that many requests.
async fn asked_for(edge: &Edge, count: f64) {
    let what = format!("{count} requests at the edge");
    let name = "atoll_client_requests_total{version=\"1\"}";
    until(&what, || async { edge.metric(name).await >= count }).await;
}

#[tokio::test]
async fn a_thousand_clients_cost_one_origin_request_and_none_waits_for_another() {
    const CLIENTS: usize = 1000;
    let gate = Gate::new();
    let body = Arc::new(pattern(20_000));
    let pieces = body.chunks(1000).map(Piece::data).collect();
    let reply = Reply::new(200).field("Cache-Control", "max-age=60").chunked(pieces).gate(&gate);
    let origin = Origin::serving(reply);
    let edge = Edge::before(&origin).limits("connections = 4000").start();

    let mut slow = Connection::open_narrow(edge.plain()).await;
    slow.ask(HOST, "/a", &[]).await;
    let mut clients = Vec::new();
    for _ in 1..CLIENTS {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    asked_for(&edge, CLIENTS as f64).await;
    gate.open();
    let answer = |mut client: Connection| async move { client.response("GET").await };
    let answers = side_by_side(clients.into_iter().map(answer)).await;
    let mut own = 0;
    for answer in answers {
        assert_eq!((answer.status(), answer.ended), (200, Ended::Clean));
        assert!(answer.body == *body, "{} bytes", answer.body.len());
        own += usize::from(!answer.says("collapsed") && !answer.says("hit"));
    }
    assert!(own <= 1, "{own} answers came by fills of their own");
    let answer = slow.response("GET").await;
    assert!(answer.body == *body && answer.ended == Ended::Clean);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_delays_nobody() {
    let body = Arc::new(pattern(8 << 20));
    let gate = Gate::new();
    let origin = Origin::serving(Reply::fresh(&*body).gate(&gate));
    let edge = Edge::start(&origin);
    // First of all the one that takes nothing: the fill is its own.
    let mut slow = Connection::open_narrow(edge.plain()).await;
    slow.ask(HOST, "/a", &[]).await;
    gate.reached(1).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    asked_for(&edge, 5.0).await;
    gate.open();
    for mut client in clients {
        let answer = client.response("GET").await;
        assert!(answer.body == *body, "{} bytes", answer.body.len());
    }
    let answer = slow.response("GET").await;
    assert!(answer.body == *body, "{} bytes", answer.body.len());
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn waiters_read_along_while_it_arrives() {
    let gate = Gate::new();
    let pieces = vec![Piece::data("first "), Piece::gate(&gate), Piece::data("second")];
    let origin =
        Origin::serving(Reply::new(200).field("Cache-Control", "max-age=60").chunked(pieces));
    let edge = Edge::start(&origin);
    let mut clients = [edge.connect().await, edge.connect().await];
    for client in &mut clients {
        client.ask(HOST, "/a", &[]).await;
        assert_eq!(client.head("GET").await.status, 200);
        assert_eq!(client.body_bytes(6).await, b"first ");
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest().await, ("second".into(), Ended::Clean));
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_fill_outlives_the_client_that_began_it() {
    let gate = Gate::new();
    let origin = Origin::serving(Reply::fresh("hello").gate(&gate));
    let edge = Edge::before(&origin).plain_h2().start();
    // Over HTTP/2 the edge sees at once that a client leaves, while it waits for the origin.
    let mut first = H2::plain(edge.plain(), HOST).await;
    let request = first.head("GET", "/a", &[]);
    let asked = first.ask(request, false).await;
    gate.reached(1).await;
    let mut second = edge.connect().await;
    second.ask(HOST, "/a", &[]).await;
    asked_for(&edge, 1.0).await;
    asked.reset();
    edge.metric_becomes("atoll_http2_streams_reset_total", 1.0).await;
    gate.open();
    second.response("GET").await.expect(200, "hello", "collapsed");
    edge.get("/a").await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_fill_that_nobody_waits_for_any_more_is_stored() {
    let gate = Gate::new();
    let origin = Origin::serving(Reply::fresh("hello").gate(&gate));
    let edge = Edge::before(&origin).plain_h2().start();
    let mut only = H2::plain(edge.plain(), HOST).await;
    let request = only.head("GET", "/a", &[]);
    only.ask(request, false).await.reset();
    gate.reached(1).await;
    edge.metric_becomes("atoll_http2_streams_reset_total", 1.0).await;
    gate.open();
    edge.settled().await;
    edge.get("/a").await.expect(200, "hello", "hit");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_may_not_be_shared_releases_the_waiters() {
    const CLIENTS: usize = 10;
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::ok(seen.nth.to_string()).field("Cache-Control", "private");
        if seen.nth == 1 { reply.gate(&held) } else { reply }
    });
    let edge = Edge::start(&origin);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    asked_for(&edge, CLIENTS as f64).await;
    gate.reached(1).await;
    assert_eq!(origin.requests(), 1);
    gate.open();
    let mut bodies = BTreeSet::new();
    for client in &mut clients {
        bodies.insert(client.response("GET").await.text().to_owned());
    }
    assert_eq!(bodies.len(), CLIENTS, "an answer went to two: {bodies:?}");
    assert_eq!(origin.requests(), CLIENTS);
}

#[tokio::test]
async fn what_was_uncacheable_is_not_queued_for_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::ok(seen.nth.to_string()).field("Cache-Control", "no-store");
        if seen.nth == 1 { reply } else { reply.gate(&held) }
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let mut clients = [edge.connect().await, edge.connect().await];
    for client in &mut clients {
        client.ask(HOST, "/a", &[]).await;
    }
    // Both are at the origin at once: neither waits for the other.
    gate.reached(2).await;
    gate.open();
    let [one, two] = &mut clients;
    assert_ne!(one.response("GET").await.body, two.response("GET").await.body);
}

#[tokio::test]
async fn an_interrupted_fill_cuts_everyone_off_and_stores_nothing() {
    let part = |end: Piece, gate: &Gate| vec![Piece::data("part"), Piece::gate(gate), end];
    type Framed = fn(Reply, Vec<Piece>) -> Reply;
    let ends: [(&str, Framed, Piece); 5] = [
        ("length", |reply, pieces| reply.sized(100, pieces), Piece::Close),
        ("length-reset", |reply, pieces| reply.sized(100, pieces), Piece::Reset),
        ("chunked", |reply, pieces| reply.chunked(pieces), Piece::Close),
        ("chunked-reset", |reply, pieces| reply.chunked(pieces), Piece::Reset),
        ("close-reset", |reply, pieces| reply.until_close(pieces), Piece::Reset),
    ];
    for (case, framed, end) in ends {
        let gate = Gate::new();
        let pieces = part(end, &gate);
        let origin = Origin::start(move |seen| match seen.nth {
            1 => framed(Reply::new(200).field("Cache-Control", "max-age=60"), pieces.clone()),
            _ => Reply::fresh("whole"),
        });
        let edge = Edge::start(&origin);
        // What ends with its connection may not be shared while it arrives.
        let count = if case == "close-reset" { 1 } else { 5 };
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = edge.connect().await;
            client.ask(HOST, "/a", &[]).await;
            assert_eq!(client.head("GET").await.status, 200, "{case}");
            assert_eq!(client.body_bytes(4).await, b"part", "{case}");
            clients.push(client);
        }
        assert_eq!(origin.requests(), 1, "{case}");
        gate.open();
        for client in &mut clients {
            assert_eq!(client.rest().await, ("".into(), Ended::CutOff), "{case}");
        }
        edge.settled().await;
        let next = edge.get("/a").await;
        assert_eq!((next.text(), next.says("hit")), ("whole", false), "{case}");
    }
}

#[tokio::test]
async fn broken_chunks_cut_off_and_store_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::script(vec![
            Piece::data(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            ),
            Piece::gate(&held),
            Piece::data("0x4\r\npart\r\n0\r\n\r\n"),
            Piece::Hang,
        ]),
        _ => Reply::fresh("whole"),
    });
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[]).await;
    client.head("GET").await;
    client.body_bytes(4).await;
    gate.open();
    assert_eq!(client.rest().await, ("".into(), Ended::CutOff));
    edge.settled().await;
    edge.get("/a").await.expect(200, "whole", "fwd=uri-miss");
}

#[tokio::test]
async fn what_ends_with_its_connection_is_not_stored() {
    let origin = Origin::serving(
        Reply::new(200)
            .field("Cache-Control", "max-age=60")
            .until_close(vec![Piece::data("who knows whether this is all")]),
    );
    let edge = Edge::start(&origin);
    for count in 1..=2 {
        let answer = edge.fill("/a").await;
        assert_eq!(answer.text(), "who knows whether this is all");
        assert!(!answer.says("hit") && !answer.says("stored"), "{}", answer.cache());
        assert_eq!(origin.requests(), count);
    }
}

#[tokio::test]
async fn an_origin_that_fails_before_the_head_fails_all_waiters_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::script(vec![Piece::gate(&held), Piece::Close]));
    let edge = Edge::start(&origin);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    asked_for(&edge, 20.0).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").await.status(), 502);
    }
    assert!(origin.requests() <= 2, "{} requests: a stampede of retries", origin.requests());
}

#[tokio::test]
async fn waiters_for_another_variant_share_a_fill_of_their_own() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let language = seen.field("accept-language").unwrap_or("none");
        let reply = Reply::fresh(language).field("Vary", "Accept-Language");
        if seen.nth == 1 { reply.gate(&held) } else { reply }
    });
    let edge = Edge::start(&origin);
    let mut clients = Vec::new();
    for language in ["de", "de", "en", "en", "en"] {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[("Accept-Language", language)]).await;
        // The first one begins the fill.
        origin.seen("/a", 1).await;
        clients.push((language, client));
    }
    asked_for(&edge, 5.0).await;
    gate.open();
    for (language, client) in &mut clients {
        assert_eq!(client.response("GET").await.text(), *language);
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn while_one_variant_streams_the_others_find_their_own_fills() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let language = seen.field("accept-language").unwrap_or("none").to_owned();
        let pieces = vec![Piece::data(language), Piece::gate(&held), Piece::data(" end")];
        Reply::fresh("").field("Vary", "Accept-Language").chunked(pieces)
    });
    let edge = Edge::start(&origin);
    let mut clients = Vec::new();
    for round in 0..4 {
        for language in ["de", "en", "fr"] {
            let mut client = edge.connect().await;
            client.ask(HOST, "/a", &[("Accept-Language", language)]).await;
            client.head("GET").await;
            assert_eq!(client.body_bytes(2).await, language.as_bytes(), "round {round}");
            clients.push(client);
        }
    }
    assert_eq!(origin.requests(), 3);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest().await, (" end".into(), Ended::Clean));
    }
}

#[tokio::test]
async fn what_one_user_may_see_is_not_shared_by_joining() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::fresh(seen.field("authorization").unwrap_or("nobody"));
        if seen.nth == 1 { reply.gate(&held) } else { reply }
    });
    for users in [["ann", "bob", "-"], ["-", "ann", "bob"]] {
        let edge = Edge::start(&origin);
        let target = format!("/{}", users[0]);
        let mut clients = Vec::new();
        for user in users {
            let credentials = format!("Basic {user}");
            let fields = [("Authorization", &*credentials)];
            let mut client = edge.connect().await;
            client.ask(HOST, &target, if user == "-" { &[] } else { &fields }).await;
            origin.seen(&target, 1).await;
            clients.push((user, client));
        }
        asked_for(&edge, 3.0).await;
        gate.open();
        for (user, client) in &mut clients {
            let expected = if *user == "-" { "nobody".to_owned() } else { format!("Basic {user}") };
            assert_eq!(client.response("GET").await.text(), expected, "{users:?}");
        }
    }
}

/// What must be confirmed on each use may be one user's: the origin did not see the other request.
#[tokio::test]
async fn what_must_be_confirmed_is_not_shared_by_joining() {
    for terms in ["no-cache", "max-age=0"] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |seen| {
            let user = seen.field("x-who").unwrap();
            let reply = Reply::ok(user).field("Cache-Control", terms);
            reply.field("ETag", &format!("\"{user}\"")).gate(&held)
        });
        let edge = Arc::new(Edge::start(&origin));
        let asks = ["ann", "bob", "eve"].map(|user| {
            let edge = Arc::clone(&edge);
            async move { (user, edge.get_with("/a", &[("X-Who", user)]).await) }
        });
        let all = tokio::spawn(side_by_side(asks));
        asked_for(&edge, 3.0).await;
        gate.open();
        for (user, answer) in all.await.unwrap() {
            assert_eq!(answer.text(), user, "{terms}: {}", answer.cache());
        }
    }
}

#[tokio::test]
async fn a_change_at_the_origin_outruns_a_fill_under_way() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.method, seen.nth) {
        ("POST", _) => Reply::new(204),
        (_, 1) => Reply::fresh("before").gate(&held),
        _ => Reply::fresh("after"),
    });
    let edge = Edge::start(&origin);
    let mut before = edge.connect().await;
    before.ask(HOST, "/a", &[]).await;
    gate.reached(1).await;
    assert_eq!(edge.post("/a", "x").await.status(), 204);
    let mut after = edge.connect().await;
    after.ask(HOST, "/a", &[]).await;
    asked_for(&edge, 3.0).await;
    gate.open();
    assert_eq!(after.response("GET").await.text(), "after");
    before.response("GET").await;
    edge.settled().await;
    edge.get("/a").await.expect(200, "after", "hit");
}

#[tokio::test]
async fn a_small_request_may_read_along_in_a_large_fill() {
    let gate = Gate::new();
    let body = pattern(1000);
    let pieces = vec![Piece::data(&body[..500]), Piece::gate(&gate), Piece::data(&body[500..])];
    let origin = Origin::serving(Reply::fresh("").sized(1000, pieces));
    let edge = Edge::start(&origin);
    let mut whole = edge.connect().await;
    whole.ask(HOST, "/a", &[]).await;
    whole.head("GET").await;
    assert_eq!(whole.body_bytes(500).await, body[..500]);
    // Nothing is stored yet: HEAD and ranges go their own ways and disturb nobody.
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1000")));
    gate.open();
    let (rest, ended) = whole.rest().await;
    assert!(rest == body[500..] && ended == Ended::Clean);
    edge.settled().await;
    let part = edge.get_with("/a", &[("Range", "bytes=499-500")]).await;
    assert_eq!((part.status(), &part.body[..]), (206, &body[499..=500]));
}
