//! TLS sessions in a mesh: what was begun on one node is resumed on any other.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::mesh::Reef;
use crate::support::certificate::trusting_client_of;
use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Edge, until, within};

/// Three nodes with a TLS listener each, and certificates of their own.
async fn start(rotate: &str) -> Reef {
    let mut reef = Reef::before();
    for node in 0..3 {
        reef.begin_as(node, |file| with_tls(&file, rotate));
    }
    reef.all_hold().await;
    reef
}

fn with_tls(file: &str, rotate: &str) -> String {
    let keys = format!("[mesh]\nticket_keys = \"{rotate}\"\n");
    file.replace("[mesh]\n", &keys) + "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n"
}

/// A client that keeps its sessions, and takes them to whoever has the name.
fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    Arc::new(trusting_client_of(&[version]))
}

/// Asks for something, reads the answer, and tells how the handshake went.
async fn visit(client: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    within("an answer over TLS", async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let mut stream =
            TlsConnector::from(Arc::clone(client)).connect(name, stream).await.unwrap();
        let ask = request("GET", HOST, "/", &[("Connection", "close")]);
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Whether the end of TLS is said is not what is looked at here.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        stream.get_ref().1.handshake_kind().unwrap()
    })
    .await
}

/// Waits until all know a key of the mesh.
async fn shared(reef: &Reef) {
    for node in 1..3 {
        until("a session of one node to be resumed by another", || async {
            let client = client(&TLS13);
            visit(&client, reef.node(0).tls()).await;
            visit(&client, reef.node(node).tls()).await == HandshakeKind::Resumed
        })
        .await;
    }
}

async fn made(reef: &Reef) -> f64 {
    let mut sum = 0.0;
    for node in 0..3 {
        sum += reef.node(node).metric("atoll_tls_ticket_keys_made_total").await;
    }
    sum
}

#[tokio::test]
async fn a_session_of_one_node_is_resumed_by_every_other() {
    let reef = start("1h").await;
    shared(&reef).await;
    for version in [&TLS13, &TLS12] {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let client = client(version);
            assert_ne!(visit(&client, reef.node(from).tls()).await, HandshakeKind::Resumed);
            let kind = visit(&client, reef.node(to).tls()).await;
            assert_eq!(kind, HandshakeKind::Resumed, "{version:?} {from} {to}");
        }
    }
    let refused = reef.node(0).metric("atoll_tls_ticket_keys_refused_total").await;
    assert!(refused < 0.5, "{refused}");
}

#[tokio::test]
async fn after_a_rotation_a_former_ticket_is_still_good() {
    let reef = start("3s").await;
    shared(&reef).await;
    let before = made(&reef).await;
    let client = client(&TLS13);
    visit(&client, reef.node(0).tls()).await;
    until("the next key to be made", || async { made(&reef).await > before + 0.5 }).await;
    assert_eq!(visit(&client, reef.node(1).tls()).await, HandshakeKind::Resumed);
    // And so is one under the new key, once that is used.
    shared(&reef).await;
}

#[tokio::test]
async fn a_reload_and_a_node_that_comes_back_keep_to_the_keys_of_the_mesh() {
    let mut reef = start("1h").await;
    shared(&reef).await;
    let client = client(&TLS13);
    visit(&client, reef.node(0).tls()).await;
    let text = std::fs::read_to_string(reef.node(1).home().join("edge.toml")).unwrap();
    reef.node(1).rewrite(&text.replace("jitter = \"0%\"", "jitter = \"5%\""));
    assert_eq!(reef.node(1).reload().await.status(), 200);
    assert_eq!(visit(&client, reef.node(1).tls()).await, HandshakeKind::Resumed);
    reef.end(2).await;
    reef.begin_as(2, |file| with_tls(&file, "1h"));
    until("the node that came back to know the keys", || async {
        reef.node(2).metric("atoll_tls_ticket_keys_taken_total").await > 0.5
    })
    .await;
    assert_eq!(visit(&client, reef.node(2).tls()).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_ticket_of_somebody_else_leads_to_a_full_handshake_and_a_node_alone_knows_its_own() {
    let reef = start("1h").await;
    let alone = Edge::before(&reef.origin).tls(&[&[HOST]]).start();
    shared(&reef).await;
    for version in [&TLS13, &TLS12] {
        let client = client(version);
        visit(&client, reef.node(0).tls()).await;
        assert_ne!(visit(&client, alone.tls()).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(visit(&client, alone.tls()).await, HandshakeKind::Resumed, "{version:?}");
        assert_ne!(visit(&client, reef.node(1).tls()).await, HandshakeKind::Resumed, "{version:?}");
    }
}
