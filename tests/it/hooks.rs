//! Events of other systems: what each purges, what it leaves, and what is not believed.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::support::client::request;
use crate::support::edge::Plan;
use crate::support::{Connection, Edge, Origin, Reply, Response};

const HOST: &str = "www.example.org";
/// The secret of the examples.
const SECRET: &str = "replace-this-by-a-secret";

const STRAPI: &str = include_str!("../../config/hooks/strapi.toml");
const WORDPRESS: &str = include_str!("../../config/hooks/wordpress.toml");
const GITHUB: &str = include_str!("../../config/hooks/github.toml");

/// An edge with these hooks before an origin that numbers its answers and tags them by their query.
fn edge_with(hooks: &str) -> Edge {
    plan_with(hooks).start()
}

fn plan_with(hooks: &str) -> Plan {
    let origin = Origin::start(|seen| {
        let tags = seen.target.split_once("?tags=").map_or("", |(_, tags)| tags).to_owned();
        Reply::fresh(format!("v{}", seen.nth)).field("Cache-Tag", &tags)
    });
    let address = origin.address;
    // The story needs the edge only; the origin stays up as long as the test runs.
    std::mem::forget(origin);
    Plan::before(&[address]).tables(hooks)
}

async fn send(edge: &Edge, hook: &str, fields: &[(&str, &str)], body: &str) -> Response {
    let length = body.len().to_string();
    let mut all = vec![("Connection", "close"), ("Content-Type", "application/json")];
    all.push(("Content-Length", &length));
    all.extend(fields);
    let mut connection = Connection::open(edge.admin()).await;
    let head = request("POST", "admin.test", &format!("/v1/hooks/{hook}"), &all);
    connection.send(head + body).await;
    connection.response("POST").await
}

fn signed(body: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, body.as_bytes()).as_ref().to_vec()
}

async fn github(edge: &Edge, event: &str, body: &str) -> Response {
    let hex: String = signed(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let proof = format!("sha256={hex}");
    send(edge, "github", &[("X-GitHub-Event", event), ("X-Hub-Signature-256", &proof)], body).await
}

async fn strapi(edge: &Edge, body: &str) -> Response {
    let proof = format!("Bearer {SECRET}");
    send(edge, "strapi", &[("Authorization", &proof)], body).await
}

fn json_of(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

async fn fill(edge: &Edge, targets: &[&str]) {
    for target in targets {
        assert_eq!(edge.ask("GET", HOST, target, &[]).await.status(), 200);
    }
    edge.settled().await;
}

/// Asserts that the event was taken, and which answers are still used after it.
async fn leaves(edge: &Edge, answer: &Response, gone: &[&str], left: &[&str]) {
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(json_of(answer)["id"].is_string(), "{}", answer.text());
    for target in left {
        let answer = edge.ask("GET", HOST, target, &[]).await;
        assert!(answer.says("hit"), "{target} is left: {}", answer.cache());
    }
    for target in gone {
        let answer = edge.ask("GET", HOST, target, &[]).await;
        assert!(!answer.says("hit"), "{target} is gone: {}", answer.cache());
    }
}

#[tokio::test]
async fn a_push_to_github_purges_the_files_that_it_changed() {
    let edge = edge_with(GITHUB);
    let gone = ["/index.html", "/tides/index.html", "/tides/week%2010.html", "/tides/2023.html"];
    let left = ["/", "/tides/", "/tides/2024.html"];
    fill(&edge, &gone).await;
    fill(&edge, &left).await;
    let push = include_str!("payloads/github-push.json");
    let other = push.replace("refs/heads/main", "refs/heads/draft");
    let answer = github(&edge, "push", &other).await;
    assert_eq!((answer.status(), &json_of(&answer)["matched"]), (200, &json!(0)));
    let answer = github(&edge, "push", push).await;
    leaves(&edge, &answer, &gone, &left).await;
    let past = edge.manage("GET", "/v1/purges", None).await;
    let past = json_of(&past);
    assert_eq!(past["purges"][0]["token"], "hook:github");
    assert_eq!(
        (&past["purges"][0]["count"], past["purges"].as_array().unwrap().len()),
        (&4.into(), 1)
    );
}

#[tokio::test]
async fn a_release_on_github_purges_by_tag() {
    let edge = edge_with(GITHUB);
    let gone = ["/news?tags=releases", "/x?tags=release:v1.4.0", "/releases/v1.4.0"];
    let left = ["/x?tags=release:v1.3.0", "/releases/"];
    fill(&edge, &gone).await;
    fill(&edge, &left).await;
    let release = include_str!("payloads/github-release.json");
    let answer = github(&edge, "release", release).await;
    leaves(&edge, &answer, &gone, &left).await;
}

#[tokio::test]
async fn entries_of_strapi_are_purged_by_number_and_by_address() {
    for (event, own) in [
        (include_str!("payloads/strapi-v4-publish.json"), "/x?tags=article:17"),
        (
            include_str!("payloads/strapi-v5-publish.json"),
            "/x?tags=article:q7w2m8k1c4t9z0x5v3b6n1d2",
        ),
    ] {
        let edge = edge_with(STRAPI);
        let gone = [own, "/?tags=articles", "/articles/high-tide"];
        let left = ["/x?tags=article:18", "/articles/low-tide", "/articles/"];
        fill(&edge, &gone).await;
        fill(&edge, &left).await;
        let answer = strapi(&edge, event).await;
        leaves(&edge, &answer, &gone, &left).await;
    }
}

#[tokio::test]
async fn posts_of_wordpress_are_purged_by_their_permanent_address() {
    let edge = edge_with(WORDPRESS);
    let gone = ["/2024/03/05/high-tide/", "/", "/feed/", "/x?tags=post-17"];
    let left = ["/2024/03/05/low-tide/", "/x?tags=post-1"];
    fill(&edge, &gone).await;
    fill(&edge, &left).await;
    let event = include_str!("payloads/wordpress-post-update.json");
    let answer = send(&edge, "wordpress", &[("X-Webhook-Secret", SECRET)], event).await;
    leaves(&edge, &answer, &gone, &left).await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = bits.as_bytes().chunks(6).map(|bits| {
        let bits = format!("{:0<6}", std::str::from_utf8(bits).unwrap());
        char::from(DIGITS[usize::from_str_radix(&bits, 2).unwrap()])
    });
    let text: String = digits.collect();
    let padding = (4 - text.len() % 4) % 4;
    text + &"=".repeat(padding)
}

#[tokio::test]
async fn products_of_woocommerce_are_purged_with_their_lists() {
    let edge = edge_with(WORDPRESS);
    let gone = [
        "/product/tide-table/",
        "/product-category/books/",
        "/product-category/at-sea/page/2/?orderby=price",
        "/x?tags=product-794",
    ];
    let left = ["/product/compass/", "/product-category/maps/", "/product-category/"];
    fill(&edge, &gone).await;
    fill(&edge, &left).await;
    let event = include_str!("payloads/woocommerce-product-updated.json");
    let proof = base64(&signed(event));
    let fields =
        [("X-WC-Webhook-Topic", "product.updated"), ("X-WC-Webhook-Signature", proof.as_str())];
    let answer = send(&edge, "woocommerce", &fields, event).await;
    leaves(&edge, &answer, &gone, &left).await;
    let changed = event.replace("794", "795");
    assert_eq!(send(&edge, "woocommerce", &fields, &changed).await.status(), 401);
}

#[tokio::test]
async fn an_event_without_proof_purges_nothing_and_learns_nothing() {
    let edge = edge_with(&format!("{GITHUB}{STRAPI}"));
    fill(&edge, &["/index.html"]).await;
    let push = include_str!("payloads/github-push.json");
    let shared = format!("Bearer {SECRET}");
    let wrong = format!("sha256={}", "0".repeat(64));
    let rows: [(&str, Vec<(&str, &str)>); 6] = [
        ("github", vec![]),
        ("github", vec![("X-Hub-Signature-256", &wrong)]),
        ("github", vec![("Authorization", &shared)]),
        ("strapi", vec![("Authorization", "Bearer replace-this-by-a-secre")]),
        ("gone", vec![("Authorization", &shared)]),
        // A token of the admin listener opens no hook.
        ("github", vec![("Authorization", "Bearer a-token-that-may-do-everything")]),
    ];
    let mut answers = Vec::new();
    for (hook, mut fields) in rows {
        fields.push(("X-GitHub-Event", "push"));
        let answer = send(&edge, hook, &fields, push).await;
        assert_eq!(answer.status(), 401, "{hook} {fields:?}");
        answers.push(answer.text().to_owned());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "all look the same: {answers:?}");
    assert!(edge.metric("atoll_epoch").await < 0.5);
    assert!(edge.ask("GET", HOST, "/index.html", &[]).await.says("hit"));
    for _ in 0..20 {
        send(&edge, "github", &[], push).await;
    }
    let answer = github(&edge, "push", push).await;
    assert_eq!(answer.status(), 429, "who guesses is not even compared");
    assert!(answer.field("retry-after").is_some());
    assert_eq!(edge.manage("GET", "/v1/status", None).await.status(), 200, "tokens are apart");
}

#[tokio::test]
async fn an_event_that_names_nothing_purges_nothing() {
    let edge = edge_with(STRAPI);
    fill(&edge, &["/", "/articles/high-tide"]).await;
    for event in [
        json!({"event": "review-workflows.updateEntryStage"}),
        json!({"event": "entry.publish"}),
        json!({"event": "entry.publish", "model": {}, "entry": {"id": null, "documentId": ""}}),
        json!([]),
        json!(null),
    ] {
        let answer = strapi(&edge, &event.to_string()).await;
        assert_eq!(answer.status(), 200, "{event}: {answer:?}");
        let told = json_of(&answer);
        assert_eq!((&told["id"], &told["matched"]), (&json!(null), &json!(0)), "{event}");
    }
    for body in ["", "{", "payload=%7B%7D"] {
        assert_eq!(strapi(&edge, body).await.status(), 400, "{body:?}");
    }
    assert!(edge.metric("atoll_epoch").await < 0.5);
    assert!(edge.ask("GET", HOST, "/", &[]).await.says("hit"));
}

#[tokio::test]
async fn a_value_cannot_reach_beyond_its_place_or_its_site() {
    let plan = plan_with(&format!("{STRAPI}{WORDPRESS}"))
        .first_site("name = \"main\"\nhosts = [\"www.example.org\"]\norigin = \"main\"")
        .another_site("name = \"shop\"\nhosts = [\"shop.example.org\"]\norigin = \"main\"");
    let edge = plan.start();
    edge.ask("GET", "shop.example.org", "/x?tags=articles", &[]).await;
    fill(&edge, &["/", "/?page=2", "/articles/a"]).await;
    let entry =
        |entry: Value| json!({"event": "entry.publish", "model": "article", "entry": entry});
    for (entry, status) in [
        (entry(json!({"id": 1, "slug": ".."})), 400),
        (entry(json!({"id": "a b", "slug": "a"})), 400),
        (entry(json!({"id": "a\u{0}b"})), 400),
        (entry(json!({"id": "x".repeat(300)})), 400),
        (entry(json!({"id": 1, "slug": "../?page=2#"})), 200),
    ] {
        let answer = strapi(&edge, &entry.to_string()).await;
        assert_eq!(answer.status(), status, "{entry}: {answer:?}");
    }
    for link in ["https://shop.example.org/x?tags=articles", "https://elsewhere.test/", "/", "x"] {
        let event = json!({"post": {"post_status": "publish"}, "post_permalink": link});
        let fields = [("X-Webhook-Secret", SECRET)];
        let answer = send(&edge, "wordpress", &fields, &event.to_string()).await;
        assert_eq!(answer.status(), 400, "{link}: {answer:?}");
    }
    for target in ["/", "/?page=2", "/articles/a"] {
        assert!(edge.ask("GET", HOST, target, &[]).await.says("hit"), "{target}");
    }
    let other = edge.ask("GET", "shop.example.org", "/x?tags=articles", &[]).await;
    assert!(other.says("hit"), "another site's tag of the same name: {}", other.cache());
}

#[tokio::test]
async fn a_hook_purges_no_faster_than_a_token() {
    let edge = plan_with(STRAPI).admin("purges_per_second = 1").start();
    let event = include_str!("payloads/strapi-v5-publish.json");
    assert_eq!(strapi(&edge, event).await.status(), 200);
    let answer = strapi(&edge, event).await;
    assert_eq!((answer.status(), &json_of(&answer)["code"]), (429, &json!("purge-rate")));
    edge.purge_tag("a").await;
}

#[tokio::test]
async fn an_event_that_is_sent_again_with_its_key_purges_once() {
    let edge = edge_with(&format!("{STRAPI}{GITHUB}"));
    let proof = format!("Bearer {SECRET}");
    let event = |id: u32, at: u32| json!({"event": "entry.publish", "model": "article", "at": at, "entry": {"id": id}});
    let post = async |key: &str, event: Value| {
        let fields = [("Authorization", proof.as_str()), ("Idempotency-Key", key)];
        send(&edge, "strapi", &fields, &event.to_string()).await
    };
    let first = post("delivery-1", event(1, 10)).await;
    assert_eq!(first.status(), 200, "{first:?}");
    let id = json_of(&first)["id"].clone();
    assert!(id.is_string(), "{first:?}");
    fill(&edge, &["/x?tags=article:1"]).await;
    // Another moment in the body: the same is meant.
    let again = post("delivery-1", event(1, 11)).await;
    assert_eq!((again.status(), &json_of(&again)["id"]), (200, &id));
    let answer = edge.ask("GET", HOST, "/x?tags=article:1", &[]).await;
    assert!(answer.says("hit"), "what was filled since stays: {}", answer.cache());
    assert_eq!(post("delivery-1", event(2, 12)).await.status(), 422, "another purge");
    assert_eq!(post("a key of words", event(1, 13)).await.status(), 400);
    let answer = edge.ask("GET", HOST, "/x?tags=article:1", &[]).await;
    assert!(answer.says("hit"), "what was refused purged nothing: {}", answer.cache());
    // Keys of one sender are not those of another, nor is one without a proof told anything.
    let fields = [("Authorization", "Bearer wrong"), ("Idempotency-Key", "delivery-1")];
    assert_eq!(send(&edge, "strapi", &fields, &event(1, 10).to_string()).await.status(), 401);
    let other = post("delivery-2", event(1, 10)).await;
    assert_ne!(json_of(&other)["id"], id);
    let answer = edge.ask("GET", HOST, "/x?tags=article:1", &[]).await;
    assert!(!answer.says("hit"), "another delivery purges: {}", answer.cache());
}
