//! The request that a stored response would answer, to be sent again.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::Head;
use crate::message::RequestHead;

impl Head {
    /// A GET request that this response answers, made of its key and of the values that `Vary`
    /// names. `None` where it could not be told without something that may be a person's own (a
    /// cookie, say), and for what is no complete response.
    #[must_use]
    pub fn asked_again(&self) -> Option<RequestHead> {
        let (scheme, authority, target) = self.key.whole_url()?;
        let mut headers = match &self.vary {
            None => HeaderMap::new(),
            Some(fields) => fields.asking_for(self.secondary())?,
        };
        headers.insert(HOST, HeaderValue::try_from(authority).ok()?);
        let (method, version) = (Method::GET, Version::HTTP_11);
        Some(RequestHead { method, scheme, authority: None, target, version, headers })
    }
}
