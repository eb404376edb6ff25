//! Purges that bring the hottest of what they took back: in the order of their use, within the
//! limits of a warm-up, and never with anything of a client's own.

use serde_json::{Value, json};

use crate::support::edge::Plan;
use crate::support::{Edge, Origin, Reply, until};

const EDITOR: &str = "a-token-that-purges-and-warms";
const PURGER: &str = "a-token-that-only-purges";

fn before(origin: &Origin) -> Plan {
    Edge::before(origin).token(EDITOR, &["read", "purge", "warm"], &["main"]).token(
        PURGER,
        &["purge"],
        &["main"],
    )
}

fn tagged(body: &str) -> Reply {
    Reply::fresh(body).field("Cache-Tag", "news")
}

async fn purge(edge: &Edge, body: Value) -> (u16, Value) {
    let answer = edge.manage_as(Some(EDITOR), "POST", "/v1/purge", Some(body)).await;
    (answer.status(), serde_json::from_slice(&answer.body).unwrap())
}

/// The purge of this id, once all that it fetched again is there.
async fn fetched_again(edge: &Edge, id: &Value) -> Value {
    let path = format!("/v1/purges/{}", id.as_str().unwrap());
    let told = || async {
        let answer = edge.manage_as(Some(EDITOR), "GET", &path, None).await;
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    until("the refetch to end", || async { told().await["refetch"]["state"] == "done" }).await;
    told().await
}

#[tokio::test]
async fn the_hottest_of_what_was_purged_are_back_before_anybody_asks() {
    let origin = Origin::start(|seen| tagged(&format!("{} of {}", seen.target, seen.nth)));
    let edge = before(&origin).start();
    for (target, uses) in [("/cold", 1), ("/hot?a=1", 30), ("/warm", 10)] {
        edge.fill(target).await;
        for _ in 0..uses {
            assert_eq!(edge.get(target).await.status(), 200);
        }
    }
    let dry = purge(&edge, json!({ "tags": ["news"], "dry_run": true })).await.1;
    assert_eq!(dry["matched"], 3, "{dry}");
    assert!(dry["requests_per_second"].as_f64().unwrap() > 0.3, "{dry}");
    let before = origin.requests();
    let (status, receipt) = purge(&edge, json!({ "tags": ["news"], "refetch": 2 })).await;
    assert_eq!((status, &receipt["refetch"]["requests"]), (200, &json!(2)), "{receipt}");
    let told = fetched_again(&edge, &receipt["id"]).await;
    assert_eq!(told["refetch"]["stored"], 2, "{told:#}");
    assert_eq!(told["refetch"]["warm_up"], receipt["refetch"]["warm_up"]);
    assert_eq!(origin.requests(), before + 2);
    for target in ["/hot?a=1", "/warm"] {
        let answer = edge.get(target).await;
        assert!(answer.field("cache-status").unwrap().contains("hit"), "{target}: {answer:?}");
    }
    assert_eq!(origin.requests(), before + 2, "what is hot is there, and new");
    edge.get("/cold").await;
    assert_eq!(origin.requests(), before + 3, "what is not is a miss");
}

#[tokio::test]
async fn variants_come_back_as_they_were_and_those_of_a_person_do_not() {
    let origin = Origin::start(|seen| {
        let vary = if seen.target == "/own" { "X-Account" } else { "Accept-Language" };
        let said = seen.field("accept-language").unwrap_or("none");
        tagged(&format!("{said} {}", seen.nth)).field("Vary", vary)
    });
    let edge = before(&origin).start();
    let own = [("x-account", "alice")];
    for language in ["de", "fr;q=0.5, en"] {
        for _ in 0..2 {
            edge.get_with("/news", &[("accept-language", language)]).await;
        }
    }
    for _ in 0..3 {
        edge.get_with("/own", &own).await;
    }
    let before = origin.requests();
    let (_, receipt) = purge(&edge, json!({ "tags": ["news"], "refetch": 100 })).await;
    assert_eq!(receipt["refetch"]["requests"], 2, "{receipt}");
    fetched_again(&edge, &receipt["id"]).await;
    assert_eq!(origin.requests(), before + 2);
    for language in ["de", "fr;q=0.5, en"] {
        let answer = edge.get_with("/news", &[("accept-language", language)]).await;
        assert!(answer.field("cache-status").unwrap().contains("hit"), "{language}: {answer:?}");
    }
    edge.get_with("/own", &own).await;
    assert_eq!(origin.requests(), before + 3, "nobody spoke for alice meanwhile");
}

#[tokio::test]
async fn fetching_again_takes_the_scope_of_a_warm_up_and_happens_once() {
    let origin = Origin::start(|seen| tagged(&seen.target));
    let edge = before(&origin).start();
    edge.fill("/a").await;
    edge.get("/a").await.expect(200, "/a", "hit");
    let body = json!({ "tags": ["news"], "refetch": 5 });
    let refused = edge.manage_as(Some(PURGER), "POST", "/v1/purge", Some(body.clone())).await;
    assert_eq!(refused.status(), 403);
    edge.get("/a").await.expect(200, "/a", "hit");
    let nobody = purge(&edge, json!({ "tags": ["nobody"], "refetch": 5 })).await.1;
    assert_eq!(nobody["refetch"], json!({ "requests": 0, "warm_up": null }));
    let (status, receipt) = purge(&edge, body).await;
    assert_eq!((status, &receipt["refetch"]["requests"]), (200, &json!(1)), "{receipt}");
    fetched_again(&edge, &receipt["id"]).await;
    assert_eq!(origin.requests(), 2);
    edge.get("/a").await.expect(200, "/a", "hit");
}
