//! TLS: certificates by name, protocols, authorities.

use crate::support::client::request;
use crate::support::edge::Plan;
use crate::support::{Connection, Edge, H2, Origin, Reply};

const SITE: &str =
    "name = \"main\"\norigin = \"main\"\nhosts = [\"a.test\", \"b.test\", \"*.wild.test\"]";

fn named(origin: &Origin) -> Edge {
    Plan::before(&[origin.address])
        .first_site(SITE)
        .tls(&[&["a.test", "*.wild.test"], &["b.test"]])
        .start()
}

/// DNS names in a certificate, found by their bytes.
fn is_for(certificate: &[u8], name: &str) -> bool {
    memchr::memmem::find(certificate, name.as_bytes()).is_some()
}

#[tokio::test]
async fn the_certificate_follows_the_name() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = named(&origin);
    for (name, expected) in [
        (Some("a.test"), "a.test"),
        (Some("A.TEST"), "a.test"),
        (Some("b.test"), "b.test"),
        (Some("x.wild.test"), "*.wild.test"),
        (None, "a.test"),
    ] {
        let (mut client, negotiated) = Connection::open_tls(edge.tls(), name, &[]).await.unwrap();
        assert!(is_for(&negotiated.certificate, expected), "{name:?}");
        let host = name.unwrap_or("a.test");
        assert_eq!(client.get(host, "/a", &[]).await.status(), 200, "{name:?}");
    }
    for name in ["c.test", "x.y.wild.test", "wild.test"] {
        let refused = Connection::open_tls(edge.tls(), Some(name), &[]).await;
        assert!(refused.is_err(), "{name}");
    }
}

#[tokio::test]
async fn protocols_are_agreed_on() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = named(&origin);
    for (offered, expected) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["http/1.1"][..], Some("http/1.1")),
        (&[][..], None),
    ] {
        let (_, negotiated) =
            Connection::open_tls(edge.tls(), Some("a.test"), offered).await.unwrap();
        assert_eq!(negotiated.protocol.as_deref(), expected, "{offered:?}");
        assert_eq!(negotiated.version, rustls::ProtocolVersion::TLSv1_3);
    }
    assert!(Connection::open_tls(edge.tls(), Some("a.test"), &["spdy/3"]).await.is_err());
}

#[tokio::test]
async fn authorities_that_no_site_has_are_misdirected() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = named(&origin);
    let (mut client, _) =
        Connection::open_tls(edge.tls(), Some("a.test"), &["http/1.1"]).await.unwrap();
    assert_eq!(client.get("c.test", "/a", &[]).await.status(), 421);
    let mut h2 = H2::tls(edge.tls(), "a.test").await;
    assert_eq!(h2.get("/a", &[]).await.status(), 200);
    let mut request = h2.head("GET", "/a", &[]);
    *request.uri_mut() = "https://c.test/a".parse().unwrap();
    let answer = h2.ask(request, false).await.outcome().await.unwrap();
    assert_eq!(answer.status(), 421);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_edge_for_every_host_makes_its_own_certificate() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin).tls(&[]).start();
    for name in [Some("anything.test"), None] {
        let (mut client, _) = Connection::open_tls(edge.tls(), name, &[]).await.unwrap();
        assert_eq!(client.get("anything.test", "/a", &[]).await.text(), "x");
    }
    let seen = origin.last("/a").await;
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn the_scheme_is_part_of_the_key() {
    let origin = Origin::start(|seen| Reply::fresh(seen.field("x-forwarded-proto").unwrap()));
    let edge = Edge::before(&origin).tls(&[]).start();
    edge.fill("/a").await.expect(200, "http", "fwd=uri-miss");
    let (mut client, _) = Connection::open_tls(edge.tls(), None, &[]).await.unwrap();
    client.get("site.test", "/a", &[]).await.expect(200, "https", "fwd=uri-miss");
    edge.settled().await;
    client.get("site.test", "/a", &[]).await.expect(200, "https", "hit");
    edge.get("/a").await.expect(200, "http", "hit");
    // One URL for a purge, whatever the scheme.
    edge.purge_path("/a").await;
    client.get("site.test", "/a", &[]).await.expect(200, "https", "fwd=uri-miss");
}

#[tokio::test]
async fn plain_text_on_the_tls_port_and_silence_are_ended() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).tls(&[]).limits("handshake = \"300ms\"").start();
    let mut plain = Connection::open(edge.tls()).await;
    plain.send(request("GET", "site.test", "/a", &[])).await;
    plain.any_end().await;
    let mut silent = Connection::open(edge.tls()).await;
    silent.closed().await;
    assert_eq!(origin.requests(), 0);
    assert!(edge.metric("atoll_tls_handshake_failures_total").await >= 1.0);
}
