//! What goes through and how it is changed on the way.

use bytes::Bytes;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::{Edge, Ended, Gate, H2, Origin, Piece, Reply, pattern, within};

#[tokio::test]
async fn bodies_reach_the_origin_in_either_framing() {
    let origin = Origin::start(|seen| Reply::ok(&seen.method));
    let edge = Edge::start(&origin);
    let answer = edge.post("/length", "hello").await;
    answer.expect(200, "POST", "fwd=method");
    assert_eq!(origin.last("/length").await.text(), "hello");
    let head = request("PUT", HOST, "/chunked", &[("Transfer-Encoding", "chunked")]);
    let chunks = "2;ext=1\r\nhe\r\n003\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n";
    assert_eq!(edge.raw(head + chunks, "PUT").await.text(), "PUT");
    let seen = origin.last("/chunked").await;
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.all("x-trailer"), [""; 0], "trailers are dropped");
    assert_eq!(seen.all("content-length").len() + seen.all("transfer-encoding").len(), 1);
    let head = request("DELETE", HOST, "/none", &[]);
    assert_eq!(edge.raw(head, "DELETE").await.text(), "DELETE");
    assert_eq!(origin.last("/none").await.text(), "");
}

#[tokio::test]
async fn a_post_ends_what_is_stored_whichever_way_it_went() {
    let origin = Origin::serving(Reply::fresh("page"));
    let edge = Edge::before(&origin).site("grpc = true\nupgrade = [\"tcp\"]").start();
    let ways: [&[(&str, &str)]; 3] = [
        &[],
        &[("Content-Type", "application/grpc")],
        &[("Connection", "Upgrade"), ("Upgrade", "tcp")],
    ];
    for fields in ways {
        edge.fill("/a").await;
        edge.get("/a").await.expect(200, "page", "hit");
        let fields = [fields, &[("Content-Length", "0")]].concat();
        let answer = edge.raw(request("POST", HOST, "/a", &fields), "POST").await;
        assert_eq!(answer.status(), 200, "{fields:?}");
        edge.fill("/a").await.expect(200, "page", "stored");
    }
}

#[tokio::test]
async fn a_large_upload_waits_for_the_origin() {
    const LENGTH: usize = 32 << 20;
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("got it").read_behind(&held));
    let edge = Edge::start(&origin);
    let body = pattern(LENGTH);
    let mut client = edge.connect().await;
    client.send(request("POST", HOST, "/up", &[("Content-Length", &LENGTH.to_string())])).await;
    let upload = body.clone();
    let sending = tokio::spawn(async move {
        client.send(upload).await;
        client.response("POST").await
    });
    gate.reached(1).await;
    // What fits into the system's buffers goes; then it must stand still.
    let mut before = -1.0;
    loop {
        let now = edge.metric("atoll_client_bytes_total{direction=\"received\"}").await;
        if now > 0.0 && (now - before).abs() < 0.5 {
            break;
        }
        before = now;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(before < LENGTH as f64, "{before} bytes were taken while nobody read them");
    assert_eq!(origin.received(), 0);
    gate.open();
    assert_eq!(within("the upload", sending).await.unwrap().text(), "got it");
    let seen = origin.last("/up").await;
    assert!(seen.body.as_deref() == Some(&*body), "{} bytes", origin.received());
}

#[tokio::test]
async fn a_large_download_arrives_whole() {
    let body = pattern(16 << 20);
    let origin = Origin::serving(Reply::ok(&body));
    let edge = Edge::start(&origin);
    let answer = edge.get("/down").await;
    assert!(answer.ended == Ended::Clean && answer.body == body, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn interim_responses_reach_the_client() {
    let origin = Origin::serving(
        Reply::ok("done")
            .interim(
                103,
                &[("Link", "</a.css>; rel=preload"), ("Connection", "X-Hop"), ("X-Hop", "1")],
            )
            .interim(103, &[("Link", "</b.js>; rel=preload")]),
    );
    let edge = Edge::before(&origin).plain_h2().start();
    let answer = edge.get("/h1").await;
    let mut h2 = H2::plain(edge.plain(), HOST).await;
    for answer in [answer, h2.get("/h2", &[]).await, h2.get("/h2", &[]).await] {
        assert_eq!((answer.status(), answer.text()), (200, "done"));
        let links: Vec<_> = answer.interim.iter().map(|head| head.field("link")).collect();
        assert_eq!(links, [Some("</a.css>; rel=preload"), Some("</b.js>; rel=preload")]);
        assert_eq!(answer.interim[0].field("x-hop"), None);
        assert_eq!(answer.field("link"), None);
    }
    let answer = edge.post("/post", "x").await;
    assert_eq!(answer.interim.len(), 2);
}

#[tokio::test]
async fn fields_of_the_connection_stay_on_it() {
    let origin = Origin::serving(
        Reply::ok("x")
            .field("Connection", "X-Own, keep-alive")
            .field("X-Own", "1")
            .field("Keep-Alive", "timeout=5")
            .field("Proxy-Connection", "keep-alive")
            .field("Upgrade", "h2c")
            .field("X-End", "1"),
    );
    let edge = Edge::start(&origin);
    let answer = edge
        .get_with(
            "/a",
            &[
                ("Connection", "X-Mine, TE"),
                ("X-Mine", "1"),
                ("TE", "trailers, deflate"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "keep-alive"),
                ("X-End", "1"),
            ],
        )
        .await;
    for name in ["x-own", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.field("x-end"), Some("1"));
    let seen = origin.last("/a").await;
    for name in ["x-mine", "keep-alive", "proxy-connection"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert!(matches!(seen.field("te"), None | Some("trailers")), "{:?}", seen.field("te"));
    assert_eq!(seen.field("x-end"), Some("1"));
}

#[tokio::test]
async fn what_a_client_says_of_its_way_is_replaced() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let forged = [
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Server", "evil"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Real-IP", "1.2.3.4"),
        ("True-Client-IP", "1.2.3.4"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Host", "evil.test"),
        ("Via", "1.0 friend"),
    ];
    edge.get_with("/a", &forged).await;
    let seen = origin.last("/a").await;
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some(HOST));
    assert_eq!(seen.field("host"), Some(HOST));
    assert_eq!(seen.all("via").join(", "), "1.0 friend, 1.1 atoll");
    assert_eq!(seen.field("cdn-loop"), Some("edge"));
    for (name, value) in &forged[3..13] {
        assert_eq!(seen.field(&name.to_ascii_lowercase()), None, "{name}: {value}");
    }
}

#[tokio::test]
async fn nominated_fields_go_before_ours_come() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let fields = [
        ("Connection", "close, X-Forwarded-For, Via, CDN-Loop"),
        ("Via", "1.1 x"),
        ("CDN-Loop", "x"),
    ];
    let answer = edge.get_with("/a", &fields).await;
    if answer.status() == 200 {
        let seen = origin.last("/a").await;
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!((seen.field("via"), seen.field("cdn-loop")), (Some("1.1 atoll"), Some("edge")));
    } else {
        assert_eq!((answer.status(), origin.requests()), (400, 0));
    }
}

#[tokio::test]
async fn unknown_methods_are_forwarded_where_all_are_and_count_as_changes() {
    let origin = Origin::start(|seen| match &*seen.method {
        "GET" => Reply::fresh(format!("v{}", seen.nth)),
        _ => Reply::ok("changed"),
    });
    let edge = Edge::before(&origin).rule("/all", "methods = [\"*\"]").start();
    for (target, status, cache) in [("/all/a", 200, "fwd=uri-miss"), ("/some/a", 405, "hit")] {
        edge.fill(target).await;
        let answer = edge.ask("M-SEARCH", HOST, target, &[("Content-Length", "0")]).await;
        assert_eq!(answer.status(), status, "{target}");
        let next = edge.fill(target).await;
        assert!(next.says(cache), "{target}: {}", next.cache());
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_a_loop() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    for value in ["edge", "other, edge", "EDGE; x=1", "a,edge;b"] {
        let answer = edge.get_with("/a", &[("CDN-Loop", value)]).await;
        assert_eq!(answer.status(), 508, "{value}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(edge.get_with("/a", &[("CDN-Loop", "other")]).await.status(), 200);
    assert_eq!(origin.last("/a").await.all("cdn-loop").join(", "), "other, edge");
}

#[tokio::test]
async fn a_client_that_expects_to_be_asked_is_asked() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).site("body_bytes = 1000").start();
    let mut client = edge.connect().await;
    let fields = [("Content-Length", "5"), ("Expect", "100-continue")];
    client.send(request("POST", HOST, "/a", &fields)).await;
    assert_eq!(client.head("POST").await.status, 100);
    client.send("hello").await;
    let answer = client.response("POST").await;
    assert_eq!((answer.status(), answer.interim.len()), (200, 0));
    assert_eq!(origin.last("/a").await.text(), "hello");
    // At most one 100, also where the body comes at once.
    client.send(request("POST", HOST, "/b", &fields) + "hello").await;
    let answer = client.response("POST").await;
    assert!(answer.status() == 200 && answer.interim.len() <= 1, "{answer:?}");
    // Where the answer is no, the body is not asked for.
    let fields = [("Content-Length", "5000"), ("Expect", "100-continue")];
    client.send(request("POST", HOST, "/c", &fields)).await;
    let answer = client.response("POST").await;
    assert_eq!((answer.status(), answer.interim.len()), (413, 0));
    assert_eq!(edge.get_with("/d", &[("Expect", "the-best")]).await.status(), 417);
}

#[tokio::test]
async fn request_ids_and_traces_go_along() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = edge.get_with("/a", &[("traceparent", trace)]).await;
    let seen = origin.last("/a").await;
    assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"));
    assert!(answer.field("x-request-id").is_some_and(|id| !id.is_empty()));
    assert_eq!(seen.field("traceparent"), Some(trace));
}

#[tokio::test]
async fn targets_and_values_go_untouched() {
    let origin = Origin::serving(Reply::new(299));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    let head = request("GET", HOST, "/a;b=1/c%20d?x=%7e&&y=1", &[]);
    let field = b"\r\nX-Bytes: \xa0caf\xe9\xa0\r\n\r\n";
    client.send([head.trim_end().as_bytes(), field].concat()).await;
    let seen = origin.seen("/a;b=1/c%20d?x=%7E&&y=1", 1).await.pop().unwrap();
    let line = b"\xa0caf\xe9\xa0\r\n";
    assert!(memchr::memmem::find(&seen.raw, line).is_some(), "{:?}", seen.raw);
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_reaches_the_client() {
    let origin = Origin::serving(Reply::new(413).body("too much").early());
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    let length = (4 << 20).to_string();
    client.send(request("POST", HOST, "/a", &[("Content-Length", &length)])).await;
    let _ = client.try_send(vec![b'x'; 16 * 1024]).await;
    let answer = client.response("POST").await;
    assert_eq!((answer.status(), answer.text()), (413, "too much"));
}

#[tokio::test]
async fn http_1_0_is_answered_in_its_own_framing() {
    let pieces = vec![Piece::data("he"), Piece::data("llo")];
    let origin = Origin::serving(Reply::new(200).chunked(pieces));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    client.send("GET /a HTTP/1.0\r\nHost: site.test\r\n\r\n").await;
    let answer = client.response("GET").await;
    assert_eq!((answer.text(), answer.field("transfer-encoding")), ("hello", None));
    assert_eq!(answer.head.version, "HTTP/1.1", "the edge's own version");
    client.closed().await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_the_answer() {
    let gate = Gate::new();
    let origin = Origin::serving(Reply::ok("x").gate(&gate));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    client.ask(HOST, "/a", &[]).await;
    client.finish().await;
    gate.reached(1).await;
    gate.open();
    assert_eq!(client.response("GET").await.text(), "x");
}

#[tokio::test]
async fn answers_without_bodies_keep_what_they_say() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/204" => Reply::new(204).field("X-A", "1"),
        "/redirect" => Reply::new(302).field("Location", "http://other.test/x?a=%0d%0a"),
        _ => Reply::ok("12345"),
    });
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    let none = client.get(HOST, "/204", &[]).await;
    assert_eq!((none.status(), none.field("content-length")), (204, None));
    let redirect = client.get(HOST, "/redirect", &[]).await;
    assert_eq!(redirect.field("location"), Some("http://other.test/x?a=%0d%0a"));
    client.send(request("HEAD", HOST, "/head", &[])).await;
    let head = client.response("HEAD").await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("5")));
    assert_eq!(client.get(HOST, "/a", &[]).await.text(), "12345");
}

#[tokio::test]
async fn a_site_may_show_its_origin_another_host() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).site("host = \"inner.test:81\"").start();
    edge.get("/a").await;
    let seen = origin.last("/a").await;
    assert_eq!(seen.field("host"), Some("inner.test:81"));
    assert_eq!(seen.field("x-forwarded-host"), Some(HOST));
}

#[tokio::test]
async fn options_for_everything_is_answered_here() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::start(&origin);
    let answer = edge.ask("OPTIONS", HOST, "*", &[]).await;
    assert!(matches!(answer.status(), 200 | 204), "{answer:?}");
    assert!(answer.field("allow").unwrap().contains("GET"));
    assert_eq!(origin.requests(), 0);
    assert_eq!(edge.ask("OPTIONS", HOST, "/a", &[]).await.text(), "x");
}

#[tokio::test]
async fn an_upload_over_http2_reaches_the_origin() {
    let origin = Origin::serving(Reply::ok("got it"));
    let edge = Edge::before(&origin).plain_h2().start();
    let mut client = H2::plain(edge.plain(), HOST).await;
    let body = Bytes::from(pattern(3 << 20));
    let answer = client.whole("POST", "/up", &[], Some(body.clone())).await.unwrap();
    assert_eq!(answer.text(), "got it");
    assert!(origin.last("/up").await.body == Some(body));
}

#[tokio::test]
async fn a_proxy_protocol_header_names_the_client() {
    let origin = Origin::serving(Reply::ok("x"));
    let keys = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let edge = Edge::before(&origin).listener("127.0.0.1:0", keys).start();
    let mut client = edge.connect().await;
    client.send("PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n").await;
    assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x");
    assert_eq!(origin.last("/a").await.field("x-forwarded-for"), Some("192.0.2.7"));
    let mut without = edge.connect().await;
    let _ = without.try_send(request("GET", HOST, "/b", &[])).await;
    without.any_end().await;
    assert_eq!(origin.count("/b"), 0, "without a header nothing is believed");
}

#[tokio::test]
async fn clients_come_over_ipv6_too() {
    let origin = Origin::serving(Reply::ok("x"));
    let edge = Edge::before(&origin).listener("[::1]:0", "").start();
    assert_eq!(edge.ask("GET", "[::1]", "/a", &[]).await.text(), "x");
    let seen = origin.last("/a").await;
    assert_eq!((seen.field("x-forwarded-for"), seen.field("host")), (Some("::1"), Some("[::1]")));
}
