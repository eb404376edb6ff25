//! Why a request is refused: one enum from which answer, log line and metric label come.

use http::StatusCode;

/// Reason for refusing a request before any origin saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Request line is not `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// HTTP version that is not spoken on this connection.
    Version,
    /// Method is not a token, or not in canonical case.
    MethodSyntax,
    /// Method is valid but not forwarded here.
    MethodNotAllowed,
    /// Target has a form or a byte that is not allowed.
    Target,
    /// Target is longer than the limit.
    TargetTooLong,
    /// Target holds dot segments, plain or encoded.
    DotSegments,
    /// A field line is malformed, folded, or ends in a bare LF.
    FieldSyntax,
    /// Head, a field line or the number of fields is over its limit.
    FieldsTooLarge,
    /// `Host` is missing, repeated, malformed or disagrees with the target.
    Host,
    /// `Content-Length` is repeated or not a plain decimal number.
    ContentLength,
    /// `Transfer-Encoding` is anything but one `chunked` in HTTP/1.1.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    FramingConflict,
    /// Chunked coding is broken.
    ChunkSyntax,
    /// Trailer section is broken or over its limit.
    Trailers,
    /// A field that must be single occurs more than once.
    RepeatedField,
    /// `Connection` nominates a field that we rely on.
    NominatedField,
    /// Body is longer than allowed.
    BodyTooLarge,
    /// Body ended early.
    BodyIncomplete,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body did not arrive in time.
    BodyTimeout,
    /// `Expect` asks for something other than `100-continue`.
    Expectation,
    /// `Upgrade` together with a body, or an upgrade that is not offered.
    Upgrade,
    /// Extended CONNECT for a protocol that is not offered there.
    Protocol,
    /// No site answers for this host on this connection.
    UnknownHost,
    /// The process is short of memory, connections or time, or is draining.
    Overload,
    /// The client's network may not ask here.
    Network,
    /// The client asks faster than it may.
    ClientRate,
    /// All clients together ask faster than they may.
    SiteRate,
}

impl Refusal {
    /// Every reason, for metrics that want a row each.
    pub const ALL: [Self; 29] = [
        Self::RequestLine,
        Self::Version,
        Self::MethodSyntax,
        Self::MethodNotAllowed,
        Self::Target,
        Self::TargetTooLong,
        Self::DotSegments,
        Self::FieldSyntax,
        Self::FieldsTooLarge,
        Self::Host,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::FramingConflict,
        Self::ChunkSyntax,
        Self::Trailers,
        Self::RepeatedField,
        Self::NominatedField,
        Self::BodyTooLarge,
        Self::BodyIncomplete,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::Expectation,
        Self::Upgrade,
        Self::Protocol,
        Self::UnknownHost,
        Self::Overload,
        Self::Network,
        Self::ClientRate,
        Self::SiteRate,
    ];

    /// Status that the client gets.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::RequestLine
            | Self::MethodSyntax
            | Self::Target
            | Self::DotSegments
            | Self::FieldSyntax
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::FramingConflict
            | Self::ChunkSyntax
            | Self::Trailers
            | Self::RepeatedField
            | Self::NominatedField
            | Self::BodyIncomplete
            | Self::Upgrade => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Overload => StatusCode::SERVICE_UNAVAILABLE,
            Self::Network => StatusCode::FORBIDDEN,
            Self::ClientRate | Self::SiteRate => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Word for logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::Version => "version",
            Self::MethodSyntax => "method-syntax",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Target => "target",
            Self::TargetTooLong => "target-too-long",
            Self::DotSegments => "dot-segments",
            Self::FieldSyntax => "field-syntax",
            Self::FieldsTooLarge => "fields-too-large",
            Self::Host => "host",
            Self::ContentLength => "content-length",
            Self::TransferEncoding => "transfer-encoding",
            Self::FramingConflict => "framing-conflict",
            Self::ChunkSyntax => "chunk-syntax",
            Self::Trailers => "trailers",
            Self::RepeatedField => "repeated-field",
            Self::NominatedField => "nominated-field",
            Self::BodyTooLarge => "body-too-large",
            Self::BodyIncomplete => "body-incomplete",
            Self::HeadTimeout => "head-timeout",
            Self::BodyTimeout => "body-timeout",
            Self::Expectation => "expectation",
            Self::Upgrade => "upgrade",
            Self::Protocol => "protocol",
            Self::UnknownHost => "unknown-host",
            Self::Overload => "overload",
            Self::Network => "network",
            Self::ClientRate => "client-rate",
            Self::SiteRate => "site-rate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_label_and_an_error_status() {
        let labels: std::collections::BTreeSet<_> =
            Refusal::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for reason in Refusal::ALL {
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
        }
    }
}
