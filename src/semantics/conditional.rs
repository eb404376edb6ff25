//! Conditional requests.
use crate::semantics::Terms;
use http::HeaderMap;

/// Fields for asking the origin about a stored response; empty where it has no validator.
#[must_use]
pub fn conditions(_stored: &HeaderMap, _terms: &Terms) -> HeaderMap {
    todo!()
}
/// Whether a 304 confirms the stored response.
#[must_use]
pub fn confirms(_stored: &HeaderMap, _not_modified: &HeaderMap) -> bool {
    todo!()
}
/// Stored fields after a 304.
#[must_use]
pub fn freshened(_stored: &HeaderMap, _not_modified: &HeaderMap) -> HeaderMap {
    todo!()
}
/// Removes all conditional fields and ranges from an origin request that must bring the whole.
pub fn unconditional(_headers: &mut HeaderMap) {
    todo!()
}
