//! A played mesh of six nodes in three PoPs: what a sender who waits is told.

use serde_json::{Value, json};

use super::super::tests::{Answer, Bench, LIFE, bench, bench_of};
use super::*;
use crate::mesh::{Busy, NodeReceipt, ReceiptState, ReceiptView};
use crate::telemetry::test_config;

use ReceiptState::{Applied, Fenced, Unknown};

/// Six nodes, the node itself first, in an order that is not that of the answer.
fn mesh(acknowledged: Option<f64>, states: [ReceiptState; 6]) -> Option<ReceiptView> {
    let names =
        [("n1", "p1"), ("z2", "zrh"), ("n2", "p1"), ("z1", "zrh"), ("a1", "ams"), ("a2", "ams")];
    let node = |((name, pop), state): ((&str, &str), ReceiptState)| NodeReceipt {
        name: name.into(),
        pop: pop.into(),
        state,
        applied_ms: (state == Applied).then_some(3.5),
        why: (state == Unknown).then_some("link down"),
    };
    Some(ReceiptView {
        identity: String::new(),
        age_ms: 10.0,
        acknowledged_ms: acknowledged,
        everywhere: acknowledged.is_some() && !states.contains(&Unknown),
        nodes: names.into_iter().zip(states).map(node).collect(),
    })
}

const BEGUN: [ReceiptState; 6] = [Applied, Unknown, Unknown, Unknown, Unknown, Unknown];
const NEARLY: [ReceiptState; 6] = [Applied, Unknown, Applied, Applied, Applied, Unknown];
const SETTLED: [ReceiptState; 6] = [Applied, Fenced, Applied, Applied, Applied, Applied];

fn body(wait: &str, timeout: &str) -> String {
    json!({"site": "shop", "tags": ["a"], "wait": wait, "timeout": timeout}).to_string()
}

async fn purge(bench: &Bench, wait: &str, timeout: &str) -> Answer {
    bench.ask("POST", "/v1/purge", "purge", &body(wait, timeout)).await
}

fn play(bench: &Bench, receipt: Option<ReceiptView>) {
    bench.control.standing.send_replace(receipt);
}

#[tokio::test]
async fn what_was_asked_for_and_reached_is_200_and_the_rest_503_with_the_state() {
    for (wait, receipt, status, state, code) in [
        ("local", mesh(None, BEGUN), 200, "local", Value::Null),
        ("acknowledged", mesh(Some(2.0), BEGUN), 200, "acknowledged", Value::Null),
        ("acknowledged", mesh(Some(2.0), SETTLED), 200, "acknowledged", Value::Null),
        ("everywhere", mesh(Some(2.0), SETTLED), 200, "everywhere", Value::Null),
        ("acknowledged", mesh(None, BEGUN), 503, "local", json!("not-acknowledged")),
        ("everywhere", mesh(None, BEGUN), 503, "local", json!("not-acknowledged")),
        ("everywhere", mesh(Some(2.0), NEARLY), 503, "acknowledged", json!("not-everywhere")),
        ("acknowledged", None, 503, "local", json!("not-acknowledged")),
    ] {
        let bench = bench();
        play(&bench, receipt);
        let answer = purge(&bench, wait, "20ms").await;
        let told = answer.json();
        assert_eq!((answer.status, &told["state"]), (status, &json!(state)), "{wait}: {told}");
        assert_eq!(told["code"], code, "{told}");
        assert_eq!(told["id"], format!("n1.{LIFE}.1"), "whatever came of it, it is named: {told}");
    }
}

#[tokio::test]
async fn a_late_purge_says_what_to_do_and_how_each_node_stands() {
    let bench = bench();
    play(&bench, mesh(None, NEARLY));
    let answer = purge(&bench, "everywhere", "10ms").await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("retry-after"), "1");
    let told = answer.json();
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("may or may not take effect: repeat it"), "{detail}");
    assert!(detail.contains("within 10ms"), "{detail}");
    assert_eq!(
        (&told["applied"], &told["fenced"], &told["unknown"]),
        (&json!(4), &json!(0), &json!(2))
    );
    let nodes: Vec<(&str, &str, &str)> = told["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| ["pop", "name", "state"].map(|name| node[name].as_str().unwrap()).into())
        .collect();
    let expected = [
        ("ams", "a1", "applied"),
        ("ams", "a2", "unknown"),
        ("p1", "n1", "applied"),
        ("p1", "n2", "applied"),
        ("zrh", "z1", "applied"),
        ("zrh", "z2", "unknown"),
    ];
    assert_eq!(nodes, expected, "by PoP and name");
    assert_eq!(told["nodes"][1]["why"], "link down");
    assert_eq!(
        (&told["nodes"][0]["applied_ms"], &told["nodes"][1]["applied_ms"]),
        (&json!(3.5), &Value::Null)
    );
    play(&bench, mesh(Some(2.0), NEARLY));
    let told = purge(&bench, "everywhere", "10ms").await.json();
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.contains("acknowledged, but not everywhere") && detail.contains("a2, z2"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_wait_ends_when_the_level_is_reached_and_not_before() {
    let bench = bench();
    play(&bench, mesh(None, BEGUN));
    let waiting = purge(&bench, "everywhere", "5m");
    let plays = async {
        // The purge waits by now, or finds it so when it looks.
        while bench.control.purges.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        play(&bench, mesh(Some(2.0), NEARLY));
        tokio::task::yield_now().await;
        play(&bench, mesh(Some(2.0), SETTLED));
    };
    let (answer, ()) = tokio::join!(waiting, plays);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("everywhere")));
    assert_eq!(answer.json()["fenced"], 1);
}

#[tokio::test]
async fn the_same_again_is_the_same_purge_as_it_stands_now() {
    let bench = bench();
    play(&bench, mesh(None, BEGUN));
    let body = body("acknowledged", "10ms");
    let again = || bench.ask_with("POST", "/v1/purge", "purge", &[("idempotency-key", "k")], &body);
    let first = again().await;
    assert_eq!(first.status, 503);
    play(&bench, mesh(Some(2.0), NEARLY));
    let second = again().await;
    assert_eq!((second.status, &second.json()["id"]), (200, &first.json()["id"]));
    play(&bench, None);
    let third = again().await;
    assert_eq!(
        third.status, 200,
        "what was acknowledged stays so when the mesh forgot: {}",
        third.body
    );
    assert_eq!(bench.control.purges.lock().unwrap().len(), 1, "and all was done once");
}

#[tokio::test]
async fn the_same_again_is_done_again_where_the_first_can_come_no_further() {
    let bench = bench();
    play(&bench, mesh(None, BEGUN));
    let body = body("acknowledged", "10ms");
    let again = || bench.ask_with("POST", "/v1/purge", "purge", &[("idempotency-key", "k")], &body);
    let first = again().await;
    assert_eq!(again().await.json()["id"], first.json()["id"], "it may still come further");
    play(&bench, None);
    let second = again().await;
    assert_eq!(second.status, 503);
    assert_ne!(second.json()["id"], first.json()["id"]);
    play(&bench, mesh(Some(2.0), SETTLED));
    let third = again().await;
    assert_eq!((third.status, &third.json()["id"]), (200, &second.json()["id"]));
    assert_eq!(bench.control.purges.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn only_so_many_wait_and_the_rest_are_told_at_once() {
    let mut config = test_config();
    config.admin.purge_waits.places = 1;
    let bench = bench_of(config);
    play(&bench, mesh(None, BEGUN));
    let held = bench.admin.waits.try_acquire().unwrap();
    let answer = purge(&bench, "acknowledged", "5m").await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not-acknowledged")));
    assert!(answer.body.contains("as many purges are waited for as may"), "{}", answer.body);
    assert_eq!(purge(&bench, "local", "5m").await.status, 200, "who does not wait needs no place");
    play(&bench, mesh(Some(1.0), SETTLED));
    assert_eq!(
        purge(&bench, "everywhere", "5m").await.status,
        200,
        "nor does who is there already"
    );
    drop(held);
    play(&bench, mesh(None, BEGUN));
    let answer = purge(&bench, "acknowledged", "10ms").await;
    assert!(answer.body.contains("within 10ms"), "{}", answer.body);
    assert_eq!(bench.admin.waits.available_permits(), 1, "the place is given back");
}

#[tokio::test]
async fn a_site_that_is_served_without_a_lease_has_no_fence() {
    let mut config = test_config();
    let without_lease = crate::semantics::WithoutLease::Serve;
    let policy = crate::semantics::Policy { without_lease, ..Default::default() };
    config.sites[0].rules =
        vec![crate::config::Rule { path: "/".into(), policy: Arc::new(policy) }];
    let bench = bench_of(config);
    play(&bench, mesh(Some(2.0), SETTLED));
    let told = purge(&bench, "everywhere", "10ms").await;
    assert_eq!((told.status, &told.json()["unknown"]), (503, &json!(1)));
    assert!(told.body.contains("its site is served without a lease"), "{}", told.body);
    let blog = r#"{"site":"blog","tags":["a"],"wait":"everywhere","timeout":"10ms"}"#;
    assert_eq!(
        bench.ask("POST", "/v1/purge", "purge", blog).await.status,
        200,
        "the other site has"
    );
    let all = r#"{"all":true,"wait":"everywhere","timeout":"10ms"}"#;
    assert_eq!(bench.ask("POST", "/v1/purge", "purge-all", all).await.status, 503);
}

#[tokio::test]
async fn what_the_mesh_does_not_take_is_not_done() {
    let again = Duration::from_millis(1500);
    for (why, status, code) in [
        (Busy::TooMany { again }, 429, "mesh-rate"),
        (Busy::Elsewhere { again }, 429, "mesh-elsewhere"),
        (Busy::Barred, 403, "not-an-issuer"),
        (Busy::TooLong, 400, "value"),
    ] {
        let bench = bench();
        *bench.control.refuses.lock().unwrap() = Some(why);
        let answer = purge(&bench, "local", "1s").await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)));
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "2");
        }
        assert!(bench.control.purges.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn one_purge_is_told_with_the_nodes_by_number_and_by_either_form_of_its_name() {
    let bench = bench();
    play(&bench, mesh(Some(2.0), NEARLY));
    assert_eq!(purge(&bench, "local", "1s").await.status, 200);
    let ids = ["1".to_owned(), format!("n1.{LIFE}.1"), format!("n1%2F{LIFE}%2f1")];
    for id in ids {
        let told = bench.ask("GET", &format!("/v1/purges/{id}"), "read", "").await;
        assert_eq!(told.status, 200, "{id}: {}", told.body);
        let told = told.json();
        assert_eq!(
            (&told["state"], &told["unknown"]),
            (&json!("acknowledged"), &json!(2)),
            "{told}"
        );
        assert_eq!(told["nodes"][2]["name"], "n1");
        assert_eq!(told["id"], format!("n1.{LIFE}.1"));
    }
    for id in ["2", "0", "18446744073709551616", "n1", "n1%2f1", "n1%zz", "n2.00000000000000ff.1"] {
        assert_eq!(
            bench.ask("GET", &format!("/v1/purges/{id}"), "read", "").await.status,
            404,
            "{id}"
        );
    }
    assert_eq!(bench.ask("GET", "/v1/purges/1", "blogger", "").await.status, 404, "not its site's");
    play(&bench, None);
    let told = bench.ask("GET", "/v1/purges/1", "read", "").await.json();
    assert!(
        told["state"].is_null() && told.get("nodes").is_none(),
        "nothing is known any more: {told}"
    );
}
