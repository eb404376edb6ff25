//! Purges between nodes (G03 to G32). What a network and clocks can do is tried in simulation; here are
//! whole edges over real links.

use serde_json::{Value, json};

use crate::mesh::{Reef, purge, sequence};
use crate::support::edge::HOST;
use crate::support::{Gate, Origin, Reply, until};

/// Case, what it is about, and the tests that prove it: file and name.
pub(super) const PROOFS: [(&str, &str, &[&str]); 22] = [
    (
        "G03",
        "a message that comes ten times",
        &[
            "src/replication/replica/tests a_record_is_applied_once_and_in_order",
            "sim/main no_seed_breaks_a_promise",
        ],
    ),
    (
        "G05",
        "a PoP cut off",
        &[
            "it/mesh one_witness_less_changes_nothing_and_without_two_nothing_is_proved_or_served_unasked",
            "it/lease a_fresh_response_is_confirmed_first_until_the_lease_is_back",
            "sim/main no_seed_breaks_a_promise",
        ],
    ),
    ("G06", "cut off in one direction", &["sim/main no_seed_breaks_a_promise"]),
    (
        "G07",
        "two halves, purges on both",
        &[
            "src/replication/quorum a_majority_is_more_than_half_of_each_half",
            "sim/main no_seed_breaks_a_promise",
        ],
    ),
    (
        "G08",
        "killed and started again",
        &["it/mesh a_node_that_comes_back_knows_what_it_missed_before_it_holds_a_lease"],
    ),
    (
        "G09",
        "a process that takes over",
        &[
            "it/upgrade what_is_purged_at_the_new_process_is_gone_at_the_old_one",
            "it/cases/process i08_",
        ],
    ),
    (
        "G12",
        "a clock behind that of its former life",
        &[
            "src/replication/quorum a_reply_from_a_life_that_is_over_does_not_count",
            "src/mesh/rule another_process_takes_the_place_of_its_former_self",
            "sim/main no_seed_breaks_a_promise",
        ],
    ),
    (
        "G14",
        "strangers, forged and broken messages",
        &[
            "src/mesh/tests/strangers who_is_no_node_is_refused_and_counted",
            "src/mesh/tests/strangers what_is_no_tls_or_no_greeting_is_refused",
            "src/mesh/authority another_authoritys_certificate_is_refused",
            "src/mesh/tests garbage_closes_its_link_and_no_other",
        ],
    ),
    (
        "G16",
        "a node that purges without end",
        &[
            "src/replication/replica/tests more_than_the_rate_is_refused_where_it_is_issued_and_delayed_elsewhere",
            "src/admin/tests/roles every_route_opens_to_its_scope_and_sites_and_to_nobody_else",
            "it/down a_purge_of_everything_under_load_sends_no_more_than_the_cap",
        ],
    ),
    ("G17", "purges faster than the mesh takes them", &["it/cases/mesh g17_"]),
    (
        "G18",
        "lengths, versions and kinds of messages",
        &[
            "src/mesh/frame what_is_too_long_or_empty_ends_the_reading",
            "src/mesh/frame an_unknown_kind_is_handed_on_as_such",
            "src/mesh/frame parts_make_the_message_again_and_no_longer_one",
            "src/replication/wire/tests a_kind_from_the_future_is_told_apart_from_rubbish",
            "src/replication/wire/tests a_length_that_lies_costs_nothing",
            "src/mesh/payload what_is_newer_is_not_understood",
        ],
    ),
    (
        "G20",
        "a process that sleeps",
        &[
            "it/lease a_lease_runs_out_by_itself",
            "src/replication/lease a_lease_runs_from_the_question_and_ends_when_the_wall_clock_runs_ahead",
            "sim/main no_seed_breaks_a_promise",
        ],
    ),
    (
        "G21",
        "members that are believed dead",
        &["src/mesh/tests what_membership_believes_holds_no_purge_back"],
    ),
    (
        "G22",
        "half of the nodes start again",
        &[
            "sim/main no_seed_breaks_a_promise",
            "src/mesh/tests a_node_that_dies_is_noticed_and_dialled_when_it_is_back",
        ],
    ),
    ("G24", "two purges of one tag at the same time", &["it/cases/mesh g24_"]),
    ("G25", "a purge elsewhere while a fill is under way", &["it/cases/mesh g25_"]),
    (
        "G27",
        "holes in the numbers",
        &[
            "src/replication/replica/tests a_gap_is_asked_for",
            "src/replication/log a_jump_leaves_no_hole",
            "src/replication/log the_oldest_go_first_and_who_needs_them_is_told",
        ],
    ),
    (
        "G28",
        "histories that look alike",
        &[
            "src/replication/vector two_histories_do_not_cover_one_another",
            "src/replication/replica/tests another_record_under_a_known_name_is_refused_and_its_issuer_reborn",
        ],
    ),
    (
        "G29",
        "much for little",
        &[
            "src/mesh/tests/strangers what_is_no_tls_or_no_greeting_is_refused",
            "src/mesh/tests/strangers who_says_nothing_takes_a_place_for_a_while_and_no_more_than_his_share",
        ],
    ),
    (
        "G30",
        "authorities that change",
        &[
            "src/mesh/tests authorities_change_node_by_node_while_messages_flow",
            "src/mesh/tests files_that_cannot_be_used_change_nothing",
        ],
    ),
    (
        "G23",
        "a million purges missed",
        &["scale/tests/quick who_missed_many_purges_catches_up_in_few_batches"],
    ),
    ("G32", "thirty thousand nodes", &["scale/tests/quick small_meshes_add_little_to_the_way"]),
];

/// A tag on everything that the origin serves.
fn tagged() -> Origin {
    Origin::start(|seen| Reply::fresh(format!("v{}", seen.nth)).field("Surrogate-Key", "t"))
}

async fn reef_before(origin: Origin) -> Reef {
    let mut reef = Reef::before();
    reef.origin = origin;
    (0..3).for_each(|node| reef.begin(node));
    reef.all_hold().await;
    reef
}

#[tokio::test]
async fn g24_two_purges_of_one_tag_at_the_same_time_are_both_in_force_everywhere() {
    let reef = reef_before(tagged()).await;
    for round in 0..5 {
        for node in 0..3 {
            reef.node(node).fill("/a").await;
        }
        let asked = reef.origin.count("/a");
        let body = || json!({ "tags": ["t"], "wait": "everywhere", "timeout": "5s" });
        let (one, other) = tokio::join!(reef.node(0).purge(body()), reef.node(1).purge(body()));
        assert_eq!((&one["state"], &other["state"]), (&"everywhere".into(), &"everywhere".into()));
        assert_ne!(one["id"], other["id"]);
        for node in 0..3 {
            let answer = reef.node(node).get("/a").await;
            assert!(answer.cache().contains("fwd="), "{answer:?}");
        }
        assert_eq!(reef.origin.count("/a"), asked + 3, "each asks once in round {round}");
        for node in 0..3 {
            let view = reef.view(node).await;
            assert_eq!((sequence(&view, "a"), sequence(&view, "b")), (round + 1, round + 1));
        }
    }
}

#[tokio::test]
async fn g25_a_fill_that_a_purge_elsewhere_overtook_is_stored_nowhere() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.nth {
        1 => Reply::fresh("v1").gate(&held),
        nth => Reply::fresh(format!("v{nth}")),
    });
    let reef = reef_before(origin).await;
    let mut before = reef.node(2).connect().await;
    before.ask(HOST, "/a", &[]).await;
    gate.reached(1).await;
    let receipt = reef.node(0).purge(purge("/a", "everywhere")).await;
    assert_eq!(receipt["state"], "everywhere", "{receipt}");
    gate.open();
    let answer = before.response("GET").await;
    assert!(matches!(answer.text(), "v1" | "v2"), "it was asked for before the purge: {answer:?}");
    reef.node(2).settled().await;
    assert_eq!(reef.node(2).get("/a").await.text(), "v2");
    assert_eq!(reef.origin.count("/a"), 2);
}

#[tokio::test]
async fn g17_purges_beyond_the_rate_are_told_to_wait_and_none_that_was_taken_is_lost() {
    let mut reef = Reef::before();
    let slow =
        |file: String| file.replace("[mesh]\n", "[mesh]\npurge_rate = 1\npurge_burst = 20\n");
    (0..3).for_each(|node| reef.begin_as(node, slow));
    reef.all_hold().await;
    reef.node(1).fill("/hit").await;
    let mut answers = Vec::new();
    for number in 0..60 {
        let body = purge(&format!("/{number}"), "local");
        answers.push(reef.node(0).manage("POST", "/v1/purge", Some(body)).await);
    }
    let taken = answers.iter().filter(|answer| answer.status() == 200).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() == 429).collect();
    assert!(taken >= 20 && taken + refused.len() == 60, "{taken} taken, {} refused", refused.len());
    for answer in refused {
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["code"], "mesh-rate");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    until("all that was taken to be known", || async {
        sequence(&reef.view(1).await, "a") == taken as u64
            && sequence(&reef.view(2).await, "a") == taken as u64
    })
    .await;
    reef.node(1).get("/hit").await.expect(200, "v1", "hit");
}
