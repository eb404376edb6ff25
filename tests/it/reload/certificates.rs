//! Certificates that are replaced under their names.

use std::fs;
use std::time::{Duration, SystemTime};

use atoll::clock;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::certificate::{Certificate, Folder, pem};
use crate::support::edge::HOST;
use crate::support::traffic::{self, Traffic};
use crate::support::{Connection, Edge, H2, Origin, Reply, until};

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

async fn replaced_under_load(times: usize, rate: u32) {
    let origin = traffic::origin();
    let pairs = Pairs::new();
    let edge = Edge::before(&origin)
        .tls(&[])
        .certificate(&pairs.in_use)
        .limits("certificate_check = \"5ms\"")
        .start_from_file();
    let traffic = Traffic::start(edge.plain(), Some(edge.tls()), rate);
    traffic.flows().await;
    for turn in 0..times {
        pairs.replace(turn).await;
        let changed = || async { edge.metric("atoll_certificates_changed_total").await };
        until("the change", || async { changed().await > turn as f64 + 0.5 }).await;
    }
    traffic.stop(&format!("{times} new certificates")).await;
    assert!((edge.metric("atoll_tls_handshake_failures_total").await).abs() < 0.5);
}

#[tokio::test]
async fn no_request_fails_while_certificates_are_replaced() {
    replaced_under_load(20, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute at a rate for release builds: run by .ci/long"]
async fn no_request_fails_by_a_thousand_certificates_at_two_thousand_a_second() {
    replaced_under_load(1000, 2000).await;
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

/// A pair for `name` that ends then.
fn ending(name: &str, end: SystemTime) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since;
    let made = params.self_signed(&key).unwrap();
    let key = pem("PRIVATE KEY", &key.serialize_der());
    (pem("CERTIFICATE", made.der()).into_bytes(), key.into_bytes())
}

/// What the edge shows for a name.
async fn shown(edge: &Edge, name: &str) -> Vec<u8> {
    let (_, negotiated) = Connection::open_tls(edge.tls(), Some(name), &[]).await.unwrap();
    negotiated.certificate
}

#[tokio::test]
async fn c06_c08_one_pair_that_cannot_be_used_keeps_all_as_they_were() {
    let origin = Origin::serving(Reply::fresh("x"));
    let (folder, spare) = (Folder::new(), Folder::new());
    let (a, b) = (Certificate::new(&folder, &["a.test"]), Certificate::new(&folder, &["b.test"]));
    let edge = Edge::before(&origin)
        .listener("127.0.0.1:0", &format!("tls = true\n{}{}", a.toml(), b.toml()))
        .limits("certificate_check = \"0s\"")
        .start_from_file();
    let before = (shown(&edge, "a.test").await, shown(&edge, "b.test").await);
    let sound = (fs::read(&a.chain).unwrap(), fs::read(&a.key).unwrap());
    // The other one is sound and new all the while.
    let new = Certificate::new(&spare, &["b.test"]);
    fs::copy(&new.chain, &b.chain).unwrap();
    fs::copy(&new.key, &b.key).unwrap();
    let expired = ending("a.test", SystemTime::UNIX_EPOCH + Duration::from_secs(1_100_000_000));
    let another = Certificate::new(&spare, &["a.test"]);
    let sealed = pem("ENCRYPTED PRIVATE KEY", b"whatever it may be").into_bytes();
    let torn = sound.0[..sound.0.len() / 2].to_vec();
    for (case, chain, key) in [
        ("expired", expired.0, expired.1),
        ("the key of another", sound.0.clone(), fs::read(another.key).unwrap()),
        ("torn", torn, sound.1.clone()),
        ("a key under a password", sound.0.clone(), sealed),
        ("ten million bytes", vec![b'x'; 10_000_000], sound.1.clone()),
        ("nothing", Vec::new(), Vec::new()),
    ] {
        fs::write(&a.chain, chain).unwrap();
        fs::write(&a.key, key).unwrap();
        let answer = edge.reload().await;
        assert_eq!(answer.status(), 422, "{case}: {}", answer.text());
        let now = (shown(&edge, "a.test").await, shown(&edge, "b.test").await);
        assert!(now == before, "{case}");
    }
    fs::write(&a.chain, sound.0).unwrap();
    fs::write(&a.key, sound.1).unwrap();
    assert_eq!(edge.reload().await.status(), 200);
    assert!(shown(&edge, "a.test").await == before.0);
    let new = CertificateDer::from_pem_file(new.chain).unwrap();
    assert_eq!(shown(&edge, "b.test").await, new.as_ref());
}

#[tokio::test]
async fn c07_a_certificate_that_ends_while_in_use_is_shown_on_and_its_end_is_known() {
    let origin = Origin::serving(Reply::fresh("x"));
    let folder = Folder::new();
    let pair = Certificate::new(&folder, &[HOST]);
    let end = clock::now().wall + Duration::from_secs(4);
    let (chain, key) = ending(HOST, end);
    fs::write(&pair.chain, chain).unwrap();
    fs::write(&pair.key, key).unwrap();
    let edge = Edge::before(&origin)
        .listener("127.0.0.1:0", &format!("tls = true\n{}", pair.toml()))
        .limits("certificate_check = \"5ms\"")
        .start_from_file();
    let before = shown(&edge, HOST).await;
    let told = edge.metric("atoll_certificate_expires_timestamp_seconds").await;
    let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((told - seconds).abs() <= 1.0, "{told} for {seconds}");
    until("its end", || async { clock::now().wall > end + Duration::from_secs(1) }).await;
    assert!(shown(&edge, HOST).await == before, "clients judge it, we do not leave them alone");
    let mut client = H2::tls(edge.tls(), HOST).await;
    assert_eq!(client.get("/a", &[]).await.text(), "x");
    assert!((edge.metric("atoll_certificate_expires_timestamp_seconds").await - told).abs() < 0.5);
    // It is not taken up anew, though.
    assert_eq!(edge.reload().await.status(), 422);
    assert_eq!(client.get("/a", &[]).await.text(), "x");
}
