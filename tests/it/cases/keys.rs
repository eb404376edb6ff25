//! Whose answer it is: cookies, credentials, `Vary`, keys, spellings, ranges (F01 to F18).

use crate::support::{Edge, Origin, Reply};

#[tokio::test]
async fn f01_a_cookie_is_never_replayed() {
    let origin = Origin::start(|seen| {
        let line = ["public, max-age=60", "s-maxage=60", "max-age=60, no-cache=\"Set-Cookie\""];
        let reply = Reply::ok("x").field("Cache-Control", line[seen.nth % 3]);
        reply.field("Set-Cookie", &format!("session={}", seen.nth))
    });
    let edge = Edge::start(&origin);
    for nth in 1..=6 {
        let answer = edge.fill("/a").await;
        assert_eq!(answer.field("set-cookie"), Some(&*format!("session={nth}")));
        assert!(!answer.says("stored") && !answer.says("hit"), "{}", answer.cache());
    }
}

#[tokio::test]
async fn f05_vary_shares_only_what_it_allows() {
    let many: Vec<String> = (0..50).map(|number| format!("x-{number}")).collect();
    let many = many.join(", ");
    let origin = Origin::start(move |seen| {
        let vary = match &*seen.target {
            "/any" => "*",
            "/listed-any" => "Origin, *",
            "/cookie" => "Accept-Encoding, Cookie",
            "/many" => &many,
            "/origin" => "Origin",
            _ => "X-Never-Heard-Of",
        };
        let who = seen.field("origin").or(seen.field("x-never-heard-of")).unwrap_or("-");
        Reply::fresh(who).field("Vary", vary)
    });
    let edge = Edge::start(&origin);
    for target in ["/any", "/listed-any", "/cookie", "/many"] {
        for _ in 0..2 {
            let answer = edge.fill(target).await;
            assert!(!answer.says("hit") && !answer.says("stored"), "{target} {}", answer.cache());
        }
    }
    for (target, name) in [("/origin", "Origin"), ("/unknown", "X-Never-Heard-Of")] {
        for cache in ["stored", "hit"] {
            for who in ["https://a.test", "https://b.test"] {
                edge.fill_with(target, &[(name, who)]).await.expect(200, who, cache);
            }
        }
    }
}

#[tokio::test]
async fn f09_what_looks_like_another_key_is_not_it() {
    let origin = Origin::start(|seen| {
        let fields = ["a", "b"].map(|name| seen.field(name).unwrap_or("none"));
        Reply::fresh(format!("{} {fields:?}", seen.target)).field("Vary", "A, B")
    });
    let edge = Edge::start(&origin);
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)]);
    let rows: [Row<'_>; 10] = [
        ("/a?b", &[]),
        ("/a%3Fb", &[]),
        ("/a%23b", &[]),
        ("/a?b#".trim_end_matches('#'), &[("A", "1"), ("B", "2")]),
        ("/a?b", &[("A", "1\tB\t2")]),
        ("/a?b", &[("A", "1"), ("B", "2:3")]),
        ("/a?b", &[("A", "1:2"), ("B", "3")]),
        ("/a?b", &[("A", "1B2")]),
        ("/a?b", &[("A", "none"), ("B", "none")]),
        ("/a?b:A:1:B:2", &[]),
    ];
    for (target, fields) in rows {
        let answer = edge.fill_with(target, fields).await;
        assert!(!answer.says("hit"), "{target} {fields:?}: {}", answer.cache());
    }
    for (target, fields) in rows {
        let answer = edge.get_with(target, fields).await;
        assert!(answer.says("hit") && answer.text().starts_with(target), "{target} {fields:?}");
    }
}

#[tokio::test]
async fn f10_nothing_is_resolved_or_folded_on_the_way() {
    let origin = Origin::start(|seen| Reply::fresh(&seen.target));
    let edge = Edge::start(&origin);
    let apart = ["/a/b", "/a%2Fb", "/a//b", "/a;x/b", "/a%3Bx/b", "/A/b", "/a/b/", "/a%2F%2Fb"];
    for target in apart {
        edge.fill(target).await.expect(200, target, "fwd=uri-miss");
    }
    for target in apart {
        edge.get(target).await.expect(200, target, "hit");
    }
    edge.get("/a%2fb").await.expect(200, "/a%2Fb", "hit");
    let before = origin.requests();
    for target in ["/a/./b", "/a/../b", "/a/%2e%2e/b", "/a/.%2E/b", "/..;x/b", "/a/%2e", "/a/.."] {
        assert_eq!(edge.get(target).await.status(), 400, "{target}");
    }
    assert_eq!(origin.requests(), before);
}

#[tokio::test]
async fn f11_what_looks_static_is_stored_only_if_the_origin_says_so() {
    let origin = Origin::start(|seen| match seen.target.starts_with("/account") {
        true => Reply::ok(format!("ann {}", seen.nth)).field("Cache-Control", "no-store"),
        false => Reply::ok("style"),
    });
    let edge = Edge::start(&origin);
    for target in [
        "/account/x.css",
        "/account;x.css",
        "/account%0Ax.css",
        "/account%23x.css",
        "/account%3Fx.css",
        "/account/..%2fstatic/x.css",
        "/account/x.css?static",
        "/static/x.css",
    ] {
        for _ in 0..2 {
            let answer = edge.fill(target).await;
            assert_eq!(answer.status(), 200, "{target}");
            assert!(!answer.says("hit") && !answer.says("stored"), "{target}: {}", answer.cache());
        }
    }
    assert_eq!(edge.get("/account/../static/x.css").await.status(), 400);
}

#[tokio::test]
async fn f12_a_rule_for_a_directory_ends_at_the_directory() {
    let origin = Origin::start(|seen| Reply::ok(&seen.target));
    let edge = Edge::before(&origin).rule("/static", "default_lifetime = \"1h\"").start();
    edge.fill("/static/x").await.expect(200, "/static/x", "stored");
    edge.get("/static/x").await.expect(200, "/static/x", "hit");
    for target in [
        "/static/..%2Faccount",
        "/static/x%2F..%2F..%2Faccount",
        "/static/..%5Caccount",
        "/static/%2E%2E%2Faccount",
        "/staticx",
        "//static/x",
        "/%73tatic/x",
    ] {
        for _ in 0..2 {
            let answer = edge.fill(target).await;
            assert!(!answer.says("hit") && !answer.says("stored"), "{target}: {}", answer.cache());
        }
    }
    for target in ["/static/../account", "/static/%2e%2e/account", "/static/..;/account"] {
        assert_eq!(edge.get(target).await.status(), 400, "{target}");
    }
}

#[tokio::test]
async fn f15_the_origin_gets_the_host_that_is_in_the_key() {
    let origin = Origin::start(|seen| Reply::fresh(seen.field("host").unwrap()));
    let edge = Edge::start(&origin);
    for (host, canonical, cache) in [
        ("Site.Test:080", "site.test", "stored"),
        ("site.test.", "site.test", "hit"),
        ("SITE.TEST.:80", "site.test", "hit"),
        ("site.test:", "site.test", "hit"),
        ("site.test:81", "site.test:81", "stored"),
        ("site.test:0081", "site.test:81", "hit"),
    ] {
        let answer = edge.ask("GET", host, "/a", &[]).await;
        edge.settled().await;
        answer.expect(200, canonical, cache);
    }
}

#[tokio::test]
async fn f16_a_part_is_never_taken_for_the_whole() {
    let origin = Origin::start(|seen| match seen.field("range") {
        Some(_) => Reply::new(206)
            .body("he")
            .field("Content-Range", "bytes 0-1/5")
            .field("ETag", "\"1\"")
            .field("Cache-Control", "max-age=60"),
        None => Reply::fresh("hello").field("ETag", "\"1\""),
    });
    let edge = Edge::start(&origin);
    let part = edge.fill_with("/a", &[("Range", "bytes=0-1")]).await;
    assert!(matches!((part.status(), part.text()), (206, "he") | (200, "hello")), "{part:?}");
    for _ in 0..2 {
        let whole = edge.fill("/a").await;
        assert_eq!((whole.status(), whole.text()), (200, "hello"), "{whole:?}");
        assert_eq!(whole.field("content-range"), None);
    }
}

#[tokio::test]
async fn f18_odd_ranges_get_what_the_rfc_says() {
    let origin = Origin::serving(Reply::fresh("0123456789").field("ETag", "\"1\""));
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    for (range, condition, status, body) in [
        ("bytes=-3", "", 206, "789"),
        ("bytes=-0", "", 416, ""),
        ("bytes=10-", "", 416, ""),
        ("bytes=", "", 200, "0123456789"),
        ("bytes=-", "", 200, "0123456789"),
        ("bytes=3-2", "", 200, "0123456789"),
        ("bytes=2-3", "\"1\"", 206, "23"),
        ("bytes=2-3", "\"2\"", 200, "0123456789"),
        ("bytes=2-3", "W/\"1\"", 200, "0123456789"),
        ("bytes=2-3", "1", 200, "0123456789"),
        ("bytes=20-30", "\"2\"", 200, "0123456789"),
    ] {
        let mut fields = vec![("Range", range)];
        if !condition.is_empty() {
            fields.push(("If-Range", condition));
        }
        let answer = edge.get_with("/a", &fields).await;
        assert_eq!((answer.status(), answer.text()), (status, body), "{range} {condition}");
    }
    let parts = edge.get_with("/a", &[("Range", "bytes=0-1, 8-")]).await;
    assert_eq!(parts.status(), 206);
    assert!(parts.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    assert_eq!(parts.text().matches("Content-Range: bytes ").count(), 2);
}
