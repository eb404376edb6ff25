//! What a purge is answered with, and what is told of it later, by a node that is alone: it is
//! everywhere at once, whatever is asked for.

use serde_json::{Value, json};

use crate::support::{Edge, Origin, Reply};

fn origin() -> Origin {
    Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)).field("Surrogate-Key", "t"))
}

async fn manage(edge: &Edge, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let answer = edge.manage(method, path, body).await;
    (answer.status(), serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test]
async fn whatever_is_waited_for_is_there_at_once_and_in_force() {
    let origin = origin();
    let edge = Edge::start(&origin);
    for (nth, wait) in ["local", "acknowledged", "everywhere"].into_iter().enumerate() {
        edge.fill("/a").await;
        let body = json!({ "tags": ["t"], "wait": wait, "timeout": "0s" });
        let (status, told) = manage(&edge, "POST", "/v1/purge", Some(body)).await;
        assert_eq!((status, &told["state"]), (200, &json!(wait)), "{told}");
        let nodes = told["nodes"].as_array().map(Vec::len);
        assert_eq!(nodes, (wait != "local").then_some(1), "{told}");
        assert_eq!(edge.get("/a").await.text(), format!("v{}", 2 * nth + 2), "{wait}");
        edge.settled().await;
        edge.purge(json!({ "tags": ["t"] })).await;
    }
}

#[tokio::test]
async fn a_purge_is_found_by_its_number_and_by_both_forms_of_its_name() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let body = json!({ "tags": ["t"], "wait": "everywhere" });
    let (_, receipt) = manage(&edge, "POST", "/v1/purge", Some(body)).await;
    let id = receipt["id"].as_str().unwrap();
    let (node, number) = id.rsplit_once('.').unwrap();
    let (node, life) = node.rsplit_once('.').unwrap();
    for path in [id.to_owned(), number.to_owned(), format!("{node}%2F{life}%2F{number}")] {
        let (status, told) = manage(&edge, "GET", &format!("/v1/purges/{path}"), None).await;
        assert_eq!((status, &told["id"]), (200, &receipt["id"]), "{path}: {told}");
        assert_eq!((&told["state"], &told["applied"]), (&json!("everywhere"), &json!(1)));
        let own = &told["nodes"][0];
        assert_eq!((&own["state"], &own["applied_ms"]), (&json!("applied"), &json!(0.0)));
    }
    let (status, _) = manage(&edge, "GET", "/v1/purges/2", None).await;
    assert_eq!(status, 404, "what was not purged yet is not known");
}

#[tokio::test]
async fn a_node_alone_tells_of_a_mesh_of_one() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.purge(json!({ "tags": ["t"] })).await;
    let (status, mesh) = manage(&edge, "GET", "/v1/mesh", None).await;
    assert_eq!(status, 200);
    assert_eq!((&mesh["nodes"][0]["link"], &mesh["lease"]["held"]), (&json!("own"), &json!(true)));
    assert_eq!(mesh["vector"][0]["sequence"], 1);
    let (_, status) = manage(&edge, "GET", "/v1/status", None).await;
    assert_eq!((&status["mesh"]["nodes"], &status["mesh"]["links_up"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_time_beyond_the_longest_is_refused_and_nothing_is_purged() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let body = json!({ "tags": ["t"], "wait": "everywhere", "timeout": "6m" });
    let (status, told) = manage(&edge, "POST", "/v1/purge", Some(body)).await;
    assert_eq!((status, &told["field"]), (400, &json!("timeout")));
    edge.get("/a").await.expect(200, "v1", "hit");
}
