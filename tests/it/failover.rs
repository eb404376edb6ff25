//! Origins that fail, in whole or in part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::certificate::{Certificate, Folder};
use crate::support::edge::{HOST, Plan};
use crate::support::{Edge, Ended, Gate, Origin, Piece, Reply, until};

#[tokio::test]
async fn one_of_two_servers_may_be_dead() {
    let origin = Origin::start(|seen| Reply::ok(&seen.target));
    let dead = Origin::dead().await;
    let edge = Plan::before(&[dead, origin.address]).limits("retry_budget_percent = 100").start();
    for number in 0..20 {
        let target = format!("/{number}");
        assert_eq!(edge.get(&target).await.text(), target);
    }
}

#[tokio::test]
async fn what_is_safe_is_asked_again_elsewhere() {
    let broken = Origin::serving(Reply::script(vec![Piece::Close]));
    let origin = Origin::start(|seen| Reply::ok(&seen.target));
    let edge = Plan::before(&[broken.address, origin.address])
        .limits("retry_budget_percent = 100\neject_failures = 1000\neject_share_percent = 100")
        .start();
    for number in 0..20 {
        let target = format!("/{number}");
        assert_eq!(edge.get(&target).await.text(), target);
    }
    assert_eq!(origin.requests(), 20);
}

#[tokio::test]
async fn a_post_is_sent_once() {
    let origin = Origin::serving(Reply::script(vec![Piece::Close]));
    let edge = Edge::start(&origin);
    assert_eq!(edge.post("/post", "x").await.status(), 502);
    assert_eq!(origin.count("/post"), 1);
    assert_eq!(edge.get("/get").await.status(), 502);
    assert_eq!(origin.count("/get"), 2, "a GET is asked again once");
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let origin = Origin::serving(Reply::raw("HTTP/1.1 200 OK\r\nContent-Le"));
    let edge = Edge::start(&origin);
    assert_eq!(edge.get("/a").await.status(), 502);
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn the_last_server_is_never_given_up() {
    let origin = Origin::serving(Reply::ok("back"));
    let edge = Edge::start(&origin);
    origin.stop().await;
    for _ in 0..20 {
        let answer = edge.get("/a").await;
        assert!(matches!(answer.status(), 502 | 503), "{answer:?}");
        assert!(answer.text().contains(answer.field("x-request-id").unwrap()));
    }
    origin.start_again();
    until("its return", || async { edge.get("/a").await.status() == 200 }).await;
}

#[tokio::test]
async fn a_kept_connection_that_the_origin_closed_is_not_an_error() {
    let origin = Origin::serving(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let edge = Edge::start(&origin);
    let mut posted = 0;
    for number in 0..20 {
        assert_eq!(edge.get(&format!("/{number}")).await.text(), "ok");
        posted += usize::from(edge.post(&format!("/post/{number}"), "x").await.text() == "ok");
    }
    // A POST that meets the very moment of the end must not be sent again.
    assert!(posted >= 17, "{posted}");
}

#[tokio::test]
async fn connections_to_the_origin_are_kept() {
    let origin = Origin::serving(Reply::ok("ok"));
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    for number in 0..20 {
        assert_eq!(client.get(HOST, &format!("/{number}"), &[]).await.text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/bad" => Reply::script(vec![
            Piece::data("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
            Piece::data("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            Piece::Hang,
        ]),
        _ => Reply::ok("good"),
    });
    let edge = Edge::start(&origin);
    let mut client = edge.connect().await;
    assert_eq!(client.get(HOST, "/bad", &[]).await.text(), "a");
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/good", &[]).await.text(), "good");
    }
    let bad = origin.last("/bad").await.connection;
    let good = origin.seen("/good", 5).await;
    assert!(good.iter().all(|seen| seen.connection != bad), "the connection was used again");
}

#[tokio::test]
async fn a_silent_origin_is_a_timeout() {
    let origin = Origin::serving(Reply::script(vec![Piece::Hang]));
    let edge = Edge::before(&origin).limits("origin_first_byte = \"200ms\"").start();
    assert_eq!(edge.get("/a").await.status(), 504);
    assert_eq!(edge.post("/a", "x").await.status(), 504);
}

#[tokio::test]
async fn an_origin_that_falls_silent_within_a_body_cuts_it_off() {
    let origin =
        Origin::start(|_| Reply::fresh("").sized(100, vec![Piece::data("part"), Piece::Hang]));
    let edge = Edge::before(&origin).limits("origin_gap = \"200ms\"").start();
    for target in ["/a", "/a"] {
        let answer = edge.get(target).await;
        assert_eq!((answer.text(), answer.ended), ("part", Ended::CutOff));
    }
}

#[tokio::test]
async fn a_full_origin_is_said_at_once() {
    let gate = Gate::new();
    let origin = Origin::serving(Reply::ok("x").gate(&gate));
    let edge = Edge::before(&origin)
        .limits("origin_connections = 1\norigin_queue = 1\norigin_queue_wait = \"200ms\"")
        .start();
    let mut first = edge.connect().await;
    first.ask(HOST, "/1", &[]).await;
    gate.reached(1).await;
    let answer = edge.get("/2").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    gate.open();
    assert_eq!(first.response("GET").await.text(), "x");
    assert_eq!(edge.get("/3").await.text(), "x", "there is room again");
}

#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_not_relayed() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let rows = [
        format!("{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("{OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("{OK}Transfer-Encoding: gzip\r\n\r\nhello"),
        format!("{OK}Transfer-Encoding: chunked, chunked\r\n\r\n{body}"),
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("{OK}Content-Length: +5\r\n\r\nhello"),
        format!("{OK}Content-Length : 5\r\n\r\nhello"),
        format!("{OK}X: a\r\n Content-Length: 5\r\n\r\nhello"),
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello".to_owned(),
        "HTTP/1.1 99 No\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 2OO OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 1000 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/2 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "SSH-2.0-hello\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(),
        format!("{OK}X: {}\r\nContent-Length: 5\r\n\r\nhello", "x".repeat(40_000)),
        format!("{OK}{}Content-Length: 5\r\n\r\nhello", "X: y\r\n".repeat(101)),
        format!("{}{OK}Content-Length: 5\r\n\r\nhello", "HTTP/1.1 103 E\r\n\r\n".repeat(9)),
    ];
    let replies = rows.clone();
    let origin = Origin::start(move |seen| {
        let number: Result<usize, _> = seen.target[1..].parse();
        number.map_or_else(|_| Reply::ok("good"), |number| Reply::raw(&replies[number]))
    });
    let edge = Edge::start(&origin);
    for (number, row) in rows.iter().enumerate() {
        let answer = edge.get(&format!("/{number}")).await;
        assert_eq!(answer.status(), 502, "{row:.80}: {answer:?}");
        assert_eq!(edge.get("/good").await.text(), "good", "after {row:.80}");
    }
}

#[tokio::test]
async fn a_reason_may_be_missing_and_a_tab_may_stand_before_chunked() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/reason" => Reply::raw("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        "/blank" => Reply::raw("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
        _ => Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\tchunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
    });
    let edge = Edge::start(&origin);
    for target in ["/blank", "/tab"] {
        assert_eq!(edge.get(target).await.text(), "ok", "{target}");
    }
}

#[tokio::test]
async fn a_server_may_be_named() {
    let origin = Origin::serving(Reply::ok("x"));
    let port = origin.address.port();
    let keys = format!("name = \"main\"\nservers = [\"http://localhost:{port}\"]");
    let edge = Edge::before(&origin).no_origins().origin_keys(&keys).start();
    assert_eq!(edge.get("/a").await.text(), "x");
}

#[tokio::test]
async fn a_backup_serves_only_while_the_others_are_down() {
    let origin = Origin::serving(Reply::ok("main"));
    let backup = Origin::serving(Reply::ok("backup"));
    let keys = format!(
        "name = \"main\"\nservers = [\"http://{}\", {{ url = \"http://{}\", backup = true }}]",
        origin.address, backup.address
    );
    let edge = Edge::before(&origin)
        .no_origins()
        .origin_keys(&keys)
        .limits("retry_budget_percent = 100\neject_failures = 2")
        .start();
    for _ in 0..5 {
        assert_eq!(edge.get("/a").await.text(), "main");
    }
    origin.stop().await;
    until("the backup", || async { edge.get("/a").await.text() == "backup" }).await;
}

#[tokio::test]
async fn probes_take_a_server_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&well);
    let one = Origin::start(move |seen| match &*seen.target {
        "/health" if !health.load(Ordering::SeqCst) => Reply::new(503),
        _ => Reply::ok("one"),
    });
    let two = Origin::serving(Reply::ok("two"));
    let probe = "probe = { path = \"/health\", interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }";
    let edge = Plan::before(&[one.address, two.address])
        .origin_too(probe)
        .limits("slow_start = \"0s\"")
        .start();
    let up = |count: f64| edge.metric_becomes("atoll_origin_endpoints_up{origin=\"main\"}", count);
    up(2.0).await;
    well.store(false, Ordering::SeqCst);
    up(1.0).await;
    for _ in 0..10 {
        assert_eq!(edge.get("/a").await.text(), "two");
    }
    well.store(true, Ordering::SeqCst);
    up(2.0).await;
    until("the first server to serve", || async { edge.get("/a").await.text() == "one" }).await;
}

#[tokio::test]
async fn an_origin_over_tls_must_be_who_it_says() {
    let folder = Folder::new();
    let right = Certificate::new(&folder, &["localhost"]);
    let wrong = Certificate::new(&folder, &["other.test"]);
    for (shown, trusted, status) in
        [(&right, Some(&right), 200), (&wrong, Some(&wrong), 502), (&right, None, 502)]
    {
        let origin = Origin::start_tls(shown, |_| Reply::ok("x"));
        let port = origin.address.port();
        let mut keys = format!("name = \"main\"\nservers = [\"https://localhost:{port}\"]");
        if let Some(trusted) = trusted {
            keys += &format!("\nca = {:?}", trusted.chain.display().to_string());
        }
        let edge = Edge::before(&origin).no_origins().origin_keys(&keys).start();
        let answer = edge.get("/a").await;
        assert_eq!(answer.status(), status, "{answer:?}");
        if status == 200 {
            assert_eq!(origin.last("/a").await.field("x-forwarded-proto"), Some("http"));
        }
        assert_eq!(origin.requests(), usize::from(status == 200));
    }
}
