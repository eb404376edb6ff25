//! Origins that are slow, silent, sick or gone, and their return.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::request;
use crate::support::crowd::{Counting, Mood};
use crate::support::edge::{Plan, TOKEN};
use crate::support::{Connection, Edge, Ended, Origin, Piece, Reply, side_by_side, until};

/// Bytes one by one, with a pause after each.
fn drip(text: &str, pause: Duration) -> Vec<Piece> {
    let one = |byte: &u8| [Piece::data([*byte]), Piece::Pause(pause)];
    text.as_bytes().iter().flat_map(one).collect()
}

/// How the only origin stands.
async fn stands(edge: &Edge) -> Value {
    let answer = edge.manage("GET", "/v1/origins", None).await;
    let mut told: Value = serde_json::from_slice(&answer.body).unwrap();
    told["origins"][0].take()
}

async fn states(edge: &Edge) -> Vec<String> {
    let told = stands(edge).await;
    let endpoints = told["endpoints"].as_array().unwrap();
    endpoints.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn e08_a_head_that_drips_has_its_time_and_no_more() {
    let origin = Origin::start(|_| {
        Reply::script(drip(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Duration::from_millis(60),
        ))
    });
    let edge = Edge::before(&origin).limits("origin_first_byte = \"400ms\"\nretries = 0").start();
    let address = edge.plain();
    let begun = Instant::now();
    let waiters = side_by_side((0..5).map(|_| async move {
        let mut connection = Connection::open(address).await;
        connection.get("site.test", "/a", &[]).await.status()
    }));
    assert_eq!(waiters.await, [504; 5], "all who wait are told");
    assert!(begun.elapsed() < Duration::from_secs(2), "no byte prolongs it");
    assert_eq!(origin.count("/a"), 1, "nobody asked again");
}

#[tokio::test]
async fn e08_a_body_that_drips_is_cut_off_for_all_who_read() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/drip" => {
            Reply::fresh("").sized(10_000, drip(&"x".repeat(200), Duration::from_millis(50)))
        }
        _ => Reply::ok("good"),
    });
    let edge = Edge::before(&origin)
        .limits("origin_rate = 500\norigin_rate_window = \"1s\"\norigin_gap = \"5s\"")
        .start();
    let address = edge.plain();
    let begun = Instant::now();
    let readers = side_by_side((0..4).map(|_| async move {
        let mut connection = Connection::open(address).await;
        connection.get("site.test", "/drip", &[]).await.ended
    }));
    assert_eq!(readers.await, [Ended::CutOff; 4]);
    assert!(begun.elapsed() < Duration::from_secs(6));
    edge.settled().await;
    assert_eq!(edge.get("/good").await.text(), "good");
    assert!((edge.metric("atoll_store_entries{size_class=\"0\"}").await).abs() < 0.1);
}

#[tokio::test]
async fn e09_one_that_accepts_and_never_answers_is_given_up() {
    let origin = Origin::serving(Reply::script(vec![Piece::Hang]));
    let probe =
        "probe = { path = \"/health\", interval = \"200ms\", timeout = \"100ms\", fall = 2 }";
    let edge = Edge::before(&origin)
        .origin_too(probe)
        .limits("origin_first_byte = \"100ms\"\ncircuit_failures = 3\ncircuit_retry = \"1h\"")
        .start();
    for number in 0..3 {
        assert_eq!(edge.get(&format!("/{number}")).await.status(), 504);
    }
    edge.metric_becomes("atoll_origin_circuit_open{origin=\"main\"}", 1.0).await;
    let answer = edge.get("/a").await;
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    assert!(answer.says("detail=destination_unavailable"), "{answer:?}");
    assert_eq!(origin.count("/a"), 0, "it was not asked");
    until("its probes to find it down", || async { states(&edge).await == ["down"] }).await;
    let told = stands(&edge).await;
    assert_eq!((&told["circuit"], &told["healthy"]), (&json!("open"), &json!(false)));
    let refused = "atoll_origin_refused_total{origin=\"main\",reason=\"circuit\"}";
    assert!(edge.metric(refused).await > 0.5);
}

#[tokio::test]
async fn e31_when_all_are_down_stale_answers_stand_in_and_nobody_storms() {
    let (one, two) = (Counting::start(Duration::ZERO).await, Counting::start(Duration::ZERO).await);
    let probe = "probe = { path = \"/health\", interval = \"400ms\", timeout = \"200ms\" }";
    let edge = Plan::before(&[one.address, two.address])
        .origin_too(probe)
        .limits("circuit_failures = 5\ncircuit_retry = \"400ms\"")
        .start();
    assert_eq!(edge.fill("/stale/1").await.status(), 200);
    one.be(Mood::HangsUp);
    two.be(Mood::HangsUp);
    until("the circuit to open", || async {
        edge.get("/miss").await;
        stands(&edge).await["circuit"] == "open"
    })
    .await;
    let begun = Instant::now();
    for counting in [&one, &two] {
        counting.came();
        counting.probes();
    }
    let mut refused = 0;
    while begun.elapsed() < Duration::from_millis(1600) {
        let stale = edge.get("/stale/1").await;
        assert_eq!((stale.status(), stale.text()), (200, "ok"), "{stale:?}");
        let miss = edge.get("/miss").await;
        assert!(matches!(miss.status(), 502 | 503), "{miss:?}");
        if miss.status() == 503 {
            assert_eq!(miss.field("retry-after"), Some("1"));
            refused += 1;
        }
    }
    let intervals = usize::try_from(begun.elapsed().as_millis() / 400).unwrap() + 1;
    for counting in [&one, &two] {
        assert!(counting.probes() <= intervals + 1);
        // One on trial an interval, and its one retry.
        assert!(counting.came().len() <= 2 * intervals);
    }
    assert!(refused > 2 * intervals, "{refused} of those who were not on trial");
}

/// A server whose health page is well while all else fails in this way.
fn sick(reply: Reply) -> Origin {
    Origin::start(move |seen| match &*seen.target {
        "/health" => Reply::ok("well"),
        _ => reply.clone(),
    })
}

#[tokio::test]
async fn e32_traffic_that_fails_ejects_whatever_the_health_page_says() {
    let failing = Reply::new(500);
    let silent = Reply::script(vec![Piece::Close]);
    for (case, reply, least, most) in
        [("answers of 500", failing, 20, 200), ("no answers", silent, 5, 20)]
    {
        let (bad, good) = (sick(reply), Origin::serving(Reply::ok("good")));
        let probe =
            "probe = { path = \"/health\", interval = \"100ms\", rise = 1, timeout = \"100ms\" }";
        let edge = Plan::before(&[bad.address, good.address])
            .origin_too(probe)
            .limits("retry_budget_percent = \"100%\"")
            .start();
        let asked = || bad.requests() - bad.count("/health");
        until(case, || async {
            edge.get("/a").await;
            states(&edge).await == ["ejected", "up"]
        })
        .await;
        let enough = asked();
        assert!((least..most).contains(&enough), "{case}: {enough}");
        let probed = bad.count("/health");
        until("more probes that succeed", || async { bad.count("/health") >= probed + 3 }).await;
        assert_eq!(
            states(&edge).await,
            ["ejected", "up"],
            "{case}: its health page brings nothing back"
        );
        for _ in 0..20 {
            assert_eq!(edge.get("/a").await.text(), "good");
        }
        assert_eq!(asked(), enough, "{case}");
    }
}

#[tokio::test]
async fn e32_never_more_than_half_is_ejected() {
    let bad: Vec<Origin> = (0..3).map(|_| sick(Reply::script(vec![Piece::Close]))).collect();
    let good = Origin::serving(Reply::ok("good"));
    let mut all: Vec<SocketAddr> = bad.iter().map(|origin| origin.address).collect();
    all.push(good.address);
    let edge = Plan::before(&all).limits("retry_budget_percent = \"100%\"\nretries = 3").start();
    let ejected =
        || async { states(&edge).await.iter().filter(|state| *state == "ejected").count() };
    until("half to be ejected", || async {
        edge.get("/a").await;
        ejected().await == 2
    })
    .await;
    let third = || bad.iter().map(Origin::requests).max().unwrap();
    let before = third();
    until("the third to fail often enough", || async {
        edge.get("/a").await;
        third() > before + 12
    })
    .await;
    assert_eq!(ejected().await, 2);
    assert!((edge.metric("atoll_origin_endpoints_up{origin=\"main\"}").await - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn e33_one_that_returns_takes_up_its_load_by_and_by() {
    let well = Arc::new(AtomicBool::new(false));
    let health = Arc::clone(&well);
    let returning = Origin::start(move |seen| match &*seen.target {
        "/health" if !health.load(Ordering::SeqCst) => Reply::new(503),
        _ => Reply::ok("x"),
    });
    let steady = Origin::serving(Reply::ok("x"));
    // On a busy machine a probe that comes late must not take it out again, nor one slow answer leave it
    // without requests: they take turns, whatever their latencies.
    let manner = "balance = \"round-robin\"\n\
        probe = { path = \"/health\", interval = \"2s\", timeout = \"2s\", rise = 1, fall = 1 }";
    let edge = Plan::before(&[returning.address, steady.address])
        .origin_too(manner)
        .limits("slow_start = \"6s\"")
        .start();
    until("it to be down", || async { states(&edge).await == ["down", "up"] }).await;
    well.store(true, Ordering::SeqCst);
    until("it to be back", || async { states(&edge).await == ["up", "up"] }).await;
    let share = || async { stands(&edge).await["endpoints"][0]["share"].as_f64().unwrap() };
    let taken = || returning.requests() - returning.count("/health");
    let mut client = edge.connect().await;
    let (mut asked, mut early) = (0, 0);
    while share().await < 0.4 {
        for _ in 0..5 {
            client.get("site.test", "/a", &[]).await;
        }
        asked += 5;
        early = taken();
    }
    assert!(asked >= 20, "the machine was too busy to tell: {asked}");
    until("it to have its whole share", || async { share().await > 0.999 }).await;
    let before = taken();
    for _ in 0..200 {
        client.get("site.test", "/a", &[]).await;
    }
    let late = taken() - before;
    assert!(early * 100 < asked * 35, "{early} of {asked} at first");
    assert!(late > 40, "{late} of 200 in the end");
    assert!(late * asked > early * 200, "it takes more in the end: {early}/{asked} and {late}/200");
}

#[tokio::test]
async fn e34_when_all_checks_fail_at_once_all_are_used_and_the_alarm_is_raised() {
    let blind = || {
        Origin::start(|seen| match &*seen.target {
            "/health" => Reply::new(503),
            _ => Reply::ok("fine"),
        })
    };
    let origins = [blind(), blind(), blind()];
    let probe =
        "probe = { path = \"/health\", interval = \"100ms\", timeout = \"100ms\", fall = 1 }";
    let edge =
        Plan::before(&origins.each_ref().map(|origin| origin.address)).origin_too(probe).start();
    // Whoever follows the node is told.
    let mut follower = Connection::open(edge.admin()).await;
    let bearer = format!("Bearer {TOKEN}");
    let fields = [("Authorization", bearer.as_str()), ("Connection", "close")];
    follower.send(request("GET", "admin.test", "/v1/events", &fields)).await;
    edge.metric_becomes("atoll_origin_panic{origin=\"main\"}", 1.0).await;
    assert_eq!(states(&edge).await, ["down", "down", "down"]);
    assert_eq!(stands(&edge).await["panic"], json!(true));
    for number in 0..60 {
        assert_eq!(edge.get(&format!("/{number}")).await.text(), "fine");
    }
    for origin in &origins {
        assert!(origin.requests() > origin.count("/health"), "each of them is used");
    }
    assert_eq!(stands(&edge).await["circuit"], json!("closed"), "traffic shows that they answer");
}

#[tokio::test]
async fn an_operators_order_is_carried_out_written_down_and_told() {
    let (one, two) = (Origin::serving(Reply::ok("one")), Origin::serving(Reply::ok("two")));
    let folder = crate::support::certificate::Folder::new();
    let log = folder.path().join("audit.log");
    let edge = Plan::before(&[one.address, two.address])
        .token("reader", &["read"], &[])
        .token("bound", &["read", "config"], &["main"])
        .audit_log(&log)
        .start();
    let path = format!("/v1/origins/main/endpoints/{}", one.address);
    let order = |state: &str| Some(json!({ "state": state }));
    for (token, status) in [("reader", 403), ("bound", 403), ("nobody", 401)] {
        let answer = edge.manage_as(Some(token), "PUT", &path, order("down")).await;
        assert_eq!(answer.status(), status, "{token}");
    }
    assert_eq!(edge.manage("PUT", &path, order("away")).await.status(), 400);
    let other = "/v1/origins/main/endpoints/192.0.2.1:1";
    assert_eq!(edge.manage("PUT", other, order("down")).await.status(), 404);
    assert_eq!(states(&edge).await, ["up", "up"], "whoever is refused changes nothing");

    let answer = edge.manage("PUT", &path, order("drain")).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told["endpoints"][0]["state"], json!("drain"));
    for _ in 0..20 {
        assert_eq!(edge.get("/a").await.text(), "two");
    }
    assert_eq!(one.requests(), 0);
    let other = format!("/v1/origins/main/endpoints/{}", two.address);
    edge.manage("PUT", &other, order("down")).await;
    assert_eq!(edge.get("/a").await.status(), 503, "an order is an order");
    edge.manage("PUT", &path, order("auto")).await;
    assert_eq!(edge.get("/a").await.text(), "one");
    let lines = std::fs::read_to_string(&log).unwrap();
    let mut acts = lines.lines().filter(|line| line.contains("\"endpoint\""));
    assert_eq!(acts.clone().count(), 3, "{lines}");
    assert!(acts.next_back().unwrap().contains("\"auto\""), "{lines}");
}
