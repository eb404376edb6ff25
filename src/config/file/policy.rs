//! Policy keys: the same on a site, where they are defaults, and on its rules.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::http1::is_protocol;
use crate::semantics::{LARGEST_SEGMENT, LEAST_SEGMENT, Mark, Policy, RetryOn, WithoutLease};

use super::super::error::Problem;
use super::super::reader::{Entry, Found, MaybeSize, MaybeTime, Number, Read, Table};
use super::rules::Spot;
use super::{compression, key, rules};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

/// Reads the policy keys of a table over those of `base`, which is shared where none is written.
pub(super) fn read(table: &mut Table<'_>, base: &Arc<Policy>, spot: Spot<'_>) -> Arc<Policy> {
    let mut policy = Policy::clone(base);
    // Without `..`, so that a new field of the policy must be given its key here.
    let Policy {
        methods,
        pass,
        lifetime,
        default_lifetime,
        heuristic,
        stale_while_revalidate,
        stale_if_error,
        error_lifetime,
        status_lifetime,
        jitter_percent,
        early_refresh,
        honour_request_directives,
        forward_conditions,
        store_set_cookie,
        strip_set_cookie,
        vary_on_cookie,
        key,
        keep_tags,
        segment,
        segment_ahead,
        compression,
        grpc,
        retry_on_status,
        hedge,
        body_bytes,
        upgrade,
        without_lease,
        rules,
        mark: _,
    } = &mut policy;
    forwarded_methods(table, methods);
    table.set("pass", pass);
    maybe(table, "lifetime", lifetime);
    maybe(table, "default_lifetime", default_lifetime);
    table.set("heuristic", heuristic);
    maybe(table, "stale_while_revalidate", stale_while_revalidate);
    maybe(table, "stale_if_error", stale_if_error);
    table.time("error_lifetime", error_lifetime, 0..=DAY);
    table.set("status_lifetime", status_lifetime);
    table.percent("jitter", jitter_percent, 0..=90);
    strength(table, early_refresh);
    table.set("honour_request_directives", honour_request_directives);
    table.set("forward_conditions", forward_conditions);
    table.set("store_set_cookie", store_set_cookie);
    table.set("strip_set_cookie", strip_set_cookie);
    table.set("vary_on_cookie", vary_on_cookie);
    key::read(table, key);
    table.set("keep_tags", keep_tags);
    segment_size(table, segment);
    table.count("segment_ahead", segment_ahead, 0..=16);
    compression::read(table, compression);
    table.set("grpc", grpc);
    retry_statuses(table, retry_on_status);
    table.set("hedge", hedge);
    table.size("body_bytes", body_bytes, 0..=1 << 50);
    if let Some(protocols) = table.optional::<Vec<Protocol>>("upgrade") {
        *upgrade = protocols.value.into_iter().map(|Protocol(name)| name).collect();
    }
    let names = [("revalidate", WithoutLease::Revalidate), ("serve", WithoutLease::Serve)];
    table.choose("without_lease", &names, without_lease);
    rules::read(table, rules, spot);
    contradictions(table, &policy);
    policy.mark = Mark::of(&policy);
    if policy == **base { Arc::clone(base) } else { Arc::new(policy) }
}

/// A protocol that a connection may be upgraded to.
struct Protocol(String);

impl Read for Protocol {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const FORM: &str = "expected the name of a protocol: \"websocket\"";
        entry.parsed("a protocol: \"websocket\"", |text| {
            let name = text.to_ascii_lowercase();
            let bare = name.split('/').next().unwrap_or_default();
            if !is_protocol(&name) {
                return Err(FORM.to_owned());
            }
            if matches!(bare, "h2c" | "h2" | "h3" | "http" | "tls" | "connect-udp" | "connect-ip") {
                return Err(format!("{text} would carry requests past every check of ours"));
            }
            Ok(Self(name))
        })
    }
}

/// Methods that are forwarded. None at all would be a site that answers nothing.
fn forwarded_methods(table: &mut Table<'_>, into: &mut Vec<Method>) {
    if let Some(span) = table.span_of("methods").filter(|_| table.array_is_empty("methods")) {
        let problem = Problem::new("`methods` is empty: every request would be refused");
        table.sink.push(problem.at(Some(span)).label("empty").help(
            "name those that are forwarded: [\"GET\", \"HEAD\"], or leave the key out for all registered ones",
        ));
    }
    table.set("methods", into);
}

/// A time that may be taken back with `"none"`.
fn maybe(table: &mut Table<'_>, key: &'static str, into: &mut Option<Duration>) {
    if let Some(found) = table.optional::<MaybeTime>(key) {
        *into = found.value.0;
    }
}

/// A size within bounds, or `"none"`.
fn segment_size(table: &mut Table<'_>, into: &mut Option<u64>) {
    let Some(found) = table.optional::<MaybeSize>("segment") else { return };
    let wrong = match found.value.0 {
        Some(size) if size < LEAST_SEGMENT => "too small",
        Some(size) if size > LARGEST_SEGMENT => "too large",
        size => {
            *into = size;
            return;
        }
    };
    table.sink.push(
        Problem::new(format!("`{}` is {wrong}", found.place.key))
            .at(found.place.span)
            .label(wrong)
            .help("from \"64KiB\" to \"64MiB\", or \"none\""),
    );
}

/// Statuses after which a request is sent again.
fn retry_statuses(table: &mut Table<'_>, into: &mut RetryOn) {
    let Some(found) = table.optional::<Vec<Found<Number>>>("retry_on_status") else { return };
    let of = |number: &Found<Number>| u16::try_from(number.value.0).unwrap_or(u16::MAX);
    let mut statuses = Vec::new();
    for number in &found.value {
        match RetryOn::of(&[of(number)]) {
            Ok(_) => statuses.push(of(number)),
            Err(_status) => {
                let [first, second, third] = RetryOn::ALLOWED;
                table.sink.push(
                    Problem::new(format!("`{}` is no status to try again after", number.place.key))
                        .at(number.place.span.clone())
                        .label("not one of them")
                        .help(format!("one of {first}, {second}, {third}")),
                );
            }
        }
    }
    if let Ok(set) = RetryOn::of(&statuses) {
        *into = set;
    }
}

fn strength(table: &mut Table<'_>, into: &mut f64) {
    const MOST: f64 = 100.0;
    let Some(found) = table.optional::<f64>("early_refresh") else { return };
    if (0.0..=MOST).contains(&found.value) {
        *into = found.value;
        return;
    }
    table.sink.push(
        Problem::new(format!("`{}` is out of bounds", found.place.key))
            .at(found.place.span)
            .label("out of bounds")
            .help("from 0.0 (off) to 100.0; 1.0 is the published optimum"),
    );
}

/// Keys of one table that cannot both have an effect.
fn contradictions(table: &Table<'_>, policy: &Policy) {
    const IDLE_UNDER_PASS: [&str; 8] = [
        "lifetime",
        "default_lifetime",
        "stale_while_revalidate",
        "stale_if_error",
        "status_lifetime",
        "strip_set_cookie",
        "segment",
        "compress",
    ];
    if policy.pass {
        for key in IDLE_UNDER_PASS.iter().chain(&key::KEYS) {
            idle(table, key, "pass", "pass = true", "nothing is stored here");
        }
    }
    if policy.strip_set_cookie {
        let why = "the cookies are removed before anything is stored";
        idle(table, "store_set_cookie", "strip_set_cookie", "strip_set_cookie = true", why);
    }
    if let (Some(key), Some(rules)) = (&policy.key, &policy.rules)
        && key.headers.iter().any(|name| rules.request_fields.settles(name))
    {
        let why = "one of these fields is set or removed here, and is the same for everybody";
        idle(table, "key_headers", "request_headers", "request_headers", why);
    }
    if policy.vary_on_cookie && policy.key.as_ref().is_some_and(|key| key.cookies.is_some()) {
        let why = "these cookies are in the key, and no others reach the origin";
        idle(table, "vary_on_cookie", "key_cookies", "key_cookies", why);
    }
}

/// Warns of `key` where it and what takes its effect away stand in one table.
fn idle(table: &Table<'_>, key: &str, by: &str, by_text: &str, why: &str) {
    let (Some(span), Some(by)) = (table.span_of(key), table.span_of(by)) else { return };
    table.sink.push(
        Problem::new(format!("`{key}` has no effect beside `{by_text}`"))
            .warning()
            .at(Some(span))
            .other(Some(by), why)
            .help("leave one of the two out"),
    );
}
