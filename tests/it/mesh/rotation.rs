//! The mesh's authority is exchanged while it works, and who is left behind is cut off.

use std::fs;
use std::time::Duration;

use atoll::clock;
use atoll::mesh::{AUTHORITY_FILE, Authority};

use super::{NAMES, POPS, Reef, holds, purge, until, view};
use crate::support::Edge;

/// Longer than it takes a node to notice that its files have changed.
const NOTICED: Duration = Duration::from_millis(2_500);

const CUT: &str = "atoll_mesh_links_closed_total{reason=\"certificate\"}";

fn write(reef: &Reef, name: &str, text: &str) {
    fs::write(reef.folder.path().join(name), text).unwrap();
}

fn read(reef: &Reef, name: &str) -> String {
    fs::read_to_string(reef.folder.path().join(name)).unwrap()
}

/// Has a node show a certificate of another authority.
fn show(reef: &Reef, authority: &Authority, node: usize) {
    let name = NAMES[node];
    let issued = authority.issue(name, POPS[node], 1, clock::now()).unwrap();
    write(reef, &format!("{name}.key"), &issued.key);
    write(reef, &format!("{name}.pem"), &issued.certificate);
}

/// Purges that are acknowledged, one after the other, until nodes have noticed what was written.
async fn purged_all_along(reef: &Reef) {
    let began = clock::now();
    while clock::now().since(began) < NOTICED {
        for node in [0, 1] {
            let receipt = reef.node(node).purge(purge("/a", "acknowledged")).await;
            assert_eq!(receipt["state"], "acknowledged", "{receipt}");
        }
    }
}

async fn links(edge: &Edge, to: &str) -> String {
    let view = view(edge).await;
    let nodes = view["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["name"] == to).expect("in the roster");
    node["link"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_authority_gives_way_to_another_while_purges_are_acknowledged() {
    let reef = Reef::start().await;
    let (first, second) = (read(&reef, AUTHORITY_FILE), Authority::new(clock::now()).unwrap());
    purged_all_along(&reef).await;
    write(&reef, AUTHORITY_FILE, &(first + second.certificate()));
    purged_all_along(&reef).await;
    (0..NAMES.len()).for_each(|node| show(&reef, &second, node));
    purged_all_along(&reef).await;
    for edge in reef.nodes.iter().flatten() {
        assert!(edge.metric(CUT).await < 0.5, "both are trusted");
    }
    write(&reef, AUTHORITY_FILE, second.certificate());
    purged_all_along(&reef).await;
    let mut cut = 0.0;
    for edge in reef.nodes.iter().flatten() {
        cut += edge.metric(CUT).await;
        assert!(edge.metric("atoll_mesh_lease_lost_total").await < 0.5, "the lease was held");
    }
    assert!(cut > 2.5, "three links were made under the first one, and {cut} have ended");
    for (node, name) in (0..NAMES.len()).flat_map(|node| NAMES.map(|name| (node, name))) {
        if NAMES[node] != name {
            let edge = reef.node(node);
            until("a link under the second", || async { links(edge, name).await == "up" }).await;
        }
    }
}

#[tokio::test]
async fn a_node_that_is_left_behind_is_cut_off_and_answers_nothing_unasked() {
    let mut reef = Reef::before();
    let first = read(&reef, AUTHORITY_FILE);
    reef.begin(0);
    reef.begin(1);
    write(&reef, "former-ca.pem", &first);
    reef.begin_as(2, |file| file.replace(AUTHORITY_FILE, "former-ca.pem"));
    reef.all_hold().await;
    reef.node(2).fill("/a").await;
    assert!(reef.node(2).get("/a").await.cache().contains("hit"));
    let second = Authority::new(clock::now()).unwrap();
    write(&reef, AUTHORITY_FILE, &(first + second.certificate()));
    purged_all_along(&reef).await;
    [0, 1].into_iter().for_each(|node| show(&reef, &second, node));
    purged_all_along(&reef).await;
    write(&reef, AUTHORITY_FILE, second.certificate());
    for node in [0, 1] {
        let edge = reef.node(node);
        until("the link to end", || async { links(edge, "c").await != "up" }).await;
        assert!(edge.metric(CUT).await > 0.5);
    }
    holds(reef.node(2), false).await;
    purged_all_along(&reef).await;
    let asked = reef.origin.count("/a");
    reef.node(2).get("/a").await;
    assert_eq!(reef.origin.count("/a"), asked + 1, "the origin has the last word");
}
