//! A URL has another name under another configuration, and a purge reaches what it names.

use crate::support::{Edge, Origin, Reply};

const LESS: &str = "key_query = { without = [\"utm_*\"] }";

fn origin() -> Origin {
    Origin::start(|seen| {
        Reply::fresh(format!("v{}", seen.nth)).field("ETag", &format!("\"{}\"", seen.nth))
    })
}

#[tokio::test]
async fn what_a_purge_could_not_name_is_no_hit_when_its_name_is_back() {
    let origin = origin();
    let plan = |keys: &str| Edge::before(&origin).site(keys);
    let edge = plan(LESS).start_from_file();
    edge.fill("/a?utm_source=x").await.expect(200, "v1", "stored");
    edge.get("/a?utm_source=y").await.expect(200, "v1", "hit");
    edge.becomes(&plan("key_query = \"all\"")).await;
    edge.purge_path("/a?utm_source=x").await;
    edge.becomes(&plan(LESS)).await;
    let asked = origin.count("/a");
    let answer = edge.get("/a?utm_source=x").await;
    assert!(answer.cache().contains("fwd="), "{answer:?}");
    assert_eq!(origin.count("/a"), asked + 1);
}

#[tokio::test]
async fn a_reload_that_names_nothing_anew_leaves_hits_alone() {
    let origin = origin();
    let plan = |keys: &str| Edge::before(&origin).site(keys);
    let edge = plan(LESS).start_from_file();
    edge.fill("/a?utm_source=x").await;
    edge.becomes(&plan(&format!("{LESS}\ndefault_lifetime = \"9s\""))).await;
    let asked = origin.count("/a");
    assert!(edge.get("/a?utm_source=y").await.cache().contains("hit"));
    assert_eq!(origin.count("/a"), asked);
}
