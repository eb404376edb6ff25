//! The PROXY protocol towards origins: who asks is told before the first byte, and a connection that
//! speaks for one client never carries another's request.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::edge::{HOST, Plan};
use crate::support::{Origin, Reply, until};

/// What came over each connection to an origin, up to the end of its request.
#[derive(Clone, Default)]
struct Wiretap(Arc<Mutex<Vec<Vec<u8>>>>);

impl Wiretap {
    /// A server that answers each request, for as long as it is asked, and notes all bytes.
    async fn start(&self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tap = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = {
                    let mut all = tap.0.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let tap = tap.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                        let ended = {
                            let mut all = tap.0.lock().unwrap();
                            all[number].extend(&bytes[..count]);
                            // Neither header ends like a request.
                            all[number].ends_with(b"\r\n\r\n")
                        };
                        if ended {
                            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        address
    }

    fn connections(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

fn plan(server: std::net::SocketAddr, version: &str) -> Plan {
    Plan::before(&[server]).origin_too(&format!("proxy_protocol = \"{version}\""))
}

#[tokio::test]
async fn each_request_has_a_connection_that_names_its_client() {
    let tap = Wiretap::default();
    let server = tap.start().await;
    let edge = plan(server, "v1").start();
    let mut ports = Vec::new();
    for _ in 0..2 {
        let mut client = edge.connect().await;
        ports.push(client.local().port());
        for _ in 0..2 {
            let target = format!("/{}", tap.connections().len());
            assert_eq!(client.get(HOST, &target, &[]).await.text(), "ok");
        }
    }
    let all = tap.connections();
    assert_eq!(all.len(), 4, "one connection per request");
    for (number, bytes) in all.iter().enumerate() {
        let text = String::from_utf8_lossy(bytes);
        let local = edge.plain().port();
        let begins = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {local}\r\nGET /{number} HTTP/1.1\r\n",
            ports[number / 2]
        );
        assert!(text.starts_with(&begins), "{text}");
        assert_eq!(text.matches("HTTP/1.1\r\n").count(), 1, "{text}");
    }
    edge.metric_becomes("atoll_origin_connections_open{origin=\"main\"}", 0.0).await;
}

#[tokio::test]
async fn version_2_is_binary_and_probes_are_local() {
    let tap = Wiretap::default();
    let server = tap.start().await;
    let edge = plan(server, "v2")
        .origin_too("[origin.probe]\npath = \"/well\"\ninterval = \"1s\"\ntimeout = \"1s\"")
        .start();
    let mut client = edge.connect().await;
    let port = client.local().port();
    assert_eq!(client.get(HOST, "/a", &[]).await.text(), "ok");
    let find = |what: &str| {
        let all = tap.connections();
        all.into_iter().find(|bytes| String::from_utf8_lossy(bytes).contains(what))
    };
    until("a probe", || async { find("GET /well ").is_some() }).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /well ";
    assert!(find("GET /well ").unwrap().starts_with(local));
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    expected.extend(port.to_be_bytes());
    expected.extend(edge.plain().port().to_be_bytes());
    expected.extend(b"GET /a HTTP/1.1\r\n");
    assert!(find("GET /a ").unwrap().starts_with(&expected), "{:?}", find("GET /a "));
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let tap = Wiretap::default();
    let server = tap.start().await;
    let keys =
        format!("name = \"main\"\nservers = [\"https://{server}\"]\nproxy_protocol = \"v1\"");
    let edge = Plan::before(&[])
        .no_origins()
        .origin_keys(&keys)
        .limits("origin_connect = \"300ms\"")
        .start();
    assert!(matches!(edge.get("/a").await.status(), 502 | 504));
    let all = tap.connections();
    let bytes = all.first().expect("a connection");
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(bytes.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
    assert_eq!(bytes.get(end), Some(&0x16), "a TLS handshake follows");
}

#[tokio::test]
async fn without_it_nothing_is_said_and_connections_are_kept() {
    let origin = Origin::serving(Reply::ok("ok"));
    let edge = plan(origin.address, "none").start();
    let mut client = edge.connect().await;
    for number in 0..3 {
        assert_eq!(client.get(HOST, &format!("/{number}"), &[]).await.text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
    assert!(origin.last("/0").await.raw.starts_with(b"GET /0 HTTP/1.1\r\n"));
}
