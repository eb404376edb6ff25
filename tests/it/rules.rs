//! Requests as configured: rewritten, changed, sent elsewhere, refused, and told who asks.
//!
//! Each story has the side of safety: what is rewritten is purged by its public name, what a client
//! invents changes nothing for others, and what is answered here is never stored.

mod answers;
mod clients;
mod paths;

use crate::support::origin::Seen;
use crate::support::{Reply, Response};

/// Fresh; says what the origin saw: target, host, and these fields.
pub(crate) fn seen(seen: &Seen, fields: &[&str]) -> Reply {
    let said: Vec<String> = fields.iter().map(|name| seen.all(name).join("|")).collect();
    let host = seen.field("host").unwrap_or_default();
    Reply::fresh(format!("v{} {} {host} {}", seen.nth, seen.target, said.join(" ")))
}

/// The body begins so, and `Cache-Status` has that.
#[track_caller]
pub(crate) fn shows(answer: &Response, body: &str, cache: &str) {
    let fits = answer.text().starts_with(body) && answer.cache().contains(cache);
    assert!(answer.status() == 200 && fits, "{body} {cache}: {answer:?}");
}
