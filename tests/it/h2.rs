//! HTTP/2 from clients.

use bytes::Bytes;
use h2::Reason;

use crate::support::edge::HOST;
use crate::support::{Edge, Ended, Gate, H2, Origin, Piece, Reply, pattern, side_by_side, within};

fn edge(origin: &Origin) -> Edge {
    Edge::before(origin).tls(&[]).start()
}

#[tokio::test]
async fn misses_and_hits() {
    let origin = Origin::serving(Reply::fresh("hello").field("X-Own", "1"));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    client.get("/a", &[]).await.expect(200, "hello", "fwd=uri-miss");
    edge.settled().await;
    let hit = client.get("/a", &[]).await;
    hit.expect(200, "hello", "hit");
    assert_eq!((hit.field("content-length"), hit.field("x-own")), (Some("5"), Some("1")));
    assert_eq!((hit.field("connection"), hit.field("transfer-encoding")), (None, None));
    let head = client.whole("HEAD", "/a", &[], None).await.unwrap();
    head.expect(200, "", "hit");
    assert_eq!(head.field("content-length"), Some("5"));
    let seen = origin.last("/a").await;
    assert_eq!((seen.field("host"), seen.field("via")), (Some(HOST), Some("2 atoll")));
    assert!(client.ended().await.is_none_or(|reason| reason == Reason::NO_ERROR));
}

#[tokio::test]
async fn a_post_streams_both_ways() {
    let gate = Gate::new();
    let pieces = vec![Piece::data("first"), Piece::gate(&gate), Piece::data("second")];
    let origin = Origin::serving(Reply::new(200).chunked(pieces).early());
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    let body = Some(Bytes::from_static(b"hello"));
    gate.open();
    let answer = client.whole("POST", "/a", &[], body).await.unwrap();
    assert_eq!((answer.status(), answer.text()), (200, "firstsecond"));
}

#[tokio::test]
async fn prior_knowledge_is_taken_where_it_is_configured() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).plain_h2().start();
    let mut client = H2::plain(edge.plain(), HOST).await;
    assert_eq!(client.get("/a", &[]).await.text(), "x");
    assert_eq!(edge.get("/a").await.text(), "x", "HTTP/1.1 as well");
}

#[tokio::test]
async fn a_hundred_streams_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| Reply::ok(&seen.target).gate(&held));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    let mut asked = Vec::new();
    for number in 0..100 {
        let request = client.head("GET", &format!("/{number}"), &[]);
        asked.push(client.ask(request, false).await);
    }
    gate.reached(100).await;
    gate.open();
    let answers = side_by_side(asked.into_iter().map(|asked| asked.outcome())).await;
    let mut bodies: Vec<usize> =
        answers.into_iter().map(|answer| answer.unwrap().text()[1..].parse().unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_bodies_keep_to_the_windows() {
    let body = pattern(4 << 20);
    let origin = Origin::serving(Reply::fresh(&body));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    for _ in 0..2 {
        let answer = client.get("/a", &[]).await;
        assert!(answer.ended == Ended::Clean && answer.body == body, "{}", answer.body.len());
        edge.settled().await;
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let gates = [Gate::new(), Gate::new()];
    let [length, chunked] = gates.clone();
    let origin = Origin::start(move |seen| {
        let part = |gate| vec![Piece::data("part"), Piece::gate(gate), Piece::Close];
        match &*seen.target {
            "/length" => Reply::new(200).sized(100, part(&length)),
            "/chunked" => Reply::new(200).chunked(part(&chunked)),
            _ => Reply::ok("x"),
        }
    });
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    for (target, gate) in ["/length", "/chunked"].into_iter().zip(gates) {
        let request = client.head("GET", target, &[]);
        let response = client.ask(request, false).await.response().await.unwrap();
        let mut body = response.into_body();
        let part = within("the first part", body.data()).await.unwrap().unwrap();
        assert_eq!(part, "part", "{target}");
        // The head is there before the end: a reset overtakes what has not been sent.
        gate.open();
        let end = within("the end", body.data()).await.expect("no clean end");
        let reason = end.expect_err("nothing more").reason();
        assert_eq!(reason, Some(Reason::INTERNAL_ERROR), "{target}");
    }
    assert_eq!(client.get("/other", &[]).await.status(), 200, "the connection goes on");
}

#[tokio::test]
async fn resetting_streams_over_and_over_ends_the_connection() {
    let gate = Gate::new();
    let origin = Origin::serving(Reply::ok("x").gate(&gate));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    let send = client.sender();
    let flood = async {
        for number in 0..10_000 {
            let Ok(mut ready) = send.clone().ready().await else { break };
            let request = client.head("GET", &format!("/{number}"), &[]);
            let Ok((_, mut stream)) = ready.send_request(request, true) else { break };
            stream.send_reset(Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    };
    within("the flood to end", flood).await;
    assert_eq!(client.ended_by_edge().await, Some(Reason::ENHANCE_YOUR_CALM));
    assert!(origin.requests() <= 200, "{} requests reached the origin", origin.requests());
    gate.open();
    assert_eq!(edge.get("/good").await.text(), "x");
}

#[tokio::test]
async fn a_stream_that_is_reset_leaves_the_others_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| Reply::ok(&seen.target).gate(&held));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    let (one, other) = (client.head("GET", "/one", &[]), client.head("GET", "/other", &[]));
    let one = client.ask(one, false).await;
    let other = client.ask(other, false).await;
    gate.reached(2).await;
    one.reset();
    gate.open();
    assert_eq!(other.outcome().await.unwrap().text(), "/other");
}

#[tokio::test]
async fn host_and_authority_must_agree() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    assert_eq!(client.get("/a", &[("host", HOST)]).await.status(), 200);
    assert_eq!(client.get("/a", &[("host", "other.test")]).await.status(), 400);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn cookies_in_crumbs_reach_the_origin_as_one() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = edge(&origin);
    let mut client = H2::tls(edge.tls(), HOST).await;
    client.get("/a", &[("cookie", "a=1"), ("cookie", "b=2")]).await;
    assert_eq!(origin.last("/a").await.all("cookie"), ["a=1; b=2"]);
}
