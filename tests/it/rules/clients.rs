//! Who asks: who is believed about it, who is let in, and how often.

use super::{seen, shows};
use crate::support::client::Response;
use crate::support::edge::{HOST, Plan};
use crate::support::{Edge, Origin, Reply};

const TOLD: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

const WARMER: &str = "a-token-that-may-warm-up";

/// An edge whose listener has a trusted proxy in front: this machine.
fn behind_a_proxy(origin: &Origin) -> Plan {
    let keys = "trusted_proxies = [\"127.0.0.0/8\", \"192.0.2.0/24\"]";
    Edge::before(origin).listener("127.0.0.1:0", keys)
}

async fn from(edge: &Edge, client: &str, target: &str) -> Response {
    edge.get_with(target, &[("X-Forwarded-For", client)]).await
}

#[tokio::test]
async fn what_strangers_say_of_themselves_is_replaced() {
    let origin = Origin::start(|asked| seen(asked, &TOLD));
    let edge = Edge::before(&origin)
        .rule("/rfc", "forwarded = \"forwarded\"")
        .rule("/none", "forwarded = \"none\"")
        .rule("/denied", "allow = [\"10.0.0.0/8\"]")
        .start();
    let lies = [
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("Forwarded", "for=10.0.0.1;host=evil.test;proto=https"),
    ];
    let rows = [
        ("/a", "127.0.0.1 http site.test "),
        ("/rfc", "   for=127.0.0.1;host=\"site.test\";proto=http"),
        ("/none", "   "),
    ];
    for (target, told) in rows {
        let said = format!("v1 {target} {HOST} {told}");
        shows(&edge.fill_with(target, &lies).await, &said, "stored");
        shows(&edge.get(target).await, &said, "hit");
    }
    assert_eq!(edge.get_with("/denied", &lies).await.status(), 403);
    edge.metric_becomes("atoll_refusals_total{reason=\"network\"}", 1.0).await;
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
    let origin = Origin::start(|asked| seen(asked, &TOLD));
    let edge = behind_a_proxy(&origin).rule("/pass", "pass = true").start();
    let rows = [
        ("203.0.113.9", "203.0.113.9, 127.0.0.1"),
        ("10.0.0.1, \"x, 203.0.113.9", "203.0.113.9, 127.0.0.1"),
        ("10.0.0.1, 203.0.113.9:99, 192.0.2.7", "203.0.113.9, 192.0.2.7, 127.0.0.1"),
        ("2001:db8::1", "2001:db8::1, 127.0.0.1"),
    ];
    for (line, told) in rows {
        let answer = from(&edge, line, "/pass").await;
        assert!(answer.text().contains(&format!(" {told} http site.test ")), "{}", answer.text());
    }
    assert_eq!(from(&edge, "203.0.113.9, nonsense", "/pass").await.status(), 400);
    // What it says of the scheme is in the key; what it says of the host is not heard.
    let https = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.test")];
    shows(&edge.fill("/a").await, "v1 /a site.test 127.0.0.1 http site.test ", "stored");
    shows(
        &edge.fill_with("/a", &https).await,
        "v2 /a site.test 127.0.0.1 https site.test ",
        "fwd=uri-miss",
    );
    shows(&edge.get("/a").await, "v1 ", "hit");
    edge.purge_path("/a").await;
    shows(&edge.fill_with("/a", &https).await, "v3 ", "fwd=uri-miss");
}

#[tokio::test]
async fn networks_are_let_in_by_the_address_behind_the_proxy() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = behind_a_proxy(&origin)
        .site("allow = [\"198.51.100.0/24\", \"2001:db8::/32\"]\ndeny = [\"198.51.100.128/25\"]")
        .rule("/open", "allow = []\ndeny = []")
        .start();
    let rows = [
        ("198.51.100.1", 200),
        ("198.51.100.200", 403),
        ("2001:db8:1::1", 200),
        ("203.0.113.9", 403),
        // A stranger that names an address which may ask, and then one that is its own.
        ("198.51.100.1, 203.0.113.9", 403),
        ("198.51.100.1, 203.0.113.9, 192.0.2.7", 403),
        ("unknown", 403),
    ];
    for (client, status) in rows {
        assert_eq!(from(&edge, client, "/a").await.status(), status, "{client}");
        assert_eq!(from(&edge, client, "/open").await.status(), 200, "{client}");
    }
    // What is stored is no way around.
    let refused = from(&edge, "203.0.113.9", "/a").await;
    assert!(refused.text().starts_with("403 Forbidden: network"), "{refused:?}");
}

#[tokio::test]
async fn a_closed_path_is_closed_under_every_name_that_an_origin_may_read_as_it() {
    let origin = Origin::serving(Reply::fresh("page"));
    let closed = "deny = [\"0.0.0.0/0\", \"::/0\"]";
    let edge = Edge::before(&origin).rule("/admin", closed).start();
    let shut = [
        "/admin",
        "/%61dmin",
        "//admin",
        "/admin;x",
        "/a/..%2Fadmin/x",
        "/%61dmin%2Fx",
        "/a%5C..%5Cadmin",
    ];
    for target in shut {
        assert_eq!(edge.get(target).await.status(), 403, "{target}");
    }
    for target in ["/administration", "/a/admin", "/%61", "/a;b", "//a"] {
        assert_eq!(edge.get(target).await.status(), 200, "{target}");
    }
    assert_eq!(origin.requests(), 5);

    // The other way round: a path that is open leads to none that is closed.
    let edge = Edge::before(&origin).site(closed).rule("/open", "deny = []").start();
    for (target, status) in [("/open", 200), ("/open/%61", 200), ("/open/..%2Fa", 403), ("/a", 403)]
    {
        assert_eq!(edge.get(target).await.status(), status, "{target}");
    }

    let limit = "rate_limit = { requests = 1, per = \"1h\" }";
    let edge = Edge::before(&origin).rule("/login", limit).start();
    for (target, status) in [("/login", 200), ("/login", 429), ("/%6Cogin", 429), ("/a", 200)] {
        assert_eq!(edge.get(target).await.status(), status, "{target}");
    }
}

#[tokio::test]
async fn each_network_may_ask_so_often_and_hits_count() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = behind_a_proxy(&origin)
        .site("rate_limit = { requests = 3, per = \"1h\", exempt = [\"198.51.100.0/24\"] }")
        .rule("/api", "rate_limit = { requests = 1, per = \"1h\" }")
        .rule("/open", "rate_limit = \"none\"")
        .start();
    edge.manage(
        "POST",
        "/v1/explain",
        Some(serde_json::json!({ "url": format!("http://{HOST}/a") })),
    )
    .await;
    let rows = [
        ("203.0.113.9", "/a", 200),
        ("203.0.113.9", "/a", 200),
        // Inventing who went before does not help.
        ("10.0.0.1, 203.0.113.9", "/b", 200),
        ("10.0.0.2, 203.0.113.9", "/a", 429),
        ("203.0.113.9", "/api", 200),
        ("203.0.113.9", "/api", 429),
        ("203.0.113.9", "/open", 200),
        ("203.0.113.10", "/a", 200),
        ("2001:db8:0:1::1", "/a", 200),
        ("2001:db8:0:1::2", "/a", 200),
        ("2001:db8:0:1:ffff::3", "/a", 200),
        ("2001:db8:0:1::4", "/a", 429),
        ("2001:db8:0:2::4", "/a", 200),
    ];
    for (number, (client, target, status)) in rows.into_iter().enumerate() {
        assert_eq!(from(&edge, client, target).await.status(), status, "{number}: {client}");
    }
    for _ in 0..5 {
        assert_eq!(from(&edge, "198.51.100.1", "/a").await.status(), 200);
    }
    let refused = from(&edge, "203.0.113.9", "/a").await;
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "a third of an hour: {wait}");
    assert_eq!(refused.field("cache-control"), Some("no-store"));
    edge.metric_becomes("atoll_refusals_total{reason=\"client-rate\"}", 4.0).await;
}

#[tokio::test]
async fn all_together_have_a_limit_and_the_connection_lives_on() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = behind_a_proxy(&origin)
        .site("rate_limit_total = { requests = 2, per = \"1h\" }")
        .rule("/open", "rate_limit_total = \"none\"")
        .token(WARMER, &["warm"], &[])
        .start();
    let mut proxy = edge.connect().await;
    for (client, target, status) in [
        ("203.0.113.1", "/a", 200),
        ("203.0.113.2", "/a", 200),
        ("203.0.113.3", "/a", 429),
        ("203.0.113.3", "/open", 200),
    ] {
        let answer = proxy.get(HOST, target, &[("X-Forwarded-For", client)]).await;
        assert_eq!(answer.status(), status, "{client}");
    }
    edge.metric_becomes("atoll_refusals_total{reason=\"site-rate\"}", 1.0).await;
    // Warming up is nobody's request.
    let job = serde_json::json!({ "urls": [format!("http://{HOST}/warm")] });
    let begun = edge.manage_as(Some(WARMER), "POST", "/v1/warm", Some(job)).await;
    assert_eq!(begun.status(), 202, "{begun:?}");
    assert_eq!(origin.last("/warm").await.method, "GET");
}

#[tokio::test]
async fn proxies_that_write_forwarded_are_read_by_that_alone() {
    let origin = Origin::start(|asked| seen(asked, &TOLD));
    let keys = "trusted_proxies = [\"127.0.0.0/8\"]\nproxies_write = \"forwarded\"";
    let edge = Edge::before(&origin)
        .listener("127.0.0.1:0", keys)
        .site("forwarded = \"both\"\npass = true\nallow = [\"203.0.113.0/24\", \"2001:db8::/32\"]")
        .start();
    let lie = ("X-Forwarded-For", "203.0.113.1");
    assert_eq!(edge.get_with("/a", &[lie]).await.status(), 403);
    let told = [lie, ("Forwarded", "for=\"203.0.113.1, for=\"[2001:db8::9]:80\";proto=https")];
    let answer = edge.get_with("/a", &told).await;
    let expected = "2001:db8::9, 127.0.0.1 https site.test \
                    for=\"[2001:db8::9]\", for=127.0.0.1;host=\"site.test\";proto=https";
    assert!(answer.text().ends_with(expected), "{}", answer.text());
    let mallory = [("Forwarded", "for=203.0.113.1, for=198.51.100.7")];
    assert_eq!(edge.get_with("/a", &mallory).await.status(), 403);
}
