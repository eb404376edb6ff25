//! What the origin is asked for, and by which name it is purged.

use serde_json::json;

use super::{seen, shows};
use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::websocket::handshake;
use crate::support::{Edge, Origin, Reply};

#[tokio::test]
async fn a_rewritten_path_is_stored_and_purged_under_its_public_name() {
    let origin = Origin::start(|asked| seen(asked, &[]));
    let edge = Edge::before(&origin)
        .rule("/shop", "rewrite = { to = \"/v2\" }")
        .rule("/old", "rewrite = { from = \"/old/\", to = \"/\" }")
        .start();
    shows(&edge.fill("/shop/a?b=1").await, "v1 /v2/a?b=1 site.test ", "stored");
    shows(&edge.get("/shop/a?b=1").await, "v1 /v2/a?b=1 site.test ", "hit");
    // Two public names of one path at the origin are two answers.
    shows(&edge.fill("/old/v2/a?b=1").await, "v2 /v2/a?b=1 site.test ", "fwd=uri-miss");
    shows(&edge.fill("/v2/a?b=1").await, "v3 /v2/a?b=1 site.test ", "fwd=uri-miss");
    edge.purge_path("/v2/a?b=1").await;
    shows(&edge.get("/shop/a?b=1").await, "v1 ", "hit");
    edge.purge(json!({ "prefixes": [format!("{HOST}/shop/")] })).await;
    shows(&edge.fill("/shop/a?b=1").await, "v4 ", "fwd=uri-miss");
    shows(&edge.get("/old/v2/a?b=1").await, "v2 ", "hit");
    for (asked, sent) in [("/shop", "/v2"), ("/shopping", "/shopping"), ("/old", "/old")] {
        shows(&edge.fill(asked).await, &format!("v1 {sent} "), "stored");
    }
}

#[tokio::test]
async fn nobody_climbs_out_of_a_rewritten_path() {
    let origin = Origin::start(|asked| seen(asked, &[]));
    let edge = Edge::before(&origin).rule("/shop", "rewrite = { to = \"/v2\" }").start();
    for target in ["/shop/../admin", "/shop/%2e%2e/admin", "/shop/..;x/admin"] {
        assert_eq!(edge.get(target).await.status(), 400, "{target}");
    }
    shows(&edge.get("/shop/..%2fadmin").await, "v1 /v2/..%2Fadmin ", "fwd=bypass");
    shows(&edge.get("/shop%2Fx").await, "v1 /shop%2Fx ", "fwd=uri-miss");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_change_that_the_origin_names_by_its_own_path_ends_the_public_one() {
    let origin = Origin::start(|asked| match &*asked.method {
        "POST" => Reply::new(201).field("Location", "/v2/a").without("Cache-Control"),
        _ => seen(asked, &[]),
    });
    let edge = Edge::before(&origin).rule("/shop", "rewrite = { to = \"/v2\" }").start();
    shows(&edge.fill("/shop/a").await, "v1 ", "stored");
    edge.post("/shop/list", "new").await;
    shows(&edge.fill("/shop/a").await, "v2 ", "fwd=uri-miss");
}

#[tokio::test]
async fn a_rule_has_its_own_origin_and_host() {
    let (main, images) =
        (Origin::start(|asked| seen(asked, &[])), Origin::serving(Reply::fresh("image")));
    let named = Origin::start(|asked| seen(asked, &[]));
    let edge = Edge::before(&main)
        .origin("images", &[images.address])
        .origin_keys(&format!(
            "name = \"named\"\nservers = [\"http://{}\"]\nhost = \"Bucket.Internal\"",
            named.address
        ))
        .site("host = \"inner.test\"")
        .rule("/img", "origin = \"images\"")
        .rule("/bucket", "origin = \"named\"")
        .rule("/own", "origin = \"named\"\nhost = \"own.test:81\"")
        .start();
    shows(&edge.fill("/a").await, "v1 /a inner.test ", "stored");
    shows(&edge.fill("/img/a").await, "image", "stored");
    assert_eq!(images.last("/img/a").await.field("host"), Some("inner.test"));
    shows(&edge.fill("/bucket/a").await, "v1 /bucket/a bucket.internal ", "stored");
    shows(&edge.fill("/own/a").await, "v1 /own/a own.test:81 ", "stored");
    assert_eq!((main.requests(), images.requests(), named.requests()), (1, 1, 2));
    for target in ["/a", "/img/a", "/bucket/a", "/own/a"] {
        shows(&edge.get(target).await, "", "hit");
    }
}

#[tokio::test]
async fn tunnels_and_calls_go_to_the_origin_of_their_rule() {
    let (main, own) = (Origin::serving(Reply::fresh("main")), Origin::serving(Reply::fresh("own")));
    let edge = Edge::before(&main)
        .origin("own", &[own.address])
        .rule("/own", "origin = \"own\"\nupgrade = [\"websocket\"]\ngrpc = true")
        .start();
    assert_eq!(edge.raw(handshake("/own/tunnel", &[]), "GET").await.text(), "own");
    let call = [("Content-Type", "application/grpc"), ("Content-Length", "0")];
    let answer = edge.raw(request("POST", HOST, "/own/call", &call), "POST").await;
    assert_eq!(answer.text(), "own");
    assert_eq!((main.requests(), own.requests()), (0, 2));
}

#[tokio::test]
async fn request_fields_are_the_rules_own_whatever_a_client_says() {
    let names = ["authorization", "x-debug", "x-key", "x-more"];
    let origin = Origin::start(move |asked| {
        seen(asked, &names).field("Vary", "Authorization, X-Debug, X-Key, Cookie")
    });
    let edge = Edge::before(&origin)
        .site(
            "request_headers = { set = { Authorization = \"Basic ours\", X-Key = \"k\" }, \
             append = { X-More = \"edge\" }, remove = [\"X-Debug\", \"Cookie\"] }",
        )
        .rule("/plain", "request_headers = {}")
        .start();
    let all = "v1 /a site.test Basic ours  k edge";
    let clients: [&[(&str, &str)]; 5] = [
        &[],
        &[("Authorization", "Bearer alice")],
        &[("X-Debug", "1"), ("X_Debug", "2")],
        &[("X-Key", "theirs"), ("X_Key", "theirs")],
        &[("Cookie", "sid=alice")],
    ];
    for (number, fields) in clients.into_iter().enumerate() {
        let cache = if number == 0 { "stored" } else { "hit" };
        shows(&edge.fill_with("/a", fields).await, all, cache);
    }
    let raw = origin.last("/a").await;
    for hidden in ["x-debug", "x_debug", "x_key", "cookie"] {
        assert_eq!(raw.all(hidden), [""; 0], "{hidden}");
    }
    // Where a rule takes it back, what clients say tells them apart again.
    let alice = [("Authorization", "Bearer alice")];
    shows(&edge.fill_with("/plain", &alice).await, "v1 /plain site.test Bearer alice", "");
    shows(&edge.fill("/plain").await, "v2 /plain site.test ", "");
}
