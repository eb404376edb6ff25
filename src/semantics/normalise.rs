//! One canonical form of a request, from which cache key and origin request both derive.
use crate::message::{Refusal, RequestHead, Scheme};
use crate::semantics::cache_control::RequestDirectives;
use http::{HeaderMap, Method, Version};

/// A request in canonical form.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Scheme of the connection.
    pub scheme: Scheme,
    /// Version of the message.
    pub version: Version,
    /// Host in lower case, without port or trailing dot; IPv6 in brackets.
    pub host: String,
    /// Port, the scheme's default where none is named.
    pub port: u16,
    /// Path, begins with `/`; or `*` of `OPTIONS *`.
    pub path: String,
    /// Query without its `?`.
    pub query: Option<String>,
    /// End-to-end fields, without `Host`.
    pub headers: HeaderMap,
    /// What `Cache-Control` and `Pragma` ask.
    pub directives: RequestDirectives,
}

impl Request {
    /// Origin-form target.
    #[must_use]
    pub fn target(&self) -> String {
        todo!()
    }
    /// Value of `Host`.
    #[must_use]
    pub fn host_field(&self) -> String {
        todo!()
    }
    /// Whether it is a request for one or more ranges.
    #[must_use]
    pub fn has_range(&self) -> bool {
        todo!()
    }
}

/// Judges and rewrites a head into its canonical form.
pub fn normalise(_head: RequestHead) -> Result<Request, Refusal> {
    todo!()
}
