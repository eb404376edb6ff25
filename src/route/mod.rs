//! From host to site, from path to policy.
use crate::semantics::Policy;
use std::sync::Arc;

/// Routes of all sites.
#[derive(Debug)]
pub struct Routes {}

impl Routes {
    /// Builds them; sites in order: hosts, then rules of path prefix and policy.
    pub fn new<H, R>(_sites: impl IntoIterator<Item = (H, R)>) -> Self
    where
        H: IntoIterator<Item = String>,
        R: IntoIterator<Item = (String, Arc<Policy>)>,
    {
        todo!()
    }
    /// Position of the site that answers for a host in canonical form.
    #[must_use]
    pub fn site(&self, _host: &str) -> Option<usize> {
        todo!()
    }
    /// Policy of the longest prefix of `path`; every site has one for `/`.
    #[must_use]
    pub fn policy(&self, _site: usize, _path: &str) -> &Arc<Policy> {
        todo!()
    }
}
