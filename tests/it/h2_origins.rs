//! HTTP/2 to origins, and whom a connection belongs to.

use crate::support::certificate::{Certificate, Folder};
use crate::support::edge::Plan;
use crate::support::{Connection, Edge, H2Origin, Origin, Reply};

/// Keys of an origin at `https://HOST:port` that `trusted` vouches for.
fn secure(name: &str, host: &str, port: u16, trusted: &Certificate) -> String {
    let ca = trusted.chain.display().to_string();
    format!("name = \"{name}\"\nservers = [\"https://{host}:{port}\"]\nca = {ca:?}")
}

fn before(keys: &str) -> Plan {
    Edge::before_servers(&[]).no_origins().origin_keys(keys)
}

#[tokio::test]
async fn under_steady_load_more_than_99_of_100_requests_reuse_a_connection() {
    let folder = Folder::new();
    let own = Certificate::new(&folder, &["localhost"]);
    let two = H2Origin::start(Some(own.server()), |call| async { call.text("x") });
    let one = Origin::start_tls(&own, |_| Reply::ok("x"));
    for (port, http) in [
        (two.address.port(), "2"),
        (two.address.port(), "auto"),
        (one.address.port(), "1.1"),
        (one.address.port(), "auto"),
    ] {
        let keys = secure("main", "localhost", port, &own) + &format!("\nhttp = \"{http}\"");
        let edge = before(&keys).site("pass = true").start();
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(edge.connect().await);
        }
        for number in 0..1000 {
            let client = &mut clients[number % 4];
            assert_eq!(client.get("h", "/a", &[]).await.status(), 200);
        }
        let requests = edge.metric("atoll_origin_requests_total{origin=\"main\"}").await;
        let reused = edge.metric("atoll_origin_connections_reused_total{origin=\"main\"}").await;
        assert!(reused / requests > 0.99, "http = {http}: {reused} of {requests}");
    }
    // One for each worker, address of `localhost` and edge.
    assert!(two.connections() <= 8, "{}", two.connections());
}

#[tokio::test]
async fn an_origin_that_asks_who_we_are_is_shown_the_certificate() {
    let folder = Folder::new();
    let own = Certificate::new(&folder, &["localhost"]);
    let ours = Certificate::new(&folder, &["edge.test"]);
    let others = Certificate::new(&folder, &["other.test"]);
    for (shown, status) in [(Some(&ours), 200), (Some(&others), 502), (None, 502)] {
        let origin = H2Origin::start(Some(own.server_for(&ours)), |call| async { call.text("x") });
        let mut keys = secure("main", "localhost", origin.address.port(), &own) + "\nhttp = \"2\"";
        if let Some(shown) = shown {
            let [chain, key] = [&shown.chain, &shown.key].map(|file| file.display().to_string());
            keys += &format!("\nclient_certificate = {chain:?}\nclient_key = {key:?}");
        }
        assert_eq!(before(&keys).start().get("/a").await.status(), status, "{keys}");
    }
}

#[tokio::test]
async fn a_pinned_name_is_the_one_that_counts() {
    let folder = Folder::new();
    let pinned = Certificate::new(&folder, &["pinned.test"]);
    let origin = H2Origin::start(Some(pinned.server()), |call| async { call.text("x") });
    let port = origin.address.port();
    for (name, status) in [("pinned.test", 200), ("localhost", 502), ("other.test", 502)] {
        let keys = secure("main", "127.0.0.1", port, &pinned)
            + &format!("\nhttp = \"2\"\ntls_name = \"{name}\"");
        let edge = before(&keys).start();
        assert_eq!(edge.get("/a").await.status(), status, "{name}");
    }
}

#[tokio::test]
async fn what_tls_agrees_on_is_spoken() {
    let folder = Folder::new();
    let own = Certificate::new(&folder, &["localhost"]);
    let two = H2Origin::start(Some(own.server()), |call| async move {
        let authority = call.request.uri.authority().unwrap().to_string();
        call.text(&format!("{authority} {:?}", http::Version::HTTP_2));
    });
    let one = Origin::start_tls(&own, |seen| Reply::ok(seen.field("host").unwrap()));
    let auto = |port| secure("main", "localhost", port, &own) + "\nhttp = \"auto\"";
    let edge = before(&auto(two.address.port())).start();
    assert_eq!(edge.get("/a").await.text(), "site.test HTTP/2.0");
    let edge = before(&auto(one.address.port())).start();
    for _ in 0..3 {
        assert_eq!(edge.get("/a").await.text(), "site.test");
    }
    // One that has no HTTP/1.1 is an error where that is all we speak.
    let keys = secure("main", "localhost", two.address.port(), &own);
    assert_eq!(before(&keys).start().get("/a").await.status(), 502);
}

#[tokio::test]
async fn a_post_streams_over_both_and_early_answers_end_it() {
    let origin = H2Origin::start(None, |mut call| async move {
        match call.path() {
            "/echo" => {
                use crate::support::h2_origin::{give, take};
                let mut body = Vec::new();
                while let Some(piece) = take(&mut call.body).await {
                    body.extend_from_slice(&piece);
                }
                let (_, mut stream) = call.begin(&[]);
                give(&mut stream, body.into()).await;
                let _ = stream.send_data(bytes::Bytes::new(), true);
            }
            _ => call.end(&[("x-early", "1")]),
        }
    });
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let edge = before(&keys).start();
    assert_eq!(edge.post("/echo", "hello").await.text(), "hello");
    let mut client = Connection::open(edge.plain()).await;
    let body = "5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{body}")).await;
    assert_eq!(client.response("POST").await.text(), "hello world");
    let early = edge.post("/early", "hello").await;
    assert_eq!((early.status(), early.field("x-early")), (200, Some("1")));
    // The client is not told which version the origin speaks.
    assert_eq!(early.field("via"), Some("1.1 atoll"));
    assert_eq!(edge.post("/echo", "again").await.text(), "again");
}

#[tokio::test]
async fn what_an_origin_says_over_http2_is_stored_like_anything_else() {
    let origin = H2Origin::start(None, |call| async move {
        let number = call.connection.to_string();
        let (_, mut stream) = call.begin(&[("cache-control", "max-age=60"), ("x-from", &number)]);
        let _ = stream.send_data("fresh".into(), true);
    });
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://127.0.0.1:{port}\"]\nhttp = \"2\"");
    let edge = before(&keys).start();
    edge.fill("/a").await.expect(200, "fresh", "fwd=uri-miss");
    edge.get("/a").await.expect(200, "fresh", "hit");
}
