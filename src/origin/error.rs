//! What can go wrong between us and an origin, named as RFC 9209 section 2.3 does.

use std::fmt;

/// Why an origin gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No DNS answer in time and none kept.
    DnsTimeout,
    /// DNS has no usable address for the name; says why.
    DnsError(String),
    /// Nobody listens there.
    ConnectionRefused,
    /// No connection in time.
    ConnectionTimeout,
    /// The connection failed otherwise; says how.
    ConnectionFailed(String),
    /// The TLS handshake failed for another reason than the certificate; says how.
    TlsProtocolError(String),
    /// The certificate is not one that we accept; says why.
    TlsCertificateError(String),
    /// The connection ended before a final response head was complete. `reused`: it had carried
    /// another request before, so the origin may never have seen this one.
    ConnectionTerminated {
        /// Whether the connection had carried a request before.
        reused: bool,
    },
    /// The origin said that it did not process the request, which HTTP/2 can tell.
    NotProcessed,
    /// The head did not come in time.
    HttpResponseTimeout,
    /// The head breaks the protocol or a limit; says which rule.
    HttpProtocolError(&'static str),
    /// Every place is taken and the wait was too long, or the queue is full.
    ConnectionLimitReached,
    /// No endpoint is usable.
    DestinationUnavailable,
    /// The client's body broke off while it was being sent.
    RequestBody(crate::message::BodyError),
}

impl SendError {
    /// The error's name in RFC 9209 (`Proxy-Status`), for logs and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError(_) => "dns_error",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionFailed(_) => "destination_ip_unroutable",
            Self::TlsProtocolError(_) => "tls_protocol_error",
            Self::TlsCertificateError(_) => "tls_certificate_error",
            Self::ConnectionTerminated { .. } => "connection_terminated",
            Self::NotProcessed => "destination_unavailable",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpProtocolError(_) => "http_protocol_error",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::RequestBody(_) => "http_request_error",
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DnsError(why)
            | Self::ConnectionFailed(why)
            | Self::TlsProtocolError(why)
            | Self::TlsCertificateError(why) => write!(out, "{}: {why}", self.label()),
            Self::HttpProtocolError(why) => write!(out, "{}: {why}", self.label()),
            Self::RequestBody(why) => write!(out, "{}: {why}", self.label()),
            _ => out.write_str(self.label()),
        }
    }
}

impl std::error::Error for SendError {}
