//! Properties that hold for every input. The property test and the fuzz target call this; it panics
//! when one does not hold.

use super::facades::is_read;
use super::{explain, purge, resolve, warm};
use crate::purge::Glob;

/// Bodies of purges in every format are read or refused. A URL in one has a canonical form, which is
/// its own, or is refused; and a pattern is read or refused, and takes any text to match with.
pub fn purge_body(bytes: &[u8]) {
    is_read(bytes);
    let Ok(written) = purge::parse(bytes) else { return };
    for url in &written.urls {
        let Ok((host, target)) = resolve::canonical(url) else { continue };
        let again = resolve::canonical(&format!("http://{host}{target}"));
        assert_eq!(again, Ok((host, target)), "{url:?}");
    }
    for text in &written.globs {
        if let Ok(glob) = Glob::parse(text) {
            assert!(Glob::parse(glob.as_str()).is_ok(), "{text:?} as {:?}", glob.as_str());
            let _matches = glob.matches(&text.to_ascii_lowercase());
        }
    }
}

/// Bodies of the other requests are read or refused, and what they ask for keeps within its bounds.
pub fn other_body(bytes: &[u8]) {
    explain::is_read(bytes);
    warm::is_read(bytes);
}

/// A sitemap, which comes from an origin: refused, or no longer than was asked for.
pub fn sitemap(bytes: &[u8]) {
    warm::sitemap_is_read(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_keep_to_the_properties(bytes: Vec<u8>) {
            super::purge_body(&bytes);
            super::other_body(&bytes);
            super::sitemap(&bytes);
        }

        #[test]
        fn likely_orders_and_questions_do(
            url in "(https?://)?[a-zA-Z0-9.\\[\\]:%@-]{0,14}[/?]([a-zA-Z%0-9.;/?#&=-]|%2[eEfF]){0,20}",
            name in "(x|[cC]ookie|range|[a-z -]{0,8})",
            value in "[a-z\r ]{0,8}",
            rate in -1.0..2_000.0_f64,
        ) {
            let fields = serde_json::json!([[name, value]]);
            let question = serde_json::json!({ "url": url, "headers": fields });
            super::other_body(question.to_string().as_bytes());
            let order = serde_json::json!({ "urls": [url], "headers": [fields], "rate": rate });
            super::other_body(order.to_string().as_bytes());
        }

        #[test]
        fn likely_sitemaps_do(text in "(<loc>|</loc>|<!\\[CDATA\\[|]]>|&|;|#x|http://a\n|\\PC){0,60}") {
            super::sitemap(text.as_bytes());
        }

        #[test]
        fn likely_bodies_do(
            url in "(https?://)?[a-zA-Z0-9.\\[\\]:%@-]{0,14}[/?]([a-zA-Z%0-9.;/?#&=-]|%2[eEfF]){0,20}",
            glob in "(https?://)?[a-zA-Z*./?%-]{0,20}",
        ) {
            let body = serde_json::json!({ "urls": [url], "globs": [glob] });
            super::purge_body(body.to_string().as_bytes());
        }
    }
}
