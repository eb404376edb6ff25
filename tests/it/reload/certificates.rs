//! Certificates that are replaced under their names.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::certificate::{Certificate, Folder};
use crate::support::edge::HOST;
use crate::support::{Edge, H2, Origin, Reply, until, within};

/// Two pairs for the same name, to be written over the one that is configured.
struct Pairs {
    in_use: Certificate,
    others: [(Vec<u8>, Vec<u8>); 2],
    _folders: [Folder; 3],
}

impl Pairs {
    fn new() -> Self {
        let folders = [Folder::new(), Folder::new(), Folder::new()];
        let read = |folder: &Folder| {
            let made = Certificate::new(folder, &[HOST]);
            (fs::read(made.chain).unwrap(), fs::read(made.key).unwrap())
        };
        let others = [read(&folders[1]), read(&folders[2])];
        Self { in_use: Certificate::new(&folders[0], &[HOST]), others, _folders: folders }
    }

    /// Puts another pair there, the chain before the key, with time between them.
    async fn replace(&self, turn: usize) {
        let (chain, key) = &self.others[turn % 2];
        fs::write(&self.in_use.chain, chain).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        fs::write(&self.in_use.key, key).unwrap();
    }
}

async fn replaced_under_load(times: usize) {
    let origin = Origin::serving(Reply::fresh("x"));
    let pairs = Pairs::new();
    let edge = Edge::before(&origin)
        .listener("127.0.0.1:0", &format!("tls = true\n{}", pairs.in_use.toml()))
        .limits("certificate_check = \"5ms\"")
        .start_from_file();
    let (going, shaken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..2)
        .map(|_| {
            let (going, shaken, address) = (Arc::clone(&going), Arc::clone(&shaken), edge.tls());
            tokio::spawn(async move {
                while going.load(Ordering::SeqCst) {
                    let mut client = H2::tls(address, HOST).await;
                    assert_eq!(client.get("/a", &[]).await.status(), 200);
                    shaken.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for turn in 0..times {
        pairs.replace(turn).await;
        let changed = || async { edge.metric("atoll_certificates_changed_total").await };
        until("the change", || async { changed().await > turn as f64 + 0.5 }).await;
    }
    going.store(false, Ordering::SeqCst);
    for visitor in visitors {
        within("a visitor to end", visitor).await.expect("no failed handshake");
    }
    assert!(shaken.load(Ordering::SeqCst) > 0);
    assert!((edge.metric("atoll_tls_handshake_failures_total").await).abs() < 0.5);
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_are_replaced() {
    replaced_under_load(20).await;
}

#[tokio::test]
#[ignore = "a minute, to be run by hand"]
async fn no_handshake_fails_in_a_thousand_replacements() {
    replaced_under_load(1000).await;
}

#[tokio::test]
async fn a_broken_pair_leaves_the_one_before_in_use_and_is_told_once() {
    let origin = Origin::serving(Reply::fresh("x"));
    let pairs = Pairs::new();
    let edge = Edge::before(&origin)
        .listener("127.0.0.1:0", &format!("tls = true\n{}", pairs.in_use.toml()))
        .limits("certificate_check = \"5ms\"")
        .start_from_file();
    let expires = edge.metric("atoll_certificate_expires_timestamp_seconds").await;
    assert!(expires > 1e9);
    fs::write(&pairs.in_use.chain, "-----BEGIN CERTIFICATE-----\nMII").unwrap();
    edge.metric_becomes("atoll_certificates_refused_total", 1.0).await;
    let mut client = H2::tls(edge.tls(), HOST).await;
    assert_eq!(client.get("/a", &[]).await.status(), 200);
    // A reload would take it for a mistake of the configuration.
    assert_eq!(edge.reload().await.status(), 422);
    pairs.replace(0).await;
    until("the sound pair", || async {
        edge.metric("atoll_certificates_changed_total").await > 0.5
    })
    .await;
    let mut client = H2::tls(edge.tls(), HOST).await;
    assert_eq!(client.get("/a", &[]).await.status(), 200);
    assert_eq!(edge.reload().await.status(), 200);
}
