//! Every limit and timeout that stands between a stranger and our memory or time.
//!
//! Timers that progress resets are useless against slow clients: the deadlines here are absolute,
//! the rates are rates. 0 means "no cap of its own" only where the text says so.

use std::time::Duration;

use ipnet::IpNet;

/// The `[limits]` table. The defaults are the hardened profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request head in all, in bytes; each field is charged 32 bytes on top, as RFC 7541 section 4.1 does.
    pub head_bytes: usize,
    /// One field line, in bytes.
    pub field_bytes: usize,
    /// All `Cookie` lines of a request together, in bytes.
    pub cookie_bytes: usize,
    /// Field lines in a request, `Cookie` crumbs of HTTP/2 not counted.
    pub fields: usize,
    /// `Cookie` lines in an HTTP/2 request.
    pub cookie_crumbs: usize,
    /// Request target, in bytes.
    pub target_bytes: usize,
    /// Bytes of one body that may wait between client and origin.
    pub body_in_flight_bytes: usize,
    /// Chunk extensions of one body in all, in bytes.
    pub chunk_extension_bytes: usize,
    /// Trailer section, in bytes. Trailers are dropped, but for those of gRPC calls.
    pub trailer_bytes: usize,
    /// Trailer field lines.
    pub trailer_fields: usize,
    /// Unread request body that is read and dropped to keep a connection, in bytes.
    pub drain_bytes: usize,
    /// Client connections at once; 0 means `connections_share_percent` of the descriptor limit.
    pub connections: usize,
    /// Share of the descriptor limit that client connections may take.
    pub connections_share_percent: u32,
    /// Share of the client connections at which the longest idle ones are closed.
    pub connections_thin_percent: u32,
    /// Descriptors that neither clients nor origins get: for the admin listener, logs and files.
    pub descriptors_reserve: u32,
    /// Client connections at once from one IPv4 address or IPv6 /64.
    pub connections_per_client: usize,
    /// TLS handshakes per second from one IPv4 address or IPv6 /64.
    pub handshakes_per_client: u32,
    /// New connections per second from one IPv4 address or IPv6 /64.
    pub accepts_per_client: u32,
    /// Networks whose addresses have no cap and no share of their own: balancers and load testers.
    pub exempt_networks: Vec<IpNet>,
    /// Requests on one connection; 0 means any number.
    pub connection_requests: u64,
    /// Clients that may be at their rate limits at once before others are taken for them.
    pub rate_limit_clients: usize,
    /// Age at which a connection is closed after its current request, more or less a tenth.
    pub connection_age: Duration,
    /// Time for the TLS handshake, for a protocol preface, and for the first byte of a new connection.
    pub handshake: Duration,
    /// Time for a request head, from its first byte; never extended.
    pub head: Duration,
    /// Time an HTTP/1.1 connection may wait for its next request.
    pub keep_alive: Duration,
    /// Time to read and drop what a refused client still sends before the socket is closed.
    pub linger: Duration,
    /// Longest silence while a request body is owed.
    pub body_gap: Duration,
    /// Longest time in which a client takes nothing of what lies ready for it.
    pub send_gap: Duration,
    /// Bytes per second that a client must send of a body, and take of an answer, over `rate_window`.
    pub minimum_rate: u64,
    /// Window over which `minimum_rate` is measured.
    pub rate_window: Duration,
    /// Time before `minimum_rate` of a request body is first judged.
    pub rate_grace: Duration,
    /// Longest silence in both directions on upgraded connections and event streams.
    pub tunnel_idle: Duration,
    /// Age at which an upgraded connection is closed; zero means none.
    pub tunnel_age: Duration,
    /// Upgraded connections at once; 0 means a quarter of the connections that clients may have.
    pub tunnels: usize,
    /// Streams at once on one connection.
    pub http2_streams: u32,
    /// Streams at once from one IPv4 address or IPv6 /64.
    pub http2_streams_per_client: usize,
    /// Flow-control window of a stream, in bytes.
    pub http2_stream_window_bytes: u32,
    /// Flow-control window of a connection, in bytes.
    pub http2_connection_window_bytes: u32,
    /// Largest frame accepted, in bytes.
    pub http2_frame_bytes: u32,
    /// HPACK dynamic table in each direction, in bytes.
    pub http2_table_bytes: u32,
    /// Streams reset by the client before their answer, per 30 seconds.
    pub http2_resets_before_answer: u32,
    /// Streams reset by the client, over the life of a connection.
    pub http2_resets: u32,
    /// Streams that a client's frames made us reset, over the life of a connection.
    pub http2_server_resets: u32,
    /// CONTINUATION frames in one header block.
    pub http2_continuations: u32,
    /// SETTINGS frames per minute.
    pub http2_settings_per_minute: u32,
    /// PING frames per minute.
    pub http2_pings_per_minute: u32,
    /// PING frames at once beyond the rate.
    pub http2_ping_burst: u32,
    /// Control frames that may wait for a client that does not read.
    pub http2_control_queue: usize,
    /// Empty DATA frames on one stream.
    pub http2_empty_data: u32,
    /// WINDOW_UPDATE frames per second without DATA sent.
    pub http2_window_updates_per_second: u32,
    /// PRIORITY frames per minute.
    pub http2_priorities_per_minute: u32,
    /// DATA frames of a few bytes per second, beyond which each counts as odd.
    pub http2_tiny_data_per_second: u32,
    /// Odd but legal acts over the life of a connection; at three quarters it is asked to leave.
    pub http2_glitches: u32,
    /// Time an HTTP/2 connection may be without streams.
    pub http2_idle: Duration,
    /// Silence of a stream while the client is the one waited for.
    pub stream_idle: Duration,
    /// Bytes of one answer buffered for sending on a stream.
    pub http2_send_buffer_bytes: usize,
    /// Time for one DNS question.
    pub origin_dns: Duration,
    /// Time for TCP and TLS to an origin.
    pub origin_connect: Duration,
    /// Time from the end of the request to the final response head.
    pub origin_first_byte: Duration,
    /// Longest silence within a response body.
    pub origin_gap: Duration,
    /// Bytes per second that an origin must send of a body over `origin_rate_window`.
    pub origin_rate: u64,
    /// Window over which `origin_rate` is measured.
    pub origin_rate_window: Duration,
    /// Response head in all, in bytes.
    pub origin_head_bytes: usize,
    /// Field lines in a response.
    pub origin_fields: usize,
    /// Interim responses before the final one.
    pub origin_interims: u32,
    /// Requests under way to one origin at once.
    pub origin_connections: usize,
    /// Share of those that one client network alone may have, and of the queue; less where many ask.
    pub origin_client_percent: u32,
    /// Requests that may wait for one of those places.
    pub origin_queue: usize,
    /// Time that a request may wait for a place.
    pub origin_queue_wait: Duration,
    /// Time an idle connection to an origin is kept.
    pub origin_idle: Duration,
    /// Idle connections kept per endpoint and worker.
    pub origin_idle_connections: usize,
    /// Age at which a connection to an origin is closed after its request.
    pub origin_connection_age: Duration,
    /// Streams at once on one HTTP/2 connection to an origin, which may allow fewer.
    pub origin_http2_streams: usize,
    /// HTTP/2 connections per endpoint, site and worker.
    pub origin_http2_connections: usize,
    /// Silence after which an HTTP/2 connection to an origin has to answer a PING beside its next request.
    pub origin_http2_silence: Duration,
    /// Times that a request which is safe to repeat is sent again.
    pub retries: u32,
    /// Share of requests that may be retries.
    pub retry_budget_percent: u32,
    /// Failures in a row that eject an endpoint.
    pub eject_failures: u32,
    /// Share of failures that ejects an endpoint, of at least twenty requests in ten seconds.
    pub eject_share_percent: u32,
    /// First time out for an ejected endpoint; doubles up to five minutes.
    pub eject_time: Duration,
    /// Share of an origin's endpoints that may be ejected at once.
    pub eject_at_most_percent: u32,
    /// Requests in a row that an endpoint leaves unanswered before it counts as silent; when all
    /// are, the origin is not asked for a while. 0: it is always asked.
    pub circuit_failures: u32,
    /// Time between two requests that are sent on trial then.
    pub circuit_retry: Duration,
    /// Time over which a returning endpoint takes up its load.
    pub slow_start: Duration,
    /// Addresses used of one DNS answer.
    pub dns_addresses: usize,
    /// Shortest time between two lookups of a name.
    pub dns_ttl_least: Duration,
    /// Longest time between two lookups of a name.
    pub dns_ttl_most: Duration,
    /// Time that the last good answer is used while DNS fails.
    pub dns_keep: Duration,
    /// Largest stored response; also never more than a sixteenth of the store.
    pub stored_bytes: u64,
    /// Stored variants of one cache key under `Vary`.
    pub variants: usize,
    /// Field names in `Vary`; responses with more are not stored.
    pub vary_fields: usize,
    /// Tags of a response; one with more is not stored, since it could not be purged.
    pub tags: usize,
    /// Length of one tag in bytes.
    pub tag_bytes: usize,
    /// Length of all tags of a response in bytes.
    pub tags_bytes: usize,
    /// Rows of the purge table per site.
    pub purge_rows: usize,
    /// Patterns in the purge table per site.
    pub purge_globs: usize,
    /// Fills under way at once.
    pub fills: usize,
    /// Time that a joined request waits for a fill's head.
    pub fill_wait: Duration,
    /// Time that a request which names a purge waits for it to be in force.
    pub position_wait: Duration,
    /// Requests that may wait so at once; others do not wait.
    pub position_waiters: usize,
    /// Times a second that one client may have the origin asked by naming a purge that is not.
    pub positions_per_client: u32,
    /// Time that a key is remembered as uncacheable.
    pub uncacheable_memory: Duration,
    /// Keys remembered as uncacheable.
    pub uncacheable_keys: u64,
    /// Codings that wait to be made.
    pub coding_jobs: usize,
    /// Share of the budget that bodies may take in all: stored, arriving, and kept by slow readers. A
    /// little more than the store alone, so that what usually arrives pushes nothing out.
    pub memory_bodies_percent: u32,
    /// Share that slow readers alone may keep: beyond, those who need longest are cut off.
    pub memory_slow_readers_percent: u32,
    /// Share of the budget at which the store gives memory back.
    pub memory_evict_percent: u32,
    /// Share at which keep-alive ends and misses get 503.
    pub memory_shed_percent: u32,
    /// Share at which new connections are refused.
    pub memory_refuse_percent: u32,
    /// Share below a step at which it ends.
    pub memory_hysteresis_percent: u32,
    /// Time that a worker may not move before the node is not ready; zero means any.
    pub watchdog: Duration,
    /// Whether the process ends itself when a worker has not moved for that long.
    pub watchdog_abort: bool,
    /// Time between two looks at the files of certificates; zero looks at them on a reload only.
    pub certificate_check: Duration,
    /// Time that requests under way have when the process is told to stop.
    pub drain: Duration,
    /// Time between readiness going false and the end of accepting.
    pub drain_notice: Duration,
    /// Time that a process which takes over has to answer.
    pub upgrade: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            field_bytes: 8 * 1024,
            cookie_bytes: 16 * 1024,
            fields: 100,
            cookie_crumbs: 150,
            target_bytes: 8 * 1024,
            body_in_flight_bytes: 64 * 1024,
            chunk_extension_bytes: 4 * 1024,
            trailer_bytes: 8 * 1024,
            trailer_fields: 32,
            drain_bytes: 64 * 1024,
            connections: 0,
            connections_share_percent: 40,
            connections_thin_percent: 90,
            descriptors_reserve: 32,
            connections_per_client: 256,
            handshakes_per_client: 500,
            accepts_per_client: 1000,
            exempt_networks: loopback(),
            connection_requests: 0,
            rate_limit_clients: 16_384,
            connection_age: Duration::from_secs(3600),
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            linger: Duration::from_secs(1),
            body_gap: Duration::from_secs(30),
            send_gap: Duration::from_secs(30),
            minimum_rate: 500,
            rate_window: Duration::from_secs(20),
            rate_grace: Duration::from_secs(10),
            tunnel_idle: Duration::from_secs(300),
            tunnel_age: Duration::from_secs(86_400),
            tunnels: 0,
            http2_streams: 100,
            http2_streams_per_client: 400,
            http2_stream_window_bytes: 64 * 1024,
            http2_connection_window_bytes: 1024 * 1024,
            http2_frame_bytes: 16 * 1024,
            http2_table_bytes: 4 * 1024,
            http2_resets_before_answer: 50,
            http2_resets: 200,
            http2_server_resets: 100,
            http2_continuations: 8,
            http2_settings_per_minute: 14,
            http2_pings_per_minute: 60,
            http2_ping_burst: 10,
            http2_control_queue: 100,
            http2_empty_data: 10,
            http2_window_updates_per_second: 100,
            http2_priorities_per_minute: 100,
            http2_tiny_data_per_second: 1000,
            http2_glitches: 1000,
            http2_idle: Duration::from_secs(120),
            stream_idle: Duration::from_secs(30),
            http2_send_buffer_bytes: 64 * 1024,
            origin_dns: Duration::from_secs(5),
            origin_connect: Duration::from_secs(3),
            origin_first_byte: Duration::from_secs(30),
            origin_gap: Duration::from_secs(30),
            origin_rate: 500,
            origin_rate_window: Duration::from_secs(60),
            origin_head_bytes: 32 * 1024,
            origin_fields: 100,
            origin_interims: 8,
            origin_connections: 256,
            origin_client_percent: 20,
            origin_queue: 512,
            origin_queue_wait: Duration::from_secs(1),
            origin_idle: Duration::from_secs(30),
            origin_idle_connections: 64,
            origin_connection_age: Duration::from_secs(3600),
            origin_http2_streams: 100,
            origin_http2_connections: 8,
            origin_http2_silence: Duration::from_secs(5),
            retries: 1,
            retry_budget_percent: 10,
            eject_failures: 5,
            eject_share_percent: 50,
            eject_time: Duration::from_secs(10),
            eject_at_most_percent: 50,
            circuit_failures: 20,
            circuit_retry: Duration::from_secs(1),
            slow_start: Duration::from_secs(30),
            dns_addresses: 64,
            dns_ttl_least: Duration::from_secs(5),
            dns_ttl_most: Duration::from_secs(300),
            dns_keep: Duration::from_secs(86400),
            stored_bytes: 64 * 1024 * 1024,
            variants: 32,
            vary_fields: 8,
            tags: 128,
            tag_bytes: 256,
            tags_bytes: 16 * 1024,
            purge_rows: 100_000,
            purge_globs: 64,
            fills: 10_000,
            fill_wait: Duration::from_secs(30),
            position_wait: Duration::from_millis(250),
            position_waiters: 1000,
            positions_per_client: 20,
            uncacheable_memory: Duration::from_secs(120),
            uncacheable_keys: 100_000,
            coding_jobs: 1_000,
            memory_bodies_percent: 72,
            memory_slow_readers_percent: 5,
            memory_evict_percent: 85,
            memory_shed_percent: 90,
            memory_refuse_percent: 95,
            memory_hysteresis_percent: 5,
            watchdog: Duration::from_secs(10),
            watchdog_abort: false,
            drain: Duration::from_secs(30),
            certificate_check: Duration::from_secs(10),
            drain_notice: Duration::from_millis(500),
            upgrade: Duration::from_secs(30),
        }
    }
}

/// 127.0.0.0/8 and ::1.
fn loopback() -> Vec<IpNet> {
    vec![
        IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
    ]
}
