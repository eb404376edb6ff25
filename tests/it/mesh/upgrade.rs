//! A node of a mesh whose program is replaced: one process at a time is the node, and a purge that
//! is acknowledged is never undone by the one that leaves.

use serde_json::Value;

use super::{Reef, holds, purge, view};
use crate::support::edge::HOST;
use crate::support::program::Program;
use crate::support::{Connection, until};

impl Reef {
    /// Two nodes of this process, and the first one as a program of its own.
    async fn with_program(limits: &str) -> (Self, Program) {
        let mut reef = Self::before();
        reef.begin(1);
        reef.begin(2);
        let limits = format!("[limits]\n{limits}");
        let text = reef.file(0).replace("[limits]\ndrain_notice = \"0s\"", &limits);
        let file = reef.folder.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        let program = Program::of_file(&file, &[]);
        reef.all_hold().await;
        until("the program's lease", || async { seen_by(&program).await["lease"]["held"] == true })
            .await;
        (reef, program)
    }
}

async fn seen_by(program: &Program) -> Value {
    let answer = program.manage("GET", "/v1/mesh", None).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// A purge of a path that the program is asked for.
async fn purged_at(program: &Program, path: &str, wait: &str) -> (u16, Value) {
    let body = purge(path, wait).to_string();
    let answer = program.manage("POST", "/v1/purge", Some(&body)).await;
    (answer.status(), serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test]
async fn an_upgraded_node_knows_all_purges_and_the_process_that_leaves_serves_none_of_them() {
    let (reef, mut program) = Reef::with_program("drain_notice = \"4s\"").await;
    let mut kept = Connection::open(program.plain).await;
    for _ in 0..2 {
        assert_eq!(kept.get(HOST, "/a", &[]).await.text(), "v1");
    }
    let (status, told) = purged_at(&program, "/before", "everywhere").await;
    assert_eq!((status, &told["state"]), (200, &"everywhere".into()), "{told}");
    let before = seen_by(&program).await;
    program.upgrade().await;
    let after = seen_by(&program).await;
    assert_ne!(before["incarnation"], after["incarnation"], "another life");
    assert_eq!(after["caught_up"], true, "clients come when it knows all: {after}");
    // The process that leaves has no lease, so what it stored is worth nothing unasked.
    let receipt = reef.node(1).purge(purge("/a", "acknowledged")).await;
    assert_eq!(receipt["state"], "acknowledged", "{receipt}");
    let answer = kept.get(HOST, "/a", &[]).await;
    assert_eq!(answer.head.field("connection"), Some("close"), "it is the one that leaves");
    assert_ne!(answer.text(), "v1", "{answer:?}");
    let mut new = Connection::open(program.plain).await;
    assert_ne!(new.get(HOST, "/a", &[]).await.text(), "v1");
    // The node issues and bears witness as before.
    reef.node(2).fill("/b").await;
    let (status, told) = purged_at(&program, "/b", "everywhere").await;
    assert_eq!((status, &told["state"]), (200, &"everywhere".into()), "{told}");
    let answer = reef.node(2).get("/b").await;
    assert!(answer.cache().contains("fwd="), "{answer:?}");
    until("it counts as a witness", || async {
        seen_by(&program).await["witnesses"]["serving"] == true
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_that_fails_gives_the_node_its_place_back() {
    let (mut reef, program) = Reef::with_program("upgrade = \"4s\"").await;
    let mut kept = Connection::open(program.plain).await;
    for _ in 0..2 {
        assert_eq!(kept.get(HOST, "/a", &[]).await.text(), "v1");
    }
    let before = seen_by(&program).await;
    // Without the others there is no lease, for which the new process waits longer than it may.
    reef.end(1).await;
    reef.end(2).await;
    let answer = program.manage("POST", "/v1/upgrade", None).await;
    assert_eq!(answer.status(), 504, "{answer:?}");
    reef.begin(1);
    reef.begin(2);
    reef.all_hold().await;
    let missed = purge("/a", "acknowledged");
    let receipt = reef.node(1).purge(missed).await;
    assert_eq!(receipt["state"], "acknowledged", "{receipt}");
    assert_ne!(kept.get(HOST, "/a", &[]).await.text(), "v1", "the same process, which knows");
    until("the lease", || async { seen_by(&program).await["lease"]["held"] == true }).await;
    assert_ne!(seen_by(&program).await["incarnation"], before["incarnation"]);
    let (status, told) = purged_at(&program, "/b", "everywhere").await;
    assert_eq!((status, &told["state"]), (200, &"everywhere".into()), "{told}");
    holds(reef.node(1), true).await;
    assert_eq!(view(reef.node(1)).await["missing"], 0);
}

#[tokio::test]
async fn a_purge_at_a_node_that_is_being_handed_over_is_refused_and_goes_through_later() {
    let (mut reef, program) = Reef::with_program("upgrade = \"4s\"").await;
    let (status, told) = purged_at(&program, "/before", "everywhere").await;
    assert_eq!((status, &told["state"]), (200, &"everywhere".into()), "{told}");
    // Nobody has a lease, which the new process waits for; the old one is the node no more by then.
    reef.end(1).await;
    reef.end(2).await;
    let body = purge("/a", "local").to_string();
    let refused = async {
        loop {
            let answer = program.manage("POST", "/v1/purge", Some(&body)).await;
            if answer.status() != 200 {
                return answer;
            }
        }
    };
    let upgraded = program.manage("POST", "/v1/upgrade", None);
    let (upgraded, refused) = tokio::join!(upgraded, refused);
    let told: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status(), &told["code"]), (429, &"mesh-elsewhere".into()), "{told}");
    assert_eq!(refused.field("retry-after"), Some("1"), "{refused:?}");
    assert_eq!(upgraded.status(), 504, "{upgraded:?}");
    let again = || async { purged_at(&program, "/a", "local").await.0 == 200 };
    until("the purge to be taken, as the node has its place back", again).await;
    reef.begin(1);
    reef.begin(2);
    reef.all_hold().await;
    let (status, told) = purged_at(&program, "/a", "everywhere").await;
    assert_eq!((status, &told["state"]), (200, &"everywhere".into()), "{told}");
}
