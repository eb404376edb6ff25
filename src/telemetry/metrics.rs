//! Every number that `/metrics` shows. One value is made at start and handed to whoever counts;
//! there is no global registry.
//!
//! Names are `atoll_<thing>_<unit>[_total]`. Labels are bounded: site and origin names come from
//! the configuration, everything else from enums of ours. No stranger's text becomes a label.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::breaker::{BreakerFamilies, BreakerMetrics};
use super::canary::CanaryMetrics;
use super::codings::CodingMetrics;
use super::collect::Shelf;
use super::leases::LeaseMetrics;
use super::links::LinkMetrics;
use super::mesh::MeshMetrics;
use super::node::NodeMetrics;
use super::process;
use super::sites::{Counted, SiteMetrics, Sites};
use super::strain::StrainMetrics;
use super::stripes::Counter;
use super::tickets::TicketMetrics;
use crate::config::{Config, Site};
use crate::message::Refusal;

/// Upper bounds of the buckets of an origin's time to first byte, in seconds.
const FIRST_BYTE_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    /// Client connections and what came in over them.
    pub doors: DoorMetrics,
    /// Stored responses, fills, purges.
    pub store: StoreMetrics,
    /// Coded copies of stored responses.
    pub codings: CodingMetrics,
    /// Links to other nodes.
    pub links: LinkMetrics,
    /// Requests without a lease.
    pub leases: LeaseMetrics,
    /// The node's part in the mesh.
    pub mesh: MeshMetrics,
    /// The canary.
    pub canary: CanaryMetrics,
    /// Keys of session tickets.
    pub tickets: TicketMetrics,
    /// The access log.
    pub log: LogMetrics,
    /// The node as a whole.
    pub node: NodeMetrics,
    /// What is odd, short or broken.
    pub strain: StrainMetrics,
    sites: Counted,
    origins: OriginFamilies,
    registry: Registry,
}

/// Counts of the client doors.
#[derive(Debug)]
pub struct DoorMetrics {
    /// Connections accepted.
    pub connections: IntCounter,
    /// Connections open now.
    pub connections_open: IntGauge,
    /// Connections closed at once, for a limit.
    pub connections_refused: IntCounter,
    /// TLS handshakes completed.
    pub handshakes: IntCounter,
    /// TLS handshakes failed or timed out.
    pub handshake_failures: IntCounter,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: IntCounter,
    /// Requests that came as HTTP/1.
    pub requests_http1: Counter,
    /// Requests that came as HTTP/2.
    pub requests_http2: Counter,
    /// Bytes read from clients, as HTTP sees them.
    pub bytes_received: Counter,
    /// Bytes written to clients, as HTTP sees them.
    pub bytes_sent: Counter,
    /// Tunnels open now.
    pub tunnels: IntGauge,
    /// Bytes carried from clients through tunnels.
    pub tunnel_bytes_received: Counter,
    /// Bytes carried to clients through tunnels.
    pub tunnel_bytes_sent: Counter,
    /// Requests whose handler panicked.
    pub panics: IntCounter,
    /// HTTP/2 streams reset by clients.
    pub streams_reset: IntCounter,
    /// HTTP/2 streams open now.
    pub streams_open: IntGauge,
    /// Requests whose answer was cut off by a deadline or a rate.
    pub timeouts: IntCounter,
    refusals: Vec<IntCounter>,
}

impl DoorMetrics {
    fn new(shelf: &Shelf<'_>) -> Self {
        let refusals = shelf.counters(
            "atoll_refusals_total",
            "Requests refused before any origin saw them, by reason.",
            &["reason"],
        );
        let [requests_http1, requests_http2] = shelf.striped(
            "atoll_client_requests_total",
            "Request heads received, by HTTP version.",
            "version",
            ["1", "2"],
        );
        let [bytes_received, bytes_sent] = shelf.striped(
            "atoll_client_bytes_total",
            "Bytes exchanged with clients, as HTTP sees them.",
            "direction",
            ["received", "sent"],
        );
        let [tunnel_bytes_received, tunnel_bytes_sent] = shelf.striped(
            "atoll_tunnel_bytes_total",
            "Bytes carried through tunnels, from clients and to them.",
            "direction",
            ["received", "sent"],
        );
        Self {
            connections: shelf.counter("atoll_connections_total", "Client connections accepted."),
            connections_open: shelf.gauge("atoll_connections_open", "Client connections open."),
            connections_refused: shelf.counter(
                "atoll_connections_refused_total",
                "Client connections closed at once for a limit.",
            ),
            handshakes: shelf.counter("atoll_tls_handshakes_total", "TLS handshakes completed."),
            handshake_failures: shelf.counter(
                "atoll_tls_handshake_failures_total",
                "TLS handshakes failed or timed out.",
            ),
            handshakes_resumed: shelf.counter(
                "atoll_tls_handshakes_resumed_total",
                "TLS handshakes that resumed a session.",
            ),
            requests_http1,
            requests_http2,
            bytes_received,
            bytes_sent,
            tunnels: shelf.gauge("atoll_tunnels", "Tunnels open."),
            tunnel_bytes_received,
            tunnel_bytes_sent,
            panics: shelf.counter("atoll_panics_total", "Requests whose handler panicked."),
            streams_reset: shelf
                .counter("atoll_http2_streams_reset_total", "HTTP/2 streams reset by clients."),
            streams_open: shelf.gauge("atoll_http2_streams_open", "HTTP/2 streams open."),
            timeouts: shelf.counter(
                "atoll_client_timeouts_total",
                "Exchanges ended because the client was too slow.",
            ),
            refusals: Refusal::ALL
                .iter()
                .map(|reason| refusals.with_label_values(&[reason.label()]))
                .collect(),
        }
    }

    /// Counts a refused request.
    pub fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refusals.get(refusal as usize) {
            counter.inc();
        }
    }
}

/// Counts of the store.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Fills begun.
    pub fills: IntCounter,
    /// Fills that ended without a complete response.
    pub fills_failed: IntCounter,
    /// Fills under way.
    pub fills_open: IntGauge,
    /// Requests that joined another request's fill.
    pub collapsed: IntCounter,
    /// Background refreshes begun.
    pub refreshes: IntCounter,
    /// Stored responses confirmed by a 304.
    pub revalidated: IntCounter,
    /// Requests to origins for further segments of a body.
    pub segments_fetched: IntCounter,
    /// Times that a reader came to a block which another was fetching.
    pub segments_joined: IntCounter,
    /// Answers by which a body in segments was found to have changed.
    pub segments_changed: IntCounter,
    /// Stored responses pushed out to make room.
    pub evictions: IntCounter,
    /// Stored responses that the sweep removed for a purge.
    pub purged: IntCounter,
    /// Lookups that found a response killed by a purge.
    pub killed: IntCounter,
    /// Purges applied since the start.
    pub epoch: IntGauge,
    /// Rows in the purge table.
    pub purge_rows: IntGauge,
    /// Bytes that the store may hold.
    pub budget_bytes: IntGauge,
    purges: IntCounterVec,
    not_stored: IntCounterVec,
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl StoreMetrics {
    fn new(shelf: &Shelf<'_>) -> Self {
        Self {
            fills: shelf.counter("atoll_fills_total", "Fills begun."),
            fills_failed: shelf
                .counter("atoll_fills_failed_total", "Fills without a complete response."),
            fills_open: shelf.gauge("atoll_fills_open", "Fills under way."),
            collapsed: shelf
                .counter("atoll_collapsed_total", "Requests that joined another request's fill."),
            refreshes: shelf.counter("atoll_refreshes_total", "Background refreshes begun."),
            revalidated: shelf
                .counter("atoll_revalidated_total", "Stored responses confirmed by their origin."),
            segments_fetched: shelf.counter(
                "atoll_segments_fetched_total",
                "Requests to origins for further segments of a body.",
            ),
            segments_joined: shelf.counter(
                "atoll_segments_joined_total",
                "Blocks of segments that were read while another's fill brought them.",
            ),
            segments_changed: shelf.counter(
                "atoll_segments_changed_total",
                "Bodies in segments found to have changed at their origin.",
            ),
            evictions: shelf
                .counter("atoll_evictions_total", "Stored responses pushed out to make room."),
            purged: shelf.counter(
                "atoll_purged_total",
                "Stored responses removed by the sweep for a purge.",
            ),
            killed: shelf
                .counter("atoll_killed_total", "Lookups that found a response killed by a purge."),
            epoch: shelf.gauge("atoll_epoch", "Purges applied since the start."),
            purge_rows: shelf.gauge("atoll_purge_rows", "Rows in the purge table."),
            budget_bytes: shelf.gauge("atoll_store_budget_bytes", "Bytes the store may hold."),
            purges: shelf.counters(
                "atoll_purges_total",
                "Selectors of purges applied, by kind.",
                &["kind"],
            ),
            not_stored: shelf.counters(
                "atoll_not_stored_total",
                "Responses that were not stored, by reason.",
                &["reason"],
            ),
            entries: shelf.gauges(
                "atoll_store_entries",
                "Stored responses, by size class.",
                &["size_class"],
            ),
            bytes: shelf.gauges(
                "atoll_store_bytes",
                "Bytes of stored responses, bookkeeping included, by size class.",
                &["size_class"],
            ),
        }
    }

    /// Counts an applied selector of a purge: `url`, `tag`, `site` and so on.
    pub fn purges(&self, kind: &'static str) {
        self.purges.with_label_values(&[kind]).inc();
    }

    /// Counts a response that could not be stored.
    pub fn not_stored(&self, reason: &'static str) {
        self.not_stored.with_label_values(&[reason]).inc();
    }

    /// Sets what a size class holds. For the store's upkeep, not for the request path.
    pub fn set_class(&self, class: usize, entries: u64, bytes: u64) {
        let class = class.to_string();
        let whole = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.entries.with_label_values(&[&class]).set(whole(entries));
        self.bytes.with_label_values(&[&class]).set(whole(bytes));
    }
}

/// Counts of one origin.
#[derive(Debug)]
pub struct OriginMetrics {
    /// Requests sent, repeated ones included.
    pub requests: IntCounter,
    /// Requests sent a second time.
    pub retries: IntCounter,
    /// Requests sent a second time because the first took long.
    pub hedges: IntCounter,
    /// Second ones of those whose answer was used.
    pub hedges_won: IntCounter,
    /// Connections opened.
    pub connections_opened: IntCounter,
    /// Those of all origins, and of clients, that were given up for want of descriptors.
    pub descriptors_short: IntCounter,
    /// Requests that went over a kept connection.
    pub connections_reused: IntCounter,
    /// Probes that failed.
    pub probes_failed: IntCounter,
    /// Times an endpoint was ejected.
    pub ejections: IntCounter,
    /// Connections open now.
    pub connections_open: IntGauge,
    /// Requests under way.
    pub in_flight: IntGauge,
    /// Requests waiting for a place.
    pub queued: IntGauge,
    /// Endpoints known.
    pub endpoints: IntGauge,
    /// Endpoints that take traffic.
    pub endpoints_up: IntGauge,
    /// Seconds since the oldest DNS answer in use came.
    pub dns_age: IntGauge,
    /// Seconds from the end of a request to the head of its answer.
    pub first_byte: Histogram,
    /// Circuit, refusals, panic, probes.
    pub breaker: BreakerMetrics,
    queued_bytes: Peak,
    failures: IntCounterVec,
    dns_failures: IntCounterVec,
    name: Box<str>,
}

/// A gauge that shows the highest value ever seen.
#[derive(Debug)]
struct Peak {
    shown: IntGauge,
    highest: AtomicUsize,
    rising: Mutex<()>,
}

impl Peak {
    fn of(shown: IntGauge) -> Self {
        let highest = usize::try_from(shown.get()).unwrap_or(0);
        Self { shown, highest: AtomicUsize::new(highest), rising: Mutex::new(()) }
    }

    fn see(&self, value: usize) {
        if value <= self.highest.load(Ordering::Relaxed) {
            return;
        }
        // Rare: only what is higher than all before gets here.
        let _rising = self.rising.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = self.highest.fetch_max(value, Ordering::Relaxed).max(value);
        self.shown.set(i64::try_from(highest).unwrap_or(i64::MAX));
    }
}

impl OriginMetrics {
    /// Notes how many bytes of one stream wait at the door to the origin, in one direction.
    pub fn stream_waits(&self, bytes: usize) {
        self.queued_bytes.see(bytes);
    }

    /// Counts a failed request under its RFC 9209 name.
    pub fn failed(&self, label: &'static str) {
        self.failures.with_label_values(&[&*self.name, label]).inc();
    }

    /// DNS lookups that failed in one way.
    #[must_use]
    pub fn dns_failures(&self, kind: &'static str) -> IntCounter {
        self.dns_failures.with_label_values(&[&*self.name, kind])
    }
}

/// The metrics of all origins before they are told apart by name.
#[derive(Debug)]
struct OriginFamilies {
    counters: [IntCounterVec; 6],
    hedges: [IntCounterVec; 2],
    gauges: [IntGaugeVec; 7],
    first_byte: prometheus::HistogramVec,
    failures: IntCounterVec,
    breaker: BreakerFamilies,
    dns_failures: IntCounterVec,
    descriptors_short: IntCounter,
}

impl OriginFamilies {
    fn new(shelf: &Shelf<'_>, strain: &StrainMetrics) -> Self {
        let counter = |name, help| shelf.counters(name, help, &["origin"]);
        let gauge = |name, help| shelf.gauges(name, help, &["origin"]);
        Self {
            counters: [
                counter("atoll_origin_requests_total", "Requests sent to origins."),
                counter("atoll_origin_retries_total", "Requests sent to origins a second time."),
                counter("atoll_origin_connections_total", "Connections opened to origins."),
                counter(
                    "atoll_origin_connections_reused_total",
                    "Requests to origins over kept connections.",
                ),
                counter("atoll_origin_probes_failed_total", "Probes of endpoints that failed."),
                counter("atoll_origin_ejections_total", "Times an endpoint was ejected."),
            ],
            hedges: [
                counter(
                    "atoll_origin_hedges_total",
                    "Requests sent to origins a second time because the first took long.",
                ),
                counter("atoll_origin_hedges_won_total", "Those whose second answer was used."),
            ],
            gauges: [
                gauge("atoll_origin_connections_open", "Connections open to origins."),
                gauge("atoll_origin_in_flight", "Requests under way to origins."),
                gauge("atoll_origin_queued", "Requests waiting for a place at an origin."),
                gauge("atoll_origin_endpoints", "Endpoints known of an origin."),
                gauge("atoll_origin_endpoints_up", "Endpoints of an origin that take traffic."),
                gauge(
                    "atoll_origin_dns_age_seconds",
                    "Age of the oldest DNS answer that an origin uses.",
                ),
                gauge(
                    "atoll_origin_stream_queued_bytes_max",
                    "Most bytes of one request or answer that ever waited at the door to an origin.",
                ),
            ],
            first_byte: shelf.histograms(
                "atoll_origin_first_byte_seconds",
                "Time from the end of a request to the head of the origin's answer.",
                &["origin"],
                &FIRST_BYTE_BOUNDS,
            ),
            failures: shelf.counters(
                "atoll_origin_failures_total",
                "Requests to origins that failed, by RFC 9209 error type.",
                &["origin", "error"],
            ),
            breaker: BreakerFamilies::new(shelf),
            dns_failures: shelf.counters(
                "atoll_origin_dns_failures_total",
                "DNS lookups that failed, by kind.",
                &["origin", "kind"],
            ),
            descriptors_short: strain.descriptors_short.clone(),
        }
    }

    fn of(&self, name: &str, places: usize) -> OriginMetrics {
        let counters = self.counters.each_ref().map(|all| all.with_label_values(&[name]));
        let gauges = self.gauges.each_ref().map(|all| all.with_label_values(&[name]));
        let [requests, retries, opened, reused, probes_failed, ejections] = counters;
        let [connections_open, in_flight, queued, endpoints, endpoints_up, dns_age, queued_bytes] =
            gauges;
        let [hedges, hedges_won] = self.hedges.each_ref().map(|all| all.with_label_values(&[name]));
        OriginMetrics {
            requests,
            retries,
            hedges,
            hedges_won,
            connections_opened: opened,
            descriptors_short: self.descriptors_short.clone(),
            connections_reused: reused,
            probes_failed,
            ejections,
            connections_open,
            in_flight,
            queued,
            endpoints,
            endpoints_up,
            dns_age,
            queued_bytes: Peak::of(queued_bytes),
            first_byte: self.first_byte.with_label_values(&[name]),
            breaker: self.breaker.of(name, places),
            failures: self.failures.clone(),
            dns_failures: self.dns_failures.clone(),
            name: name.into(),
        }
    }
}

/// Counts of the access log.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// Records handed to the log's file.
    pub written: IntCounter,
    /// Records dropped because the writer was behind.
    pub dropped: IntCounter,
    /// Writes that failed.
    pub failures: IntCounter,
}

impl Metrics {
    /// Metrics for the sites and origins of `config`, all at zero.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        let registry = Registry::new();
        let shelf = Shelf(&registry);
        let sites = Counted::new(config.node.workers);
        shelf.keep(Sites::new(sites.clone()));
        shelf.keep(process::Process::new());
        let strain = StrainMetrics::new(&shelf);
        let metrics = Self {
            doors: DoorMetrics::new(&shelf),
            store: StoreMetrics::new(&shelf),
            codings: CodingMetrics::new(&shelf),
            links: LinkMetrics::new(&shelf),
            leases: LeaseMetrics::new(&shelf, config.sites.iter().map(|site| &*site.name)),
            sites,
            origins: OriginFamilies::new(&shelf, &strain),
            mesh: MeshMetrics::new(&shelf, config),
            canary: CanaryMetrics::new(&shelf, config),
            tickets: TicketMetrics::new(&shelf),
            log: LogMetrics {
                written: shelf.counter("atoll_access_log_records_total", "Records written."),
                dropped: shelf.counter(
                    "atoll_access_log_dropped_total",
                    "Records dropped because the writer was behind.",
                ),
                failures: shelf
                    .counter("atoll_access_log_failures_total", "Failed writes of the log."),
            },
            node: NodeMetrics::new(&shelf),
            strain,
            registry,
        };
        // Rows are there from the start, so that rates can be taken from zero.
        let _ = metrics.sites(&config.sites, &[]);
        for origin in &config.origins {
            let _ = metrics.origin(&origin.name, config.limits.origin_connections);
        }
        Arc::new(metrics)
    }

    /// Counts of the sites of a configuration, in its order. Sites are known by name, so they count
    /// on from the configuration `before`.
    #[must_use]
    pub fn sites(&self, sites: &[Site], before: &[Site]) -> Arc<[SiteMetrics]> {
        let names = |sites: &[Site]| -> Vec<Arc<str>> {
            sites.iter().map(|site| Arc::clone(&site.name)).collect()
        };
        self.sites.of(&names(sites), &names(before))
    }

    /// Counts of the origin of this name, which takes as many requests at once as it has `places`.
    #[must_use]
    pub fn origin(&self, name: &str, places: usize) -> OriginMetrics {
        self.origins.of(name, places)
    }

    /// Shows the states of an origin no more that is not configured any more. Its counts stay.
    pub fn forget_origin(&self, name: &str) {
        for gauge in &self.origins.gauges {
            // One that was never shown cannot be hidden.
            let _ = gauge.remove_label_values(&[name]);
        }
        self.origins.breaker.forget(name);
    }

    /// All metrics in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let families = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests;
