use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::config::{Limits, Log, Memory, Node, Origin, Site};
use crate::semantics::Outcome;

/// A configuration with two sites and one origin.
pub(crate) fn config() -> Config {
    let site = |name: &str| Site {
        name: Arc::from(name),
        hosts: vec![format!("{name}.example")],
        origin: 0,
        host: None,
        rules: Vec::new(),
    };
    Config {
        mesh: None,
        node: Node {
            name: "n1".into(),
            pop: "p1".into(),
            locality: "p1".into(),
            workers: 2,
            seed: 1,
            cdn_id: "atoll-n1".into(),
        },
        memory: Memory { budget_bytes: 1 << 20 },
        listeners: Vec::new(),
        certificates: Vec::new(),
        limits: Limits::default(),
        log: Log {
            access: None,
            access_file: None,
            access_queue: 64,
            json: false,
            level: "info".into(),
        },
        admin: crate::config::Admin {
            purges_per_second: 10,
            body_bytes: 1024,
            ..crate::config::Admin::default()
        },
        watch: None,
        origins: vec![Origin {
            balance: crate::balance::Balance::Latency,
            hash_by: crate::config::HashBy::Key,
            near_in_flight: 100,
            name: "back".into(),
            servers: Vec::new(),
            ca: None,
            probe: None,
            resolvers: Vec::new(),
            allow_internal_addresses: false,
            proxy_protocol: crate::config::ProxyProtocol::None,
            client_certificate: None,
            tls_name: None,
            http: crate::config::HttpVersions::One,
        }],
        sites: vec![site("shop"), site("blog")],
        facades: crate::config::Facades::default(),
    }
}

#[test]
fn text_format_shows_what_was_counted() {
    let metrics = Metrics::new(&config());
    metrics.doors.connections.inc();
    metrics.doors.requests_http2.inc_by(3);
    metrics.doors.refused(Refusal::FramingConflict);
    metrics.store.set_class(2, 5, 4096);
    metrics.store.purges("tag");
    metrics.store.not_stored("no-freshness");
    metrics.origin("back", 1).failed("dns_timeout");
    metrics.origin("back", 1).first_byte.observe(0.02);
    metrics.sites(&config().sites, &[])[1].answered(
        Outcome::Hit,
        StatusCode::OK,
        Duration::from_micros(80),
        1024,
    );
    let text = metrics.render();
    for line in [
        "atoll_connections_total 1",
        "atoll_client_requests_total{version=\"2\"} 3",
        "atoll_refusals_total{reason=\"framing-conflict\"} 1",
        "atoll_refusals_total{reason=\"host\"} 0",
        "atoll_store_entries{size_class=\"2\"} 5",
        "atoll_store_bytes{size_class=\"2\"} 4096",
        "atoll_purges_total{kind=\"tag\"} 1",
        "atoll_not_stored_total{reason=\"no-freshness\"} 1",
        "atoll_origin_failures_total{error=\"dns_timeout\",origin=\"back\"} 1",
        "atoll_origin_first_byte_seconds_bucket{origin=\"back\",le=\"0.025\"} 1",
        "atoll_requests_total{site=\"blog\",cache=\"hit\",status=\"2xx\"} 1",
        "atoll_requests_total{site=\"shop\",cache=\"hit\",status=\"2xx\"} 0",
        "atoll_response_bytes_total{site=\"blog\",cache=\"hit\"} 1024",
        "atoll_request_duration_seconds_bucket{site=\"blog\",cache=\"hit\",le=\"0.00005\"} 0",
        "atoll_request_duration_seconds_bucket{site=\"blog\",cache=\"hit\",le=\"0.0001\"} 1",
        "atoll_request_duration_seconds_bucket{site=\"blog\",cache=\"hit\",le=\"+Inf\"} 1",
        "atoll_request_duration_seconds_sum{site=\"blog\",cache=\"hit\"} 0.00008",
        "atoll_request_duration_seconds_count{site=\"blog\",cache=\"hit\"} 1",
        concat!("atoll_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
}

#[test]
fn every_name_is_ours_or_the_process_s_and_counters_end_in_total() {
    let text = Metrics::new(&config()).render();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("atoll_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
}

#[test]
fn refusals_lie_in_the_order_of_their_list() {
    for (position, reason) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, position);
    }
}
