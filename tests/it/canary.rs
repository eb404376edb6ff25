//! A mesh with a canary: it finds that all is well, and it finds who keeps what was purged.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::mesh::Reef;
use crate::support::certificate::Certificate;
use crate::support::relay::Relay;
use crate::support::{Edge, Origin, Reply, until};

const CANARY: &str = "canary.test";

/// Starts three nodes, the first with a canary that fetches through `source` and reads at `doors`, the second
/// of them over TLS.
async fn start(source: &Relay, doors: [SocketAddr; 3]) -> Reef {
    let mut reef = Reef::before();
    let certificate = Certificate::new(&reef.folder, &[CANARY]);
    let site = format!(
        "[[origin]]\nname = \"canary\"\nservers = [\"http://{}\"]\n\
         [[site]]\nname = \"canary\"\nhosts = [{CANARY:?}]\norigin = \"canary\"\n",
        source.address
    );
    let mut prober = format!(
        "[mesh.canary]\nlisten = \"127.0.0.1:0\"\nhost = {CANARY:?}\ninterval = \"1s\"\nca = {:?}\n",
        certificate.chain.display().to_string()
    );
    for ((name, scheme), door) in [("a", "http"), ("b", "https"), ("c", "http")].iter().zip(doors) {
        let _ = writeln!(
            prober,
            "[[mesh.canary.node]]\nname = \"{name}\"\nurl = \"{scheme}://{door}\""
        );
    }
    let tls = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n";
    reef.begin_as(1, |file| file + &site + tls + &certificate.toml());
    reef.begin_as(2, |file| file + &site);
    reef.begin_as(0, |file| file + &site + &prober);
    source.to(reef.node(0).canary());
    reef
}

async fn at_least(edge: &Edge, metric: &str, least: f64) {
    let what = format!("{metric} to reach {least}");
    until(&what, || async { edge.metric(metric).await > least - 0.5 }).await;
}

async fn last_round(edge: &Edge) -> Value {
    let answer = edge.manage("GET", "/v1/mesh", None).await;
    let mesh: Value = serde_json::from_slice(&answer.body).unwrap();
    mesh["canary"].clone()
}

#[tokio::test]
async fn in_a_mesh_that_is_well_every_node_keeps_the_promise() {
    let source = Relay::start().await;
    let doors = [Relay::start().await, Relay::start().await, Relay::start().await];
    let reef = start(&source, doors.each_ref().map(|door| door.address)).await;
    doors[0].to(reef.node(0).plain());
    doors[1].to(reef.node(1).tls());
    doors[2].to(reef.node(2).plain());
    let edge = reef.node(0);
    reef.all_hold().await;
    at_least(edge, "atoll_canary_rounds_total{outcome=\"kept\"}", 1.0).await;
    for node in ["a", "b", "c"] {
        let kept = format!("atoll_canary_nodes_total{{node=\"{node}\",state=\"kept\"}}");
        assert!(edge.metric(&kept).await > 0.5, "{node}");
        let seen = format!("atoll_canary_old_seconds_count{{node=\"{node}\"}}");
        assert!(edge.metric(&seen).await > 0.5, "{node}");
    }
    let last = last_round(edge).await;
    assert_eq!((&last["broken"], &last["nodes"][2]["name"]), (&0.into(), &"c".into()), "{last}");
    let broken = edge.metric("atoll_canary_broken_promises_total").await;
    assert!(broken < 0.5, "{broken}");
    assert_eq!(last_round(reef.node(1)).await, Value::Null, "one node has it");
    // Its purges are among everybody's.
    let past = edge.manage("GET", "/v1/purges", None).await;
    assert!(past.text().contains("canary.test/canary"), "{past:?}");
}

#[tokio::test]
async fn who_shows_what_was_purged_breaks_it_and_who_cannot_be_read_proves_nothing() {
    let (source, door) = (Relay::start().await, Relay::start().await);
    // A cache of somebody else before the third node, which hears of no purge.
    let kept: Arc<OnceLock<String>> = Arc::default();
    let remembers = Arc::clone(&kept);
    let cache = Origin::start(move |_| match remembers.get() {
        Some(kept) => Reply::fresh(kept.clone()),
        None => Reply::new(503),
    });
    let nobody = Origin::dead().await;
    let reef = start(&source, [door.address, nobody, cache.address]).await;
    door.to(reef.node(0).plain());
    let first = reef.node(2).ask("GET", CANARY, "/canary", &[]).await;
    kept.set(first.text().to_owned()).unwrap();
    let edge = reef.node(0);
    reef.all_hold().await;
    at_least(edge, "atoll_canary_broken_promises_total", 1.0).await;
    at_least(edge, "atoll_canary_nodes_total{node=\"b\",state=\"unknown\"}", 1.0).await;
    at_least(edge, "atoll_canary_rounds_total{outcome=\"broken\"}", 1.0).await;
    let last = last_round(edge).await;
    let states = ["a", "b", "c"].map(|name| {
        let nodes = last["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap()["state"].clone()
    });
    // The first had perhaps no lease yet, so that it had kept nothing.
    assert!(states[0] != "broken" && states[1..] == ["unknown", "broken"], "{last}");
    let (showed, why) = (last["nodes"][2]["old_ms"].as_f64(), &last["nodes"][1]["why"]);
    assert!(showed > Some(2_000.0) && why.is_string(), "{last}");
}
