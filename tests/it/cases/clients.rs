//! Clients that are slow, many or greedy (D01 to D18).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::program::Program;
use crate::support::{Connection, Edge, Origin, Reply, pattern, side_by_side, until, within};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 12] = [
    (
        "D01",
        "heads that drip",
        &["it/cases/clients d01_", "it/limits a_head_has_a_deadline_that_bytes_do_not_move"],
    ),
    (
        "D02",
        "bodies that drip",
        &[
            "it/cases/clients d02_",
            "it/limits a_body_that_does_not_come_is_408",
            "src/listener/limits slow_peers_are_given_up_and_steady_ones_are_not",
        ],
    ),
    (
        "D04",
        "many ranges",
        &[
            "it/cases/clients d04_",
            "src/semantics/range more_than_sixteen_ranges_get_the_whole",
            "src/semantics/range ranges_lie_within_the_body_and_never_exceed_it",
            "src/semantics/normalise/tests a_wish_for_too_many_ranges_is_a_wish_for_the_whole",
        ],
    ),
    (
        "D07",
        "connections over and over",
        &[
            "it/cases/clients d07_",
            "src/listener/clients rates_of_accepts_and_handshakes_are_capped_and_refill",
        ],
    ),
    (
        "D08",
        "connections of one client",
        &[
            "it/cases/clients d08_",
            "src/listener/clients a_slash_64_is_one_client_and_a_mapped_address_is_its_ipv4_address",
        ],
    ),
    ("D09", "heads just under every limit", &["it/cases/clients d09_"]),
    (
        "D10",
        "a large upload",
        &[
            "it/large large_bodies_over_http",
            "it/large a_gibibyte_each_way_leaves_memory_flat",
            "it/passing a_large_upload_waits_for_the_origin",
            "it/limits a_body_beyond_the_rule_is_413",
        ],
    ),
    (
        "D11",
        "a large upload that the origin does not read",
        &[
            "it/large an_origin_that_does_not_read_holds_its_client_back",
            "it/passing a_large_upload_waits_for_the_origin",
            "src/origin/upload no_more_waits_than_is_configured",
        ],
    ),
    (
        "D12",
        "an upload that the origin refuses early",
        &["it/cases/clients d12_", "it/passing an_early_refusal_of_an_upload_reaches_the_client"],
    ),
    (
        "D13",
        "a client that ends its side",
        &["it/passing a_client_that_ends_its_side_still_gets_the_answer"],
    ),
    (
        "D15",
        "distinct URLs without end",
        &["src/store/tests/busting a_flood_of_distinct_urls_leaves_the_hot_ones_in_place"],
    ),
    (
        "D18",
        "keys chosen against the hash",
        &[
            "src/semantics/key keys_chosen_against_one_secret_are_spread_under_another",
            "src/store/tests/busting no_two_stores_share_a_secret",
            "src/store/tests a_forced_collision_of_hashes_is_a_miss",
        ],
    ),
];

/// Connections of a flood: so many that they would show, within what a process may open anywhere.
const CROWD: usize = 300;

/// Where the floods come from; all else comes from 127.0.0.1.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Sends `first` and then a piece after each pause until there is an answer. The answer to the
/// end of the connection, and how long it took to begin.
async fn drip(
    address: SocketAddr,
    first: String,
    piece: &'static str,
    pause: Duration,
) -> (String, Duration) {
    let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let begun = Instant::now();
    write.write_all(first.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while write.write_all(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    let mut answer = vec![0; 16 * 1024];
    let size = within("an answer", read.read(&mut answer)).await.unwrap();
    let took = begun.elapsed();
    answer.truncate(size);
    // Whoever goes on sending may be reset in the end.
    let _ = within("the end", read.read_to_end(&mut answer)).await;
    dripping.abort();
    (String::from_utf8(answer).unwrap(), took)
}

/// The slowest but one in a hundred of so many hits over one connection.
async fn slowest(client: &mut Connection, count: usize) -> Duration {
    let mut took = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x");
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[count - 1 - count / 100]
}

#[tokio::test]
async fn d01_heads_that_drip_end_at_their_deadline_and_delay_nobody() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin).limits("head = \"1s\"\nconnections = 1000").start();
    edge.fill("/a").await;
    let mut good = edge.connect().await;
    let quiet = slowest(&mut good, 200).await;
    let (address, first) = (edge.plain(), "GET /slow HTTP/1.1\r\nX: ".to_owned());
    let crowd = (0..CROWD).map(|_| drip(address, first.clone(), "y", Duration::from_millis(200)));
    let crowd = tokio::spawn(side_by_side(crowd.collect::<Vec<_>>()));
    edge.metric_becomes("atoll_connections_open", 1.0 + CROWD as f64).await;
    let busy = slowest(&mut good, 200).await;
    // A machine that is busy with other things delays everybody for a moment.
    assert!(busy < (2 * quiet).max(Duration::from_millis(200)), "{busy:?}, alone {quiet:?}");
    for (answer, took) in crowd.await.unwrap() {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let expected = Duration::from_millis(900)..Duration::from_secs(3);
        assert!(expected.contains(&took), "{took:?}");
    }
    assert_eq!(origin.count("/slow"), 0);
    edge.metric_becomes("atoll_connections_open", 1.0).await;
    assert_eq!(good.get(HOST, "/a", &[]).await.text(), "x");
}

#[tokio::test]
async fn d02_a_body_that_drips_is_given_up_and_a_steady_one_is_not() {
    let origin = Origin::serving(Reply::ok("x"));
    // A tenth of the defaults; one byte in half a second never leaves a gap that is too long.
    let edge = Edge::before(&origin)
        .limits("rate_window = \"2s\"\nrate_grace = \"1s\"\nbody_gap = \"3s\"")
        .start();
    let head = |target| request("POST", HOST, target, &[("Content-Length", "10000")]);
    let slow = drip(edge.plain(), head("/slow"), "x", Duration::from_millis(100));
    let steady = async {
        let mut client = edge.connect().await;
        client.send(head("/steady")).await;
        for _ in 0..50 {
            client.send("x".repeat(200)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.response("POST").await.status()
    };
    let ((answer, took), status) = tokio::join!(slow, steady);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let expected = Duration::from_millis(2900)..Duration::from_secs(5);
    assert!(expected.contains(&took), "{took:?}");
    assert_eq!(status, 200);
    let seen = origin.seen("/slow", origin.count("/slow")).await;
    assert!(seen.iter().all(|seen| seen.body.is_none()), "it never was a whole body");
}

#[tokio::test]
async fn d04_many_ranges_cost_no_more_than_the_whole() {
    const LENGTH: usize = 2000;
    let body = pattern(LENGTH);
    let reply = Reply::fresh(&body).field("ETag", "\"1\"");
    let origin = Origin::serving(reply);
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let list = |count: usize, range: fn(usize) -> String| {
        format!("bytes={}", (0..count).map(range).collect::<Vec<_>>().join(","))
    };
    let apart = |i| format!("{}-{}", i * 10, i * 10 + 1);
    let overlapping = |i| format!("{}-{}", i * 50, i * 50 + 99);
    let all = |_| "0-".to_owned();
    let sixteen = edge.get_with("/a", &[("Range", &list(16, apart))]).await;
    assert_eq!(sixteen.status(), 206);
    assert_eq!(sixteen.text().to_ascii_lowercase().matches("content-range: bytes").count(), 16);
    let joined = edge.get_with("/a", &[("Range", &list(16, overlapping))]).await;
    assert_eq!((joined.status(), joined.field("content-range")), (206, Some("bytes 0-849/2000")));
    assert_eq!(joined.body, body[..850]);
    for range in [list(17, apart), list(17, overlapping), list(2700, all)] {
        let answer = edge.get_with("/a", &[("Range", &range)]).await;
        assert_eq!((answer.status(), answer.body.len()), (200, LENGTH), "{range:.60}");
    }
    let endless = edge.get_with("/a", &[("Range", &list(10_000, all))]).await;
    assert_eq!(endless.status(), 431);
    assert_eq!(origin.requests(), 1);
    // Nor is an origin made to answer them: it is asked for the whole, once.
    let range = list(2700, all);
    for cache in ["fwd=uri-miss", "hit"] {
        let answer = edge.fill_with("/b", &[("Range", &range), ("If-Range", "\"1\"")]).await;
        assert_eq!((answer.status(), answer.body.len()), (200, LENGTH));
        assert!(answer.says(cache), "{}", answer.cache());
    }
    let seen = origin.last("/b").await;
    assert_eq!((seen.field("range"), seen.field("if-range"), seen.nth), (None, None, 1));
}

/// Whether a new connection from that address gets an answer.
async fn served(edge: &Edge, source: IpAddr) -> Option<Connection> {
    let mut client = Connection::open_from(source, edge.plain()).await.ok()?;
    let _ = client.try_send(request("GET", HOST, "/a", &[])).await;
    let status = client.try_head("GET").await?.status;
    assert_eq!((status, &*client.rest().await.0), (200, &b"x"[..]));
    Some(client)
}

#[tokio::test]
async fn d07_whoever_connects_over_and_over_is_slowed_down_alone() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge =
        Edge::before(&origin).limits("exempt_networks = []\naccepts_per_client = 50").start();
    edge.fill("/a").await;
    let (begun, mut granted) = (Instant::now(), 0_u32);
    for number in 0..500 {
        granted += u32::from(served(&edge, STRANGER).await.is_some());
        if number % 100 == 0 {
            assert_eq!(edge.get("/a").await.text(), "x", "others connect");
        }
    }
    let most = 51.0 + begun.elapsed().as_secs_f64() * 50.0;
    assert!((50.0..=most).contains(&f64::from(granted)), "{granted} of at most {most}");
    let refused = edge.metric("atoll_connections_refused_total").await;
    assert!((refused + f64::from(granted) - 500.0).abs() < 0.5, "{refused} and {granted}");
    let again = || async { served(&edge, STRANGER).await.is_some() };
    until("the stranger to be let in again", again).await;
}

#[tokio::test]
async fn d08_one_more_than_a_client_may_have_is_turned_away() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin).limits("exempt_networks = []\nconnections = 1000").start();
    edge.fill("/a").await;
    let mut open = Vec::new();
    for number in 0..256 {
        let client = served(&edge, STRANGER).await;
        open.push(client.unwrap_or_else(|| panic!("turned away after {number}")));
    }
    assert!(served(&edge, STRANGER).await.is_none(), "one too many");
    assert_eq!(edge.get("/a").await.text(), "x", "others are served");
    for client in &mut open {
        assert_eq!(client.get(HOST, "/a", &[]).await.text(), "x", "and those that are there");
    }
    drop(open.pop());
    until("room again", || async { served(&edge, STRANGER).await.is_some() }).await;
}

#[tokio::test]
async fn d09_heads_just_under_every_limit_cost_little_more_than_their_size() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Program::start(origin.address);
    let mut head = format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n");
    for number in 0..99 {
        head += &format!("X-{number:02}: {}\r\n", "y".repeat(280));
    }
    let mut first = Connection::open(edge.plain).await;
    first.send(head.clone() + "\r\n").await;
    assert_eq!(first.response("GET").await.text(), "x", "it is within the limits");
    let before = edge.resident();
    let mut open = Vec::new();
    for _ in 0..CROWD {
        let mut client = Connection::open(edge.plain).await;
        client.send(&head).await;
        open.push(client);
    }
    for client in &mut open {
        client.send("\r\n").await;
        assert_eq!(client.response("GET").await.text(), "x");
    }
    let (sent, grown) = (CROWD * head.len(), edge.most_resident().saturating_sub(before));
    assert!(grown < 3 * sent + (8 << 20), "{grown} bytes more for {sent} bytes of heads");
}

#[tokio::test]
async fn d12_an_early_refusal_soon_ends_an_upload() {
    let origin = Origin::serving(Reply::new(413).body("too much").early());
    let edge = Edge::start(&origin);
    let (address, length) = (edge.plain(), (64 << 20).to_string());
    let head = request("POST", HOST, "/a", &[("Content-Length", &length)]);
    // One that goes on and on slowly, and one that sends as fast as it can.
    let begun = Instant::now();
    let (answer, _) = drip(address, head.clone(), "x", Duration::from_millis(20)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut fast = edge.connect().await;
    fast.send(head).await;
    let mut sent = 0;
    while fast.try_send(vec![b'x'; 64 * 1024]).await.is_ok() {
        sent += 64 * 1024;
        assert!(sent < 64 << 20, "all of it was taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    edge.metric_becomes("atoll_connections_open", 0.0).await;
    let seen = origin.seen("/a", 2).await;
    assert_ne!(seen[0].connection, seen[1].connection, "nothing unread is left for the next");
}
