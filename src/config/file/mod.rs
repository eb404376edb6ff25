//! What is written in a configuration file, table by table.
//!
//! Reading fills a [`Draft`]: values with their places, references still by name. Flags are laid
//! over it, then `check` looks at how it hangs together and makes the `Config`.

mod canary;
mod compression;
mod facades;
mod hook;
mod key;
mod limits;
mod mesh;
mod origin;
mod policy;
mod rules;
mod site;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use canary::CanaryDraft;
pub(super) use facades::{FacadesDraft, ServiceDraft};
pub(super) use hook::HookDraft;
pub(super) use mesh::{MeshDraft, NodeDraft};

use crate::semantics::{Mark, Policy, ToldBy};

use super::error::{Problem, shown};
use super::reader::{Entry, Found, Number, Percent, Read, Size, Table};
use super::{AccessFormat, AuditFile, CertificateFiles, Limits, Listener, Log, Node, Origin};
use super::{Rule, Scope, machine, names, token};

/// A configuration as it was written: nothing refers to anything yet.
pub(super) struct Draft {
    /// Whether it was read from a file.
    pub(super) of_file: bool,
    pub(super) node: Node,
    pub(super) budget: Found<u64>,
    /// `None` where the file has no `[[listener]]`.
    pub(super) listeners: Option<Vec<Found<Listener>>>,
    pub(super) certificates: Vec<Found<CertificateFiles>>,
    pub(super) limits: Limits,
    pub(super) log: Log,
    pub(super) admin: AdminDraft,
    pub(super) watch: Option<Found<SocketAddr>>,
    pub(super) origins: Vec<Found<Origin>>,
    /// Whether no origin had to be left out.
    pub(super) origins_whole: bool,
    /// `Host` field of each origin, by position.
    pub(super) origin_hosts: Vec<Option<String>>,
    pub(super) sites: Vec<SiteDraft>,
    pub(super) facades: FacadesDraft,
    pub(super) mesh: Option<MeshDraft>,
}

/// The admin listener as written.
pub(super) struct AdminDraft {
    /// `None`: not written. `Some(None)`: none wanted.
    pub(super) address: Option<Found<Option<SocketAddr>>>,
    pub(super) token_file: Option<Found<PathBuf>>,
    pub(super) tokens: Vec<TokenDraft>,
    pub(super) hooks: Vec<HookDraft>,
    /// What is not said otherwise here.
    pub(super) rest: super::Admin,
}

/// A token as written.
pub(super) struct TokenDraft {
    pub(super) name: Found<String>,
    pub(super) hash: [u8; 32],
    pub(super) scopes: Vec<Scope>,
    pub(super) sites: Vec<Found<String>>,
}

/// A site as written.
pub(super) struct SiteDraft {
    pub(super) name: Found<String>,
    pub(super) hosts: Vec<Found<String>>,
    pub(super) origin: Option<Found<String>>,
    pub(super) host: Option<String>,
    pub(super) rules: Vec<Rule>,
    /// Origins that rules name, by the position of the rule.
    pub(super) rule_origins: Vec<(usize, Found<String>)>,
    /// Whether its table lacked something that has been reported.
    pub(super) whole: bool,
}

impl Draft {
    /// The defaults, for a start without a file or a file without a word.
    pub(super) fn empty() -> Self {
        Self {
            of_file: true,
            node: machine::node(),
            budget: Found::elsewhere(machine::memory() / 2, "memory.budget"),
            listeners: None,
            certificates: Vec::new(),
            limits: Limits::default(),
            log: Log::default(),
            admin: AdminDraft {
                address: None,
                token_file: None,
                tokens: Vec::new(),
                hooks: Vec::new(),
                rest: super::Admin::default(),
            },
            watch: None,
            origins: Vec::new(),
            origins_whole: true,
            origin_hosts: Vec::new(),
            sites: Vec::new(),
            facades: FacadesDraft::empty(),
            mesh: None,
        }
    }
}

/// Reads a whole document. Relative paths of files are meant from `folder`.
pub(super) fn read(mut file: Table<'_>, folder: &Path) -> Draft {
    let mut draft = Draft::empty();
    read_node(file.table("node"), &mut draft.node);
    read_memory(file.table("memory"), &mut draft.budget);
    read_listeners(&mut file, &mut draft);
    for table in file.tables("certificate").unwrap_or_default() {
        draft.certificates.extend(certificate(table, folder));
    }
    limits::read(file.table("limits"), &mut draft.limits);
    read_log(file.table("log"), folder, &mut draft.log);
    read_admin(file.table("admin"), folder, &mut draft.admin);
    for table in file.tables("hook").unwrap_or_default() {
        draft.admin.hooks.extend(hook::read(table, folder));
    }
    draft.watch = watch(file.table("watch"));
    read_origins(&mut file, folder, &mut draft);
    read_sites(&mut file, folder, &mut draft);
    facades::read(file.table("facades"), &mut draft.facades);
    draft.mesh = mesh::read(file.table("mesh"), folder);
    file.finish();
    draft
}

fn read_listeners(file: &mut Table<'_>, draft: &mut Draft) {
    let Some(tables) = file.tables("listener") else { return };
    if file.array_is_empty("listener") {
        let problem = Problem::new("there is no listener").at(file.span_of("listener"));
        file.sink.missing(problem.help("leave `listener` out for the built-in ones"));
    }
    draft.listeners = Some(tables.into_iter().filter_map(listener).collect());
}

fn read_origins(file: &mut Table<'_>, folder: &Path, draft: &mut Draft) {
    let tables = file.tables("origin").unwrap_or_default();
    if tables.is_empty() {
        let help =
            "for example:\n[[origin]]\nname = \"main\"\nservers = [\"https://origin.example\"]";
        file.sink.missing(Problem::new("there is no [[origin]]").help(help));
    }
    let sink = file.sink;
    for table in tables.into_iter().take_while(|_| !sink.is_full()) {
        match origin::read(table, folder) {
            Some((origin, host)) => {
                draft.origins.push(origin);
                draft.origin_hosts.push(host);
            }
            None => draft.origins_whole = false,
        }
    }
}

fn read_sites(file: &mut Table<'_>, folder: &Path, draft: &mut Draft) {
    let tables = file.tables("site").unwrap_or_default();
    if tables.is_empty() {
        let help = "for example:\n[[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"";
        file.sink.missing(Problem::new("there is no [[site]]").help(help));
    }
    let mut policy = Policy::default();
    policy.mark = Mark::of(&policy);
    let policy = Arc::new(policy);
    let sink = file.sink;
    let tables = tables.into_iter().take_while(|_| !sink.is_full());
    draft.sites = tables.map(|table| site::read(table, &policy, folder)).collect();
}

fn read_node(mut table: Table<'_>, node: &mut Node) {
    table.parse("name", &mut node.name, names::parse_name);
    table.parse("pop", &mut node.pop, names::parse_name);
    node.locality.clone_from(&node.pop);
    table.parse("locality", &mut node.locality, names::parse_name);
    table.count("workers", &mut node.workers, 1..=1024);
    table.count("seed", &mut node.seed, 0..=u64::MAX);
    if table.optional::<String>("cdn_id").is_none() {
        node.cdn_id.clone_from(&node.name);
    }
    table.parse("cdn_id", &mut node.cdn_id, |text| {
        names::parse_name(text).or_else(|_name| names::parse_host_field(text)).map_err(|_host| {
            "expected a token or a host with an optional port (RFC 8586): \"cdn.example\""
                .to_owned()
        })
    });
    table.finish();
}

fn read_memory(mut table: Table<'_>, budget: &mut Found<u64>) {
    /// A budget: a size, or a share of what the machine allows.
    struct Budget(u64);
    impl Read for Budget {
        fn read(entry: &Entry<'_>) -> Option<Self> {
            if entry.is_percent() {
                let share = Percent::read(entry)?;
                return Some(Self(machine::memory() / 100 * u64::from(share.0)));
            }
            Size::read(entry).map(|size| Self(size.0))
        }
    }
    if let Some(found) = table.optional::<Budget>("budget") {
        *budget = Found { value: found.value.0, place: found.place };
    }
    table.finish();
}

fn listener(mut table: Table<'_>) -> Option<Found<Listener>> {
    let address = table.required::<SocketAddr>("address", "\"0.0.0.0:443\"");
    let (mut tls, mut proxy_protocol) = (false, false);
    table.set("tls", &mut tls);
    let mut http2 = tls;
    table.set("http2", &mut http2);
    table.set("proxy_protocol", &mut proxy_protocol);
    let mut trusted_proxies = Vec::new();
    table.set("trusted_proxies", &mut trusted_proxies);
    let mut proxies_write = ToldBy::default();
    let names = [("x-forwarded", ToldBy::XForwarded), ("forwarded", ToldBy::Forwarded)];
    table.choose("proxies_write", &names, &mut proxies_write);
    if proxy_protocol && trusted_proxies.is_empty() {
        table.sink.push(
            Problem::new(
                "`proxy_protocol` without `trusted_proxies` would let anybody claim any address",
            )
            .at(table.span_of("proxy_protocol"))
            .label("from whom?")
            .help("name the networks of the balancers: trusted_proxies = [\"10.0.0.0/8\"]"),
        );
    }
    table.finish();
    address.map(|found| Found {
        value: Listener {
            address: found.value,
            tls,
            http2,
            proxy_protocol,
            trusted_proxies,
            proxies_write,
        },
        place: found.place,
    })
}

fn certificate(mut table: Table<'_>, folder: &Path) -> Option<Found<CertificateFiles>> {
    let chain = table.required::<PathBuf>("chain", "\"/etc/atoll/example.org.pem\"");
    let key = table.required::<PathBuf>("key", "\"/etc/atoll/example.org.key\"");
    table.finish();
    let (chain, key) = (chain?, key?);
    let value = CertificateFiles { chain: folder.join(chain.value), key: folder.join(key.value) };
    Some(Found { value, place: chain.place })
}

fn read_log(mut table: Table<'_>, folder: &Path, log: &mut Log) {
    let formats = [
        ("json", Some(AccessFormat::Json)),
        ("combined", Some(AccessFormat::Combined)),
        ("none", None),
    ];
    table.choose("access", &formats, &mut log.access);
    log.access_file = log_file(&mut table, "access_file", folder);
    table.count("access_queue", &mut log.access_queue, 16..=10_000_000);
    table.set("json", &mut log.json);
    table.parse("level", &mut log.level, level);
    table.finish();
}

/// A file to write to, whose folder has to be there.
fn log_file(table: &mut Table<'_>, key: &'static str, folder: &Path) -> Option<PathBuf> {
    let found = table.optional::<PathBuf>(key)?;
    let file = folder.join(&found.value);
    if file.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        let problem = Problem::new(format!("the folder of `{}` does not exist", found.place.key))
            .at(found.place.span)
            .help(format!("looked for it as {}", shown(&file.display().to_string())));
        table.sink.push(problem);
    }
    Some(file)
}

/// Accepts what the process log's filter accepts.
fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const FORM: &str = "expected off, error, warn, info, debug or trace, or a filter: \"info,atoll::origin=debug\"";
    // The filter takes any word for the name of a module, so a misspelt level would switch all off.
    let fine = text.split(',').all(|part| {
        let word = part.rsplit('=').next().unwrap_or(part).trim();
        LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
    });
    if !fine || tracing_subscriber::EnvFilter::builder().parse(text).is_err() {
        return Err(FORM.to_owned());
    }
    Ok(text.to_owned())
}

fn read_admin(mut table: Table<'_>, folder: &Path, admin: &mut AdminDraft) {
    /// An address, or `"none"`.
    struct Address(Option<SocketAddr>);
    impl Read for Address {
        fn read(entry: &Entry<'_>) -> Option<Self> {
            entry
                .parsed("an address with a port, or \"none\"", |text| match text {
                    "none" => Ok(None),
                    _ => names::parse_address(text).map(Some),
                })
                .map(Self)
        }
    }
    let address = table.optional::<Address>("address");
    admin.address = address.map(|found| Found { value: found.value.0, place: found.place });
    let file = table.optional::<PathBuf>("token_file");
    admin.token_file =
        file.map(|found| Found { value: folder.join(found.value), place: found.place });
    table.count("purges_per_second", &mut admin.rest.purges_per_second, 1..=1_000_000);
    table.count("purge_selectors", &mut admin.rest.purge_selectors, 1..=100_000);
    table.count("purge_history", &mut admin.rest.purge_history, 0..=100_000);
    let waits = &mut admin.rest.purge_waits;
    table.time("purge_wait", &mut waits.usual, 0..=3_600_000);
    table.time("purge_wait_longest", &mut waits.longest, 0..=3_600_000);
    table.count("purge_waits", &mut waits.places, 0..=200);
    table.count("idempotency_keys", &mut admin.rest.idempotency_keys, 0..=100_000);
    table.size("body_bytes", &mut admin.rest.body_bytes, 1024..=64 << 20);
    table.count("events", &mut admin.rest.events, 16..=100_000);
    table.count("event_followers", &mut admin.rest.event_followers, 0..=128);
    admin.rest.audit = audit(&mut table, folder);
    table.count("warm_jobs", &mut admin.rest.warm_jobs, 0..=100);
    table.count("warm_urls", &mut admin.rest.warm_urls, 1..=1_000_000);
    table.count("refetch_urls", &mut admin.rest.refetch_urls, 0..=100_000);
    table.count("refetch_per_second", &mut admin.rest.refetch_per_second, 1..=1000);
    let tokens = table.tables("token").unwrap_or_default();
    admin.tokens = tokens.into_iter().filter_map(token).collect();
    table.finish();
}

fn audit(table: &mut Table<'_>, folder: &Path) -> Option<AuditFile> {
    let path = log_file(table, "audit_log", folder);
    let (mut bytes, mut files) = (16 << 20, 9);
    table.size("audit_log_bytes", &mut bytes, 4096..=1 << 40);
    table.count("audit_log_files", &mut files, 1..=10_000);
    path.map(|path| AuditFile { path, bytes, files })
}

fn token(mut table: Table<'_>) -> Option<TokenDraft> {
    let name = table.required_parsed("name", "\"deploy\"", names::parse_name);
    let example = "\"sha256:...\" (`atoll token new` makes one)";
    let hash = table.required_parsed("hash", example, token::parse_hash);
    let scopes = table.required::<Vec<Scope>>("scopes", "[\"purge\"]");
    let mut sites = Vec::new();
    table.set("sites", &mut sites);
    if let Some(found) = scopes.as_ref().filter(|found| found.value.is_empty()) {
        let problem = Problem::new(format!("`{}` is empty", found.place.key));
        let help = "a token without scopes may do nothing: give it one, or leave it out";
        table.sink.missing(problem.at(found.place.span.clone()).help(help));
    }
    table.finish();
    let scopes = scopes?.value;
    Some(TokenDraft { name: name?, hash: hash?.value, scopes, sites })
}

impl Read for Scope {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let names: Vec<(&str, Self)> =
            Self::ALL.iter().map(|scope| (scope.label(), *scope)).collect();
        entry.one_of(&names)
    }
}

fn watch(mut table: Table<'_>) -> Option<Found<SocketAddr>> {
    let address = table.required("address", "\"0.0.0.0:9090\"");
    table.finish();
    address
}

/// A status code, 100 to 599.
struct Status(u16);

impl Read for Status {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let number = Number::read(entry)?;
        let status = u16::try_from(number.0).ok().filter(|status| (200..=599).contains(status));
        if status.is_none() {
            let message = format!("`{}` is not a status", entry.place.key);
            entry.report(message, "not a status", "from 200 to 599");
        }
        status.map(Self)
    }
}
