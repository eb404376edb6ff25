//! A request that names a purge is not answered from memory by a node that has not applied it.

use std::time::Duration;

use atoll::replication::{Identity, Incarnation, Source};
use serde_json::json;

use super::{changing, steady};
use crate::support::edge::HOST;
use crate::support::{Edge, Origin, Response};

const FIELD: &str = "Atoll-Purge-Position";

fn identity(sequence: u64) -> Identity {
    let source = Source { incarnation: Incarnation(0xab), node: "fra-1".into() };
    Identity { source, sequence }
}

async fn after(edge: &Edge, position: &str) -> Response {
    edge.fill_with("/a", &[(FIELD, position)]).await
}

#[tokio::test]
async fn memory_answers_once_the_purge_is_in_force_here() {
    let origin = Origin::start(steady);
    let edge = Edge::before(&origin)
        .site("without_lease = \"serve\"")
        .limits("position_wait = \"10ms\"")
        .start();
    edge.fill("/a").await;
    let named = identity(3).to_string();
    after(&edge, &named).await.expect(200, "v1", "detail=purge-position");
    edge.purges().positions().note(&identity(2).source, 2);
    after(&edge, &named).await.expect(200, "v1", "fwd-status=304");
    edge.purges().positions().note(&identity(3).source, 3);
    after(&edge, &named).await.expect(200, "v1", "hit");
    let two = format!("{}, {}", identity(1), identity(3));
    after(&edge, &two).await.expect(200, "v1", "hit");
    let seen = origin.seen("/a", 3).await;
    assert!(seen.iter().all(|seen| seen.field(FIELD).is_none()), "it is for us alone");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn a_request_waits_shortly_for_the_purge_that_it_names() {
    let origin = Origin::start(changing);
    let edge = Edge::before(&origin).limits("position_wait = \"5s\"").start();
    edge.fill("/a").await;
    let named = identity(1).to_string();
    let (answer, ()) = tokio::join!(after(&edge, &named), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        edge.purges().positions().note(&identity(1).source, 1);
    });
    answer.expect(200, "v1", "hit");
    assert_eq!(edge.metric("atoll_purge_positions_total{result=\"waited\"}").await, 1.0);
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn a_node_without_a_mesh_knows_its_own_purges() {
    let origin = Origin::start(changing);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let receipt = edge.purge(json!({ "urls": [format!("http://{HOST}/b")] })).await;
    let id = receipt["id"].as_str().expect("an identity").to_owned();
    after(&edge, &id).await.expect(200, "v1", "hit");
    // The next one has not been made yet.
    let (life, number) = id.rsplit_once(['.', '/']).unwrap();
    let next = number.parse::<u64>().unwrap() + 1;
    let separator = &id[life.len()..=life.len()];
    let answer = after(&edge, &format!("{life}{separator}{next}")).await;
    answer.expect(200, "v2", "detail=purge-position");
}

#[tokio::test]
async fn what_cannot_be_read_has_the_origin_asked() {
    let origin = Origin::start(changing);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    edge.purges().positions().note(&identity(9).source, 9);
    let many = vec![identity(1).to_string(); 9].join(", ");
    for (nth, position) in ["nonsense", "", &many].into_iter().enumerate() {
        let body = format!("v{}", nth + 2);
        after(&edge, position).await.expect(200, &body, "detail=purge-position");
    }
    assert_eq!(edge.metric("atoll_purge_positions_total{result=\"unreadable\"}").await, 3.0);
    edge.get("/a").await.expect(200, "v4", "hit");
}

#[tokio::test]
async fn one_client_cannot_have_the_origin_asked_as_often_as_it_likes() {
    let origin = Origin::start(steady);
    let edge = Edge::before(&origin).limits("positions_per_client = 2").start();
    edge.fill("/a").await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = edge.get_with("/a", &[(FIELD, "nonsense")]).await;
        refused += usize::from(answer.status() == 429);
        if answer.status() == 429 {
            assert_eq!(answer.field("retry-after"), Some("1"));
        }
    }
    assert!(refused > 0);
    edge.get("/a").await.expect(200, "v1", "hit");
    // What goes to the origin in any case is not counted.
    let post = edge.ask("DELETE", HOST, "/b", &[(FIELD, "nonsense")]).await;
    assert_eq!(post.status(), 200);
}
