//! `[[origin]]`: a named set of servers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::header::HeaderName;

use crate::balance::Balance;

use super::super::certificates::{check_authorities, check_client_certificate};
use super::super::error::Problem;
use super::super::reader::{Entry, Found, Place, Read, Table};
use super::super::{
    CertificateFiles, HashBy, HttpVersions, Origin, Probe, ProxyProtocol, Server, names,
};
use super::Status;

/// Reads one origin, and the `Host` that it is to see.
pub(super) fn read(mut table: Table<'_>, folder: &Path) -> Option<(Found<Origin>, Option<String>)> {
    let name = table.required_parsed("name", "\"main\"", names::parse_name);
    let servers = servers(&mut table);
    let host = table.optional_parsed("host", names::parse_host_field).map(|found| found.value);
    let ca = ca(&mut table, folder);
    let client_certificate = client_certificate(&mut table, folder);
    let tls_name = table.optional_parsed("tls_name", names::parse_host).map(|found| found.value);
    let mut http = HttpVersions::default();
    let versions =
        [("1.1", HttpVersions::One), ("2", HttpVersions::Two), ("auto", HttpVersions::Auto)];
    table.choose("http", &versions, &mut http);
    let probe = probe(&mut table);
    let mut resolvers = Vec::<Resolver>::new();
    table.set("resolvers", &mut resolvers);
    let mut allow_internal_addresses = false;
    table.set("allow_internal_addresses", &mut allow_internal_addresses);
    let choice = choice(&mut table);
    let mut near_in_flight = 100;
    table.count("near_in_flight", &mut near_in_flight, 1..=1_000_000);
    let mut proxy_protocol = ProxyProtocol::None;
    table.parse("proxy_protocol", &mut proxy_protocol, parse_proxy_protocol);
    if proxy_protocol != ProxyProtocol::None {
        one_client(&mut table, &mut http);
    }
    table.finish();
    let name = name?;
    let value = Origin {
        name: name.value,
        servers,
        ca,
        client_certificate,
        tls_name,
        http,
        probe,
        resolvers: resolvers.into_iter().map(|resolver| resolver.0).collect(),
        allow_internal_addresses,
        balance: choice.0,
        hash_by: choice.1,
        near_in_flight,
        proxy_protocol,
    };
    Some((Found { value, place: name.place }, host))
}

/// Its certificate authorities, if they can be used.
fn ca(table: &mut Table<'_>, folder: &Path) -> Option<PathBuf> {
    let found = table.optional::<PathBuf>("ca")?;
    let file = folder.join(found.value);
    if let Err(error) = check_authorities(&file) {
        let message = format!("`{}` cannot be used", found.place.key);
        table.sink.push(Problem::new(message).at(found.place.span).help(error));
        return None;
    }
    Some(file)
}

/// The certificate that it is shown, if it can be used, with its key.
fn client_certificate(table: &mut Table<'_>, folder: &Path) -> Option<CertificateFiles> {
    let chain = table.optional::<PathBuf>("client_certificate");
    let key = table.optional::<PathBuf>("client_key");
    let (chain, key) = match (chain, key) {
        (Some(chain), Some(key)) => (chain, key),
        (None, None) => return None,
        (chain, key) => {
            let (there, other) = match (&chain, &key) {
                (Some(_), _) => (&chain, "client_key"),
                _ => (&key, "client_certificate"),
            };
            if let Some(found) = there {
                let place = &found.place;
                table.sink.push(
                    Problem::new(format!("`{}` needs `{other}` beside it", place.key))
                        .at(place.span.clone())
                        .help("a certificate is of use only with its private key"),
                );
            }
            return None;
        }
    };
    let files = CertificateFiles { chain: folder.join(chain.value), key: folder.join(key.value) };
    if let Err(error) = check_client_certificate(&files) {
        let message = format!("`{}` cannot be used", chain.place.key);
        table.sink.push(Problem::new(message).at(chain.place.span).help(error));
        return None;
    }
    Some(files)
}

/// How its endpoints are chosen.
fn choice(table: &mut Table<'_>) -> (Balance, HashBy) {
    const BOUNDS: RangeInclusive<f64> = 1.05..=10.0;
    let mut bound = 1.25;
    if let Some(found) = table.optional::<f64>("hash_bound") {
        if BOUNDS.contains(&found.value) {
            bound = found.value;
        } else {
            let problem = Problem::new(format!("`{}` is out of bounds", found.place.key));
            let help = "from 1.05 to 10.0: what one server may have of the mean load";
            table.sink.push(problem.at(found.place.span).label("out of bounds").help(help));
        }
    }
    let mut by = HashBy::Key;
    table.parse("hash_by", &mut by, hash_by);
    let names = [
        ("latency", Balance::Latency),
        ("round-robin", Balance::RoundRobin),
        ("least-requests", Balance::LeastRequests),
        ("hash", Balance::Hash { bound }),
    ];
    let mut balance = Balance::Latency;
    table.choose("balance", &names, &mut balance);
    for key in ["hash_by", "hash_bound"] {
        if let (Some(span), false) = (table.span_of(key), matches!(balance, Balance::Hash { .. })) {
            let problem = Problem::new(format!("`{key}` has no effect")).warning().at(Some(span));
            table.sink.push(problem.help("it is for balance = \"hash\""));
        }
    }
    (balance, by)
}

/// `key`, or `header:NAME`.
fn hash_by(text: &str) -> Result<HashBy, String> {
    let name = match text {
        "key" => return Ok(HashBy::Key),
        _ => text.strip_prefix("header:").and_then(|name| HeaderName::from_str(name).ok()),
    };
    name.map(HashBy::Field).ok_or_else(|| "expected \"key\" or \"header:NAME\"".to_owned())
}

/// Its servers; each once, at least one of them not a backup.
fn servers(table: &mut Table<'_>) -> Vec<Server> {
    let example = "[\"https://origin.example:443\"]";
    let Some(list) = table.required::<Vec<Found<Server>>>("servers", example) else {
        return Vec::new();
    };
    let problem = |what: String| Problem::new(what).at(list.place.span.clone());
    let mut seen: HashMap<(String, u16), Place> = HashMap::new();
    for found in &list.value {
        let identity = (found.value.host.clone(), found.value.port);
        if let Some(first) = seen.insert(identity, found.place.clone()) {
            table.sink.push(
                Problem::new(format!("`{}` names a server twice", list.place.key))
                    .at(found.place.span.clone())
                    .label("here again")
                    .other(first.span, "first here")
                    .help("to give a server more load write { url = \"...\", weight = 2 }"),
            );
        }
    }
    if list.value.is_empty() && table.array_is_empty("servers") {
        let help = format!("for example: servers = {example}");
        table.sink.missing(problem(format!("`{}` is empty", list.place.key)).help(help));
    }
    if !list.value.is_empty() && list.value.iter().all(|found| found.value.tier() > 0) {
        let help = "a backup stands in for others: at least one server is not a backup";
        table.sink.missing(problem(format!("`{}` are all backups", list.place.key)).help(help));
    }
    list.value.into_iter().map(|found| found.value).collect()
}

impl Read for Server {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str =
            "\"https://origin.example\" or { url = \"...\", weight = 2, backup = true }";
        let Some(mut table) = entry.as_table("a server") else {
            return entry.parsed(EXPECTED, names::parse_server);
        };
        let server =
            table.required_parsed("url", "\"https://origin.example\"", names::parse_server);
        let (mut weight, mut backup, mut tier) = (1, false, 0);
        table.count("weight", &mut weight, 1..=1000);
        table.set("backup", &mut backup);
        let weighed = table.span_of("weight");
        if weighed.is_some() && server.as_ref().is_some_and(|found| found.value.srv) {
            table.sink.push(
                Problem::new(format!("`{}.weight` beside SRV records", table.place.key))
                    .at(weighed)
                    .help("the records bring their weights: leave this one out"),
            );
        }
        table.count("tier", &mut tier, 0..=50);
        if let (true, Some(span)) = (backup, table.span_of("tier")) {
            let problem = Problem::new("`backup` and `tier` say the same").at(Some(span));
            table.sink.push(problem.help("backup = true is short for tier = 1: keep one of them"));
        }
        let locality = table.optional_parsed("locality", names::parse_name);
        table.finish();
        let locality = locality.map(|found| found.value);
        server.map(|found| Self { weight, backup, tier, locality, ..found.value })
    }
}

/// A connection that speaks for one client carries one request at a time.
fn one_client(table: &mut Table<'_>, http: &mut HttpVersions) {
    if *http == HttpVersions::Two {
        table.sink.push(
            Problem::new(format!("`{}.proxy_protocol` beside HTTP/2", table.place.key))
                .at(table.span_of("proxy_protocol"))
                .help("HTTP/2 shares a connection among clients, the header names one of them"),
        );
    }
    *http = HttpVersions::One;
}

fn parse_proxy_protocol(text: &str) -> Result<ProxyProtocol, String> {
    match text {
        "none" => Ok(ProxyProtocol::None),
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        _ => Err("expected \"none\", \"v1\" or \"v2\"".to_owned()),
    }
}

/// A DNS server; port 53 where none is written.
struct Resolver(SocketAddr);

impl Read for Resolver {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str =
            "the address of a DNS server: \"192.0.2.53\" or \"[2001:db8::53]:5353\"";
        let parse = |text: &str| {
            let bare = text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
            let address = bare.or_else(|| text.parse().ok());
            let address = address.filter(|address| address.port() != 0);
            address.map(Self).ok_or_else(|| format!("expected {EXPECTED}"))
        };
        entry.parsed(EXPECTED, parse)
    }
}

fn probe(table: &mut Table<'_>) -> Option<Probe> {
    let mut table = table.table("probe");
    let written = table.is_there();
    let mut probe = Probe::default();
    table.parse("path", &mut probe.path, probe_path);
    if let Some(found) = table.optional_parsed("host", names::parse_host_field) {
        probe.host = Some(found.value);
    }
    if let Some(found) = table.optional::<Statuses>("status") {
        probe.status = found.value.0;
    }
    if let Some(found) = table.optional_parsed("body", probe_body) {
        probe.body = Some(found.value);
    }
    table.set("tcp", &mut probe.tcp);
    for key in ["path", "host", "status", "body"] {
        if let Some(span) = table.span_of(key).filter(|_| probe.tcp) {
            table.sink.push(
                Problem::new(format!(
                    "`{}.{key}` means nothing to a probe by TCP",
                    table.place.key
                ))
                .at(Some(span))
                .help("such a probe only connects: take the key out, or `tcp = true`"),
            );
        }
    }
    table.time("interval", &mut probe.interval, 100..=86_400_000);
    table.time("timeout", &mut probe.timeout, 10..=3_600_000);
    table.count("rise", &mut probe.rise, 1..=1000);
    table.count("fall", &mut probe.fall, 1..=1000);
    if probe.timeout > probe.interval {
        let span = table.span_of("timeout").or_else(|| table.span_of("interval"));
        table.sink.push(
            Problem::new(format!("`{}.timeout` is longer than its `interval`", table.place.key))
                .at(span)
                .help("a probe ends before the next one begins"),
        );
    }
    table.finish();
    written.then_some(probe)
}

/// Statuses that count as well: one, a range, or a list of both.
struct Statuses(Vec<RangeInclusive<u16>>);

impl Read for Statuses {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.is_list() {
            let list = Vec::<Found<StatusRange>>::read(entry)?;
            return Some(Self(list.into_iter().map(|found| found.value.0).collect()));
        }
        StatusRange::read(entry).map(|range| Self(vec![range.0]))
    }
}

struct StatusRange(RangeInclusive<u16>);

impl Read for StatusRange {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.is_integer() {
            return Status::read(entry).map(|status| Self(status.0..=status.0));
        }
        let parse = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let status =
                |text: &str| text.parse().ok().filter(|status: &u16| (200..=599).contains(status));
            let range = status(first).zip(status(last)).filter(|(first, last)| first <= last);
            let range = range.map(|(first, last)| Self(first..=last));
            range.ok_or_else(|| "expected statuses from 200 to 599, such as \"200-299\"".to_owned())
        };
        entry.parsed("a status, a range such as \"200-299\", or a list of both", parse)
    }
}

/// What stands in the body of an answer to a probe.
fn probe_body(text: &str) -> Result<String, String> {
    let fine = !text.is_empty() && text.len() <= 1024;
    if fine { Ok(text.to_owned()) } else { Err("expected 1 to 1024 bytes of text".to_owned()) }
}

/// The path of a probe, which may have a query.
fn probe_path(text: &str) -> Result<String, String> {
    let fine = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if fine { Ok(text.to_owned()) } else { Err("expected a path such as \"/health\"".to_owned()) }
}
