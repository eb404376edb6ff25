//! What is stored, for whom, and what a stored response answers.

use crate::support::edge::HOST;
use crate::support::{Edge, Ended, Origin, Reply, pattern};

#[tokio::test]
async fn the_second_request_is_a_hit() {
    let origin = Origin::serving(Reply::fresh("hello").field("Content-Type", "text/plain"));
    let edge = Edge::start(&origin);
    let miss = edge.fill("/a").await;
    miss.expect(200, "hello", "fwd=uri-miss").expect(200, "hello", "stored");
    let hit = edge.get("/a").await;
    hit.expect(200, "hello", "hit");
    assert!((58..=60).contains(&hit.ttl()), "{}", hit.cache());
    assert_eq!(hit.field("content-type"), Some("text/plain"));
    assert_eq!(hit.field("content-length"), Some("5"));
    assert_eq!(hit.head.all("via"), ["1.1 atoll"]);
    assert!(hit.field("date").is_some() && hit.field("age").is_some());
    assert_ne!(hit.field("x-request-id"), miss.field("x-request-id"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_cache_key_is_shown_only_on_request() {
    let origin = Origin::serving(Reply::fresh("hello"));
    let edge = Edge::start(&origin);
    assert!(!edge.fill("/a?b").await.cache().contains("key="));
    let shown = edge.ask("GET", HOST, "/a?b", &[("Atoll-Cache-Key", "1")]).await;
    let key = format!("key=\"http://{HOST}/a?b\"");
    assert!(shown.cache().contains(&key), "{}", shown.cache());
}

#[tokio::test]
async fn fields_hidden_behind_underscores_do_not_reach_the_origin() {
    let origin = Origin::serving(Reply::fresh("hello"));
    let edge = Edge::start(&origin);
    let fields = [("X_Forwarded_Host", "evil"), ("X_Real_IP", "1.2.3.4"), ("my_own", "stays")];
    edge.ask("GET", HOST, "/a", &fields).await.expect(200, "hello", "stored");
    let seen = origin.last("/a").await;
    assert_eq!((seen.field("x_forwarded_host"), seen.field("x_real_ip")), (None, None));
    assert_eq!(seen.field("my_own"), Some("stays"));
}

#[tokio::test]
async fn a_head_without_validators_does_not_make_an_old_body_fresh() {
    let origin = Origin::serving(Reply::fresh("hello").field("Cache-Tag", "t"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purge(serde_json::json!({"tags": ["t"], "mode": "soft"})).await;
    edge.ask("HEAD", HOST, "/a", &[]).await;
    edge.get("/a").await.expect(200, "hello", "fwd=stale");
}

#[tokio::test]
async fn age_counts_what_the_origin_says_and_shortens_the_rest() {
    let origin = Origin::serving(Reply::fresh("x").field("Age", "20"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let hit = edge.get("/a").await;
    let age: u64 = hit.field("age").unwrap().parse().unwrap();
    assert!((20..25).contains(&age), "{age}");
    assert!((35..=40).contains(&hit.ttl()), "{}", hit.cache());
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let origin = Origin::serving(Reply::fresh("hello"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    head.expect(200, "", "hit");
    assert_eq!(head.field("content-length"), Some("5"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn head_without_a_stored_get_goes_to_the_origin_as_it_is() {
    let origin = Origin::serving(Reply::fresh("hello"));
    let edge = Edge::start(&origin);
    let head = edge.ask("HEAD", HOST, "/a", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("5")));
    assert_eq!(origin.last("/a").await.method, "HEAD");
    edge.fill("/a").await.expect(200, "hello", "fwd=uri-miss");
}

#[tokio::test]
async fn silence_about_freshness_is_not_stored_and_said() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "x", "detail=no-freshness");
    let second = edge.fill("/a").await;
    assert!(!second.says("hit"), "{}", second.cache());
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn some_responses_are_never_stored() {
    let bare = || Reply::ok("x");
    let rows = [
        ("set-cookie", Reply::fresh("x").field("Set-Cookie", "a=b")),
        ("private", bare().field("Cache-Control", "private, max-age=60")),
        ("no-store", bare().field("Cache-Control", "no-store")),
        ("no-store-too", bare().field("Cache-Control", "max-age=60, no-store")),
        ("s-maxage-0", bare().field("Cache-Control", "s-maxage=0")),
        ("vary-any", Reply::fresh("x").field("Vary", "*")),
        ("vary-cookie", Reply::fresh("x").field("Vary", "Cookie")),
        ("vary-nine", Reply::fresh("x").field("Vary", "a, b, c, d, e, f, g, h, i")),
        ("429", Reply::new(429).body("x").field("Cache-Control", "max-age=60")),
        ("500", Reply::new(500).body("x")),
    ];
    let replies = rows.clone();
    let origin = Origin::start(move |seen| {
        replies.iter().find(|(path, _)| seen.target[1..] == **path).unwrap().1.clone()
    });
    let edge = Edge::start(&origin);
    for (path, _) in rows {
        let target = format!("/{path}");
        for _ in 0..2 {
            let answer = edge.fill(&target).await;
            assert_eq!(answer.text(), "x", "{path}");
            assert!(!answer.says("hit") && !answer.says("stored"), "{path}: {}", answer.cache());
        }
        assert_eq!(origin.count(&target), 2, "{path}");
    }
}

#[tokio::test]
async fn answers_to_authorization_are_shared_only_where_the_origin_says_so() {
    let origin = Origin::start(|seen| {
        let shared = if seen.target == "/public" { "public, max-age=60" } else { "max-age=60" };
        Reply::ok(seen.field("authorization").unwrap_or("nobody")).field("Cache-Control", shared)
    });
    let edge = Edge::start(&origin);
    let ann = [("Authorization", "Basic ann")];
    assert_eq!(edge.fill_with("/own", &ann).await.text(), "Basic ann");
    assert_eq!(edge.fill("/own").await.text(), "nobody");
    // What strangers see is stored now; it is not what Bob sees.
    assert_eq!(edge.fill_with("/own", &[("Authorization", "Basic bob")]).await.text(), "Basic bob");
    edge.get("/own").await.expect(200, "nobody", "hit");
    edge.fill_with("/public", &ann).await;
    edge.get_with("/public", &[("Authorization", "Basic bob")]).await.expect(
        200,
        "Basic ann",
        "hit",
    );
}

#[tokio::test]
async fn hosts_sites_and_queries_are_kept_apart() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("{} {}", seen.field("host").unwrap(), seen.target))
    });
    let edge = Edge::before(&origin)
        .first_site("name = \"one\"\nhosts = [\"a.test\", \"b.test\"]\norigin = \"main\"")
        .another_site("name = \"two\"\nhosts = [\"c.test\"]\norigin = \"main\"\n")
        .start();
    let asked =
        [("a.test", "/"), ("b.test", "/"), ("c.test", "/"), ("a.test", "/?"), ("a.test", "/?x")];
    for round in ["fwd=uri-miss", "hit"] {
        for (host, target) in asked {
            let answer = edge.ask("GET", host, target, &[]).await;
            edge.settled().await;
            answer.expect(200, &format!("{host} {target}"), round);
        }
    }
    assert_eq!(origin.requests(), asked.len());
}

#[tokio::test]
async fn spellings_of_one_host_and_one_path_share_a_response() {
    let origin = Origin::start(|seen| {
        Reply::fresh(format!("{} {}", seen.field("host").unwrap(), seen.target))
    });
    let edge = Edge::start(&origin);
    edge.ask("GET", "site.test", "/a%2fb", &[]).await;
    edge.settled().await;
    for (host, target) in [
        ("SITE.test", "/a%2Fb"),
        ("site.test.", "/a%2fb"),
        ("site.test:80", "/a%2fb"),
        ("site.test", "http://site.test/a%2fb"),
    ] {
        let answer = edge.ask("GET", host, target, &[]).await;
        answer.expect(200, "site.test /a%2Fb", "hit");
    }
    edge.ask("GET", "site.test:8080", "/a%2fb", &[]).await.expect(
        200,
        "site.test:8080 /a%2Fb",
        "fwd=uri-miss",
    );
    edge.get("/a/b").await.expect(200, "site.test /a/b", "fwd=uri-miss");
    edge.get("/a//b").await.expect(200, "site.test /a//b", "fwd=uri-miss");
}

#[tokio::test]
async fn vary_keeps_variants_apart() {
    let origin = Origin::start(|seen| {
        Reply::fresh(seen.field("accept-language").unwrap_or("none"))
            .field("Vary", "Accept-Language")
    });
    let edge = Edge::start(&origin);
    for language in ["de", "en"] {
        let fields = [("Accept-Language", language)];
        let miss = edge.fill_with("/a", &fields).await;
        assert!(!miss.says("hit"));
        edge.get_with("/a", &fields).await.expect(200, language, "hit");
    }
    edge.fill("/a").await.expect(200, "none", "fwd=vary-miss");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn accept_encoding_in_other_words_is_the_same_variant() {
    let origin = Origin::start(|_| {
        Reply::fresh("zipped").field("Vary", "Accept-Encoding").field("Content-Encoding", "gzip")
    });
    let edge = Edge::start(&origin);
    edge.fill_with("/a", &[("Accept-Encoding", "gzip, br")]).await;
    edge.get_with("/a", &[("Accept-Encoding", "br,gzip")]).await.expect(200, "zipped", "hit");
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn request_directives_do_not_reach_through() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::start(&origin);
    let only = edge.get_with("/a", &[("Cache-Control", "only-if-cached")]).await;
    assert_eq!((only.status(), origin.requests()), (504, 0));
    edge.fill("/a").await;
    for directive in ["no-cache", "max-age=0", "no-store", "only-if-cached", "min-fresh=9999"] {
        edge.get_with("/a", &[("Cache-Control", directive)]).await.expect(200, "x", "hit");
    }
    edge.get_with("/a", &[("Pragma", "no-cache")]).await.expect(200, "x", "hit");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn errors_are_stored_only_as_long_as_allowed() {
    let origin = Origin::start(|seen| {
        let status = seen.target[1..].parse().unwrap();
        Reply::new(status).body("oh").field("Cache-Control", "max-age=600")
    });
    let edge = Edge::start(&origin);
    for (target, least, most) in [("/404", 590, 600), ("/410", 590, 600), ("/500", 5, 10)] {
        edge.fill(target).await;
        let hit = edge.get(target).await;
        assert!(hit.says("hit"), "{target}: {}", hit.cache());
        assert!((least..=most).contains(&hit.ttl()), "{target}: {}", hit.cache());
    }
}

#[tokio::test]
async fn a_change_at_the_origin_drops_what_is_stored_under_its_url() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh(format!("v{}", seen.nth)),
        _ => Reply::new(seen.field("x-status").unwrap().parse().unwrap()),
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "v1", "fwd=uri-miss");
    for status in ["500", "404"] {
        edge.ask("POST", HOST, "/a", &[("X-Status", status), ("Content-Length", "0")]).await;
        edge.get("/a").await.expect(200, "v1", "hit");
    }
    edge.ask("DELETE", HOST, "/a", &[("X-Status", "204")]).await;
    edge.fill("/a").await.expect(200, "v5", "fwd=uri-miss");
}

#[tokio::test]
async fn conditional_requests_are_answered_from_what_is_stored() {
    let modified = "Wed, 21 Oct 2015 07:28:00 GMT";
    let origin = Origin::start(move |_| {
        Reply::fresh("hello").field("ETag", "\"1\"").field("Last-Modified", modified)
    });
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let rows = [
        ("If-None-Match", "\"1\"", 304),
        ("If-None-Match", "\"0\", W/\"1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"2\"", 200),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", "Wed, 21 Oct 2015 07:27:00 GMT", 200),
        ("If-Modified-Since", "yesterday", 200),
    ];
    for (name, value, status) in rows {
        let answer = edge.get_with("/a", &[(name, value)]).await;
        let body = if status == 200 { "hello" } else { "" };
        answer.expect(status, body, "hit");
        assert_eq!(answer.field("etag"), Some("\"1\""));
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_longest_rule_at_a_boundary_decides() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin)
        .rule("/long", "default_lifetime = \"1h\"")
        .rule("/long/none", "pass = true")
        .start();
    for (target, parameter) in [
        ("/long/a", "hit"),
        ("/long", "hit"),
        ("/longer", "detail=uncacheable"),
        ("/long/none/a", "fwd=bypass"),
        ("/long/nonesuch", "hit"),
    ] {
        edge.fill(target).await;
        let second = edge.get(target).await;
        let fits =
            second.says(parameter) || (parameter == "detail=uncacheable" && !second.says("hit"));
        assert!(fits, "{target}: {}", second.cache());
    }
}

#[tokio::test]
async fn lifetime_overrides_the_origin() {
    let origin = Origin::serving(Reply::ok("x").field("Cache-Control", "max-age=1"));
    let edge = Edge::before(&origin).site("lifetime = \"1h\"").start();
    edge.fill("/a").await;
    let hit = edge.get("/a").await;
    assert!(hit.says("hit") && hit.ttl() > 3500, "{}", hit.cache());
}

#[tokio::test]
async fn tag_fields_stay_inside_unless_kept() {
    let origin =
        Origin::start(|_| Reply::fresh("x").field("Surrogate-Key", "a b").field("xkey", "c"));
    let edge = Edge::before(&origin).rule("/kept", "keep_tags = true").start();
    for _ in 0..2 {
        let hidden = edge.fill("/a").await;
        assert_eq!((hidden.field("surrogate-key"), hidden.field("xkey")), (None, None));
        let kept = edge.fill("/kept/a").await;
        assert_eq!((kept.field("surrogate-key"), kept.field("xkey")), (Some("a b"), Some("c")));
    }
}

#[tokio::test]
async fn what_is_too_large_streams_through_and_is_not_stored() {
    let body = pattern(300_000);
    let reply = Reply::fresh(&body);
    let origin = Origin::serving(reply);
    let edge = Edge::before(&origin).limits("stored_bytes = \"64KiB\"").start();
    for _ in 0..2 {
        let answer = edge.fill("/a").await;
        assert_eq!(answer.ended, Ended::Clean);
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_chunked_response_is_stored_with_its_length() {
    let pieces = ["one ", "two ", "three"].map(crate::support::Piece::data).to_vec();
    let origin =
        Origin::serving(Reply::new(200).field("Cache-Control", "max-age=60").chunked(pieces));
    let edge = Edge::start(&origin);
    edge.fill("/a").await.expect(200, "one two three", "stored");
    let hit = edge.get("/a").await;
    hit.expect(200, "one two three", "hit");
    assert_eq!(hit.field("content-length"), Some("13"));
}
