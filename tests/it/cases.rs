//! Cases by number: what a stranger, a user or a broken origin may try with a shared cache, how an
//! origin may fail, and which test proves what becomes of it.
//!
//! [`PROOFS`] is the table; a test below checks that all that it names is there.

mod answers;
mod bounds;
mod clients;
mod handshakes;
mod keys;
mod mesh;
mod origins_health;
mod origins_http;
mod origins_names;
mod origins_words;
mod overload;
mod process;

use std::path::Path;

/// Case, what it is about, and the tests that prove it: file and name.
const PROOFS: &[(&str, &str, &[&str])] = &[
    ("E01", "a body shorter than its length", &["it/cases/origins_http e01_"]),
    ("E02", "chunks without the last", &["it/cases/origins_http e02_"]),
    (
        "E04",
        "framing that can be read in two ways",
        &[
            "it/cases/origins_http e04_",
            "it/failover answers_that_can_be_read_in_two_ways_are_not_relayed",
            "src/origin/tests/http2 a_body_must_be_as_long_as_announced",
        ],
    ),
    (
        "E07",
        "a reset as an end",
        &[
            "it/cases/origins_http e07_",
            "src/origin/tests/faults a_reset_in_a_body_until_close_is_an_error",
            "src/origin/tests/http2 a_body_that_is_reset_is_broken_even_without_error",
        ],
    ),
    (
        "E13",
        "interim responses",
        &[
            "it/cases/origins_http e13_",
            "src/origin/tests/http2 interim_responses_go_on_and_101_is_an_error",
        ],
    ),
    (
        "E14",
        "heads without measure",
        &["it/cases/origins_http e14_", "src/origin/tests/http2 heads_have_their_limits"],
    ),
    ("E15", "status lines", &["it/cases/origins_http e15_"]),
    (
        "E18",
        "an answer that nobody asked for",
        &[
            "it/failover an_answer_that_nobody_asked_for_reaches_nobody",
            "src/origin/tests/faults an_answer_that_nobody_asked_for_is_never_delivered",
            "src/origin/tests/http2 bytes_after_a_204_reach_nobody",
        ],
    ),
    ("E23", "Location", &["it/cases/origins_http e23_"]),
    (
        "E36",
        "GOAWAY, REFUSED_STREAM, windows and streams of an HTTP/2 origin",
        &[
            "it/cases/origins_http e36_",
            "src/origin/tests/http2 a_refused_stream_is_sent_again_whatever_its_method",
            "src/origin/tests/http2 a_stream_reset_otherwise_is_sent_again_only_where_that_is_safe",
            "src/origin/tests/http2 streams_beyond_a_goaway_go_elsewhere_and_the_others_end_well",
            "src/origin/tests/http2 a_goaway_that_covers_the_stream_is_no_promise",
            "src/origin/tests/http2 a_window_that_stays_shut_ends_with_our_patience",
            "src/origin/tests/http2 an_origin_that_takes_no_streams_gets_none",
            "src/origin/tests/http2 fewer_streams_are_respected_at_once",
        ],
    ),
    (
        "E40",
        "a connection belongs to one site and one identity",
        &[
            "it/cases/origins_http e40_",
            "src/origin/tests/connections two_sites_never_share_a_connection",
            "src/origin/tests/http2 two_sites_never_share_a_connection",
            "it/h2_origins a_pinned_name_is_the_one_that_counts",
            "it/h2_origins an_origin_that_asks_who_we_are_is_shown_the_certificate",
        ],
    ),
    (
        "E08",
        "an origin that drips",
        &[
            "it/cases/origins_health e08_",
            "it/failover an_origin_that_falls_silent_within_a_body_cuts_it_off",
        ],
    ),
    ("E09", "accepts and never answers", &["it/cases/origins_health e09_"]),
    (
        "E31",
        "all origins down",
        &[
            "it/cases/origins_health e31_",
            "it/down an_origin_that_hangs_up_hurts_nobody_but_those_who_need_it",
            "it/down an_origin_that_says_nothing_hurts_nobody_but_those_who_need_it",
        ],
    ),
    (
        "E32",
        "the health page answers, traffic fails",
        &["it/cases/origins_health e32_", "src/health/limits at_most_the_share_and_never_the_last"],
    ),
    (
        "E33",
        "a return",
        &[
            "it/cases/origins_health e33_",
            "src/health/endpoint a_returning_endpoint_ramps_up",
            "src/origin/tests/health what_comes_back_is_not_run_over",
        ],
    ),
    (
        "E34",
        "all health checks fail at once",
        &["it/cases/origins_health e34_", "src/health/limits the_tier_that_is_used"],
    ),
    (
        "H-origin",
        "a purge of everything under load",
        &["it/down a_purge_of_everything_under_load_sends_no_more_than_the_cap"],
    ),
    ("F01", "Set-Cookie", &["it/caching some_responses_are_never_stored", "it/cases/keys f01_"]),
    (
        "F02",
        "Authorization",
        &[
            "it/caching answers_to_authorization_are_shared_only_where_the_origin_says_so",
            "it/collapse what_one_user_may_see_is_not_shared_by_joining",
            "it/isolation no_answer_to_one_user_reaches_another",
        ],
    ),
    (
        "F04",
        "directives that forbid",
        &[
            "src/semantics/properties what_forbids_sharing_wins_over_all_that_allows_it",
            "src/semantics/properties every_status_is_stored_as_the_rfcs_say",
            "src/semantics/cache_control/tests what_forbids_is_found_in_any_damage",
        ],
    ),
    ("F05", "Vary", &["it/cases/keys f05_", "it/caching vary_keeps_variants_apart"]),
    ("F09", "key injection", &["src/semantics/key parts_are_injective", "it/cases/keys f09_"]),
    (
        "F10",
        "spellings of a path",
        &[
            "it/caching spellings_of_one_host_and_one_path_share_a_response",
            "src/semantics/properties what_goes_on_to_the_origin_has_the_key_that_it_was_stored_under",
            "it/cases/keys f10_",
        ],
    ),
    ("F11", "web cache deception", &["it/cases/keys f11_"]),
    ("F12", "rules and traversal", &["it/cases/keys f12_"]),
    (
        "F15",
        "spellings of a host",
        &["it/cases/keys f15_", "src/semantics/normalise/tests host_has_one"],
    ),
    ("F16", "a range first", &["it/cases/keys f16_"]),
    (
        "F18",
        "odd ranges",
        &["it/cases/keys f18_", "src/semantics/range ranges_are_read_against_the_length"],
    ),
    (
        "F19",
        "interrupted fills",
        &[
            "it/cases/answers f19_",
            "it/collapse an_interrupted_fill_cuts_everyone_off_and_stores_nothing",
            "it/collapse an_origin_that_fails_before_the_head_fails_all_waiters_at_once",
        ],
    ),
    (
        "F21",
        "the one that began leaves",
        &[
            "it/collapse a_fill_outlives_the_client_that_began_it",
            "it/collapse a_fill_that_nobody_waits_for_any_more_is_stored",
        ],
    ),
    (
        "F26",
        "fields of a 304",
        &[
            "it/cases/answers f26_",
            "it/revalidation a_304_that_forbids_storing_ends_what_was_stored",
            "it/revalidation a_cookie_that_comes_with_a_304_reaches_one_client",
            "src/semantics/conditional only_safe_fields_are_freshened",
        ],
    ),
    (
        "F27",
        "unsafe methods",
        &[
            "it/cases/answers f27_",
            "it/caching a_change_at_the_origin_drops_what_is_stored_under_its_url",
        ],
    ),
    (
        "F28",
        "stale while revalidating",
        &[
            "it/cases/answers f28_",
            "it/stale a_refresh_that_fails_leaves_the_stale_response_in_its_window",
            "it/stale a_refresh_that_brings_something_private_ends_the_stale_response",
            "it/stale windows_end_and_some_responses_have_none",
        ],
    ),
    (
        "F29",
        "age and jitter",
        &[
            "src/semantics/properties jitter_shortens_what_is_stored_and_nothing_else",
            "src/proxy/dice a_draw_follows_from_seed_node_key_and_fill",
            "src/semantics/storable/tests age_on_arrival_is_the_greatest_that_can_be_argued",
        ],
    ),
    ("F32", "a purge while a 304 is under way", &["it/purge a_purge_while_a_304_is_under_way"]),
    (
        "F35",
        "waiters after a purge",
        &[
            "it/purge waiters_after_the_purge_share_one_new_fill",
            "it/purge a_purge_while_the_fill_waits_for_its_head",
        ],
    ),
    (
        "F37",
        "a purge takes every form",
        &[
            "it/cases/answers f37_",
            "it/purge a_url_stands_for_all_its_variants_and_ports_and_nothing_else",
        ],
    ),
    (
        "F39",
        "eviction under readers",
        &[
            "it/cases/answers f39_",
            "src/store/tests evicted_memory_is_accounted_until_the_last_reader_lets_go",
        ],
    ),
    (
        "F40",
        "colliding hashes",
        &[
            "src/store/tests a_forced_collision_of_hashes_is_a_miss",
            "src/store/tests a_forced_collision_of_variants_is_a_miss",
        ],
    ),
    ("F41", "corruption in memory", &["src/store/tests what_changed_in_memory_is_a_miss"]),
    (
        "F42",
        "fields of the way",
        &[
            "it/cases/answers f42_",
            "src/semantics/properties what_is_stored_holds_nothing_of_the_way",
        ],
    ),
    ("F43", "request directives", &["it/caching request_directives_do_not_reach_through"]),
    (
        "F44",
        "collapsing what is not shared",
        &[
            "it/cases/answers f44_",
            "it/collapse what_may_not_be_shared_releases_the_waiters",
            "it/collapse what_was_uncacheable_is_not_queued_for_again",
            "it/collapse what_must_be_confirmed_is_not_shared_by_joining",
        ],
    ),
    (
        "F45",
        "two sites, one origin address",
        &["it/cases/answers f45_", "it/caching hosts_sites_and_queries"],
    ),
    ("F46", "the public cache tests", &["conformance/main the_published_table_is_true"]),
];

/// All that is proved, here and beside the tests.
fn proofs() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])> {
    let more =
        clients::PROOFS.into_iter().chain(origins_names::PROOFS).chain(origins_words::PROOFS);
    let more = more.chain(handshakes::PROOFS).chain(overload::PROOFS).chain(process::PROOFS);
    let more = more.chain(mesh::PROOFS);
    PROOFS.iter().copied().chain(more)
}

/// Every case of TLS (C), of slow and hostile clients (D), of hostile and faulty origins (E), of
/// gossip and purge (G), of overload (H) and of the process (I), but for those [`LATER`].
const ALL: [&str; 97] = [
    "C06", "C07", "C08", "C10", "C12", "C13", "C14", "C15", "C16", "C17", "C18", "C19", "C20",
    "C21", "C23", "D01", "D02", "D04", "D07", "D08", "D09", "D10", "D11", "D12", "D13", "D15",
    "D18", "E01", "E02", "E04", "E07", "E08", "E09", "E13", "E14", "E15", "E18", "E22", "E23",
    "E25", "E26", "E27", "E28", "E29", "E30", "E31", "E32", "E33", "E34", "E35", "E36", "E38",
    "E39", "E40", "G03", "G05", "G06", "G07", "G08", "G09", "G12", "G14", "G16", "G17", "G18",
    "G20", "G21", "G22", "G23", "G24", "G25", "G27", "G28", "G29", "G30", "G32", "H02", "H03",
    "H04", "H05", "H08", "H10", "H13", "H15", "H17", "I01", "I02", "I04", "I05", "I07", "I08",
    "I09", "I11", "I12", "I13", "I16", "I17",
];

/// Cases that have no proof here yet, and why.
const LATER: [(&str, &str); 1] = [("C25", "certificates are not fetched by the edge")];

#[test]
fn no_case_is_without_proof() {
    for case in ALL {
        assert_eq!(proofs().filter(|(own, ..)| *own == case).count(), 1, "{case}");
    }
    for (case, why) in LATER {
        let proved = proofs().any(|(own, ..)| own == case) || ALL.contains(&case);
        assert!(!proved, "{case} is proved now and no longer waits: {why}");
    }
}

/// What is wrong with a proof: `file name`, where the name may be a beginning.
fn missing(case: &str, test: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (file, name) = test.split_once(' ')?;
    let folder = if file.starts_with("src/") { root.to_owned() } else { root.join("tests") };
    let path = folder.join(file).with_extension("rs");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (!text.contains(&format!("fn {name}"))).then(|| format!("{case}: no {name} in {path:?}"))
}

#[test]
fn every_case_names_tests_that_exist() {
    for (case, about, tests) in proofs() {
        assert!(!tests.is_empty(), "{case} {about}");
        let wrong: Vec<_> = tests.iter().filter_map(|test| missing(case, test)).collect();
        assert!(wrong.is_empty(), "{about}: {wrong:#?}");
    }
}
