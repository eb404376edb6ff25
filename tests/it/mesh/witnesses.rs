//! Another node takes a witness's place, and the former one does not go on by an old file.

use std::time::Duration;

use atoll::clock;

use super::{NAMES, Reef, purge, until, view};

/// Longer than a witness needs that may begin by itself, and a lease lasts.
const LONG: Duration = Duration::from_secs(3);

/// A node's file with another witness.
fn witnessed_by(file: &str, who: &str) -> String {
    let all = format!("witnesses = {NAMES:?}");
    assert!(file.contains(&all), "{file}");
    file.replace(&all, &format!("witnesses = [{who:?}]"))
}

#[tokio::test]
async fn more_witnesses_than_the_nodes_allow_are_not_replaced_at_once() {
    let reef = Reef::start().await;
    for _ in 0..2 {
        reef.node(1).rewrite(&witnessed_by(&reef.file(1), "b"));
        let answer = reef.node(1).reload().await;
        assert_eq!(answer.status(), 422, "{answer:?}");
        let text = answer.text();
        assert!(
            text.contains("too small for the witnesses to become b instead of a, b, c"),
            "{text}"
        );
    }
    let witnesses = reef.view(1).await["witnesses"].take();
    assert_eq!(witnesses["members"], serde_json::json!(NAMES), "{witnesses}");
    assert_eq!((&witnesses["set"], &witnesses["joining"]), (&1.into(), &serde_json::Value::Null));
    let refused = reef.node(1).metric("atoll_reloads_total{outcome=\"refused\"}").await;
    assert!((refused - 2.0).abs() < 0.1, "what was refused is asked for again: {refused}");
    reef.node(1).rewrite(&reef.file(1));
    assert_eq!(reef.node(1).reload().await.status(), 200, "a file with the former ones is taken");
    let receipt = reef.node(0).purge(purge("/a", "everywhere")).await;
    assert_eq!(receipt["state"], "everywhere", "{receipt}");
}

#[tokio::test]
async fn a_former_witness_that_lost_its_log_is_none_whatever_its_file_says() {
    let mut reef = Reef::before();
    let old = |file: String| witnessed_by(&file, "a");
    (0..NAMES.len()).for_each(|node| reef.begin_as(node, old));
    reef.all_hold().await;
    reef.node(1).rewrite(&witnessed_by(&reef.file(1), "b"));
    let answer = reef.node(1).reload().await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    for node in 0..NAMES.len() {
        until("the other witness", || async {
            let witnesses = reef.view(node).await["witnesses"].take();
            witnesses["set"] == 3 && witnesses["members"] == serde_json::json!(["b"])
        })
        .await;
    }
    for node in 0..NAMES.len() {
        reef.end(node).await;
    }
    std::fs::remove_dir_all(reef.folder.path().join("log-a")).unwrap();
    // By its file it is the only witness, and there is nobody who could tell.
    reef.begin_as(0, old);
    let began = clock::now();
    until("some time alone", || async {
        let view = view(reef.node(0)).await;
        assert_eq!(view["lease"]["held"], false, "{view}");
        assert_eq!(view["witnesses"]["serving"], false, "{view}");
        clock::now().since(began) > LONG
    })
    .await;
    // One that was never a witness has it on its disk, by whatever file it is started.
    reef.begin_as(2, old);
    until("word of the newer set", || async {
        let view = view(reef.node(0)).await;
        assert_eq!(view["lease"]["held"], false, "{view}");
        view["witnesses"]["set"] == 3
    })
    .await;
    reef.begin_as(1, old);
    reef.all_hold().await;
    let receipt = reef.node(0).purge(purge("/a", "everywhere")).await;
    assert_eq!(receipt["state"], "everywhere", "{receipt}");
    let view = view(reef.node(1)).await;
    assert_eq!(view["witnesses"]["serving"], true, "{view}");
}
