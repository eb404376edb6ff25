//! How a configuration hangs together: references, names taken twice, addresses taken twice,
//! certificates and the hosts they are for. Here a draft becomes a [`Config`].

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Now;

use super::certificates::{CertificateFacts, inspect_certificate, read_file};
use super::error::{Problem, nearest, shown};
use super::file::{AdminDraft, Draft, FacadesDraft, HookDraft, SiteDraft};
use super::flags::{self, ADMIN};
use super::reader::{Found, Place, Sink};
use super::token::check_token;
use super::{
    Admin, Config, Hook, HttpVersions, Listener, Memory, Origin, Site, Token, facades, format_size,
    machine, mesh,
};

/// Smallest budget with which a node can work.
const LEAST_BUDGET: u64 = 32 << 20;
/// A certificate that ends sooner than this is warned of.
pub(super) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Checks the whole; what is wrong goes to `sink`.
pub(super) fn check(draft: Draft, sink: &Sink, now: Now) -> Option<Config> {
    let listeners = draft.listeners.unwrap_or_else(flags::built_in_listeners);
    check_budget(&draft.budget, sink);
    check_origins(&draft.origins, sink);
    let sites =
        check_sites(draft.sites, &draft.origins, &draft.origin_hosts, draft.origins_whole, sink);
    let admin_address = draft
        .admin
        .address
        .clone()
        .unwrap_or_else(|| Found::elsewhere(Some(ADMIN), "admin.address"));
    let mesh = draft.mesh.as_ref();
    let canary =
        mesh.and_then(|mesh| mesh.canary.as_ref()).and_then(|canary| canary.listen.as_ref());
    let mesh = mesh.and_then(|mesh| mesh.listen.as_ref()).into_iter().chain(canary);
    check_addresses(&listeners, &admin_address, draft.watch.as_ref().into_iter().chain(mesh), sink);
    check_admin(&admin_address, sink);
    let admin = admin(draft.admin, admin_address.value, &sites, sink);
    check_facades(&draft.facades, &sites, sink);
    let facts = certificates(&draft.certificates, sink, now);
    if draft.of_file || !draft.certificates.is_empty() {
        check_tls(&listeners, &draft.certificates, &facts, &sites, sink);
    }
    let whole: Vec<Site> = sites.iter().filter_map(|checked| checked.site.clone()).collect();
    let of = (&draft.node, &*whole);
    let mesh = draft.mesh.and_then(|mesh| mesh::check(mesh, of, sink, now));
    let sites: Vec<Site> = sites.into_iter().map(|checked| checked.site).collect::<Option<_>>()?;
    let facades = facades::check(draft.facades, &admin, &sites, sink);
    Some(Config {
        memory: Memory { budget_bytes: draft.budget.value },
        listeners: listeners.into_iter().map(|found| found.value).collect(),
        certificates: draft.certificates.into_iter().map(|found| found.value).collect(),
        limits: draft.limits,
        log: draft.log,
        admin,
        watch: draft.watch.map(|found| found.value),
        origins: origins(draft.origins, &draft.node.locality),
        node: draft.node,
        sites,
        facades,
        mesh,
    })
}

/// The origins as seen from where this node stands.
fn origins(drafts: Vec<Found<Origin>>, locality: &str) -> Vec<Origin> {
    let mut origins: Vec<Origin> = drafts.into_iter().map(|found| found.value).collect();
    for server in origins.iter_mut().flat_map(|origin| &mut origin.servers) {
        server.near = server.locality.as_deref() == Some(locality);
    }
    origins
}

fn check_budget(budget: &Found<u64>, sink: &Sink) {
    let problem = |what: String| Problem::new(what).at(budget.place.span.clone());
    if budget.value < LEAST_BUDGET {
        let message = format!("`{}` is too small", budget.place.key);
        sink.push(problem(message).help(format!("at least {}", format_size(LEAST_BUDGET))));
    }
    let all = machine::memory();
    if budget.value > all {
        let message = format!("`{}` is more than this process may use", budget.place.key);
        let help = format!("the machine or its control group allows {} MiB", all >> 20);
        sink.push(problem(message).warning().help(help));
    }
}

/// Reports the second of two things with one name.
pub(super) fn check_unique<'a>(
    what: &str,
    names: impl Iterator<Item = (&'a str, &'a Place)>,
    sink: &Sink,
) {
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for (name, place) in names {
        if let Some(first) = seen.insert(name, place) {
            sink.push(
                Problem::new(format!("two {what}s have the name {}", shown(name)))
                    .at(place.span.clone())
                    .label("here again")
                    .other(first.span.clone(), "first here")
                    .help(format!("every {what} needs a name of its own")),
            );
        }
    }
}

fn check_origins(origins: &[Found<Origin>], sink: &Sink) {
    check_unique("origin", origins.iter().map(|o| (o.value.name.as_str(), &o.place)), sink);
    for origin in origins {
        let value = &origin.value;
        if value.servers.iter().any(|server| server.tls) {
            continue;
        }
        let idle = [
            ("ca", value.ca.is_some()),
            ("client_certificate", value.client_certificate.is_some()),
            ("tls_name", value.tls_name.is_some()),
            ("http = \"auto\"", value.http == HttpVersions::Auto),
        ];
        for (key, _) in idle.into_iter().filter(|(_, written)| *written) {
            let message = format!("`{key}` of the origin \"{}\" has no effect", value.name);
            let help = "none of its servers is spoken to over https://";
            sink.push(Problem::new(message).warning().at(origin.place.span.clone()).help(help));
        }
    }
}

/// A site whose references are resolved, and where its hosts are written.
struct CheckedSite {
    name: String,
    hosts: Vec<Found<String>>,
    /// `None` where something about it has been reported.
    site: Option<Site>,
}

fn check_sites(
    mut drafts: Vec<SiteDraft>,
    origins: &[Found<Origin>],
    origin_hosts: &[Option<String>],
    whole: bool,
    sink: &Sink,
) -> Vec<CheckedSite> {
    let names = drafts.iter().filter(|site| site.whole);
    check_unique("site", names.map(|site| (site.name.value.as_str(), &site.name.place)), sink);
    check_hosts(&drafts, sink);
    let own: Vec<Option<usize>> =
        drafts.iter().map(|draft| origin_of(draft, origins, whole, sink)).collect();
    let mut used = own.clone();
    for draft in &mut drafts {
        used.extend(rule_origins(draft, origins, origin_hosts, whole, sink));
    }
    for (i, origin) in origins.iter().enumerate() {
        // An unresolved reference may have meant any of them.
        if !used.contains(&Some(i)) && !used.contains(&None) && !used.is_empty() {
            let message = format!("no site uses the origin \"{}\"", origin.value.name);
            sink.push(Problem::new(message).warning().at(origin.place.span.clone()));
        }
    }
    for (draft, origin) in drafts.iter().zip(&own) {
        check_calls(draft, origin.and_then(|origin| origins.get(origin)), sink);
    }
    drafts.into_iter().zip(own).map(|(draft, origin)| site(draft, origin, origin_hosts)).collect()
}

/// gRPC has nothing to travel on but HTTP/2.
fn check_calls(site: &SiteDraft, origin: Option<&Found<Origin>>, sink: &Sink) {
    let Some(origin) = origin else { return };
    let calls = site.rules.iter().any(|rule| rule.policy.grpc);
    if calls && origin.value.http == HttpVersions::One {
        let message =
            format!("`grpc` of the site {} needs HTTP/2 to its origin", shown(&site.name.value));
        let help = format!("add http = \"2\" to the origin \"{}\"", origin.value.name);
        sink.push(Problem::new(message).warning().at(site.name.place.span.clone()).help(help));
    }
}

fn site(draft: SiteDraft, origin: Option<usize>, origin_hosts: &[Option<String>]) -> CheckedSite {
    let default = origin.and_then(|origin| origin_hosts.get(origin)).cloned().flatten();
    let host = draft.host.or(default).and_then(|host| HeaderValue::try_from(host).ok());
    let site = origin.map(|origin| Site {
        name: Arc::from(draft.name.value.as_str()),
        hosts: draft.hosts.iter().map(|found| found.value.clone()).collect(),
        origin,
        host,
        rules: draft.rules,
    });
    CheckedSite { name: draft.name.value, hosts: draft.hosts, site }
}

/// Gives the rules of a site the origins that they name, and their `Host` where they name none.
fn rule_origins(
    draft: &mut SiteDraft,
    origins: &[Found<Origin>],
    hosts: &[Option<String>],
    whole: bool,
    sink: &Sink,
) -> Vec<Option<usize>> {
    let SiteDraft { rules, rule_origins, .. } = draft;
    let mut found = Vec::new();
    for (at, name) in rule_origins {
        let index = named_origin(name, origins, whole, sink);
        found.push(index);
        let (Some(index), Some(rule)) = (index, rules.get_mut(*at)) else { continue };
        let policy = Arc::make_mut(&mut rule.policy);
        let mut own = policy.rules.as_deref().cloned().unwrap_or_default();
        own.origin = Some(index);
        let host = hosts.get(index).and_then(Option::as_deref).map(HeaderValue::try_from);
        own.host = own.host.or(host.and_then(Result::ok));
        policy.rules = Some(Arc::new(own));
    }
    found
}

/// Index of the origin that a site names; the only one where it names none.
fn origin_of(
    site: &SiteDraft,
    origins: &[Found<Origin>],
    whole: bool,
    sink: &Sink,
) -> Option<usize> {
    let names = || origins.iter().map(|origin| origin.value.name.as_str());
    let list = || names().take(20).collect::<Vec<_>>().join(", ");
    let Some(origin) = &site.origin else {
        if origins.len() > 1 {
            let message = format!("the site {} does not say its `origin`", shown(&site.name.value));
            let help = format!("with several origins it must name one: {}", list());
            sink.push(Problem::new(message).at(site.name.place.span.clone()).help(help));
        }
        return (origins.len() == 1).then_some(0);
    };
    named_origin(origin, origins, whole, sink)
}

/// Index of an origin that is named.
fn named_origin(
    origin: &Found<String>,
    origins: &[Found<Origin>],
    whole: bool,
    sink: &Sink,
) -> Option<usize> {
    let names = || origins.iter().map(|origin| origin.value.name.as_str());
    let index = names().position(|name| name == origin.value);
    // The one that is meant may be among those left out.
    if index.is_none() && whole && !origins.is_empty() {
        let list = || names().take(20).collect::<Vec<_>>().join(", ");
        let mut problem = Problem::new(format!("there is no origin {}", shown(&origin.value)))
            .at(origin.place.span.clone())
            .label("no such origin");
        if let Some(near) = nearest(&origin.value, names()) {
            problem = problem.help(format!("did you mean \"{near}\"?"));
        }
        sink.push(problem.help(format!("origins of this file: {}", list())));
    }
    index
}

fn check_hosts(sites: &[SiteDraft], sink: &Sink) {
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for host in sites.iter().flat_map(|site| &site.hosts) {
        if let Some(first) = seen.insert(&host.value, &host.place) {
            sink.push(
                Problem::new(format!("the host {} is claimed twice", shown(&host.value)))
                    .at(host.place.span.clone())
                    .label("here again")
                    .other(first.span.clone(), "first here")
                    .help("a request belongs to one site: leave one of the two out"),
            );
        }
    }
}

fn check_addresses<'a>(
    listeners: &'a [Found<Listener>],
    admin: &'a Found<Option<SocketAddr>>,
    others: impl Iterator<Item = &'a Found<SocketAddr>>,
    sink: &Sink,
) {
    let clients = listeners.iter().map(|found| (found.value.address, &found.place));
    let admin = admin.value.map(|address| (address, &admin.place));
    let others = others.map(|found| (found.value, &found.place));
    let mut seen: HashMap<SocketAddr, &Place> = HashMap::new();
    for (address, place) in clients.chain(admin).chain(others) {
        if address.port() == 0 {
            continue;
        }
        if let Some(first) = seen.insert(address, place) {
            let mut problem = Problem::new(format!("two listeners want the address {address}"))
                .at(place.span.clone().or_else(|| first.span.clone()))
                .help(format!(
                    "`{}` and `{}`: give one of them another port",
                    first.key, place.key
                ));
            if place.span.is_some() {
                problem = problem.label("here again").other(first.span.clone(), "first here");
            }
            sink.push(problem);
        }
    }
}

/// The admin listener speaks plain HTTP: a token that crosses a network on it is no secret.
fn check_admin(address: &Found<Option<SocketAddr>>, sink: &Sink) {
    let Some(value) = address.value.filter(|address| !address.ip().to_canonical().is_loopback())
    else {
        return;
    };
    sink.push(
        Problem::new(format!("the admin listener may not stand on {value}"))
            .at(address.place.span.clone())
            .label("reachable from other machines")
            .help(
                "it speaks plain HTTP, and tokens would cross the network readable: \
                   use a loopback address such as \"127.0.0.1:9080\" and reach it through ssh -L",
            )
            .help("for scrapers and health checks use [watch] address, which needs no token"),
    );
}

fn admin(
    draft: AdminDraft,
    address: Option<SocketAddr>,
    sites: &[CheckedSite],
    sink: &Sink,
) -> Admin {
    let names = draft.tokens.iter().map(|token| (token.name.value.as_str(), &token.name.place));
    check_unique("token", names, sink);
    let names = draft.hooks.iter().map(|hook| (hook.name.value.as_str(), &hook.name.place));
    check_unique("hook", names, sink);
    let mut tokens = Vec::new();
    let hooks = draft.hooks.into_iter().map(|draft| hook(draft, sites, sink));
    let hooks = hooks.collect::<Vec<_>>().into_iter().flatten().collect();
    for token in draft.tokens {
        for site in &token.sites {
            known_site(site, sites, sink);
        }
        tokens.push(Token {
            name: token.name.value,
            hash: token.hash,
            scopes: token.scopes,
            sites: token.sites.into_iter().map(|site| site.value).collect(),
        });
    }
    if let Some(file) = draft.token_file {
        match token_of(&file) {
            Ok(token) => tokens.push(Token::full("token_file", &token)),
            Err(error) => sink.push(
                Problem::new("`admin.token_file` cannot be used").at(file.place.span).help(error),
            ),
        }
    }
    Admin { address, tokens, hooks, ..draft.rest }
}

/// Whether there is a site of that name; reports it if not.
fn known_site(site: &Found<String>, sites: &[CheckedSite], sink: &Sink) -> bool {
    if sites.iter().any(|known| known.name == site.value) {
        return true;
    }
    let names = || sites.iter().map(|site| site.name.as_str());
    let mut problem = Problem::new(format!("there is no site {}", shown(&site.value)))
        .at(site.place.span.clone())
        .label("no such site");
    if let Some(near) = nearest(&site.value, names()) {
        problem = problem.help(format!("did you mean \"{near}\"?"));
    }
    let list = names().take(20).collect::<Vec<_>>().join(", ");
    sink.push(problem.help(format!("sites of this file: {list}")));
    false
}

/// A hook whose site is known; the only one where it names none.
fn hook(draft: HookDraft, sites: &[CheckedSite], sink: &Sink) -> Option<Hook> {
    let site = match (draft.site, sites) {
        (Some(site), _) => known_site(&site, sites, sink).then_some(site.value)?,
        (None, [only]) => only.name.clone(),
        (None, _) => {
            let message = format!("the hook {} does not say its `site`", shown(&draft.name.value));
            let help = "with several sites it must name the one that its events purge in";
            sink.missing(Problem::new(message).at(draft.name.place.span).help(help));
            return None;
        }
    };
    Some(Hook { name: draft.name.value, site, proof: draft.proof, on: draft.on })
}

fn check_facades(facades: &FacadesDraft, sites: &[CheckedSite], sink: &Sink) {
    for (what, all) in [("Fastly service", &facades.fastly), ("zone", &facades.cloudflare)] {
        check_unique(what, all.iter().map(|one| (one.id.value.as_str(), &one.id.place)), sink);
        for site in all.iter().flat_map(|one| &one.sites) {
            known_site(site, sites, sink);
        }
    }
}

/// The token in a file: its first line.
fn token_of(file: &Found<std::path::PathBuf>) -> Result<String, String> {
    const LARGEST: u64 = 4096;
    let bytes = read_file(&file.value, LARGEST)?;
    let text = String::from_utf8_lossy(&bytes);
    let token = text.lines().next().unwrap_or("").trim();
    check_token(token).map_err(|error| format!("{}: {error}", file.value.display()))?;
    Ok(token.to_owned())
}

/// What the certificates say of themselves; those that cannot be used are reported and left out.
fn certificates(
    list: &[Found<super::CertificateFiles>],
    sink: &Sink,
    now: Now,
) -> Vec<CertificateFacts> {
    let mut all = Vec::new();
    for found in list {
        let chain = found.value.chain.display();
        let name = found.place.key.trim_end_matches(".chain");
        let problem = |what: String| Problem::new(what).at(found.place.span.clone());
        let facts = match inspect_certificate(&found.value, now) {
            Ok(facts) => facts,
            Err(error) => {
                sink.push(problem(format!("`{name}` cannot be used")).help(error));
                continue;
            }
        };
        let end = httpdate::fmt_http_date(facts.not_after);
        if facts.expired {
            let help = format!("{chain}: it ended on {end}; clients will refuse it");
            sink.push(problem(format!("`{name}` has expired")).help(help));
        } else if facts.not_yet {
            let help = format!("{chain}: its validity has not begun; clients will refuse it");
            sink.push(problem(format!("`{name}` is not valid yet")).warning().help(help));
        } else if facts.not_after.duration_since(now.wall).is_ok_and(|left| left < EXPIRES_SOON) {
            let help = format!("{chain}: it ends on {end}");
            sink.push(problem(format!("`{name}` expires soon")).warning().help(help));
        }
        all.push(facts);
    }
    all
}

/// TLS listeners need certificates, and sites certificates for their hosts. Not asked of a start
/// without file and certificate, where a self-made one is what is meant.
fn check_tls(
    listeners: &[Found<Listener>],
    certificates: &[Found<super::CertificateFiles>],
    facts: &[CertificateFacts],
    sites: &[CheckedSite],
    sink: &Sink,
) {
    let tls = listeners.iter().find(|found| found.value.tls);
    match (tls, certificates.first()) {
        (Some(tls), None) => sink.push(
            Problem::new("there is no certificate for TLS: a self-made one will be used")
                .warning()
                .at(tls.place.span.clone())
                .help("browsers will warn of it; name a chain and a key in [[certificate]], or by --cert and --key"),
        ),
        (None, Some(first)) => sink.push(
            Problem::new("a certificate has no effect without a TLS listener")
                .warning()
                .at(first.place.span.clone())
                .help("set `tls = true` on a [[listener]], or use --listen-tls"),
        ),
        _ => {}
    }
    // A certificate that could not be read has been reported, and may have been the right one.
    if tls.is_none() || facts.is_empty() || facts.len() < certificates.len() {
        return;
    }
    let only_tls = listeners.iter().all(|found| found.value.tls);
    let names = || facts.iter().flat_map(|facts| &facts.names);
    let covered: HashSet<String> = names().map(|name| name.to_ascii_lowercase()).collect();
    for host in sites.iter().flat_map(|site| &site.hosts) {
        let by_name = host.value != "*" && host.value.parse::<IpAddr>().is_err();
        if !by_name || is_covered(&host.value, &covered) {
            continue;
        }
        let problem =
            Problem::new(format!("no certificate is for the host {}", shown(&host.value)))
                .at(host.place.span.clone())
                .label("not in any certificate");
        let known: Vec<&str> = names().map(String::as_str).take(20).collect();
        let problem = problem.help(format!("the certificates are for: {}", known.join(", ")));
        sink.push(if only_tls { problem } else { problem.warning() });
    }
}

/// Whether clients that ask for a site's host are shown a name they accept: itself, or, where it is no
/// pattern, one with a `*` for its first label (RFC 9525, 6.3).
fn is_covered(host: &str, names: &HashSet<String>) -> bool {
    let wildcard = || host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    names.contains(host)
        || !host.starts_with('*') && wildcard().is_some_and(|name| names.contains(&name))
}
