//! The class of a client's device: coarse, so that there are three answers and not a thousand.
//!
//! Tablets are told by their names, or by `Android` without `Mobile`, as its makers advise; phones
//! by `Mobi` and a few names, or by the hint `Sec-CH-UA-Mobile: ?1`; all the rest is a desktop: what
//! asks for the desktop's page, iPads that call themselves a Macintosh, programs, who says nothing.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

const TABLETS: [&str; 5] = ["iPad", "Tablet", "PlayBook", "Kindle", "Silk/"];
const PHONES: [&str; 7] =
    ["Mobi", "iPhone", "iPod", "Windows Phone", "BlackBerry", "Opera Mini", "Opera Mobi"];

const MOBILE_HINT: HeaderName = HeaderName::from_static("sec-ch-ua-mobile");

/// Class of the device that sent these fields, in time linear in their length.
pub(super) fn class(headers: &HeaderMap) -> &'static str {
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    let says = |word: &str| memmem::find(agent, word.as_bytes()).is_some();
    let android = says("Android");
    // "Tablet PC" marks a Windows machine with a pen.
    let tablet = TABLETS.iter().any(|word| says(word)) && !says("Tablet PC");
    if tablet || android && !says("Mobi") {
        return "tablet";
    }
    let hinted = headers.get(MOBILE_HINT).is_some_and(|hint| hint.as_bytes().trim_ascii() == b"?1");
    if hinted || PHONES.iter().any(|word| says(word)) { "phone" } else { "desktop" }
}

/// Whether a field tells of the device: the class stands for all of them. `_` counts as `-`.
pub(super) fn tells(name: &HeaderName) -> bool {
    let plain = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    let begins = |with: &str| plain.clone().take(with.len()).eq(with.bytes());
    begins("sec-ch-ua") || begins("user-agent") && name.as_str().len() == "user-agent".len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::test_support::fields;

    #[test]
    fn devices_have_three_classes() {
        const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148";
        const PIXEL: &str = "Mozilla/5.0 (Linux; Android 10; K) Chrome/124.0 Mobile Safari/537.36";
        const GALAXY_TAB: &str = "Mozilla/5.0 (Linux; Android 10; K) Chrome/124.0 Safari/537.36";
        const IPAD: &str = "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) Mobile/15E148";
        const FIREFOX_TABLET: &str = "Mozilla/5.0 (Android 14; Tablet; rv:125.0) Firefox/125.0";
        const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/124.0";
        const PEN: &str = "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Tablet PC 2.0)";
        let rows = [
            (Some(IPHONE), None, "phone"),
            (Some(PIXEL), None, "phone"),
            (Some(PIXEL), Some("?1"), "phone"),
            (Some(GALAXY_TAB), Some("?0"), "tablet"),
            (Some(IPAD), None, "tablet"),
            (Some(FIREFOX_TABLET), None, "tablet"),
            (Some(WINDOWS), Some("?0"), "desktop"),
            (Some(PEN), None, "desktop"),
            (Some("curl/8"), None, "desktop"),
            (Some(""), Some("?1"), "phone"),
            (None, Some("?1"), "phone"),
            (None, Some("1"), "desktop"),
            (None, None, "desktop"),
        ];
        for (agent, hint, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.extend(agent.map(|agent| (header::USER_AGENT, agent.parse().unwrap())));
            headers.extend(hint.map(|hint| (MOBILE_HINT, hint.parse().unwrap())));
            assert_eq!(class(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn fields_that_tell_of_the_device_are_known_in_every_spelling() {
        let told = fields(&[
            ("user-agent", ""),
            ("user_agent", ""),
            ("sec-ch-ua", ""),
            ("sec-ch-ua-model", ""),
            ("Sec_CH-UA_Model", ""),
        ]);
        assert!(told.keys().all(tells));
        let others = fields(&[("user-agents", ""), ("sec-ch-width", ""), ("user", "")]);
        assert!(!others.keys().any(tells));
    }
}
