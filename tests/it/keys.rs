//! What makes the cache key, and so what of a request reaches the origin.
//!
//! Each story has two sides: requests that mean the same share one answer, and nothing that the key
//! does not have can change what others get.

use serde_json::json;

use crate::support::edge::{HOST, Plan};
use crate::support::{Edge, Gate, Origin, Reply, Response, until};

/// Answers with a number and the Cookie that came, fresh.
fn numbered() -> Origin {
    Origin::start(|seen| Reply::fresh(format!("v{} {}", seen.nth, seen.all("cookie").join("|"))))
}

fn shop(origin: &Origin) -> Plan {
    Edge::before(origin).site(
        "key_query = { without = [\"utm_*\", \"gclid\"], sorted = true }\nkey_cookies = [\"currency\"]",
    )
}

async fn key_of(edge: &Edge, target: &str, fields: &[(&str, &str)]) -> String {
    let fields = [fields, &[("Atoll-Cache-Key", "1")]].concat();
    let answer = edge.get_with(target, &fields).await;
    let (_, key) = answer.cache().split_once("key=\"").expect("a key");
    key.split_once('"').expect("its end").0.to_owned()
}

#[tokio::test]
async fn tracking_parameters_reach_neither_key_nor_origin() {
    let origin = numbered();
    let edge = shop(&origin).start();
    edge.fill("/a?utm_source=mail&b=2&gclid=7&a=1").await.expect(200, "v1 ", "fwd=uri-miss");
    for target in ["/a?a=1&b=2", "/a?b=2&a=1", "/a?a=1&utm_medium=x&b=2&&utm_source="] {
        edge.get(target).await.expect(200, "v1 ", "hit");
    }
    edge.fill("/a?a=1&b=3").await.expect(200, "v1 ", "fwd=uri-miss");
    assert_eq!((origin.count("/a?a=1&b=2"), origin.requests()), (1, 2));
    edge.fill("/a?gclid=1").await;
    edge.get("/a").await.expect(200, "v1 ", "hit");
    assert_eq!(origin.count("/a"), 1, "nothing left of a query is no query");
}

#[tokio::test]
async fn a_rule_says_what_of_the_query_counts() {
    let origin = numbered();
    let edge = Edge::before(&origin)
        .site("key_query = \"none\"")
        .rule("/list", "key_query = { only = [\"page\"] }")
        .rule("/all", "key_query = \"all\"")
        .rule("/sorted", "key_query = \"sorted\"")
        .start();
    let rows = [
        ("/a?x=1", "/a"),
        ("/list?x=1&page=2&y", "/list?page=2"),
        ("/all?b&&a", "/all?b&&a"),
        ("/sorted?b=1&a=2&b=0&a=1", "/sorted?a=2&a=1&b=1&b=0"),
    ];
    for (asked, sent) in rows {
        edge.fill(asked).await.expect(200, "v1 ", "stored");
        edge.get(asked).await.expect(200, "v1 ", "hit");
        assert_eq!(origin.count(sent), 1, "{asked}");
        assert_eq!(key_of(&edge, asked, &[]).await, format!("http://{HOST}{sent}"));
    }
    assert_eq!(origin.requests(), rows.len());
}

#[tokio::test]
async fn a_purge_of_a_url_hits_what_is_stored_under_its_key() {
    let origin = numbered();
    let edge = shop(&origin).rule("/as-it-is", "key_query = \"all\"").start();
    edge.fill("/a?b=2").await;
    edge.fill_with("/a?utm_source=y&b=2", &[("Cookie", "currency=EUR")]).await;
    edge.purge_path("/a?utm_source=x&b=2").await;
    edge.fill("/a?b=2").await.expect(200, "v3 ", "fwd=uri-miss");
    let euro = [("Cookie", "currency=EUR")];
    edge.fill_with("/a?b=2", &euro).await.expect(200, "v4 currency=EUR", "fwd=uri-miss");
    edge.purge_path("/a?c=1&b=2&utm_source=x").await;
    edge.get("/a?b=2").await.expect(200, "v3 ", "hit");
    edge.purge(json!({ "urls": [format!("https://{HOST}/a?b=2")], "mode": "soft" })).await;
    edge.fill_with("/a?b=2", &euro).await.expect(200, "v5 currency=EUR", "fwd=stale");
    edge.fill("/as-it-is?utm_source=x").await;
    edge.purge_path("/as-it-is").await;
    edge.get("/as-it-is?utm_source=x").await.expect(200, "v1 ", "hit");
    edge.purge_path("/as-it-is?utm_source=x").await;
    edge.get("/as-it-is?utm_source=x").await.expect(200, "v2 ", "fwd=uri-miss");
}

#[tokio::test]
async fn a_purge_reaches_a_fill_under_a_key_without_its_parameters() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::fresh("old").gate(&held),
        _ => Reply::fresh("new"),
    });
    let edge = shop(&origin).start();
    let mut before = edge.connect().await;
    before.ask(HOST, "/a?b=1&utm_source=x", &[]).await;
    gate.reached(1).await;
    edge.purge_path("/a?utm_source=other&b=1").await;
    gate.open();
    before.response("GET").await;
    edge.settled().await;
    edge.fill("/a?b=1").await.expect(200, "new", "fwd=uri-miss");
}

#[tokio::test]
async fn a_change_by_post_ends_what_is_stored_under_its_key() {
    let origin = numbered();
    let edge = shop(&origin).start();
    edge.fill("/a?b=2").await;
    edge.post("/a?utm_source=x&b=2", "change").await;
    assert_eq!(origin.last("/a?b=2").await.method, "POST", "the origin sees what the key has");
    edge.fill("/a?b=2").await.expect(200, "v3 ", "fwd=uri-miss");
}

#[tokio::test]
async fn only_keyed_cookies_reach_the_origin_and_each_value_has_its_own_answer() {
    let origin = Origin::start(|seen| {
        Reply::fresh(seen.field("cookie").unwrap_or("none")).field("Vary", "Cookie")
    });
    let edge = Edge::before(&origin).site("key_cookies = [\"currency\", \"theme\"]").start();
    let rows = [
        ("sid=alice; currency=EUR", "currency=EUR", "stored"),
        ("currency=EUR; sid=bob", "currency=EUR", "hit"),
        ("sid=bob; currency=USD", "currency=USD", "stored"),
        ("theme=dark; currency=EUR", "currency=EUR; theme=dark", "stored"),
        ("currency=EUR;theme=dark; x=1", "currency=EUR; theme=dark", "hit"),
        ("currency=EUR; currency=USD", "currency=EUR; currency=USD", "stored"),
        ("sid=bob", "none", "stored"),
        ("currency", "none", "hit"),
        ("currency=", "currency=", "stored"),
    ];
    for (sent, said, cache) in rows {
        edge.fill_with("/a", &[("Cookie", sent)]).await.expect(200, said, cache);
    }
    edge.get("/a").await.expect(200, "none", "hit");
    let key = key_of(&edge, "/a", &[("Cookie", "sid=1; theme=dark")]).await;
    assert_eq!(key, format!("http://{HOST}/a [cookie: theme=dark]"));
    edge.purge_path("/a").await;
    for (sent, said, _) in [rows[0], rows[2], rows[6]] {
        edge.fill_with("/a", &[("Cookie", sent)]).await.expect(200, said, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn no_cookies_untouched_cookies_and_a_rule_that_passes() {
    let origin = numbered();
    let edge = Edge::before(&origin)
        .site("key_cookies = []")
        .rule("/own", "key_cookies = \"untouched\"")
        .rule("/account", "pass = true")
        .start();
    let cookie = [("Cookie", "sid=alice")];
    edge.fill_with("/a", &cookie).await.expect(200, "v1 ", "stored");
    edge.get("/a").await.expect(200, "v1 ", "hit");
    edge.fill_with("/own", &cookie).await.expect(200, "v1 sid=alice", "stored");
    edge.get_with("/account?utm_source=x", &cookie).await.expect(200, "v1 sid=alice", "fwd=bypass");
}

#[tokio::test]
async fn header_fields_join_the_key_by_their_values() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("{:?} {:?}", seen.all("x-shop"), seen.all("x_shop")))
            .field("Vary", "X-Shop")
    });
    let edge = Edge::before(&origin).site("key_headers = [\"X-Shop\"]").start();
    let rows: [(Fields<'_>, &str, &str); 7] = [
        (&[], "[] []", "stored"),
        (&[("X-Shop", "")], "[\"\"] []", "stored"),
        (&[("X-Shop", "a , b")], "[\"a,b\"] []", "stored"),
        (&[("X-Shop", "a"), ("X-Shop", " b")], "[\"a,b\"] []", "hit"),
        (&[("X-Shop", "b")], "[\"b\"] []", "stored"),
        (&[("X_Shop", "evil"), ("X-Shop", "b")], "[\"b\"] []", "hit"),
        (&[("X_Shop", "evil")], "[] []", "hit"),
    ];
    for (fields, said, cache) in rows {
        edge.fill_with("/a", fields).await.expect(200, said, cache);
    }
    let key = key_of(&edge, "/a", &[]).await;
    assert_eq!(key, format!("http://{HOST}/a [x-shop: -]"));
}

#[tokio::test]
async fn the_origin_learns_the_class_of_device_and_nothing_more_of_it() {
    let origin = Origin::start(|seen| {
        let hidden = ["user-agent", "user_agent", "sec-ch-ua", "sec-ch-ua-mobile", "atoll_device"];
        assert!(hidden.iter().all(|name| seen.field(name).is_none()), "{seen:?}");
        Reply::fresh(seen.field("atoll-device").unwrap_or("?")).field("Vary", "User-Agent")
    });
    let edge = Edge::before(&origin).site("key_device = true").start();
    let rows: [(Fields<'_>, &str, &str); 6] = [
        (&[("User-Agent", "a (iPhone) Mobile/1"), ("Sec-CH-UA", "\"x\"")], "phone", "stored"),
        (&[("User-Agent", "Android 10; K Mobile"), ("Sec-CH-UA-Mobile", "?1")], "phone", "hit"),
        (&[("User-Agent", "iPad")], "tablet", "stored"),
        (&[("User-Agent", "Windows NT"), ("Atoll-Device", "phone")], "desktop", "stored"),
        (&[("Atoll_Device", "phone"), ("User_Agent", "iPhone")], "desktop", "hit"),
        (&[], "desktop", "hit"),
    ];
    for (fields, said, cache) in rows {
        edge.fill_with("/a", fields).await.expect(200, said, cache);
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn a_client_cannot_claim_a_class_where_none_is_keyed() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::start(&origin);
    edge.get_with("/a", &[("Atoll-Device", "phone"), ("User-Agent", "mine")]).await;
    let seen = origin.last("/a").await;
    assert_eq!((seen.field("atoll-device"), seen.field("user-agent")), (None, Some("mine")));
}

#[tokio::test]
async fn the_origin_is_asked_for_one_of_the_sites_languages() {
    let origin = Origin::start(|seen| {
        Reply::fresh(seen.field("accept-language").unwrap_or("?")).field("Vary", "Accept-Language")
    });
    let edge = Edge::before(&origin).site("key_languages = [\"en\", \"de\", \"pt-BR\"]").start();
    let rows = [
        ("de-AT, de;q=0.9, en;q=0.8", "de", "stored"),
        ("de", "de", "hit"),
        ("fr, de;q=0.1", "de", "hit"),
        ("fr", "en", "stored"),
        ("en-US,en;q=0.5", "en", "hit"),
        ("pt", "pt-BR", "stored"),
        ("nonsense;;q=5, ???", "en", "hit"),
    ];
    for (sent, said, cache) in rows {
        edge.fill_with("/a", &[("Accept-Language", sent)]).await.expect(200, said, cache);
    }
    edge.get("/a").await.expect(200, "en", "hit");
    edge.purge_path("/a").await;
    for (said, sent) in [("de", "de"), ("en", "en"), ("pt-BR", "pt")] {
        let answer = edge.fill_with("/a", &[("Accept-Language", sent)]).await;
        answer.expect(200, said, "fwd=uri-miss");
    }
}

#[tokio::test]
async fn head_range_and_revalidation_see_the_same_request() {
    let origin = Origin::start(|seen| {
        let cookie = seen.field("cookie").unwrap_or("none").to_owned();
        match seen.field("if-none-match") {
            Some(_) => Reply::not_modified().field("X-Cookie", &cookie),
            None => Reply::stale("hello", "\"1\"").field("X-Cookie", &cookie),
        }
    });
    let edge = shop(&origin).start();
    let with = |sid: &str| format!("sid={sid}; currency=EUR");
    let (alice, bob) = (with("alice"), with("bob"));
    let alice = [("Cookie", alice.as_str())];
    edge.fill_with("/a?utm_a=1", &alice).await.expect(200, "hello", "stored");
    let bob = [("Cookie", bob.as_str())];
    edge.fill_with("/a?utm_a=2", &bob).await.expect(200, "hello", "fwd-status=304");
    edge.ask("HEAD", HOST, "/a?utm_a=3", &bob).await.expect(200, "", "hit");
    let range = [bob[0], ("Range", "bytes=1-2")];
    edge.get_with("/a?utm_a=4", &range).await.expect(206, "el", "hit");
    edge.ask("HEAD", HOST, "/b?utm_a=5", &alice).await;
    edge.get_with("/b?utm_a=6", &[alice[0], ("Range", "bytes=0-0")]).await;
    for (target, count) in [("/a", 2), ("/b", 2)] {
        for seen in origin.seen(target, count).await {
            assert_eq!(seen.field("cookie"), Some("currency=EUR"), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn errors_are_remembered_as_long_as_a_rule_says() {
    let origin = Origin::start(|seen| {
        let (status, told) = seen.target[1..].split_once('-').expect("a status and what is told");
        let reply = Reply::new(status.parse().unwrap()).body(format!("v{}", seen.nth));
        match told {
            "silent" => reply,
            "minute" => reply.field("Cache-Control", "max-age=60"),
            "private" => reply.field("Cache-Control", "private"),
            _ => reply.field("Cache-Control", "max-age=5").field("Set-Cookie", "sid=1"),
        }
    });
    let lifetimes =
        "status_lifetime = { 404 = \"30s\", 4xx = \"20s\", 503 = \"10s\", 500 = \"0s\" }";
    let edge = Edge::before(&origin).site(lifetimes).start();
    let rows = [
        ("/404-silent", Some(30)),
        ("/404-minute", Some(30)),
        ("/403-silent", Some(20)),
        ("/503-silent", Some(10)),
        ("/404-private", None),
        ("/404-cookie", None),
        ("/429-minute", None),
        ("/500-silent", None),
        ("/500-minute", None),
        ("/502-silent", None),
        ("/502-minute", Some(10)),
        ("/200-silent", None),
        ("/200-minute", Some(60)),
    ];
    for (target, lifetime) in rows {
        let status: u16 = target[1..4].parse().unwrap();
        let first = edge.fill(target).await;
        assert_eq!((first.status(), first.text()), (status, "v1"), "{target}");
        let second = edge.fill(target).await;
        match lifetime {
            Some(most) => {
                second.expect(status, "v1", "hit");
                assert!((most - 2..=most).contains(&second.ttl()), "{target} {}", second.cache());
            }
            None => assert_eq!(second.text(), "v2", "{target}"),
        }
    }
    edge.purge_path("/404-silent").await;
    edge.get("/404-silent").await.expect(404, "v2", "fwd=uri-miss");
}

#[tokio::test]
async fn a_remembered_error_does_not_outlive_its_seconds() {
    let origin = Origin::start(|seen| match seen.nth {
        1 => Reply::new(503).body("sick"),
        _ => Reply::fresh("well"),
    });
    let edge = Edge::before(&origin).site("status_lifetime = { 5xx = \"1s\" }").start();
    edge.fill("/a").await.expect(503, "sick", "stored");
    until("the error to be over", || async { edge.get("/a").await.status() == 200 }).await;
    assert_eq!(origin.count("/a"), 2, "until then it was answered from memory");
}

#[tokio::test]
async fn a_remembered_error_does_not_take_the_place_of_what_may_still_be_shown() {
    let stale = "max-age=60, stale-while-revalidate=600";
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::ok("well").field("Age", "100").field("Cache-Control", stale),
        _ => Reply::new(503).body("sick"),
    });
    let edge = Edge::before(&origin).site("status_lifetime = { 503 = \"10s\" }").start();
    edge.fill("/a").await.expect(200, "well", "stored");
    edge.get("/a").await.expect(200, "well", "hit");
    origin.seen("/a", 2).await;
    edge.settled().await;
    edge.get("/a").await.expect(200, "well", "hit");
}

/// Fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn has_cookie(answer: &Response) -> bool {
    !answer.head.all("set-cookie").is_empty()
}

#[tokio::test]
async fn stripped_cookies_reach_nobody_and_the_answer_is_shared() {
    let origin = Origin::start(|seen| {
        let reply = match &*seen.target {
            "/private" => Reply::ok("x").field("Cache-Control", "private, max-age=60"),
            "/no-store" => Reply::ok("x").field("Cache-Control", "no-store"),
            "/silent" => Reply::ok("x"),
            _ => Reply::fresh("x"),
        };
        reply.field("Set-Cookie", "sid=alice").field("Set-Cookie", "theme=dark")
    });
    let edge = Edge::before(&origin).site("strip_set_cookie = true").start();
    let miss = edge.fill("/a").await;
    miss.expect(200, "x", "stored");
    let hit = edge.get("/a").await;
    hit.expect(200, "x", "hit");
    assert!(!has_cookie(&miss) && !has_cookie(&hit));
    for target in ["/private", "/no-store", "/silent"] {
        for _ in 0..2 {
            let own = edge.fill(target).await;
            assert!(
                has_cookie(&own) && !own.says("stored") && !own.says("hit"),
                "{target} {own:?}"
            );
        }
    }
    let secret = [("Authorization", "Basic YTpi")];
    let own = edge.fill_with("/authorized", &secret).await;
    assert!(has_cookie(&own) && !own.says("stored"), "{own:?}");
    let other = edge.fill("/authorized").await;
    other.expect(200, "x", "stored");
    assert!(!has_cookie(&other));
}

#[tokio::test]
async fn who_waits_for_a_stripped_answer_gets_no_cookie_either() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        Reply::stale("x", "\"1\"").field("Set-Cookie", "sid=alice").gate(&held)
    });
    let edge = Edge::before(&origin).site("strip_set_cookie = true\nlifetime = \"1h\"").start();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = edge.connect().await;
        client.ask(HOST, "/a", &[]).await;
        clients.push(client);
    }
    gate.reached(1).await;
    edge.metric_becomes("atoll_collapsed_total", 2.0).await;
    gate.open();
    for mut client in clients {
        let answer = client.response("GET").await;
        assert_eq!((answer.text(), has_cookie(&answer)), ("x", false));
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_304_with_a_cookie_brings_it_to_nobody_where_cookies_are_stripped() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        None => Reply::stale("v1", "\"1\"").field("Set-Cookie", "sid=alice"),
        Some(_) => Reply::not_modified().field("Set-Cookie", "sid=bob"),
    });
    let edge = Edge::before(&origin).site("strip_set_cookie = true").start();
    for cache in ["stored", "fwd-status=304", "hit"] {
        let answer = edge.fill("/a").await;
        answer.expect(200, "v1", cache);
        assert!(!has_cookie(&answer), "{cache}");
    }
}

#[tokio::test]
async fn a_part_that_is_kept_without_its_cookies_is_sent_without_them() {
    let origin = Origin::start(|seen| {
        let part = Reply::new(206).body("abc").field("Content-Range", "bytes 0-2/10");
        let part = part.field("ETag", "\"1\"").field("Set-Cookie", "sid=alice");
        match &*seen.target {
            "/own" => part.field("Cache-Control", "private"),
            _ => part.field("Cache-Control", "max-age=60"),
        }
    });
    let edge = Edge::before(&origin).site("strip_set_cookie = true").start();
    let range = [("Range", "bytes=0-2")];
    for cache in ["stored", "hit"] {
        let answer = edge.fill_with("/a", &range).await;
        answer.expect(206, "abc", cache);
        assert!(!has_cookie(&answer), "{cache}");
    }
    assert!(has_cookie(&edge.fill_with("/own", &range).await), "it is not stored");
}
