//! Every limit by its key: what it is by default, and which test reaches it. A key without a row, a
//! row without a key, or a default that has moved fails a test.

use std::path::Path;

const FRAMES: &str = "src/listener/http2/frames/tests floods_of_each_kind_end";

/// Key, default as `config/reference.toml` writes it, and a test that reaches it.
const BOUNDS: &[(&str, &str, &str)] = &[
    // Request heads and bodies.
    ("head_bytes", "\"32KiB\"", "src/http1/tests/limits limits_hold_to_the_byte"),
    ("field_bytes", "\"8KiB\"", "src/http1/tests/limits limits_hold_to_the_byte"),
    ("cookie_bytes", "\"16KiB\"", "src/http1/tests/limits limits_hold_to_the_byte"),
    ("fields", "100", "src/http1/tests/limits limits_hold_to_the_byte"),
    ("cookie_crumbs", "150", "src/listener/http2/head each_rule_has_its_outcome"),
    (
        "target_bytes",
        "\"8KiB\"",
        "src/http1/tests/limits limits_do_not_wait_for_the_end_of_the_line",
    ),
    (
        "body_in_flight_bytes",
        "\"64KiB\"",
        "it/large an_origin_that_does_not_read_holds_its_client_back",
    ),
    ("chunk_extension_bytes", "\"4KiB\"", "src/http1/tests/bodies broken_chunks_are_refused"),
    ("trailer_bytes", "\"8KiB\"", "src/http1/tests/bodies trailers_are_bounded"),
    ("trailer_fields", "32", "src/http1/tests/bodies trailers_are_bounded"),
    (
        "drain_bytes",
        "\"64KiB\"",
        "src/listener/http1/tests/bodies an_unread_body_that_is_too_long_to_drop_ends_the_connection",
    ),
    // Client connections.
    ("connections", "0", "it/limits connections_beyond_the_cap_are_closed_and_others_served"),
    (
        "connections_share_percent",
        "\"40%\"",
        "src/listener/clients the_share_of_the_descriptors_is_the_cap",
    ),
    (
        "connections_thin_percent",
        "\"90%\"",
        "it/cases/overload idle_connections_make_room_the_longest_idle_first",
    ),
    (
        "descriptors_reserve",
        "32",
        "it/cases/overload without_descriptors_accepting_rests_and_the_admin_listener_does_not",
    ),
    ("connections_per_client", "256", "it/cases/clients d08_"),
    ("handshakes_per_client", "500", "it/cases/handshakes c16_"),
    ("accepts_per_client", "1000", "it/cases/clients d07_"),
    (
        "exempt_networks",
        "[\"127.0.0.0/8\", \"::1/128\"]",
        "src/listener/clients exempt_networks_have_no_cap",
    ),
    (
        "connection_requests",
        "0",
        "src/listener/http1/tests/answers the_number_of_requests_of_a_connection_can_be_capped",
    ),
    ("rate_limit_clients", "16384", "src/guard/sketch memory_does_not_depend_on_who_comes"),
    (
        "connection_age",
        "\"1h\"",
        "src/listener/http1/tests/waiting an_old_connection_ends_after_its_request",
    ),
    ("handshake", "\"5s\"", "it/cases/handshakes c15_"),
    ("head", "\"10s\"", "it/cases/clients d01_"),
    ("keep_alive", "\"1m\"", "it/limits an_idle_connection_is_closed_without_a_word"),
    (
        "linger",
        "\"1s\"",
        "src/listener/http1/tests/slow a_client_that_never_stops_sending_is_not_read_for_longer_than_lingering_takes",
    ),
    ("body_gap", "\"30s\"", "it/limits a_body_that_does_not_come_is_408"),
    ("send_gap", "\"30s\"", "it/limits a_client_that_takes_nothing_is_cut_off"),
    ("minimum_rate", "500", "it/cases/clients d02_"),
    (
        "rate_window",
        "\"20s\"",
        "src/listener/limits slow_peers_are_given_up_and_steady_ones_are_not",
    ),
    (
        "rate_grace",
        "\"10s\"",
        "src/listener/limits slow_peers_are_given_up_and_steady_ones_are_not",
    ),
    ("tunnel_idle", "\"5m\"", "it/tunnels silence_and_age_end_a_tunnel"),
    ("tunnel_age", "\"1d\"", "it/tunnels silence_and_age_end_a_tunnel"),
    ("tunnels", "0", "it/tunnels tunnels_have_a_cap_and_take_no_place_of_requests"),
    // HTTP/2.
    (
        "http2_streams",
        "100",
        "src/listener/http2/tests the_place_of_a_stream_is_free_only_when_its_work_has_ended",
    ),
    (
        "http2_streams_per_client",
        "400",
        "src/listener/clients streams_are_counted_over_all_connections_of_a_client_until_the_work_ends",
    ),
    (
        "http2_stream_window_bytes",
        "\"64KiB\"",
        "src/listener/http2/tests a_body_is_read_with_back_pressure_and_echoed",
    ),
    (
        "http2_connection_window_bytes",
        "\"1MiB\"",
        "src/listener/http2/tests a_body_is_read_with_back_pressure_and_echoed",
    ),
    (
        "http2_frame_bytes",
        "\"16KiB\"",
        "src/listener/http2/tests frames_that_break_a_rule_close_the_connection_with_its_reason",
    ),
    (
        "http2_table_bytes",
        "\"4KiB\"",
        "src/listener/http2/tests what_is_announced_is_what_is_configured",
    ),
    (
        "http2_resets_before_answer",
        "50",
        "src/listener/http2/frames/tests rapid_resets_end_at_the_fiftieth",
    ),
    (
        "http2_resets",
        "200",
        "src/listener/http2/frames/tests resets_of_begun_answers_end_at_the_limit_for_life",
    ),
    (
        "http2_server_resets",
        "100",
        "src/listener/http2/frames/tests resets_that_the_client_makes_us_send_end_at_the_hundredth",
    ),
    ("http2_continuations", "8", FRAMES),
    ("http2_settings_per_minute", "14", FRAMES),
    ("http2_pings_per_minute", "60", FRAMES),
    ("http2_ping_burst", "10", FRAMES),
    ("http2_control_queue", "100", FRAMES),
    ("http2_empty_data", "10", FRAMES),
    ("http2_window_updates_per_second", "100", FRAMES),
    ("http2_priorities_per_minute", "100", FRAMES),
    ("http2_tiny_data_per_second", "1000", FRAMES),
    ("http2_glitches", "1000", FRAMES),
    ("http2_idle", "\"2m\"", "src/listener/http2/tests an_idle_connection_is_asked_to_leave"),
    (
        "stream_idle",
        "\"30s\"",
        "src/listener/http2/tests a_body_that_does_not_come_ends_the_stream",
    ),
    (
        "http2_send_buffer_bytes",
        "\"64KiB\"",
        "src/listener/http2/tests a_window_that_does_not_open_ends_the_stream",
    ),
    // Origins.
    ("origin_dns", "\"5s\"", "it/names a_silent_family_holds_nobody_up"),
    (
        "origin_connect",
        "\"3s\"",
        "src/origin/tests/connections a_handshake_that_never_ends_times_out",
    ),
    ("origin_first_byte", "\"30s\"", "it/failover a_silent_origin_is_a_timeout"),
    ("origin_gap", "\"30s\"", "it/failover an_origin_that_falls_silent_within_a_body_cuts_it_off"),
    (
        "origin_rate",
        "500",
        "src/origin/tests/faults silence_in_a_body_and_drips_of_it_are_too_slow",
    ),
    (
        "origin_rate_window",
        "\"1m\"",
        "src/origin/tests/faults silence_in_a_body_and_drips_of_it_are_too_slow",
    ),
    (
        "origin_head_bytes",
        "\"32KiB\"",
        "src/origin/tests/faults heads_over_their_limits_are_errors",
    ),
    ("origin_fields", "100", "src/origin/tests/faults heads_over_their_limits_are_errors"),
    ("origin_interims", "8", "it/cases/origins_http e13_"),
    (
        "origin_connections",
        "256",
        "src/origin/tests/connections places_are_capped_with_a_queue_before_them",
    ),
    (
        "origin_client_percent",
        "\"20%\"",
        "src/origin/tests/connections who_asks_for_what_hangs_leaves_places_to_others",
    ),
    (
        "origin_queue",
        "512",
        "src/origin/tests/connections places_are_capped_with_a_queue_before_them",
    ),
    ("origin_queue_wait", "\"1s\"", "src/origin/tests/connections the_wait_for_a_place_has_an_end"),
    (
        "origin_idle",
        "\"30s\"",
        "src/origin/tests/connections idle_connections_are_capped_and_grow_old",
    ),
    (
        "origin_idle_connections",
        "64",
        "src/origin/tests/connections idle_connections_are_capped_and_grow_old",
    ),
    (
        "origin_connection_age",
        "\"1h\"",
        "src/origin/tests/connections a_connection_past_its_age_is_closed_after_its_request",
    ),
    ("origin_http2_streams", "100", "src/origin/tests/http2 fewer_streams_are_respected_at_once"),
    ("origin_http2_connections", "8", "src/origin/tests/http2 fewer_streams_are_respected_at_once"),
    (
        "origin_http2_silence",
        "\"5s\"",
        "src/origin/tests/http2 a_silent_connection_that_is_dead_is_given_up",
    ),
    ("retries", "1", "it/failover what_is_safe_is_asked_again_elsewhere"),
    (
        "retry_budget_percent",
        "\"10%\"",
        "src/health/retry_budget retries_stay_within_the_share_however_many_fail",
    ),
    ("eject_failures", "5", "it/cases/origins_health e32_"),
    ("eject_share_percent", "\"50%\"", "it/cases/origins_health e32_"),
    ("eject_time", "\"10s\"", "it/cases/origins_health e33_"),
    ("eject_at_most_percent", "\"50%\"", "src/health/limits at_most_the_share_and_never_the_last"),
    (
        "circuit_failures",
        "20",
        "src/origin/tests/health who_does_not_answer_is_not_asked_but_now_and_then",
    ),
    ("circuit_retry", "\"1s\"", "src/health/circuit one_goes_on_trial_each_second"),
    ("slow_start", "\"30s\"", "it/cases/origins_health e33_"),
    ("dns_addresses", "64", "it/cases/origins_names e27_"),
    ("dns_ttl_least", "\"5s\"", "it/cases/origins_names e26_"),
    ("dns_ttl_most", "\"5m\"", "it/cases/origins_names e26_"),
    ("dns_keep", "\"1d\"", "it/names what_is_kept_is_not_kept_for_ever"),
    // The store and the purge table.
    ("stored_bytes", "\"64MiB\"", "it/caching what_is_too_large_streams_through_and_is_not_stored"),
    ("variants", "32", "src/store/tests variants_are_selected_bounded_and_purged_together"),
    ("vary_fields", "8", "it/cases/keys f05_"),
    ("tags", "128", "it/cases/origins_words e39_"),
    ("tag_bytes", "256", "it/cases/origins_words e39_"),
    ("tags_bytes", "\"16KiB\"", "it/cases/origins_words e39_"),
    ("purge_rows", "100_000", "it/purge_selectors rows_that_fold_purge_more_and_never_less"),
    ("purge_globs", "64", "it/purge_selectors rows_that_fold_purge_more_and_never_less"),
    ("fills", "10_000", "src/store/tests fills_are_bounded"),
    ("fill_wait", "\"30s\"", "it/cases/answers f19_"),
    ("uncacheable_memory", "\"2m\"", "it/collapse what_was_uncacheable_is_not_queued_for_again"),
    ("uncacheable_keys", "100_000", "it/collapse what_was_uncacheable_is_not_queued_for_again"),
    ("coding_jobs", "1000", "it/codings a_full_queue_is_counted_and_asked_again"),
    // Requests that name a purge.
    (
        "position_wait",
        "\"250ms\"",
        "it/lease/position a_request_waits_shortly_for_the_purge_that_it_names",
    ),
    (
        "position_waiters",
        "1000",
        "src/store/position nobody_waits_longer_than_he_may_nor_beyond_the_places",
    ),
    (
        "positions_per_client",
        "20",
        "it/lease/position one_client_cannot_have_the_origin_asked_as_often_as_it_likes",
    ),
    // The process.
    (
        "memory_bodies_percent",
        "\"72%\"",
        "src/app/pressure bodies_get_back_what_they_gave_by_and_by",
    ),
    (
        "memory_slow_readers_percent",
        "\"5%\"",
        "it/cases/overload who_takes_large_answers_slowly_cannot_keep_what_the_store_has_pushed_out",
    ),
    ("memory_evict_percent", "\"85%\"", "it/cases/overload h04_"),
    ("memory_shed_percent", "\"90%\"", "it/cases/overload h04_"),
    ("memory_refuse_percent", "\"95%\"", "it/cases/overload h04_"),
    (
        "memory_hysteresis_percent",
        "\"5%\"",
        "src/app/pressure a_step_ends_only_well_below_where_it_began",
    ),
    (
        "watchdog",
        "\"10s\"",
        "src/app/watchdog a_blocked_worker_is_noticed_while_others_beat_and_when_it_moves_again",
    ),
    ("watchdog_abort", "false", "src/app/watchdog whoever_is_to_abort_does"),
    (
        "certificate_check",
        "\"10s\"",
        "it/reload/certificates no_request_fails_while_certificates_are_replaced",
    ),
    (
        "drain_notice",
        "\"500ms\"",
        "it/drain readiness_goes_first_and_connections_end_by_themselves",
    ),
    (
        "upgrade",
        "\"30s\"",
        "it/upgrade a_new_process_that_says_nothing_in_its_time_is_ended_and_the_old_one_goes_on",
    ),
    ("drain", "\"30s\"", "it/drain the_deadline_cuts_off_what_does_not_end"),
];

/// Keys and values of `[limits]` as the reference shows them.
fn reference() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| *line != "[limits]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let pairs =
        lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    pairs
        .map(|(key, value)| {
            let value = value.split_once(" #").map_or(value, |(value, _)| value);
            let value = value.split_once("  #").map_or(value, |(value, _)| value);
            (key.to_owned(), value.trim().to_owned())
        })
        .collect()
}

#[test]
fn every_limit_has_its_default_and_a_test_that_reaches_it() {
    let reference = reference();
    assert!(reference.len() > 100, "the limits stand elsewhere");
    let mut wrong = Vec::new();
    for (key, value) in &reference {
        match BOUNDS.iter().find(|(own, ..)| own == key) {
            None => wrong.push(format!("{key} has no row")),
            Some((_, expected, test)) => {
                if expected != value {
                    wrong.push(format!("{key} is {value}, and here {expected}"));
                }
                wrong.extend(super::missing(key, test));
            }
        }
    }
    let known = |own: &str| reference.iter().any(|(key, _)| key == own);
    wrong.extend(
        BOUNDS.iter().filter(|(own, ..)| !known(own)).map(|(own, ..)| format!("no key {own}")),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}
