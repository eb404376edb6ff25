//! Policy keys: the same on a site, where they are defaults, and on its rules.

use std::sync::Arc;
use std::time::Duration;

use crate::semantics::{Policy, WithoutLease};

use super::super::error::Problem;
use super::super::reader::{MaybeTime, Table};
use super::compression;

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

/// Reads the policy keys of a table over those of `base`, which is shared where none is written.
pub(super) fn read(table: &mut Table<'_>, base: &Arc<Policy>) -> Arc<Policy> {
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
        jitter_percent,
        early_refresh,
        honour_request_directives,
        store_set_cookie,
        vary_on_cookie,
        keep_tags,
        compression,
        body_bytes,
        without_lease,
    } = &mut policy;
    table.set("methods", methods);
    table.set("pass", pass);
    maybe(table, "lifetime", lifetime);
    maybe(table, "default_lifetime", default_lifetime);
    table.set("heuristic", heuristic);
    maybe(table, "stale_while_revalidate", stale_while_revalidate);
    maybe(table, "stale_if_error", stale_if_error);
    table.time("error_lifetime", error_lifetime, 0..=DAY);
    table.percent("jitter", jitter_percent, 0..=90);
    strength(table, early_refresh);
    table.set("honour_request_directives", honour_request_directives);
    table.set("store_set_cookie", store_set_cookie);
    table.set("vary_on_cookie", vary_on_cookie);
    table.set("keep_tags", keep_tags);
    compression::read(table, compression);
    table.size("body_bytes", body_bytes, 0..=1 << 50);
    let names = [("revalidate", WithoutLease::Revalidate), ("serve", WithoutLease::Serve)];
    table.choose("without_lease", &names, without_lease);
    contradictions(table, &policy);
    if policy == **base { Arc::clone(base) } else { Arc::new(policy) }
}

/// A time that may be taken back with `"none"`.
fn maybe(table: &mut Table<'_>, key: &'static str, into: &mut Option<Duration>) {
    if let Some(found) = table.optional::<MaybeTime>(key) {
        *into = found.value.0;
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
    let Some(pass) = table.span_of("pass").filter(|_| policy.pass) else { return };
    let idle =
        ["lifetime", "default_lifetime", "stale_while_revalidate", "stale_if_error", "compress"];
    for key in idle {
        if let Some(span) = table.span_of(key) {
            table.sink.push(
                Problem::new(format!("`{key}` has no effect beside `pass = true`"))
                    .warning()
                    .at(Some(span))
                    .other(Some(pass.clone()), "nothing is stored here")
                    .help("leave one of the two out"),
            );
        }
    }
}
