//! The `[limits]` table: one key per field of [`Limits`], by the same name, within bounds.

use super::super::error::Problem;
use super::super::limits::Limits;
use super::super::reader::Table;

/// Bounds of times, in milliseconds.
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Largest count that is not a mistake.
const MANY: u64 = 1_000_000_000;

/// Asks the table for every field. The pattern has no `..`: a new field must be given its line here.
macro_rules! ask {
    ($table:ident, $limits:ident; $($field:ident: $kind:ident $(($range:expr))?,)*) => {
        let Limits { $($field),* } = $limits;
        $($table.$kind(stringify!($field), $field $(, $range)?);)*
    };
}

/// Reads the table over the defaults.
pub(super) fn read(mut table: Table<'_>, limits: &mut Limits) {
    ask! { table, limits;
        head_bytes: size(KIB..=MIB),
        field_bytes: size(256..=MIB),
        cookie_bytes: size(256..=MIB),
        fields: count(8..=10_000),
        cookie_crumbs: count(1..=10_000),
        target_bytes: size(256..=MIB),
        body_in_flight_bytes: size(4 * KIB..=16 * MIB),
        chunk_extension_bytes: size(0..=MIB),
        trailer_bytes: size(0..=MIB),
        trailer_fields: count(0..=10_000),
        drain_bytes: size(0..=16 * MIB),
        connections: count(0..=MANY),
        connections_share_percent: percent(1..=100),
        connections_thin_percent: percent(10..=100),
        descriptors_reserve: count(0..=1_000_000),
        connections_per_client: count(1..=MANY),
        handshakes_per_client: count(1..=MANY),
        accepts_per_client: count(1..=MANY),
        exempt_networks: set,
        connection_requests: count(0..=u64::MAX),
        rate_limit_clients: count(16..=16_000_000),
        connection_age: time(SECOND..=YEAR),
        handshake: time(100..=HOUR),
        head: time(100..=HOUR),
        keep_alive: time(100..=DAY),
        linger: time(0..=60 * SECOND),
        body_gap: time(100..=DAY),
        send_gap: time(100..=DAY),
        minimum_rate: size(1..=GIB),
        rate_window: time(SECOND..=HOUR),
        rate_grace: time(0..=HOUR),
        tunnel_idle: time(100..=YEAR),
        tunnel_age: time(0..=YEAR),
        tunnels: count(0..=MANY),
        http2_streams: count(1..=100_000),
        http2_streams_per_client: count(1..=MANY),
        http2_stream_window_bytes: size(16 * KIB..=GIB),
        http2_connection_window_bytes: size(64 * KIB..=GIB),
        http2_frame_bytes: size(16 * KIB..=16 * MIB - 1),
        http2_table_bytes: size(0..=MIB),
        http2_resets_before_answer: count(1..=MANY),
        http2_resets: count(1..=MANY),
        http2_server_resets: count(1..=MANY),
        http2_continuations: count(1..=10_000),
        http2_settings_per_minute: count(2..=MANY),
        http2_pings_per_minute: count(1..=MANY),
        http2_ping_burst: count(1..=MANY),
        http2_control_queue: count(8..=1_000_000),
        http2_empty_data: count(1..=MANY),
        http2_window_updates_per_second: count(1..=MANY),
        http2_priorities_per_minute: count(1..=MANY),
        http2_tiny_data_per_second: count(1..=MANY),
        http2_glitches: count(4..=MANY),
        http2_idle: time(100..=DAY),
        stream_idle: time(100..=DAY),
        http2_send_buffer_bytes: size(4 * KIB..=16 * MIB),
        origin_dns: time(100..=HOUR),
        origin_connect: time(10..=HOUR),
        origin_first_byte: time(10..=DAY),
        origin_gap: time(10..=DAY),
        origin_rate: size(1..=GIB),
        origin_rate_window: time(SECOND..=HOUR),
        origin_head_bytes: size(KIB..=MIB),
        origin_fields: count(8..=10_000),
        origin_interims: count(0..=1_000),
        origin_connections: count(1..=1_000_000),
        origin_client_percent: percent(1..=100),
        origin_queue: count(0..=1_000_000),
        origin_queue_wait: time(0..=HOUR),
        origin_idle: time(0..=DAY),
        origin_idle_connections: count(0..=100_000),
        origin_connection_age: time(SECOND..=YEAR),
        origin_http2_streams: count(1..=10_000),
        origin_http2_connections: count(1..=1_000),
        origin_http2_silence: time(100..=DAY),
        retries: count(0..=10),
        retry_budget_percent: percent(0..=100),
        eject_failures: count(1..=1_000_000),
        eject_share_percent: percent(1..=100),
        eject_time: time(100..=5 * 60 * SECOND),
        eject_at_most_percent: percent(0..=100),
        circuit_failures: count(0..=1_000_000),
        circuit_retry: time(100..=HOUR),
        slow_start: time(0..=HOUR),
        dns_addresses: count(1..=1_000),
        dns_ttl_least: time(SECOND..=DAY),
        dns_ttl_most: time(SECOND..=DAY),
        dns_keep: time(0..=YEAR),
        stored_bytes: size(KIB..=TIB),
        variants: count(1..=10_000),
        vary_fields: count(1..=100),
        tags: count(1..=10_000),
        tag_bytes: size(1..=8 * KIB),
        tags_bytes: size(1..=MIB),
        purge_rows: count(16..=100_000_000),
        purge_globs: count(1..=10_000),
        fills: count(1..=10_000_000),
        fill_wait: time(100..=DAY),
        position_wait: time(0..=60 * SECOND),
        position_waiters: count(0..=1_000_000),
        positions_per_client: count(1..=MANY),
        uncacheable_memory: time(0..=DAY),
        uncacheable_keys: count(0..=100_000_000),
        coding_jobs: count(1..=1_000_000),
        memory_bodies_percent: percent(20..=100),
        memory_slow_readers_percent: percent(1..=50),
        memory_evict_percent: percent(10..=100),
        memory_shed_percent: percent(10..=100),
        memory_refuse_percent: percent(10..=100),
        memory_hysteresis_percent: percent(0..=50),
        watchdog: time(0..=HOUR),
        watchdog_abort: set,
        certificate_check: time(0..=HOUR),
        drain: time(0..=DAY),
        drain_notice: time(0..=HOUR),
        upgrade: time(SECOND..=600 * SECOND),
    }
    agree(&table, limits);
    table.finish();
}

/// Limits that make sense only together.
fn agree(table: &Table<'_>, limits: &Limits) {
    let pairs = [
        ("field_bytes", limits.field_bytes <= limits.head_bytes, "head_bytes"),
        ("cookie_bytes", limits.cookie_bytes <= limits.head_bytes, "head_bytes"),
        ("target_bytes", limits.target_bytes <= limits.head_bytes, "head_bytes"),
        ("dns_ttl_least", limits.dns_ttl_least <= limits.dns_ttl_most, "dns_ttl_most"),
        ("tag_bytes", limits.tag_bytes <= limits.tags_bytes, "tags_bytes"),
        (
            "http2_stream_window_bytes",
            limits.http2_stream_window_bytes <= limits.http2_connection_window_bytes,
            "http2_connection_window_bytes",
        ),
        (
            "memory_evict_percent",
            limits.memory_evict_percent <= limits.memory_shed_percent,
            "memory_shed_percent",
        ),
        (
            "memory_shed_percent",
            limits.memory_shed_percent <= limits.memory_refuse_percent,
            "memory_refuse_percent",
        ),
    ];
    for (smaller, fine, larger) in pairs {
        if fine {
            continue;
        }
        let span = table.span_of(smaller).or_else(|| table.span_of(larger));
        table.sink.push(
            Problem::new(format!("`limits.{smaller}` is larger than `limits.{larger}`"))
                .at(span)
                .help(format!("`{smaller}` is at most `{larger}`: lower it, or raise the other")),
        );
    }
}
