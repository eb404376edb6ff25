//! Overload and want: memory, descriptors, places (H02 to H17).

use std::time::Duration;

use bytes::Bytes;

use crate::support::client::request;
use crate::support::edge::HOST;
use crate::support::h2::Asked;
use crate::support::{
    Binary, Connection, Edge, Gate, H2, Origin, Piece, Reply, pattern, side_by_side, until,
};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 13] = [
    (
        "H02",
        "what is accounted is what memory loses",
        &["it/cases/overload h02_", "src/store/memory sizes_round_up_as_the_allocator_does"],
    ),
    ("H03", "sizes that alternate", &["it/cases/overload h03_"]),
    (
        "H04",
        "steps of memory pressure",
        &["it/cases/overload h04_", "src/listener/tests without_memory_nobody_is_let_in"],
    ),
    ("H05", "an answer that sheds", &["it/cases/overload h04_"]),
    (
        "H08",
        "a thousand clients on one key at its end",
        &[
            "it/collapse a_thousand_clients_cost_one_origin_request_and_none_waits_for_another",
            "it/stale stale_is_served_while_one_refresh_is_under_way",
        ],
    ),
    (
        "H10",
        "keys that were stored together",
        &[
            "src/proxy/dice what_is_stored_together_does_not_end_together",
            "src/semantics/properties jitter_shortens_what_is_stored_and_nothing_else",
        ],
    ),
    (
        "H13",
        "a log that nobody reads, a disk that is full",
        &[
            "src/telemetry/access_log/tests reader_that_stopped_reading_blocks_nobody",
            "src/telemetry/access_log/tests full_disk_and_broken_pipe_cost_lines_and_nothing_else",
            "src/telemetry/log blocked_reader_loses_lines_and_blocks_nobody",
        ],
    ),
    (
        "H15",
        "retries",
        &[
            "src/health/retry_budget retries_stay_within_the_share_however_many_fail",
            "it/balancing an_origin_that_cuts_half_of_its_connections_is_not_asked_twice_as_much",
        ],
    ),
    (
        "H17",
        "a hundred thousand routes",
        &["src/route/mod a_hundred_thousand_routes_and_a_hostile_path_are_no_matter"],
    ),
    (
        "H-descriptors",
        "no more descriptors",
        &[
            "it/cases/overload without_descriptors_accepting_rests_and_the_admin_listener_does_not",
            "it/cases/overload descriptors_that_origins_lack_are_not_held_against_them",
            "src/config/descriptors the_reserve_is_kept_back_but_for_a_quarter_at_most",
        ],
    ),
    (
        "H-idle",
        "idle connections in the way of others",
        &[
            "it/cases/overload idle_connections_make_room_the_longest_idle_first",
            "src/listener/thinning the_longest_idle_go_first_and_nobody_while_there_is_room",
        ],
    ),
    (
        "H-lingering",
        "slow readers of what the store has pushed out",
        &[
            "it/cases/overload who_takes_large_answers_slowly_cannot_keep_what_the_store_has_pushed_out",
            "src/listener/lingering the_slowest_go_first_and_nobody_while_there_is_room",
        ],
    ),
    (
        "H-mixed",
        "all of it at once",
        &[
            "abuse/main mixed_abuse_is_not_noticed",
            "abuse/main ten_minutes_of_mixed_abuse_are_not_noticed",
        ],
    ),
];

/// Budget of the story about memory, in bytes.
const BUDGET: u64 = 128 << 20;
/// Requests that hold a MiB of it each.
const HOLDERS: usize = 100;

/// Requests that wait for a place at the origin, and whose bodies wait in our memory meanwhile.
async fn waiting(edge: &Binary, h2: &mut H2) -> Vec<Asked> {
    let mut waiting = Vec::new();
    for _ in 0..HOLDERS {
        let head = h2.head("POST", "/upload", &[]);
        let mut asked = h2.ask(head, true).await;
        // A body that does not begin would not wait for a place.
        asked.body.send_data(Bytes::from_static(b"x"), false).unwrap();
        waiting.push(asked);
    }
    let all = HOLDERS as f64;
    edge.metric_within("atoll_origin_queued{origin=\"main\"}", all..=all).await;
    waiting
}

/// Lets one of them after the other grow by a MiB until the process is at that step. Steps lie
/// farther apart than by default: what was sent and not looked at yet must not skip one.
async fn grow(edge: &Binary, waiting: &mut impl Iterator<Item = &mut Asked>, step: f64) {
    while edge.metric("atoll_memory_pressure").await < step {
        let asked = waiting.next().unwrap_or_else(|| panic!("{} bytes", edge.resident()));
        asked.body.send_data(Bytes::from(vec![b'x'; 1 << 20]), false).unwrap();
        // What is asked for all the time is the last that the store gives back.
        if let Ok(mut client) = Connection::try_open(edge.plain).await {
            let _ = client.try_send(request("GET", HOST, "/hit", &[])).await;
            let _ = client.try_head("GET").await;
        }
        // A few for each look at memory, and many more than the store gives back meanwhile: with
        // nothing left in it there would be no hits to look at.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[tokio::test]
async fn h04_memory_is_given_back_then_misses_are_shed_then_connections_refused() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/hit" => Reply::fresh("kept"),
        "/blocks" => Reply::ok("done").gate(&held),
        target if target.starts_with("/more/") => Reply::fresh(pattern(256 << 10)),
        _ => Reply::ok("asked"),
    });
    let plan = Edge::before(&origin).plain_h2().budget("128MiB").limits(
        "origin_connections = 1\norigin_queue_wait = \"10m\"\norigin_first_byte = \"10m\"\n\
         http2_stream_window_bytes = \"1MiB\"\nhttp2_connection_window_bytes = \"128MiB\"\n\
         memory_evict_percent = \"60%\"\nmemory_shed_percent = \"70%\"",
    );
    let edge = Binary::start(plan, "");
    let mut kept = Connection::open(edge.plain).await;
    assert_eq!(kept.get(HOST, "/hit", &[]).await.text(), "kept");
    assert_eq!(edge.get(HOST, "/miss").await.text(), "asked");
    // Something to give back.
    fill(&edge, "more", 120).await;
    assert_eq!(edge.metric("atoll_memory_pressure").await, 0.0, "{} bytes", edge.resident());
    let mut blocker = Connection::open(edge.plain).await;
    blocker.ask(HOST, "/blocks", &[]).await;
    gate.reached(1).await;
    let mut h2 = H2::plain(edge.plain, HOST).await;
    let mut waiting = waiting(&edge, &mut h2).await;
    let mut growing = waiting.iter_mut();

    grow(&edge, &mut growing, 2.0).await;
    // Shed: hits go on, misses are told when to come again, and nobody keeps a connection.
    let hit = edge.get(HOST, "/hit").await;
    assert_eq!((hit.status(), hit.text(), hit.field("connection")), (200, "kept", Some("close")));
    let shed = edge.get(HOST, "/miss").await;
    assert_eq!((shed.status(), shed.field("connection")), (503, Some("close")), "{shed:?}");
    assert!(shed.field("retry-after").is_some(), "{shed:?}");
    assert_eq!(origin.count("/miss"), 1);
    // Whoever was idle made room.
    kept.closed().await;

    grow(&edge, &mut growing, 3.0).await;
    if let Ok(mut refused) = Connection::try_open(edge.plain).await {
        let _ = refused.try_send(request("GET", HOST, "/hit", &[])).await;
        assert!(refused.try_head("GET").await.is_none(), "memory is short");
    }
    assert!(edge.resident() < BUDGET * 11 / 10, "{} bytes resident", edge.resident());

    drop(waiting);
    drop(h2);
    gate.open();
    // The allocator gives pages back by and by.
    for _ in 0..4 {
        if edge.metric("atoll_memory_pressure").await > 1.0 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
    edge.metric_within("atoll_memory_pressure", 0.0..=1.0).await;
    assert_eq!(edge.get(HOST, "/miss").await.text(), "asked");
    assert_eq!(edge.get(HOST, "/hit").await.text(), "kept");
}

/// Asks for so many targets over one connection.
async fn fill(edge: &Binary, prefix: &str, count: usize) {
    let mut client = Connection::open(edge.plain).await;
    for number in 0..count {
        let answer = client.get(HOST, &format!("/{prefix}/{number}"), &[]).await;
        assert_eq!(answer.status(), 200);
    }
}

/// Bytes that the store says it holds.
async fn accounted(edge: &Binary) -> f64 {
    let answer = edge.manage("/metrics").await;
    let lines = answer.text().lines().filter(|line| line.starts_with("atoll_store_bytes{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// An origin whose bodies are as long as their paths say: `/1000/...`.
fn sized() -> Origin {
    Origin::start(|seen| {
        let size = seen.target.split('/').nth(1).unwrap().parse().unwrap();
        Reply::fresh(pattern(size))
    })
}

#[tokio::test]
async fn h02_what_the_store_accounts_for_is_what_memory_loses() {
    for (size, count) in [(1, 3000), (100_000, 400), (1 << 20, 40)] {
        let origin = sized();
        let edge = Binary::start(Edge::before(&origin).budget("256MiB"), "");
        // What the way of a request needs is there before the measurement.
        fill(&edge, &size.to_string(), 20).await;
        until("it to be stored", || async { accounted(&edge).await > 0.0 }).await;
        let (before, stood) = (edge.resident() as f64, accounted(&edge).await);
        fill(&edge, &format!("{size}/more"), count - 20).await;
        let expected = (count - 20) as f64 * f64::from(size);
        until("all to be stored", || async { accounted(&edge).await - stood >= expected }).await;
        let (grown, told) = (edge.resident() as f64 - before, accounted(&edge).await - stood);
        // A process is no allocator: buffers, tables and pages half used are in what is resident.
        let slack = f64::from(6 << 20);
        assert!(grown < told * 1.15 + slack, "{size}: {grown} grown, {told} told");
        assert!(told < grown * 1.1 + slack, "{size}: {grown} grown, {told} told");
    }
}

#[tokio::test]
async fn h03_sizes_that_alternate_leave_no_holes_that_grow() {
    let origin = sized();
    let edge = Binary::start(Edge::before(&origin).budget("192MiB"), "");
    let base = edge.resident() as f64;
    for round in 0..2 {
        for (size, count) in [(64_000, 1800), (1_000_000, 130), (300_000, 420)] {
            fill(&edge, &format!("{size}/{round}"), count).await;
        }
    }
    let slack = f64::from(12 << 20);
    until("memory to settle", || async {
        let grown = edge.resident() as f64 - base;
        grown < 1.25 * accounted(&edge).await + slack
    })
    .await;
    let told = accounted(&edge).await;
    assert!((f64::from(64 << 20)..=f64::from(192 << 20) * 0.7 * 1.03).contains(&told), "{told}");
}

/// Clients that keep a connection after an answer.
async fn keep(edge: &Binary, most: usize) -> Vec<Connection> {
    let mut kept = Vec::new();
    for _ in 0..most {
        let Ok(mut client) = Connection::try_open(edge.plain).await else { continue };
        if client.try_send(request("GET", HOST, "/hit", &[])).await.is_err() {
            continue;
        }
        let head = tokio::time::timeout(Duration::from_millis(300), client.try_head("GET")).await;
        if let Ok(Some(_)) = head {
            client.rest().await;
            kept.push(client);
        }
    }
    kept
}

/// A plan whose connections are bounded by descriptors alone.
fn short_of_descriptors(origin: &Origin) -> crate::support::edge::Plan {
    Edge::before(origin).limits("connections = 1000\nkeep_alive = \"10m\"")
}

#[tokio::test]
async fn without_descriptors_accepting_rests_and_the_admin_listener_does_not() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Binary::start(short_of_descriptors(&origin), "ulimit -n 96;");
    // Busy ones, which nobody may close to make room.
    let mut busy = Vec::new();
    for _ in 0..150 {
        if let Ok(mut client) = Connection::try_open(edge.plain).await {
            let _ = client.try_send("GET /hit HTTP/1.1\r\n").await;
            busy.push(client);
        }
    }
    edge.metric_within("atoll_descriptors_short_total", 1.0..=f64::MAX).await;
    let computed = edge.computed();
    for _ in 0..10 {
        assert_eq!(edge.manage("/healthz").await.status(), 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let computed = edge.computed() - computed;
    assert!(computed < Duration::from_millis(500), "it spins: {computed:?} in a second");
    drop(busy);
    until("clients to be served again", || async {
        match Connection::try_open(edge.plain).await {
            Ok(mut client) => {
                let _ = client.try_send(request("GET", HOST, "/hit", &[])).await;
                client.try_head("GET").await.is_some_and(|head| head.status == 200)
            }
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn descriptors_that_origins_lack_are_not_held_against_them() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/hit" => Reply::fresh("x"),
        _ => Reply::ok("asked").before(Piece::Pause(Duration::from_millis(500))),
    });
    let plan = short_of_descriptors(&origin).limits("circuit_failures = 3\neject_failures = 1");
    let edge = Binary::start(plan, "ulimit -n 96;");
    let kept = keep(&edge, 45).await;
    assert!(kept.len() > 10, "{} connections", kept.len());
    let asked = kept.into_iter().enumerate().map(|(number, mut client)| async move {
        client.ask(HOST, &format!("/miss/{number}"), &[]).await;
        client.try_head("GET").await.map(|head| head.status)
    });
    let statuses = side_by_side(asked).await;
    assert!(statuses.contains(&Some(503)), "there are too few for all: {statuses:?}");
    assert!(statuses.iter().flatten().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert_eq!(edge.metric("atoll_origin_ejections_total{origin=\"main\"}").await, 0.0);
    assert_eq!(edge.metric("atoll_origin_circuit_opened_total{origin=\"main\"}").await, 0.0);
    until("the origin to be asked again", || async {
        edge.get(HOST, "/miss/later").await.status() == 200
    })
    .await;
}

/// Connections that have had an answer.
async fn answered(edge: &Edge, count: usize) -> Vec<Connection> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = edge.connect().await;
        assert_eq!(client.get(HOST, "/hit", &[]).await.text(), "x");
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn idle_connections_make_room_the_longest_idle_first() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::before(&origin).plain_h2().limits("connections = 40").start();
    let mut old = answered(&edge, 4).await;
    let mut h2 = H2::plain(edge.plain(), HOST).await;
    assert_eq!(h2.get("/hit", &[]).await.text(), "x");
    // Far longer than those to come will have been idle when the bar has come so near, even where a
    // busy machine takes seconds to open them.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(edge.metric("atoll_connections_idle_closed_total").await, 0.0);
    // The thirty-sixth of forty: nine in ten.
    let mut kept = answered(&edge, 31).await;
    for client in &mut old {
        client.closed().await;
    }
    assert_eq!(h2.ended_by_edge().await, None, "it was asked to leave");
    for client in &mut kept {
        assert_eq!(client.get(HOST, "/hit", &[]).await.text(), "x");
    }
    assert_eq!(edge.metric("atoll_connections_idle_closed_total").await, 5.0);
    assert_eq!(edge.metric("atoll_connections_refused_total").await, 0.0);
}

#[tokio::test]
async fn who_takes_large_answers_slowly_cannot_keep_what_the_store_has_pushed_out() {
    let large = Bytes::from(pattern(8 << 20));
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/hit" => Reply::fresh("kept"),
        target if target.starts_with("/large/") => Reply::fresh(large.clone()),
        _ => Reply::ok("asked"),
    });
    let edge = Binary::start(Edge::before(&origin).plain_h2().budget("256MiB"), "");
    assert_eq!(edge.get(HOST, "/hit").await.text(), "kept");
    // Each is asked for once, by somebody who takes the first part and then nothing. In all it is more than
    // the process may have.
    let mut readers = Vec::new();
    for number in 0..45 {
        let mut h2 = H2::plain(edge.plain, HOST).await;
        let head = h2.head("GET", &format!("/large/{number}"), &[]);
        let asked = h2.ask(head, false).await;
        readers.push((asked, h2));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pressure = edge.metric("atoll_memory_pressure").await;
        assert!(pressure < 2.0, "{number}: step {pressure}, {} bytes", edge.resident());
    }
    edge.metric_within("atoll_client_timeouts_total", 10.0..=f64::MAX).await;
    let hit = edge.get(HOST, "/hit").await;
    assert_eq!((hit.status(), hit.text()), (200, "kept"));
    assert_eq!(edge.get(HOST, "/miss").await.text(), "asked");
}
