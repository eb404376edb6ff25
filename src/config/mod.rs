//! What the configuration means, checked and complete. How it is written stands in `file`.
//!
//! Every value here is usable as it is: defaults are filled in, names are resolved, nothing is
//! optional that is needed.

mod canary;
mod certificates;
mod changes;
mod check;
mod descriptors;
mod error;
mod facades;
mod file;
mod flags;
mod hook;
mod limits;
mod load;
mod machine;
mod mesh;
mod names;
mod naming;
mod reader;
mod token;
mod units;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderName;
use ipnet::IpNet;

pub use canary::{Canary, CanaryNode, CanaryPaces};
pub use certificates::{
    CertificateFacts, MeshCredentials, inspect_certificate, read_mesh_credentials, read_pair,
};
pub use changes::{Change, ToldProblem, Written};
pub use descriptors::Descriptors;
pub use error::{Problem, Problems, Severity};
pub use facades::{Facades, Service};
pub use flags::Flags;
pub use hook::{Encoding, Hook, Proof, ProofKind, Secret};
pub use limits::Limits;
pub use load::{LARGEST_FILE_BYTES, Loaded, load, read};
pub use mesh::{LinkLimits, Membership, Mesh, MeshNode, MeshPaces, Seed};
pub use names::{parse_address, parse_host, parse_host_field, parse_name, parse_server};
pub use token::{check_token, format_hash, hash_token, new_token};
pub use units::{format_duration, format_size, parse_duration, parse_size};

use crate::balance::Balance;
use crate::semantics::{Policy, ToldBy};

/// One whole configuration, immutable once built.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process.
    pub node: Node,
    /// Memory budget.
    pub memory: Memory,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Certificates for the TLS listeners; the first one answers clients without SNI.
    pub certificates: Vec<CertificateFiles>,
    /// Every limit and timeout.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
    /// Admin listener and its tokens.
    pub admin: Admin,
    /// Plain listener with only `/metrics`, `/healthz` and `/readyz`.
    pub watch: Option<SocketAddr>,
    /// Origins by position; sites refer to them by index.
    pub origins: Vec<Origin>,
    /// Sites by position.
    pub sites: Vec<Site>,
    /// Purges in the wire formats of other caches.
    pub facades: Facades,
    /// The mesh that this node belongs to; `None` where it is alone.
    pub mesh: Option<Mesh>,
}

/// This process in the mesh and on the machine.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the node.
    pub name: String,
    /// Point of presence it stands in.
    pub pop: String,
    /// Region it stands in, which servers of origins may name as theirs.
    pub locality: String,
    /// Worker threads; at least one.
    pub workers: usize,
    /// Seed of jitter and early refresh.
    pub seed: u64,
    /// Identifier sent in `CDN-Loop` (RFC 8586).
    pub cdn_id: String,
}

/// Memory of the process.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Budget of the whole process in bytes; the store gets 70 % of it.
    pub budget_bytes: u64,
}

/// One address where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whether clients speak TLS here.
    pub tls: bool,
    /// HTTP/2: offered by ALPN on TLS, taken by prior knowledge in plain.
    pub http2: bool,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Networks of the proxies in front of us. Only from them a PROXY header is taken, and what
    /// they say of earlier hops may be believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The fields by which they tell of earlier hops.
    pub proxies_write: ToldBy,
}

impl Listener {
    /// Whether an address is that of a proxy in front of us.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| facades::holds(network, address))
    }
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    /// PEM file, leaf first.
    pub chain: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Access log and process log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Format of the access log; `None` writes none.
    pub access: Option<AccessFormat>,
    /// File of the access log; `None` is standard output.
    pub access_file: Option<PathBuf>,
    /// Records that may wait for the writer; more are dropped and counted.
    pub access_queue: usize,
    /// Process log on standard error as JSON lines rather than text.
    pub json: bool,
    /// Filter of the process log, as `tracing` reads it (`info`, `atoll=debug`).
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            access: Some(AccessFormat::Json),
            access_file: None,
            access_queue: 8192,
            json: false,
            level: "info".to_owned(),
        }
    }
}

/// Format of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// The combined log format.
    Combined,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address; `None` where there is none.
    pub address: Option<SocketAddr>,
    /// Tokens that it accepts.
    pub tokens: Vec<Token>,
    /// Selectors that one token may purge per second.
    pub purges_per_second: u32,
    /// Selectors in one purge.
    pub purge_selectors: usize,
    /// Purges that are remembered with their authors.
    pub purge_history: usize,
    /// How long and how many purges are waited for.
    pub purge_waits: PurgeWaits,
    /// Values of `Idempotency-Key` that are remembered of each token.
    pub idempotency_keys: usize,
    /// Largest request body in bytes.
    pub body_bytes: usize,
    /// Warm-ups at once.
    pub warm_jobs: usize,
    /// Requests of one warm-up.
    pub warm_urls: usize,
    /// Most of the hottest that one purge may have fetched again.
    pub refetch_urls: usize,
    /// Requests per second of that.
    pub refetch_per_second: u32,
    /// Events that are kept for followers who were away.
    pub events: usize,
    /// Followers of the event stream at once.
    pub event_followers: usize,
    /// Doors for the events of other systems.
    pub hooks: Vec<Hook>,
    /// File of the audit log; `None` keeps none.
    pub audit: Option<AuditFile>,
}

/// Bounds on waiting until a purge has reached other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeWaits {
    /// Time for who does not say how long.
    pub usual: Duration,
    /// Longest that somebody may ask for.
    pub longest: Duration,
    /// How many wait at once.
    pub places: usize,
}

impl Default for PurgeWaits {
    fn default() -> Self {
        let (usual, longest) = (Duration::from_secs(5), Duration::from_secs(300));
        Self { usual, longest, places: 128 }
    }
}

/// Files of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFile {
    /// Name of the one that is written to.
    pub path: PathBuf,
    /// Its size in bytes at which the next is begun.
    pub bytes: u64,
    /// Older ones that are kept; at least one.
    pub files: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: None,
            tokens: Vec::new(),
            purges_per_second: 10_000,
            purge_selectors: 1000,
            purge_history: 1000,
            purge_waits: PurgeWaits::default(),
            idempotency_keys: 1000,
            body_bytes: 1024 * 1024,
            events: 1000,
            event_followers: 16,
            hooks: Vec::new(),
            audit: None,
            warm_jobs: 4,
            warm_urls: 10_000,
            refetch_urls: 1000,
            refetch_per_second: 50,
        }
    }
}

/// A bearer token of the admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Name in logs.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Sites it may do it to; empty: all.
    pub sites: Vec<String>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Look.
    Read,
    /// Purge by selectors within its sites.
    Purge,
    /// Purge everything.
    PurgeAll,
    /// Fetch into the store.
    Warm,
    /// Change and reset.
    Config,
    /// Drain the node.
    Drain,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Purge, Self::PurgeAll, Self::Warm, Self::Config, Self::Drain];

    /// Its name in configuration files and messages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Purge => "purge",
            Self::PurgeAll => "purge-all",
            Self::Warm => "warm",
            Self::Config => "config",
            Self::Drain => "drain",
        }
    }
}

impl Token {
    /// A token that may do everything on every site.
    #[must_use]
    pub fn full(name: &str, token: &str) -> Self {
        Self {
            name: name.to_owned(),
            hash: hash_token(token),
            scopes: Scope::ALL.to_vec(),
            sites: Vec::new(),
        }
    }

    /// Whether it has a scope. Who may purge everything may purge parts of it.
    #[must_use]
    pub fn covers(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
            || (scope == Scope::Purge && self.scopes.contains(&Scope::PurgeAll))
    }

    /// Whether it may act on a site.
    #[must_use]
    pub fn covers_site(&self, site: &str) -> bool {
        self.sites.is_empty() || self.sites.iter().any(|name| name == site)
    }
}

/// A named set of servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Name in sites, logs and metrics.
    pub name: String,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Certificate authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// What is shown to servers that ask who we are, over TLS.
    pub client_certificate: Option<CertificateFiles>,
    /// Name that the servers' certificates must bear, and that SNI says; `None`: their host.
    pub tls_name: Option<String>,
    /// Versions of HTTP that are spoken.
    pub http: HttpVersions,
    /// Active probe, where configured.
    pub probe: Option<Probe>,
    /// DNS servers to ask instead of the system's.
    pub resolvers: Vec<SocketAddr>,
    /// Accept answers that point to loopback, link-local, metadata or our own addresses.
    pub allow_internal_addresses: bool,
    /// Which endpoint takes a request.
    pub balance: Balance,
    /// What goes to one server, where `balance` hashes.
    pub hash_by: HashBy,
    /// Requests that one endpoint near this node has under way before those far away are asked too.
    pub near_in_flight: u32,
    /// Header that tells its servers whose connection each is.
    pub proxy_protocol: ProxyProtocol,
}

/// What requests have in common that go to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// Their cache key.
    Key,
    /// The value of a field; those without it go by their cache key.
    Field(HeaderName),
}

/// Version of the PROXY protocol towards an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No header.
    #[default]
    None,
    /// The line of text.
    V1,
    /// The binary one.
    V2,
}

/// Versions of HTTP that are spoken to an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: by ALPN over TLS, by prior knowledge in plain.
    Two,
    /// Over TLS what ALPN agrees on; in plain HTTP/1.1.
    Auto,
}

/// One server of an origin, as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Whether `host` names SRV records (RFC 2782), which bring hosts, ports, tiers and weights.
    pub srv: bool,
    /// Host name or literal address, in lower case, without brackets.
    pub host: String,
    /// Port; 0 with `srv`.
    pub port: u16,
    /// Share of the load beside its fellows.
    pub weight: u32,
    /// Used only when every other server is down: `tier` is 1 where that is 0.
    pub backup: bool,
    /// Used only while nothing in the tiers before it is up; 0 is the first.
    pub tier: u32,
    /// Where it stands.
    pub locality: Option<String>,
    /// Whether that is where this node stands.
    pub near: bool,
}

impl Server {
    /// The tier that it belongs to.
    #[must_use]
    pub fn tier(&self) -> u32 {
        self.tier.max(u32::from(self.backup))
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            tls: false,
            srv: false,
            host: String::new(),
            port: 80,
            weight: 1,
            backup: false,
            tier: 0,
            locality: None,
            near: false,
        }
    }
}

impl Server {
    /// As one writes it, the port always told.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            host if self.srv => format!("srv+{scheme}://{host}"),
            host if host.contains(':') => format!("{scheme}://[{host}]:{}", self.port),
            host => format!("{scheme}://{host}:{}", self.port),
        }
    }

    /// The name that a certificate bears: the host, or the domain that SRV records are under. What
    /// the records point to is no name to trust, unless DNS itself could be (RFC 9525 section 6.1).
    #[must_use]
    pub fn domain(&self) -> &str {
        let mut rest = self.host.as_str();
        while self.srv
            && let Some((label, domain)) = rest.split_once('.')
            && label.starts_with('_')
        {
            rest = domain;
        }
        rest
    }
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// A connection (with its TLS, where the server has it) is all that is asked; nothing is sent.
    pub tcp: bool,
    /// Path of the request.
    pub path: String,
    /// `Host` of the request; `None`: the server's own name.
    pub host: Option<String>,
    /// Statuses that count as well; none: any of 200 to 399.
    pub status: Vec<RangeInclusive<u16>>,
    /// Text that must stand in the first 64 KiB of the body.
    pub body: Option<String>,
    /// Time between probes of one endpoint, and up to a tenth more.
    pub interval: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// Successes in a row that bring an endpoint back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            tcp: false,
            path: "/".to_owned(),
            host: None,
            status: Vec::new(),
            body: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// A site: the hosts it answers for, its origin, its rules.
#[derive(Clone, Debug)]
pub struct Site {
    /// Name in purges, logs and metrics.
    pub name: Arc<str>,
    /// Host names in lower case; `*.example.org` covers one label, `*` every host.
    pub hosts: Vec<String>,
    /// Index of its origin.
    pub origin: usize,
    /// `Host` that the origin sees; `None`: the client's, in canonical form.
    pub host: Option<HeaderValue>,
    /// Rules by path prefix; there is always one for `/`.
    pub rules: Vec<Rule>,
}

/// A path rule of a site.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Path prefix; matches at a `/` boundary.
    pub path: String,
    /// What holds below it.
    pub policy: Arc<Policy>,
}
