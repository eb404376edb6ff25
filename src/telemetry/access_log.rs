//! The access log: one record a request, written off the request path.

/// What the access log says of one request.
#[derive(Debug, Default)]
pub struct Record {}
