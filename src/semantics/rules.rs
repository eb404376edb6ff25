//! Requests as configured: what is done with those below a path besides caching them.
//!
//! A policy without any of it has no [`Rules`] at all, and a request under it pays for one look at
//! an empty pointer. How each part stands to the two promises:
//!
//! - **Redirects, networks, rates** answer before the cache is looked at, and what they answer is
//!   never stored. Networks and rates also hold for a path that an origin may read as theirs.
//! - **Rewrites** of host, path and origin happen behind the cache key. The key holds the site and
//!   the public path, and the rule is a function of these two, so one key never means two rewrites;
//!   purges name the public URL.
//! - **Request fields** that a rule sets or removes are taken out of the request before the key is
//!   made and before `Vary` is judged, and those that it sets are written when the origin is asked:
//!   no client's value of them reaches anything, hence nothing can differ by it.
//! - **Response fields** change as an answer leaves, whatever it was made of. What is stored stays
//!   what the origin sent, so a change of the configuration needs no purge.

mod edits;
mod forwarded;
mod networks;
mod pages;
mod rate;
mod reading;
mod redirect;
mod rewrite;

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

pub use edits::{Edit, FieldEdits, judge_request_edit, judge_response_edit};
pub use forwarded::{Believed, ForwardedFields, Hops, Misled, ToldBy, believe, write_forwarded};
pub use networks::{Access, Networks};
pub use pages::{ErrorPages, Page, PageFor};
pub use rate::{Rate, RateLimit, TICK_NANOS, ticks};
pub use reading::plain_reading;
pub use redirect::{Redirect, Redirects};
pub use rewrite::Rewrite;

use crate::semantics::normalise::Request;

/// What is done with requests below a path besides caching them; the default does nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Index of another origin than the site's.
    pub origin: Option<usize>,
    /// `Host` that the origin sees, instead of the site's.
    pub host: Option<HeaderValue>,
    /// What of the path the origin sees.
    pub rewrite: Option<Rewrite>,
    /// Fields of the request for the origin.
    pub request_fields: FieldEdits,
    /// Fields of the answer for the client.
    pub response_fields: FieldEdits,
    /// Answers that send the client elsewhere.
    pub redirects: Redirects,
    /// Who may ask.
    pub access: Access,
    /// Requests of each client.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// Requests of all clients together.
    pub rate_limit_total: Option<Arc<RateLimit>>,
    /// Bodies of errors.
    pub error_pages: ErrorPages,
    /// How the origin is told who asks.
    pub forwarded: ForwardedFields,
}

impl Rules {
    /// Takes out of a request what no client may say here. Before the key is made.
    pub(super) fn prepare(&self, request: &mut Request) {
        self.request_fields.take_out(&mut request.headers);
    }

    /// Whether they close a path to anybody, or to who asks too often.
    #[must_use]
    pub fn guards(&self) -> bool {
        let limited = self.rate_limit.is_some() || self.rate_limit_total.is_some();
        limited || self.access != Access::default()
    }

    /// Whether requests under these rules never differ in a field.
    pub(super) fn settles(&self, name: &HeaderName) -> bool {
        self.request_fields.settles(name)
    }

    /// Path and query that the origin is asked for.
    #[must_use]
    pub fn target(&self, request: &Request) -> String {
        let path = self.rewrite.as_ref().and_then(|rewrite| rewrite.apply(&request.path));
        match (path, &request.query) {
            (None, _) => request.target(),
            (Some(path), None) => path,
            (Some(path), Some(query)) => format!("{path}?{query}"),
        }
    }
}
