//! Purges in the wire formats of other caches: that they purge what they name, and nobody else's.

use serde_json::{Value, json};

use crate::support::certificate::Folder;
use crate::support::edge::{HOST, Plan, TOKEN};
use crate::support::{Connection, Edge, Gate, H2, Origin, Reply, Response};

/// A token for the first of two sites.
const ONE: &str = "a-token-for-the-first-site";
/// A token for the second.
const TWO: &str = "a-token-for-the-second-site";
/// A token for the first that may look only.
const READER: &str = "a-token-that-may-only-look";

/// Fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// Every facade, for two sites.
const ALL: &str = "[facades]\npurge_method = true\n\
    [[facades.fastly]]\nservice = \"s1\"\nsite = \"one\"\n\
    [[facades.fastly]]\nservice = \"s2\"\nsite = \"two\"\n\
    [[facades.cloudflare]]\nzone = \"z1\"\nsites = [\"one\"]\n\
    [[facades.cloudflare]]\nzone = \"z\"\nsites = [\"one\", \"two\"]";

fn origin() -> Origin {
    Origin::start(|seen| {
        let tag = format!("t {}", seen.target.trim_start_matches('/'));
        Reply::fresh(format!("v{}", seen.nth)).field("Surrogate-Key", &tag)
    })
}

fn two_sites(origin: &Origin) -> Plan {
    Edge::before(origin)
        .first_site("name = \"one\"\nhosts = [\"one.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"two.test\"]\norigin = \"main\"\n")
        .token(ONE, &["purge"], &["one"])
        .token(TWO, &["purge"], &["two"])
        .token(READER, &["read"], &["one"])
}

/// Whether it was a hit; what was not is stored when this returns.
async fn hit(edge: &Edge, host: &str, target: &str) -> bool {
    let answer = edge.ask("GET", host, target, &[]).await;
    edge.settled().await;
    answer.says("hit")
}

async fn fill(edge: &Edge) {
    for (host, target) in [("one.test", "/a"), ("one.test", "/b"), ("two.test", "/a")] {
        hit(edge, host, target).await;
        assert!(hit(edge, host, target).await, "{host}{target}");
    }
}

/// What of the three is still a hit.
async fn left(edge: &Edge) -> [bool; 3] {
    [
        hit(edge, "one.test", "/a").await,
        hit(edge, "one.test", "/b").await,
        hit(edge, "two.test", "/a").await,
    ]
}

async fn fastly(edge: &Edge, token: &str, target: &str, more: Fields<'_>) -> Response {
    let mut fields = vec![("Fastly-Key", token)];
    fields.extend(more);
    edge.manage_with(None, "POST", target, &fields, None).await
}

async fn cloudflare(edge: &Edge, token: &str, zone: &str, body: Value) -> Response {
    let target = format!("/client/v4/zones/{zone}/purge_cache");
    edge.manage_as(Some(token), "POST", &target, Some(body)).await
}

async fn purge(edge: &Edge, host: &str, target: &str, fields: Fields<'_>) -> Response {
    edge.ask("PURGE", host, target, fields).await
}

fn json_of(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn fastlys_format_purges_what_it_names() {
    let origin = origin();
    let edge = two_sites(&origin).facades(ALL).start();
    let rows: [(&str, Fields<'_>, [bool; 3]); 4] = [
        ("/purge/one.test/a", &[], [false, true, true]),
        ("/service/s1/purge/a", &[], [false, true, true]),
        ("/service/s1/purge", &[("Surrogate-Key", "b")], [true, false, true]),
        ("/service/s1/purge_all", &[], [false, false, true]),
    ];
    for (target, fields, expected) in rows {
        fill(&edge).await;
        let answer = fastly(&edge, ONE, target, fields).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(left(&edge).await, expected, "{target}");
    }
}

#[tokio::test]
async fn cloudflares_format_purges_what_it_names() {
    let origin = origin();
    let edge = two_sites(&origin).facades(ALL).start();
    let rows = [
        (ONE, "z1", json!({ "files": ["https://one.test/a"] }), [false, true, true]),
        (ONE, "z1", json!({ "tags": ["b"] }), [true, false, true]),
        (ONE, "z1", json!({ "prefixes": ["one.test/a"] }), [false, true, true]),
        (ONE, "z1", json!({ "hosts": ["one.test"] }), [false, false, true]),
        (ONE, "z1", json!({ "purge_everything": true }), [false, false, true]),
        (TOKEN, "z", json!({ "tags": ["a"] }), [false, true, false]),
        (TOKEN, "z", json!({ "purge_everything": true }), [false; 3]),
    ];
    for (token, zone, body, expected) in rows {
        fill(&edge).await;
        let answer = cloudflare(&edge, token, zone, body.clone()).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(left(&edge).await, expected, "{body}");
    }
}

#[tokio::test]
async fn nobody_purges_what_is_not_theirs_and_nothing_named_is_not_everything() {
    let origin = origin();
    let edge = two_sites(&origin).facades(ALL).start();
    fill(&edge).await;
    let key: Fields<'_> = &[("Surrogate-Key", "t")];
    let rows: [(&str, &str, Fields<'_>, u16); 9] = [
        (TWO, "/service/s1/purge_all", &[], 403),
        (ONE, "/service/gone/purge_all", &[], 403),
        (ONE, "/purge/two.test/a", &[], 403),
        (ONE, "/purge/else.test/a", &[], 400),
        (READER, "/service/s1/purge_all", &[], 403),
        ("wrong", "/service/s1/purge", key, 401),
        (ONE, "/service/s1/purge", &[], 400),
        (ONE, "/service/s1/purge", &[("Surrogate-Key", " ")], 400),
        (ONE, "/service/s1/purge/", &[], 404),
    ];
    for (token, target, fields, status) in rows {
        let answer = fastly(&edge, token, target, fields).await;
        assert_eq!(answer.status(), status, "{token} {target}: {answer:?}");
    }
    let rows = [
        (TWO, "z1", json!({ "purge_everything": true }), 403),
        (ONE, "z", json!({ "purge_everything": true }), 403),
        (ONE, "gone", json!({ "purge_everything": true }), 403),
        ("wrong", "z1", json!({ "purge_everything": true }), 401),
        (ONE, "z1", json!({ "files": ["https://two.test/a"] }), 400),
        (ONE, "z1", json!({ "hosts": ["two.test"] }), 400),
        (ONE, "z1", json!({ "purge_everything": false }), 400),
        (ONE, "z1", json!({ "tags": [] }), 400),
        (ONE, "z1", json!({ "tags": [""] }), 400),
        (ONE, "z1", json!({}), 400),
    ];
    for (token, zone, body, status) in rows {
        let answer = cloudflare(&edge, token, zone, body.clone()).await;
        assert_eq!(answer.status(), status, "{token} {zone} {body}: {answer:?}");
    }
    let rows: [(&str, Fields<'_>, u16); 9] = [
        ("one.test", &[], 403),
        ("one.test", &[("X-Purge-Token", "wrong")], 403),
        ("one.test", &[("X-Purge-Token", TWO)], 403),
        ("one.test", &[("X-Purge-Token", READER)], 403),
        ("one.test", &[("X-Purge-Token", ONE), ("Fastly-Key", ONE)], 403),
        ("two.test", &[("X-Purge-Token", ONE)], 403),
        ("else.test", &[("X-Purge-Token", ONE)], 421),
        ("one.test", &[("X-Purge-Token", ONE), ("xkey-purge", "")], 400),
        ("one.test", &[("X-Purge-Token", ONE), ("X-Purge-Method", "regex")], 400),
    ];
    for (host, fields, status) in rows {
        let answer = purge(&edge, host, "/a", fields).await;
        assert_eq!(answer.status(), status, "{host} {fields:?}: {answer:?}");
    }
    assert_eq!(left(&edge).await, [true; 3]);
    assert_eq!(json_of(&edge.manage("GET", "/v1/purges", None).await)["purges"], json!([]));
}

#[tokio::test]
async fn purge_by_method_takes_the_url_or_its_tags_and_stays_here() {
    let origin = origin();
    let (plan, log) = two_sites(&origin).facades(ALL).access_log("json");
    let edge = plan.start();
    let bearer = format!("Bearer {ONE}");
    let rows: [(&str, Fields<'_>, [bool; 3]); 5] = [
        ("/a", &[("Authorization", &bearer)], [false, true, true]),
        ("/a", &[("X-Purge-Token", ONE)], [false, true, true]),
        ("/a", &[("Fastly-Key", ONE)], [false, true, true]),
        ("/", &[("X-Purge-Token", ONE), ("xkey-purge", "b")], [true, false, true]),
        ("/a", &[("X-Purge-Token", ONE), ("Surrogate-Key", "a b")], [false, false, true]),
    ];
    for (target, fields, expected) in rows {
        fill(&edge).await;
        let answer = purge(&edge, "one.test", target, fields).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(json_of(&answer)["id"].is_string(), "{answer:?}");
        assert_eq!(left(&edge).await, expected, "{target} {fields:?}");
    }
    let past = json_of(&edge.manage("GET", "/v1/purges", None).await);
    assert_eq!(past["purges"].as_array().unwrap().len(), 5, "{past}");
    for target in ["/", "/a"] {
        let seen = origin.seen(target, origin.count(target)).await;
        assert!(seen.iter().all(|seen| seen.method == "GET"), "{target} came as PURGE");
    }
    edge.drain();
    edge.drained().await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("\"PURGE\"") && !log.contains(ONE), "{log}");
}

#[tokio::test]
async fn purge_by_method_kills_all_variants_of_the_very_url() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("v{}", seen.nth)).field("Vary", "Accept-Language")
    });
    let edge = two_sites(&origin).facades(ALL).start();
    let get = async |target: &str, language: &str| {
        let answer = edge.ask("GET", "one.test", target, &[("Accept-Language", language)]).await;
        edge.settled().await;
        answer.says("hit")
    };
    let all = [("/%c3%a4?q=1", "de"), ("/%C3%A4?q=1", "en"), ("/%C3%A4?q=2", "de")];
    for (target, language) in all {
        assert!(!get(target, language).await);
        assert!(get(target, language).await);
    }
    let answer = purge(&edge, "ONE.test:80", "/%c3%A4?q=1", &[("X-Purge-Token", ONE)]).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let left = [get(all[0].0, "de").await, get(all[1].0, "en").await, get(all[2].0, "de").await];
    assert_eq!(left, [false, false, true]);
}

#[tokio::test]
async fn a_soft_purge_lets_the_old_answer_bridge() {
    let origin = Origin::start(|seen| {
        Reply::new(200)
            .field("Cache-Control", "max-age=600, stale-while-revalidate=600")
            .body(format!("v{}", seen.nth))
    });
    let edge = Edge::before(&origin)
        .facades(
            "[facades]\npurge_method = true\n\
             [[facades.fastly]]\nservice = \"s\"\nsite = \"main\"\n\
             [[facades.cloudflare]]\nzone = \"z\"\nsites = [\"main\"]",
        )
        .start();
    edge.fill("/a").await;
    let softly = async |nth: usize| match nth {
        1 => purge(&edge, HOST, "/a", &[("Fastly-Key", TOKEN), ("X-Purge-Method", "soft")]).await,
        2 => {
            let soft: Fields<'_> = &[("Fastly-Soft-Purge", "1")];
            fastly(&edge, TOKEN, &format!("/purge/{HOST}/a"), soft).await
        }
        _ => {
            let body = json!({ "files": [format!("http://{HOST}/a")] });
            let target = "/client/v4/zones/z/invalidate_cache";
            edge.manage("POST", target, Some(body)).await
        }
    };
    for nth in 1..=3 {
        let answer = softly(nth).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        edge.fill("/a").await.expect(200, &format!("v{nth}"), "hit");
        edge.get("/a").await.expect(200, &format!("v{}", nth + 1), "hit");
    }
}

#[tokio::test]
async fn what_is_off_is_not_there() {
    let origin = origin();
    let edge = two_sites(&origin).start();
    fill(&edge).await;
    let answer = purge(&edge, "one.test", "/a", &[("X-Purge-Token", ONE)]).await;
    assert_eq!((answer.status(), answer.field("allow").is_some()), (405, true), "{answer:?}");
    assert_eq!(fastly(&edge, ONE, "/service/s1/purge_all", &[]).await.status(), 404);
    assert_eq!(fastly(&edge, ONE, "/purge/one.test/a", &[]).await.status(), 404);
    let body = json!({ "purge_everything": true });
    assert_eq!(cloudflare(&edge, ONE, "z1", body).await.status(), 404);
    assert_eq!(left(&edge).await, [true; 3]);
    assert_eq!(origin.requests(), 3, "nothing was forwarded");
}

#[tokio::test]
async fn the_network_is_that_of_the_connection_and_not_of_a_field() {
    let origin = origin();
    let facades = "[facades]\npurge_method = true\npurge_networks = [\"192.0.2.0/24\"]";
    let plan = || two_sites(&origin).facades(facades);
    let edge = plan().start();
    fill(&edge).await;
    let fields = [("X-Purge-Token", ONE), ("X-Forwarded-For", "192.0.2.1")];
    let answer = purge(&edge, "one.test", "/a", &fields).await;
    assert_eq!((answer.status(), answer.text().contains("purge-network")), (403, true));
    assert_eq!(left(&edge).await, [true; 3]);

    let behind = plan()
        .listener("127.0.0.1:0", "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .start();
    for (from, status) in [("192.0.2.1", 200), ("198.51.100.1", 403)] {
        let mut connection = Connection::open(behind.plain()).await;
        let head = format!(
            "PROXY TCP4 {from} 192.0.2.99 5000 80\r\n\
             PURGE /a HTTP/1.1\r\nHost: one.test\r\nX-Purge-Token: {ONE}\r\n\r\n"
        );
        connection.send(head).await;
        assert_eq!(connection.response("PURGE").await.status(), status, "{from}");
    }
}

#[tokio::test]
async fn a_body_is_no_list_of_what_to_purge_and_guessing_is_slowed_down() {
    let origin = origin();
    let edge = two_sites(&origin).facades(ALL).start();
    fill(&edge).await;
    let head = format!(
        "PURGE /a HTTP/1.1\r\nHost: one.test\r\nX-Purge-Token: {ONE}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(edge.raw(head, "PURGE").await.status(), 400);
    assert_eq!(left(&edge).await, [true; 3]);
    let mut statuses = Vec::new();
    for _ in 0..25 {
        let answer = purge(&edge, "one.test", "/a", &[("X-Purge-Token", "wrong")]).await;
        statuses.push(answer.status());
    }
    assert_eq!((statuses[0], statuses[24]), (403, 429));
    assert_eq!(left(&edge).await, [true; 3]);
    // Another door: operators are not locked out by it.
    assert_eq!(edge.manage("GET", "/v1/status", None).await.status(), 200);
}

#[tokio::test]
async fn what_is_told_of_a_purge_by_method_is_what_is_done() {
    let origin = origin();
    for (on, expected) in [(true, "purge"), (false, "method-not-allowed")] {
        let edge = two_sites(&origin).facades(if on { ALL } else { "" }).start();
        let body = json!({ "url": "http://one.test/a", "method": "PURGE" });
        let told = edge.manage("POST", "/v1/explain", Some(body)).await;
        assert!(told.text().contains(&format!("\"{expected}\"")), "{told:?}");
    }
}

#[tokio::test]
async fn a_purge_by_method_while_the_fill_waits_for_its_head_kills_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::fresh("v1").gate(&held),
        nth => Reply::fresh(format!("v{nth}")),
    });
    let edge = two_sites(&origin).facades(ALL).start();
    let mut before = edge.connect().await;
    before.ask("one.test", "/a", &[]).await;
    gate.reached(1).await;
    let answer = purge(&edge, "one.test", "/a", &[("X-Purge-Token", ONE)]).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    gate.open();
    assert_eq!(before.response("GET").await.text(), "v1", "asked before the purge");
    edge.settled().await;
    let after = edge.ask("GET", "one.test", "/a", &[]).await;
    assert_eq!(after.text(), "v2");
}

#[tokio::test]
async fn purges_in_every_format_are_in_the_audit_log() {
    let origin = origin();
    let folder = Folder::new();
    let path = folder.path().join("audit.log");
    let edge = two_sites(&origin).facades(ALL).audit_log(&path).start();
    let answers = [
        fastly(&edge, ONE, "/service/s1/purge_all", &[]).await,
        cloudflare(&edge, ONE, "z1", json!({ "tags": ["a"] })).await,
        purge(&edge, "one.test", "/a", &[("X-Purge-Token", ONE)]).await,
        // Refused: it is not in it.
        purge(&edge, "two.test", "/a", &[("X-Purge-Token", ONE)]).await,
    ];
    assert_eq!(answers.map(|answer| answer.status()), [200, 200, 200, 403]);
    let log = std::fs::read_to_string(&path).unwrap();
    let purges = log.lines().filter(|line| line.contains("\"act\":\"purge\""));
    assert_eq!(purges.count(), 3, "{log}");
    assert!(!log.contains(ONE), "{log}");
}

#[tokio::test]
async fn purge_is_not_forwarded_even_where_every_method_is() {
    let origin = origin();
    let edge = Edge::before(&origin)
        .site("methods = [\"*\"]")
        .facades("[facades]\npurge_method = true")
        .start();
    for (token, status) in [("wrong", 403), (TOKEN, 200)] {
        let answer = purge(&edge, HOST, "/a", &[("X-Purge-Token", token)]).await;
        assert_eq!(answer.status(), status, "{answer:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn the_file_with_every_facade_starts_and_purges() {
    let text = include_str!("../../config/facades.toml");
    let said = |what: &str| {
        let begins = format!("# {what} = \"");
        let line = text.lines().find_map(|line| line.strip_prefix(&*begins)).unwrap();
        line.trim_end_matches('"').to_owned()
    };
    let origin = origin();
    let elsewhere = text
        .replace("127.0.0.1:8080\"", "127.0.0.1:0\"")
        .replace("127.0.0.1:9080\"", "127.0.0.1:0\"")
        .replace("http://127.0.0.1:3000\"", &format!("http://{}\"", origin.address));
    let edge = Edge::of_file(&elsewhere);
    let (token, service, zone) = (said("token"), said("service id"), said("zone"));
    for nth in 0..3 {
        edge.fill("/a").await;
        edge.get("/a").await.expect(200, &format!("v{}", nth + 1), "hit");
        let answer = match nth {
            0 => fastly(&edge, &token, &format!("/service/{service}/purge/a"), &[]).await,
            1 => cloudflare(&edge, &token, &zone, json!({ "tags": ["a"] })).await,
            _ => purge(&edge, HOST, "/a", &[("X-Purge-Token", &token)]).await,
        };
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(!edge.get("/a").await.says("hit"));
}

#[tokio::test]
async fn purge_by_method_over_http2_is_judged_and_done_alike() {
    let origin = origin();
    let edge = two_sites(&origin).facades(ALL).plain_h2().start();
    fill(&edge).await;
    let mut client = H2::plain(edge.plain(), "one.test").await;
    let refused: [(Fields<'_>, u16); 5] = [
        (&[], 403),
        (&[("x-purge-token", TWO)], 403),
        (&[("x-purge-token", READER)], 403),
        (&[("x-purge-token", ONE), ("fastly-key", ONE)], 403),
        (&[("x-purge-token", ONE), ("xkey-purge", "")], 400),
    ];
    for (fields, status) in refused {
        let answer = client.whole("PURGE", "/a", fields, None).await.unwrap();
        assert_eq!(answer.status(), status, "{fields:?}: {answer:?}");
    }
    assert_eq!(left(&edge).await, [true; 3]);
    let rows: [(&str, Fields<'_>, [bool; 3]); 2] = [
        ("/a", &[("x-purge-token", ONE)], [false, true, true]),
        ("/", &[("x-purge-token", ONE), ("xkey-purge", "b")], [true, false, true]),
    ];
    for (target, fields, expected) in rows {
        fill(&edge).await;
        let answer = client.whole("PURGE", target, fields, None).await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(json_of(&answer)["id"].is_string(), "{answer:?}");
        assert_eq!(left(&edge).await, expected, "{target} {fields:?}");
    }
    assert_eq!(client.get("/b", &[]).await.status(), 200, "the connection goes on");
    let seen = origin.seen("/a", origin.count("/a")).await;
    assert!(seen.iter().all(|seen| seen.method == "GET"), "{seen:?}");
}

#[tokio::test]
async fn a_zone_is_found_by_a_host_and_told_to_those_who_may_purge_it() {
    let origin = origin();
    let edge = two_sites(&origin)
        .first_site("name = \"one\"\nhosts = [\"www.one.test\", \"*.img.test\"]\norigin = \"main\"")
        .facades(ALL)
        .start();
    let find = async |token: &str, query: &str| {
        let target = format!("/client/v4/zones{query}");
        let answer = edge.manage_as(Some(token), "GET", &target, None).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let rows = json_of(&answer)["result"].as_array().unwrap().clone();
        let text = |zone: &Value| {
            format!("{}={}", zone["name"].as_str().unwrap(), zone["id"].as_str().unwrap())
        };
        rows.iter().map(text).collect::<Vec<_>>().join(" ")
    };
    for (token, query, expected) in [
        (TOKEN, "?name=www.one.test", "www.one.test=z1 www.one.test=z"),
        // Nobody answers for it, but there is a host below it.
        (TOKEN, "?name=one.test", "one.test=z1 one.test=z"),
        (TOKEN, "?name=ne.test", ""),
        (TOKEN, "?name=a.img.test", "a.img.test=z1 a.img.test=z"),
        (TOKEN, "?name=two.test", "two.test=z"),
        (TOKEN, "?name=else.test", ""),
        (TOKEN, "?name=test", ""),
        (TOKEN, "", "www.one.test=z1 two.test=z"),
        (ONE, "?name=www.one.test", "www.one.test=z1"),
        (TWO, "?name=two.test", ""),
        (TWO, "", ""),
    ] {
        assert_eq!(find(token, query).await, expected, "{query}");
    }
}
