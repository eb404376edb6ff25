//! Error pages of a site: bodies of the operator's own in the place of our one line of text.
//!
//! They are for people. A program that says in `Accept` that it reads something else gets the line
//! of text.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;

/// Pages by status; an exact status wins over its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    pages: Vec<(PageFor, Arc<Page>)>,
    /// Also in the place of the bodies of the origin's own 5xx.
    pub for_origin: bool,
}

/// What a page stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFor {
    /// One status.
    Status(u16),
    /// All of a class, by its first digit.
    Class(u16),
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its bytes.
    pub body: Bytes,
    /// Its media type.
    pub content_type: HeaderValue,
}

impl ErrorPages {
    /// Pages, none of which stands for the same.
    #[must_use]
    pub fn new(pages: Vec<(PageFor, Arc<Page>)>, for_origin: bool) -> Self {
        Self { pages, for_origin }
    }

    /// Replaces the pages.
    pub fn replace(&mut self, pages: Vec<(PageFor, Arc<Page>)>) {
        self.pages = pages;
    }

    /// The page for a status, for a client that accepts it.
    #[must_use]
    pub fn page(&self, status: StatusCode, accept: Option<&HeaderValue>) -> Option<&Page> {
        let number = status.as_u16();
        let of = |wanted| self.pages.iter().find(|(covers, _)| *covers == wanted);
        let (_, page) = of(PageFor::Status(number)).or_else(|| of(PageFor::Class(number / 100)))?;
        page.suits(accept).then_some(&**page)
    }
}

impl Page {
    /// Whether a client takes it: it names the type, its kind or everything, or nothing at all.
    fn suits(&self, accept: Option<&HeaderValue>) -> bool {
        let Some(accept) = accept else { return true };
        let essence = |text: &[u8]| {
            let text = text.split(|byte| *byte == b';').next().unwrap_or_default();
            text.trim_ascii().to_ascii_lowercase()
        };
        let own = essence(self.content_type.as_bytes());
        let kind = own.split(|byte| *byte == b'/').next().unwrap_or_default();
        accept.as_bytes().split(|byte| *byte == b',').map(essence).any(|range| {
            let of_kind = range.strip_suffix(b"/*").is_some_and(|range| range == kind);
            range == own || range == b"*/*" || of_kind
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_status_wins_and_programs_are_spared() {
        let page = |text: &'static str| {
            let content_type = HeaderValue::from_static("text/html; charset=utf-8");
            Arc::new(Page { body: Bytes::from_static(text.as_bytes()), content_type })
        };
        let pages = vec![(PageFor::Class(5), page("any")), (PageFor::Status(502), page("one"))];
        let pages = ErrorPages::new(pages, false);
        let rows = [
            (502, None, Some("one")),
            (503, Some("*/*"), Some("any")),
            (503, Some("text/html,application/xhtml+xml;q=0.9"), Some("any")),
            (503, Some("application/json, text/*;q=0.1"), Some("any")),
            (503, Some("application/json"), None),
            (404, None, None),
        ];
        for (status, accept, expected) in rows {
            let accept = accept.map(HeaderValue::from_static);
            let found = pages.page(StatusCode::from_u16(status).unwrap(), accept.as_ref());
            let found = found.map(|page| &*page.body);
            assert_eq!(found, expected.map(str::as_bytes), "{status} {accept:?}");
        }
    }
}
