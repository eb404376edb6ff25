//! Vary.
use crate::semantics::{NotStored, Policy};
use http::HeaderMap;
use http::HeaderName;

/// Field names of `Vary`: sorted, each once, bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryFields {
    names: Box<[HeaderName]>,
}

impl VaryFields {
    /// Reads `Vary`; `None` where the response has none.
    pub fn of(
        _response: &HeaderMap,
        _most: usize,
        _policy: &Policy,
    ) -> Result<Option<Self>, NotStored> {
        todo!()
    }
    /// The names.
    #[must_use]
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }
    /// Normalised, length-prefixed values of the named fields of a request.
    #[must_use]
    pub fn secondary(&self, _request: &HeaderMap) -> Vec<u8> {
        todo!()
    }
}
