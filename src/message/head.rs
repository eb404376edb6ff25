//! Heads as the parsers hand them on: syntax judged, meaning not yet.

use http::{HeaderMap, Method, StatusCode, Version};

/// How the client reached us, and so the scheme of the effective request URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Port that is meant where an authority names none.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request head whose syntax and framing are sound (RFC 9112 section 3, RFC 9113 section 8.3).
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Method token; case matters.
    pub method: Method,
    /// Scheme of the connection it came over.
    pub scheme: Scheme,
    /// Authority of an absolute-form target or of `:authority`, as written.
    pub authority: Option<String>,
    /// Origin-form target (`/path?query`) as written, or `*`.
    pub target: String,
    /// HTTP version of the message.
    pub version: Version,
    /// Field lines in order, names in lower case, hop-by-hop fields included.
    pub headers: HeaderMap,
}

/// A response head whose syntax and framing are sound.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code, 100 to 999.
    pub status: StatusCode,
    /// HTTP version of the message.
    pub version: Version,
    /// Field lines in order, names in lower case.
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// A head without fields.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, version: Version::HTTP_11, headers: HeaderMap::new() }
    }
}
