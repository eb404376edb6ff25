//! What becomes of answers: fills, confirmations, changes, purges, memory, fields (F19 to F45).

use serde_json::json;

use crate::support::edge::HOST;
use crate::support::{Connection, Edge, Ended, Gate, Origin, Piece, Reply, pattern, until};

#[tokio::test]
async fn f19_a_hundred_waiters_for_a_fill_that_breaks_off_ask_no_further() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => {
            let pieces = vec![Piece::data("part"), Piece::gate(&held), Piece::Close];
            Reply::new(200).field("Cache-Control", "max-age=60").sized(100, pieces)
        }
        _ => Reply::fresh("whole"),
    });
    let edge = Edge::start(&origin);
    let mut clients: Vec<Connection> = Vec::new();
    for _ in 0..100 {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.head("GET").await.status, 200);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest().await.1, Ended::CutOff);
    }
    assert_eq!(origin.requests(), 1);
    edge.settled().await;
    edge.get("/a").await.expect(200, "whole", "fwd=uri-miss");
}

#[tokio::test]
async fn f26_a_304_does_not_touch_what_belongs_to_the_body() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale("hello", "\"1\"").field("Content-Type", "text/a"),
        Some(_) => Reply::raw(
            "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nContent-Length: 999\r\n\
             Content-Encoding: gzip\r\nContent-Range: bytes 0-1/2\r\nSet-Cookie: a=b\r\n\
             Connection: close, x-hop\r\nX-Hop: 1\r\n\r\n",
        ),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.fill("/a").await.expect(200, "hello", "fwd-status=304");
    let hit = edge.get("/a").await;
    hit.expect(200, "hello", "hit");
    assert_eq!(hit.field("content-length"), Some("5"));
    for name in ["content-encoding", "content-range", "set-cookie", "x-hop"] {
        assert_eq!(hit.field(name), None, "{name}");
    }
}

#[tokio::test]
async fn f27_a_change_counts_for_its_own_authority() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh("v"),
        _ => Reply::new(seen.field("x-status").unwrap().parse().unwrap())
            .field("Location", "http://other.test/a")
            .field("Content-Location", "http://other.test/a"),
    });
    let edge = Edge::start(&origin);
    let hit = async |host: &str| {
        let answer = edge.ask("GET", host, "/a", &[]).await;
        edge.settled().await;
        answer.says("hit")
    };
    for (method, status, left) in [
        ("POST", "201", false),
        ("PUT", "204", false),
        ("DELETE", "302", false),
        ("PATCH", "200", false),
        ("FOO", "200", true),
        ("OPTIONS", "200", true),
        ("POST", "404", true),
        ("POST", "500", true),
    ] {
        hit(HOST).await;
        hit("other.test").await;
        assert!(hit(HOST).await && hit("other.test").await);
        edge.ask(method, HOST, "/a", &[("X-Status", status), ("Content-Length", "0")]).await;
        assert_eq!(hit(HOST).await, left, "{method} {status}");
        assert!(hit("other.test").await, "{method} {status} reached another authority");
    }
}

#[tokio::test]
async fn f28_a_revalidation_that_hangs_leaves_stale_within_its_window_only() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => Reply::ok("v1")
            .field("Cache-Control", "max-age=60, stale-while-revalidate=600, stale-if-error=600")
            .field("Age", if seen.target == "/within" { "100" } else { "1000" }),
        _ => Reply::script(vec![Piece::Hang]),
    });
    let edge = Edge::before(&origin).limits("origin_first_byte = \"100ms\"").start();
    edge.fill("/within").await;
    for _ in 0..2 {
        edge.fill("/within").await.expect(200, "v1", "hit");
    }
    edge.fill("/over").await;
    assert_eq!(edge.fill("/over").await.status(), 504);
}

#[tokio::test]
async fn f37_a_purge_takes_variants_ranges_heads_and_codings() {
    let origin = Origin::start(|seen| {
        let coding = seen.field("accept-encoding").unwrap_or("identity").to_owned();
        let reply = Reply::fresh(format!("v{}", seen.nth)).field("Vary", "Accept-Encoding");
        let reply = reply.field("Cache-Tag", "t").field("ETag", &format!("\"{}\"", seen.nth));
        if coding == "gzip" { reply.field("Content-Encoding", "gzip") } else { reply }
    });
    let edge = Edge::start(&origin);
    let ways = [("GET", ""), ("GET", "bytes=0-0"), ("HEAD", "")];
    for purge in [json!({"tags": ["t"]}), json!({"urls": [format!("http://{HOST}/a")]})] {
        for coding in ["gzip", "br", "identity"] {
            edge.fill_with("/a", &[("Accept-Encoding", coding)]).await;
            for (method, range) in ways {
                let fields = fields(coding, range);
                let answer = edge.ask(method, HOST, "/a", &fields).await;
                assert!(answer.says("hit"), "{purge} {method} {fields:?}: {}", answer.cache());
            }
        }
        edge.purge(purge.clone()).await;
        for coding in ["gzip", "br", "identity"] {
            for (method, range) in ways.iter().rev() {
                let fields = fields(coding, range);
                let answer = edge.ask(method, HOST, "/a", &fields).await;
                assert!(!answer.says("hit"), "{purge} {method} {fields:?}: {}", answer.cache());
                edge.settled().await;
                if *method == "GET" && !range.is_empty() {
                    // What a range brought may be kept by now.
                    edge.purge(purge.clone()).await;
                }
            }
            edge.purge(purge.clone()).await;
        }
    }
}

fn fields<'a>(coding: &'a str, range: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![("Accept-Encoding", coding)];
    if !range.is_empty() {
        fields.push(("Range", range));
    }
    fields
}

#[tokio::test]
async fn f39_a_reader_finishes_what_the_store_has_let_go() {
    let body = pattern(8 << 20);
    let origin = Origin::serving(Reply::fresh(&body));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let bytes = "atoll_store_bytes{size_class=\"2\"}";
    let held = edge.metric(bytes).await;
    assert!(held >= body.len() as f64, "{held}");
    let mut reader = Connection::open_narrow(edge.plain()).await;
    reader.ask(HOST, "/a", &[]).await;
    assert_eq!(reader.head("GET").await.status, 200);
    assert_eq!(edge.manage("POST", "/v1/reset", None).await.status(), 200);
    assert!(edge.metric(bytes).await >= held, "it is counted while somebody reads");
    let (rest, ended) = reader.rest().await;
    assert!(ended == Ended::Clean && rest == body, "{} bytes", rest.len());
    drop(reader);
    until("the memory to be given back", || async { edge.metric(bytes).await < held }).await;
}

#[tokio::test]
async fn f42_nothing_of_the_way_is_stored() {
    let origin = Origin::serving(
        Reply::fresh("x")
            .field("Age", "7")
            .field("Via", "1.1 inner")
            .field("X-Cache", "HIT from inner")
            .field("X-Served-By", "inner")
            .field("Cache-Status", "inner; hit")
            .field("Connection", "X-Hop")
            .field("X-Hop", "1")
            .field("Keep-Alive", "timeout=5")
            .field("Proxy-Authenticate", "Basic")
            .field("Surrogate-Key", "t")
            .field("Atoll-Cache-Control", "max-age=60")
            .field("X-Request-Id", "inner")
            .field("X-Kept", "1"),
    );
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let hit = edge.get("/a").await;
    hit.expect(200, "x", "hit");
    let mut names: Vec<&str> = hit.head.fields.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    let expected = [
        "age",
        "cache-control",
        "cache-status",
        "content-length",
        "date",
        "via",
        "x-kept",
        "x-request-id",
    ];
    assert_eq!(names, expected, "{hit:?}");
    assert_eq!(hit.field("via"), Some("1.1 atoll"));
    assert_ne!(hit.field("x-request-id"), Some("inner"));
    assert!(!hit.field("cache-status").unwrap().contains("inner"));
}

/// The memory of what is not shared ends: once it may be, it is.
#[tokio::test]
async fn f44_what_was_not_shared_may_be_shared_later() {
    let origin = Origin::start(|seen| match seen.nth {
        1 | 2 => Reply::ok(format!("own {}", seen.nth)).field("Cache-Control", "private"),
        _ => Reply::fresh("everybody's"),
    });
    let edge = Edge::start(&origin);
    for own in ["own 1", "own 2"] {
        assert_eq!(edge.fill("/a").await.text(), own);
    }
    edge.fill("/a").await.expect(200, "everybody's", "detail=uncacheable");
    edge.fill("/a").await.expect(200, "everybody's", "stored");
    edge.get("/a").await.expect(200, "everybody's", "hit");
    let defaults = include_str!("../../../config/reference.toml");
    assert!(defaults.contains("\nuncacheable_memory = \"2m\""), "two minutes at most");
}

#[tokio::test]
async fn f45_two_sites_before_one_address_share_no_entry_and_no_connection() {
    let origin =
        Origin::start(|seen| Reply::fresh(seen.field("host").unwrap()).field("Surrogate-Key", "t"));
    let edge = Edge::before(&origin)
        .origin("second", &[origin.address])
        .first_site(
            "name = \"one\"\nhosts = [\"one.test\"]\norigin = \"main\"\nhost = \"same.test\"",
        )
        .another_site(
            "name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"\nhost = \"same.test\"\n",
        )
        .another_site("name = \"three\"\nhosts = [\"three.test\"]\norigin = \"second\"\n")
        .start();
    let mut connections = std::collections::BTreeMap::new();
    for round in 0..4 {
        for host in ["one.test", "two.test", "three.test"] {
            let target = format!("/{round}");
            let answer = edge.ask("GET", host, &target, &[]).await;
            edge.settled().await;
            assert!(!answer.says("hit"), "{host} {target}: {}", answer.cache());
            let seen = origin.last(&target).await;
            let site = connections.entry(seen.connection).or_insert(host);
            assert_eq!(*site, host, "a connection of {site} served {host}");
        }
    }
    assert!(connections.len() < 12, "connections are kept");
}
