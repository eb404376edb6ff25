//! Changes at the origin: what they kill of what is stored, and what an answer to POST may leave
//! behind.

use serde_json::json;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, Gate, Origin, Piece, Reply, Response};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A POST with a short body and further fields.
async fn post_with(edge: &Edge, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut fields = fields.to_vec();
    fields.push(("Content-Length", "1"));
    let head = request("POST", HOST, target, &fields);
    edge.raw(head + "x", "POST").await
}

async fn hits(edge: &Edge, target: &str) -> bool {
    let answer = edge.fill(target).await;
    assert_eq!(answer.status(), 200, "{target}: {answer:?}");
    answer.says("hit")
}

async fn epoch(edge: &Edge) -> f64 {
    edge.metric("atoll_epoch").await
}

/// Answers GET with what is fresh, everything else as told.
fn changing(reply: Reply) -> Origin {
    Origin::start(move |seen| match &*seen.method {
        "GET" => Reply::fresh(format!("v{}", seen.nth)).field("Surrogate-Key", "t"),
        _ => reply.clone(),
    })
}

#[tokio::test]
async fn a_change_kills_what_it_names_by_location_and_content_location() {
    let reply = Reply::new(201)
        .field("Location", "http://SITE.test:80/f/../new?x=%c3")
        .field("Content-Location", "sub/./changed");
    let origin = changing(reply);
    let edge = Edge::start(&origin);
    let killed = ["/f/", "/new?x=%C3", "/f/sub/changed"];
    let left = ["/new", "/f", "/f/sub/", "/new?x=%C4"];
    for target in killed.iter().chain(&left) {
        assert!(!hits(&edge, target).await, "{target}");
    }
    let before = epoch(&edge).await;
    assert_eq!(edge.post("/f/", "x").await.status(), 201);
    assert!((epoch(&edge).await - before - 1.0).abs() < 0.5, "one purge for all of it");
    for target in killed {
        assert!(!hits(&edge, target).await, "{target}");
    }
    for target in left {
        assert!(hits(&edge, target).await, "{target}");
    }
}

#[tokio::test]
async fn a_change_reaches_no_other_authority_and_an_error_changes_nothing() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh(format!("v{}", seen.nth)),
        "PUT" => Reply::new(500).field("Location", "/b"),
        "PATCH" => Reply::new(404).field("Content-Location", "/b"),
        _ => Reply::new(303)
            .field("Location", "http://other.test/b")
            .field("Content-Location", "http://site.test:8080/b"),
    });
    let edge = Edge::start(&origin);
    let hosts = [HOST, "other.test", "site.test:8080"];
    for host in hosts {
        edge.ask("GET", host, "/a", &[]).await;
        edge.ask("GET", host, "/b", &[]).await;
    }
    edge.settled().await;
    for method in ["PUT", "PATCH"] {
        edge.ask(method, HOST, "/a", &[]).await;
        assert!(hits(&edge, "/a").await, "{method}");
    }
    edge.ask("DELETE", HOST, "/a", &[]).await;
    for host in hosts {
        assert!(edge.ask("GET", host, "/b", &[]).await.says("hit"), "{host}");
    }
    assert!(edge.ask("GET", "other.test", "/a", &[]).await.says("hit"));
    assert!(!hits(&edge, "/a").await);
}

#[tokio::test]
async fn a_change_kills_all_variants_and_what_is_arriving() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.method, seen.field("x-kind")) {
        ("GET", Some("slow")) if seen.nth < 4 => {
            let pieces = vec![Piece::data("old "), Piece::gate(&held), Piece::data("end")];
            Reply::fresh("").field("Vary", "X-Kind").chunked(pieces)
        }
        ("GET", _) => Reply::fresh(format!("v{}", seen.nth)).field("Vary", "X-Kind"),
        _ => Reply::new(204),
    });
    let edge = Edge::start(&origin);
    for kind in ["one", "two"] {
        edge.fill_with("/a", &[("X-Kind", kind)]).await;
        edge.get_with("/a", &[("X-Kind", kind)]).await.expect(
            200,
            if kind == "one" { "v1" } else { "v2" },
            "hit",
        );
    }
    let mut slow = edge.connect().await;
    slow.ask(HOST, "/a", &[("X-Kind", "slow")]).await;
    slow.head("GET").await;
    slow.body_bytes(4).await;
    edge.ask("DELETE", HOST, "/a", &[("X-Kind", "none")]).await;
    gate.open();
    assert_eq!(slow.rest().await, ("end".into(), Ended::Clean), "begun before, not cut");
    edge.settled().await;
    for kind in ["one", "two", "slow"] {
        let answer = edge.fill_with("/a", &[("X-Kind", kind)]).await;
        assert!(!answer.says("hit"), "{kind}: {answer:?}");
    }
}

#[tokio::test]
async fn a_change_while_the_first_fill_waits_for_its_head_is_not_missed() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.method, seen.nth) {
        ("GET", 1) => Reply::fresh("old").gate(&held),
        ("GET", _) => Reply::fresh("new"),
        _ => Reply::new(201).field("Location", "/a"),
    });
    let edge = Edge::start(&origin);
    let mut before: Connection = edge.connect().await;
    before.ask(HOST, "/a", &[]).await;
    gate.reached(1).await;
    edge.post("/collection", "x").await;
    gate.open();
    assert_eq!(before.response("GET").await.text(), "old");
    edge.settled().await;
    edge.fill("/a").await.expect(200, "new", "fwd=uri-miss");
}

#[tokio::test]
async fn strangers_cannot_fill_the_purge_table_with_what_nobody_stored() {
    let origin =
        changing(Reply::new(201).field("Location", "/new").field("Content-Location", "/x"));
    let edge = Edge::start(&origin);
    for number in 0..20 {
        edge.post(&format!("/form/{number}"), "x").await;
    }
    assert!(epoch(&edge).await < 0.5, "nothing was stored, nothing is purged");
}

#[tokio::test]
async fn groups_that_an_answer_names_die_with_it() {
    let origin = Origin::start(|seen| match (&*seen.method, &*seen.target) {
        ("GET", "/list") => Reply::fresh("list").field("Cache-Groups", "\"Front\", \"x\""),
        ("GET", "/tagged") => Reply::fresh("tagged").field("Surrogate-Key", "front"),
        ("GET", "/safe") => Reply::fresh("safe").field("Cache-Group-Invalidation", "\"front\""),
        ("GET", _) => Reply::fresh("other").field("Cache-Groups", "\"y\""),
        (_, "/broken") => Reply::new(204).field("Cache-Group-Invalidation", "\"front"),
        (_, "/error") => Reply::new(409).field("Cache-Group-Invalidation", "\"front\";a=1"),
        _ => Reply::new(204).field("Cache-Group-Invalidation", "\"none\", \"front\""),
    });
    let edge = Edge::start(&origin);
    for target in ["/list", "/tagged", "/other", "/safe"] {
        edge.fill(target).await;
    }
    edge.post("/broken", "x").await;
    // A request that changes nothing invalidates nothing.
    edge.fill("/safe").await;
    for target in ["/list", "/tagged", "/other"] {
        assert!(hits(&edge, target).await, "{target}");
    }
    for by in ["/change", "/error"] {
        let before = epoch(&edge).await;
        edge.post(by, "x").await;
        assert!((epoch(&edge).await - before - 1.0).abs() < 0.5, "one purge for all groups");
        assert!(hits(&edge, "/other").await);
        for target in ["/list", "/tagged"] {
            assert!(!hits(&edge, target).await, "{target} {by}");
        }
    }
}

/// An answer to POST that says that it is what a GET of the URL would bring.
fn represents(body: &str) -> Reply {
    Reply::fresh(body).field("Content-Location", "/a")
}

#[tokio::test]
async fn an_answer_to_post_that_represents_its_url_answers_later_gets() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh("got"),
        _ => represents(&format!("posted {}", seen.nth)),
    });
    let edge = Edge::start(&origin);
    let posted = edge.post("/a", "x").await;
    posted.expect(200, "posted 1", "fwd=method").expect(200, "posted 1", "stored");
    edge.settled().await;
    edge.get("/a").await.expect(200, "posted 1", "hit");
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!((head.says("hit"), head.field("content-length")), (true, Some("8")));
    // A POST itself is never answered from memory, and what it brings takes the old one's place.
    edge.post("/a", "x").await.expect(200, "posted 2", "fwd=method");
    edge.settled().await;
    edge.get("/a").await.expect(200, "posted 2", "hit");
    edge.purge_path("/a").await;
    edge.get("/a").await.expect(200, "got", "fwd=uri-miss");
}

#[tokio::test]
async fn an_answer_to_post_is_stored_on_its_own_clear_words_only() {
    let rows: [(&str, Reply, Fields<'_>); 10] = [
        ("no location", Reply::fresh("p"), &[]),
        ("another location", Reply::fresh("p").field("Content-Location", "/b"), &[]),
        (
            "an authority of its own",
            represents("p")
                .without("Content-Location")
                .field("Content-Location", "http://other.test/a"),
            &[],
        ),
        ("no freshness", Reply::ok("p").field("Content-Location", "/a"), &[]),
        ("private", represents("p").field("Cache-Control", "private"), &[]),
        ("a cookie", represents("p").field("Set-Cookie", "a=b"), &[]),
        (
            "created",
            Reply::new(201)
                .body("p")
                .field("Cache-Control", "max-age=60")
                .field("Content-Location", "/a"),
            &[],
        ),
        ("to one user", represents("p"), &[("Authorization", "Basic eDp5")]),
        ("no end", represents("p").until_close(vec![Piece::data("p")]), &[]),
        ("vary", represents("p").field("Vary", "*"), &[]),
    ];
    for (case, reply, fields) in rows {
        let posted = reply.clone();
        let origin = Origin::start(move |seen| match &*seen.method {
            "GET" => Reply::fresh("got"),
            _ => posted.clone(),
        });
        let edge = Edge::before(&origin).site("default_lifetime = \"1h\"").start();
        assert_eq!(post_with(&edge, "/a", fields).await.text(), "p", "{case}");
        edge.settled().await;
        assert_eq!(edge.get("/a").await.text(), "got", "{case}");
    }
}

#[tokio::test]
async fn an_answer_to_post_that_varies_answers_only_whom_it_selects() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh("got").field("Vary", "X-User"),
        _ => represents("posted").field("Vary", "X-User"),
    });
    let edge = Edge::start(&origin);
    post_with(&edge, "/a", &[("X-User", "one")]).await;
    edge.settled().await;
    edge.get_with("/a", &[("X-User", "one")]).await.expect(200, "posted", "hit");
    edge.get_with("/a", &[("X-User", "two")]).await.expect(200, "got", "fwd=vary-miss");
}

#[tokio::test]
async fn an_answer_to_post_that_breaks_off_is_not_stored() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh("got"),
        _ => represents("").sized(8, vec![Piece::data("post"), Piece::Close]),
    });
    let edge = Edge::start(&origin);
    let posted = edge.post("/a", "x").await;
    assert_eq!((posted.text(), posted.ended), ("post", Ended::CutOff));
    edge.settled().await;
    edge.get("/a").await.expect(200, "got", "fwd=uri-miss");
}

/// Whatever else is stored or not: a purge kills what was asked for before it.
#[tokio::test]
async fn a_purge_while_a_post_is_under_way_kills_its_answer() {
    for stored_before in [false, true] {
        for streaming in [false, true] {
            let gate = Gate::new();
            let held = gate.clone();
            let origin = Origin::start(move |seen| match &*seen.method {
                "GET" => Reply::fresh("got"),
                _ if streaming => represents("").chunked(vec![
                    Piece::data("post"),
                    Piece::gate(&held),
                    Piece::data("ed"),
                ]),
                _ => represents("posted").field("Surrogate-Key", "t").gate(&held),
            });
            let edge = Edge::start(&origin);
            if stored_before {
                edge.fill("/a").await;
            }
            let mut client = edge.connect().await;
            let fields = [("Content-Length", "1")];
            let head = request("POST", HOST, "/a", &fields);
            client.send(head + "x").await;
            gate.reached(1).await;
            if streaming {
                client.head("POST").await;
                client.body_bytes(4).await;
            }
            if streaming || stored_before {
                edge.purge_path("/a").await;
            } else {
                edge.purge(json!({ "tags": ["t"] })).await;
            }
            gate.open();
            if streaming {
                assert_eq!(client.rest().await, ("ed".into(), Ended::Clean));
            } else {
                assert_eq!(client.response("POST").await.text(), "posted");
            }
            edge.settled().await;
            let case = format!("stored before: {stored_before}, streaming: {streaming}");
            let answer = edge.get("/a").await;
            assert_eq!((answer.text(), answer.says("hit")), ("got", false), "{case}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_spoil_what_its_post_brings() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match &*seen.method {
        "GET" => Reply::fresh("got"),
        _ => {
            represents("").chunked(vec![Piece::data("post"), Piece::gate(&held), Piece::data("ed")])
        }
    });
    let edge = Edge::start(&origin);
    {
        let mut client = edge.connect().await;
        let fields = [("Content-Length", "1")];
        let head = request("POST", HOST, "/a", &fields);
        client.send(head + "x").await;
        client.head("POST").await;
    }
    gate.reached(1).await;
    gate.open();
    edge.settled().await;
    edge.get("/a").await.expect(200, "posted", "hit");
}

#[tokio::test]
async fn a_change_while_a_range_is_under_way_is_not_missed() {
    let part = |body| {
        let part = Reply::new(206).body(body).field("Content-Range", "bytes 0-2/10");
        part.field("Cache-Control", "max-age=60").field("ETag", "\"1\"")
    };
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match (&*seen.method, seen.nth) {
        ("GET", 1) => part("old").gate(&held),
        ("GET", _) => part("new"),
        _ => Reply::new(204),
    });
    let edge = Edge::start(&origin);
    let range = [("Range", "bytes=0-2")];
    let mut before: Connection = edge.connect().await;
    before.ask(HOST, "/a", &range).await;
    gate.reached(1).await;
    edge.post("/a", "x").await;
    gate.open();
    assert_eq!(before.response("GET").await.text(), "old");
    edge.fill_with("/a", &range).await.expect(206, "new", "fwd=uri-miss");
    edge.get_with("/a", &range).await.expect(206, "new", "hit");
}
