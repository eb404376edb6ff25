//! What is counted of the node as a whole: readiness, configuration, certificates, administration.

use std::time::SystemTime;

use prometheus::{IntCounter, IntGauge, IntGaugeVec};

use super::collect::Shelf;

/// The node as a whole.
#[derive(Debug)]
pub struct NodeMetrics {
    /// 1 while the node takes traffic.
    pub ready: IntGauge,
    /// 1 while it drains.
    pub draining: IntGauge,
    /// Requests to the admin listener.
    pub admin_requests: IntCounter,
    /// Requests to the admin listener without a valid token.
    pub admin_denied: IntCounter,
    /// Configurations read anew and put in force.
    pub reloads_applied: IntCounter,
    /// Configurations read anew and refused.
    pub reloads_refused: IntCounter,
    /// When the configuration in force was put there, in seconds since 1970.
    pub config_since: IntGauge,
    /// Number of the configuration in force, by what it is known by.
    config: IntGaugeVec,
    /// When the first of the certificates in use ends, in seconds since 1970; 0 without any.
    pub certificate_expires: IntGauge,
    /// Certificates that were put in the place of others since the start.
    pub certificates_changed: IntCounter,
    /// Certificates whose files changed and cannot be used, so that the ones before stay.
    pub certificates_refused: IntCounter,
    /// Lines of the audit log.
    pub audit_lines: IntCounter,
    /// Lines that could not be written to it.
    pub audit_failures: IntCounter,
}

impl NodeMetrics {
    pub(super) fn new(shelf: &Shelf<'_>) -> Self {
        let reloads = shelf.counters(
            "atoll_reloads_total",
            "Times that the configuration was read anew, by outcome.",
            &["outcome"],
        );
        Self {
            ready: shelf.gauge("atoll_ready", "1 while the node takes traffic."),
            draining: shelf.gauge("atoll_draining", "1 while the node drains."),
            admin_requests: shelf
                .counter("atoll_admin_requests_total", "Requests to the admin listener."),
            admin_denied: shelf.counter(
                "atoll_admin_denied_total",
                "Requests to the admin listener without a valid token.",
            ),
            reloads_applied: reloads.with_label_values(&["applied"]),
            reloads_refused: reloads.with_label_values(&["refused"]),
            config_since: shelf.gauge(
                "atoll_config_since_timestamp_seconds",
                "When the configuration in force was put there.",
            ),
            config: shelf.gauges(
                "atoll_config_info",
                "1 for the configuration in force, by its digest.",
                &["digest"],
            ),
            certificate_expires: shelf.gauge(
                "atoll_certificate_expires_timestamp_seconds",
                "When the first of the certificates in use ends; 0 without any.",
            ),
            certificates_changed: shelf.counter(
                "atoll_certificates_changed_total",
                "Times that changed certificates were taken up.",
            ),
            certificates_refused: shelf.counter(
                "atoll_certificates_refused_total",
                "Times that changed certificates could not be used.",
            ),
            audit_lines: shelf
                .counter("atoll_audit_lines_total", "Lines written to the audit log."),
            audit_failures: shelf.counter(
                "atoll_audit_failures_total",
                "Acts that were carried out and are not in the audit log.",
            ),
        }
    }

    /// Says which configuration is in force since when.
    pub fn in_force(&self, config: &str, at: SystemTime) {
        self.config.reset();
        self.config.with_label_values(&[config]).set(1);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.config_since.set(i64::try_from(since).unwrap_or(i64::MAX));
    }
}
