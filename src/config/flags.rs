//! What the command line says over a configuration file, or instead of one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::Balance;
use crate::semantics::{Policy, ToldBy};

use super::error::Problem;
use super::file::{Draft, SiteDraft};
use super::reader::{Found, Sink};
use super::{CertificateFiles, HashBy, Listener, Origin, Rule, Server};

/// The flags of `atoll run` that change the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Servers of the only origin.
    pub origin: Vec<Server>,
    /// Plain listeners.
    pub listen: Vec<SocketAddr>,
    /// TLS listeners.
    pub listen_tls: Vec<SocketAddr>,
    /// Certificates with their keys.
    pub certificates: Vec<CertificateFiles>,
    /// Admin listener; `Some(None)` for none.
    pub admin: Option<Option<SocketAddr>>,
    /// Seed of jitter and early refresh.
    pub seed: Option<u64>,
    /// Worker threads.
    pub workers: Option<usize>,
    /// Memory budget in bytes.
    pub memory: Option<u64>,
    /// Freshness lifetime where the origin names none, on every path.
    pub default_lifetime: Option<Duration>,
}

/// The built-in plain listener.
const PLAIN: SocketAddr = local(8080);
/// The built-in TLS listener.
const TLS: SocketAddr = local(8443);
/// The built-in admin listener.
pub(super) const ADMIN: SocketAddr = local(9080);

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where clients connect while no file says otherwise.
pub(super) fn built_in_listeners() -> Vec<Found<Listener>> {
    vec![listener(PLAIN, false, "listener"), listener(TLS, true, "listener")]
}

fn listener(address: SocketAddr, tls: bool, key: &str) -> Found<Listener> {
    let door = Listener {
        address,
        tls,
        http2: tls,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
        proxies_write: ToldBy::default(),
    };
    Found::elsewhere(door, key)
}

impl Flags {
    /// Puts the one origin and the one site for every host into the draft of a start without a file.
    pub(super) fn stand_alone(&self, draft: &mut Draft) {
        let origin = Origin {
            name: "origin".to_owned(),
            servers: Vec::new(),
            ca: None,
            probe: None,
            resolvers: Vec::new(),
            balance: Balance::Latency,
            hash_by: HashBy::Key,
            near_in_flight: 100,
            allow_internal_addresses: false,
            proxy_protocol: super::ProxyProtocol::None,
            client_certificate: None,
            tls_name: None,
            http: crate::config::HttpVersions::One,
        };
        draft.of_file = false;
        draft.origins.push(Found::elsewhere(origin, "--origin"));
        draft.origin_hosts.push(None);
        draft.sites.push(SiteDraft {
            name: Found::elsewhere("default".to_owned(), "site"),
            hosts: vec![Found::elsewhere("*".to_owned(), "site.hosts")],
            origin: None,
            host: None,
            rule_origins: Vec::new(),
            rules: vec![Rule { path: "/".to_owned(), policy: Arc::new(Policy::default()) }],
            whole: true,
        });
    }

    /// Lays the flags over a draft.
    pub(super) fn apply(&self, draft: &mut Draft, sink: &Sink) {
        self.apply_origin(draft, sink);
        self.apply_listeners(draft);
        if !self.certificates.is_empty() {
            let found = |files: &CertificateFiles| Found::elsewhere(files.clone(), "--cert");
            draft.certificates = self.certificates.iter().map(found).collect();
        }
        if let Some(address) = self.admin {
            draft.admin.address = Some(Found::elsewhere(address, "--admin"));
        }
        if let Some(bytes) = self.memory {
            draft.budget = Found::elsewhere(bytes, "--memory");
        }
        draft.node.seed = self.seed.unwrap_or(draft.node.seed);
        draft.node.workers = self.workers.unwrap_or(draft.node.workers);
        if self.default_lifetime.is_some() {
            for rule in draft.sites.iter_mut().flat_map(|site| &mut site.rules) {
                Arc::make_mut(&mut rule.policy).default_lifetime = self.default_lifetime;
            }
        }
    }

    fn apply_origin(&self, draft: &mut Draft, sink: &Sink) {
        if self.origin.is_empty() {
            return;
        }
        if let [only] = draft.origins.as_mut_slice() {
            only.value.servers.clone_from(&self.origin);
            return;
        }
        let count = draft.origins.len();
        if count > 1 {
            sink.push(
                Problem::new(format!(
                    "--origin cannot say which of the file's {count} origins it means"
                ))
                .help("it replaces the servers of the only origin; change `servers` in the file"),
            );
        }
    }

    /// Listeners of a kind that a flag names are replaced, the others stay.
    fn apply_listeners(&self, draft: &mut Draft) {
        let listeners = draft.listeners.get_or_insert_with(built_in_listeners);
        for (flag, tls, addresses) in
            [("--listen", false, &self.listen), ("--listen-tls", true, &self.listen_tls)]
        {
            if !addresses.is_empty() {
                listeners.retain(|found| found.value.tls != tls);
                listeners.extend(addresses.iter().map(|address| listener(*address, tls, flag)));
            }
        }
    }
}
