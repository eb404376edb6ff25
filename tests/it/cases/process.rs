//! The process: signals, starts, limits of the system, faults within (I01 to I17).

use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::request;
use crate::support::edge::{HOST, Plan};
use crate::support::{Binary, Connection, Edge, Ended, Gate, H2, Origin, Piece, Reply, until};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 13] = [
    (
        "I01",
        "a signal under load",
        &[
            "it/cases/process i01_",
            "it/drain no_request_fails_while_draining_under_load",
            "it/drain readiness_goes_first_and_connections_end_by_themselves",
        ],
    ),
    ("I02", "a second signal", &["it/cases/process i02_"]),
    (
        "I04",
        "reloads under load",
        &[
            "it/reload/load no_request_fails_while_configurations_change_places",
            "it/reload/load no_request_fails_by_sighup_at_two_thousand_a_second",
            "it/reload/certificates no_request_fails_while_certificates_are_replaced",
        ],
    ),
    (
        "I05",
        "any bytes as configuration",
        &[
            "src/config/tests/fuzz any_text_gives_a_configuration_or_problems",
            "src/config/tests/fuzz large_nonsense_takes_bounded_time",
        ],
    ),
    (
        "I07",
        "a site that is removed while its requests are under way",
        &["it/reload a_site_that_is_removed_finishes_what_it_began_and_is_gone"],
    ),
    ("I08", "killed and started again", &["it/cases/process i08_"]),
    (
        "I09",
        "another process takes over",
        &[
            "it/upgrade twice_under_load_no_request_fails_and_no_socket_is_left_over",
            "it/upgrade a_new_process_that_fails_leaves_the_old_one_untouched_and_says_why",
        ],
    ),
    (
        "I11",
        "a panic in a request",
        &[
            "src/listener/http1/tests/answers a_panic_costs_its_own_connection_only",
            "src/listener/http2/tests a_panic_is_an_error_for_that_request_only",
        ],
    ),
    (
        "I12",
        "a panic beside the requests",
        &[
            "src/app/supervise a_thread_that_panics_goes_on_with_what_it_knew",
            "src/app/supervise a_task_that_panics_is_begun_anew_and_one_that_ends_is_not",
            "src/app/supervise pauses_double_up_to_a_bound_and_shorten_after_good_times",
        ],
    ),
    (
        "I-watchdog",
        "a worker that does not move",
        &[
            "src/app/watchdog a_blocked_worker_is_noticed_while_others_beat_and_when_it_moves_again",
            "src/app/watchdog time_that_nobody_was_looking_is_no_time_without_a_beat",
            "it/cases/process a_process_that_was_stopped_is_not_taken_for_stuck",
        ],
    ),
    ("I13", "depth that exhausts the stack", &["it/cases/process i13_"]),
    ("I16", "a start while all around is down", &["it/cases/process i16_"]),
    ("I17", "a user without rights", &["it/cases/process i17_"]),
];

/// An edge before an origin that streams behind a gate.
fn streaming(gate: &Gate) -> Origin {
    let pieces = vec![Piece::data("begun "), Piece::gate(gate), Piece::data("ended")];
    Origin::start(move |seen| match seen.target.as_str() {
        "/long" => Reply::ok("").chunked(pieces.clone()),
        _ => Reply::fresh("x"),
    })
}

#[tokio::test]
async fn i01_a_signal_ends_the_process_when_all_is_answered() {
    let gate = Gate::new();
    let origin = streaming(&gate);
    let plan = Edge::before(&origin).plain_h2().drain_notice("300ms");
    let mut edge = Binary::start(plan, "");
    let mut download = Connection::open(edge.plain).await;
    download.ask(HOST, "/long", &[]).await;
    download.head("GET").await;
    let mut h2 = H2::plain(edge.plain, HOST).await;
    let asked = h2.head("GET", "/long", &[]);
    let asked = h2.ask(asked, false).await;
    let mut kept = Connection::open(edge.plain).await;
    assert_eq!(kept.get(HOST, "/a", &[]).await.text(), "x");
    gate.reached(2).await;
    edge.signal("TERM");
    until("readiness to go", || async { edge.manage("/readyz").await.status() == 503 }).await;
    let last = kept.get(HOST, "/a", &[]).await;
    assert_eq!((last.text(), last.field("connection")), ("x", Some("close")));
    gate.open();
    download.body_bytes(6).await;
    assert_eq!(download.rest().await, ("ended".into(), Ended::Clean));
    assert_eq!(asked.outcome().await.unwrap().text(), "begun ended");
    assert_eq!(edge.ended().await.code(), Some(0), "{}", edge.said());
}

#[tokio::test]
async fn i02_a_second_signal_cuts_off_what_is_left() {
    for (first, second) in [("TERM", "INT"), ("INT", "TERM")] {
        let gate = Gate::new();
        let origin = streaming(&gate);
        let mut edge = Binary::start(Edge::before(&origin), "");
        let mut download = Connection::open(edge.plain).await;
        download.ask(HOST, "/long", &[]).await;
        download.head("GET").await;
        download.body_bytes(6).await;
        edge.signal(first);
        until("draining", || async { edge.manage("/readyz").await.status() == 503 }).await;
        let begun = Instant::now();
        edge.signal(second);
        assert_eq!(edge.ended().await.code(), Some(3), "as `atoll run --help` says");
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert_eq!(download.rest().await.1, Ended::CutOff);
    }
}

#[tokio::test]
async fn i08_what_was_killed_starts_again_at_once_on_the_same_address() {
    let origin = Origin::serving(Reply::fresh("x"));
    let first = Binary::start(Edge::before(&origin), "");
    assert_eq!(first.get(HOST, "/a").await.text(), "x");
    let address = first.plain;
    let _held = Connection::open(address).await;
    first.signal("KILL");
    drop(first);
    let begun = Instant::now();
    let plan = Edge::before(&origin).listener(&address.to_string(), "");
    let second = Binary::start(plan, "");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(second.plain, address);
    assert_eq!(second.get(HOST, "/a").await.text(), "x");
    assert_eq!(origin.count("/a"), 2, "it began with an empty store");
}

#[tokio::test]
async fn a_process_that_was_stopped_is_not_taken_for_stuck() {
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Binary::start(Edge::before(&origin).limits("watchdog = \"1s\""), "");
    assert_eq!(edge.get(HOST, "/a").await.text(), "x");
    edge.signal("STOP");
    tokio::time::sleep(Duration::from_secs(2)).await;
    edge.signal("CONT");
    assert_eq!(edge.get(HOST, "/a").await.text(), "x");
    assert_eq!(edge.manage("/readyz").await.status(), 200);
    assert_eq!(edge.metric("atoll_worker_stalls_total").await, 0.0);
}

#[tokio::test]
async fn i13_depth_is_refused_and_exhausts_no_stack() {
    let deep = "[".repeat(100_000);
    let folder = crate::support::certificate::Folder::new();
    let file = folder.path().join("deep.toml");
    for text in [format!("a = {deep}"), format!("a{} = 1", ".a".repeat(100_000)), deep.clone()] {
        std::fs::write(&file, text).unwrap();
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"))
            .arg("check")
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    }
    let origin = Origin::serving(Reply::fresh("x"));
    let edge = Edge::start(&origin);
    let token = format!("Bearer {}", crate::support::edge::TOKEN);
    for body in [deep.clone(), "{\"all\":".repeat(50_000)] {
        let length = body.len().to_string();
        let fields = [
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
        ];
        let mut client = Connection::open(edge.admin()).await;
        let head = request("POST", "admin.test", "/v1/purge", &fields);
        let _ = client.try_send(head + &body).await;
        let status = client.response("POST").await.status();
        assert!(matches!(status, 400 | 413), "{status}");
    }
    let target = format!("/{}", "a/".repeat(4000));
    assert_eq!(edge.get(&target).await.status(), 200);
}

#[tokio::test]
async fn i16_a_node_starts_while_its_origins_and_their_names_are_down() {
    let keys = "name = \"main\"\nservers = [\"http://nobody.invalid:80\"]";
    let plan = Plan::before(&[Origin::dead().await]).no_origins().origin_keys(keys);
    let edge = Binary::start(plan, "");
    assert_eq!(edge.manage("/healthz").await.status(), 200);
    let ready = edge.manage("/readyz").await;
    assert_eq!(ready.status(), 200, "it can answer from memory: {ready:?}");
    assert!(ready.text().contains("\"healthy\":false"), "and says what is down: {ready:?}");
    let answer = edge.get(HOST, "/a").await;
    assert!(matches!(answer.status(), 502..=504), "{answer:?}");
}

#[tokio::test]
async fn i17_a_user_without_rights_or_home_can_run_it() {
    let origin = Origin::serving(Reply::fresh("x"));
    // Whoever may give rights up does; others have none to give. The program lies where every
    // user may reach it.
    let shell = format!(
        "cd /; if [ \"$(id -u)\" = 0 ]; then own=\"$(dirname \"$0\")\"; \
         ln {program} \"$own/atoll\" 2>/dev/null || cp {program} \"$own/atoll\"; \
         chmod -R a+rX \"$own\"; \
         exec env -i setpriv --reuid=65534 --regid=65534 --clear-groups \
         --bounding-set=-all --inh-caps=-all --no-new-privs \
         \"$own/atoll\" run --config \"$0\"; fi; unset HOME;",
        program = env!("CARGO_BIN_EXE_atoll"),
    );
    let edge = Binary::start(Edge::before(&origin), &shell);
    assert_eq!(edge.get(HOST, "/a").await.text(), "x");
    assert_eq!(edge.get(HOST, "/a").await.text(), "x");
    assert_eq!(origin.count("/a"), 1);
}
