//! What the API knows of a site.

use std::sync::Arc;

use crate::config::Config;
use crate::semantics::WithoutLease;

/// A site.
#[derive(Debug, PartialEq)]
pub(super) struct AdminSite {
    pub(super) name: Arc<str>,
    /// Name of its origin.
    pub(super) origin: String,
    /// Its hosts, as they are configured.
    pub(super) hosts: Vec<String>,
    /// Some of it is answered from memory by a node without a lease, too.
    pub(super) serves_without_lease: bool,
}

impl AdminSite {
    /// All sites of a configuration, in its order.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let origin =
            |at: usize| config.origins.get(at).map_or_else(String::new, |o| o.name.clone());
        let sites = config.sites.iter().map(|site| Self {
            name: Arc::clone(&site.name),
            origin: origin(site.origin),
            hosts: site.hosts.clone(),
            serves_without_lease: site
                .rules
                .iter()
                .any(|rule| rule.policy.without_lease == WithoutLease::Serve),
        });
        sites.collect()
    }
}
