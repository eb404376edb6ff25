//! Properties that hold for every input. The property tests and the fuzz targets call these
//! functions; each panics when its property does not hold.

use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};

use super::http2::{frames_are_judged, limited};
use super::proxy_protocol::{self, Malformed};
use crate::config::Limits;

/// A header of the PROXY protocol is whole, unfinished or malformed, and that does not depend on
/// what follows it: no beginning of a whole one is whole or malformed.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some(header)) = proxy_protocol::parse(bytes) else { return };
    assert!((1..=bytes.len()).contains(&header.length), "{header:?}");
    for end in 0..header.length {
        let beginning = bytes.get(..end).unwrap_or_default();
        match proxy_protocol::parse(beginning) {
            Ok(None) => {}
            other @ (Ok(Some(_)) | Err(Malformed)) => unreachable!("{other:?} after {end} bytes"),
        }
    }
    assert_eq!(
        proxy_protocol::parse(bytes.get(..header.length).unwrap_or_default()),
        Ok(Some(header))
    );
}

/// Frames of HTTP/2 mean the same to the accounts however they are cut up, and time alone makes
/// nothing worse. The first bytes are what every connection begins with.
pub fn http2_frames(bytes: &[u8]) {
    let now = || Duration::from_secs(1);
    let limits = Limits::default();
    let whole = frames_are_judged(&limits, bytes, bytes.len().max(1), now);
    for size in [1, 2, 7, 64] {
        assert_eq!(whole, frames_are_judged(&limits, bytes, size, now), "pieces of {size}");
    }
}

/// Cookie crumbs become one field that holds all of them in their order, or the head is refused.
/// Lines are crumbs, unless they have a colon: then they are other fields.
pub fn cookie_crumbs(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            None => (Ok(COOKIE), line),
            Some(at) => {
                let (name, value) = line.split_at(at);
                (HeaderName::from_bytes(name), value.get(1..).unwrap_or_default())
            }
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let crumbs: Vec<Vec<u8>> =
        headers.get_all(COOKIE).iter().map(|crumb| crumb.as_bytes().to_vec()).collect();
    let others = headers.len() - crumbs.len();
    let limits = Limits::default();
    let Some(limited) = limited(headers, &limits) else { return };
    let joined: Vec<&HeaderValue> = limited.get_all(COOKIE).iter().collect();
    assert_eq!(limited.len(), others + joined.len());
    match joined.as_slice() {
        [] => assert!(crumbs.is_empty()),
        [one] => assert_eq!(one.as_bytes(), crumbs.join(&b"; "[..])),
        more => unreachable!("{} fields", more.len()),
    }
    assert!(crumbs.len() <= limits.cookie_crumbs);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Heads of frames: length, kind, flags, stream.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let frame =
            (0_u8..12, 0_u8..12, any::<u8>(), 0_u8..6).prop_map(|(length, kind, flags, stream)| {
                let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
                bytes.extend((0..length).map(|byte| byte ^ flags));
                bytes
            });
        prop::collection::vec(frame, 0..40).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_keep_to_the_properties(bytes: Vec<u8>) {
            super::proxy_header(&bytes);
            super::http2_frames(&bytes);
            super::cookie_crumbs(&bytes);
        }

        #[test]
        fn frames_do(bytes in frames()) {
            super::http2_frames(&bytes);
        }

        #[test]
        fn crumbs_do(text in "([a-c=:; \n]|\n){0,400}") {
            super::cookie_crumbs(text.as_bytes());
        }

        #[test]
        fn headers_of_balancers_do(
            family in "(TCP4|TCP6|UNKNOWN)", one in "([0-9]{1,3}\\.){3}[0-9]{1,3}|::1",
            port in "[0-9]{1,5}", end in "(\r\n|\n|\r)", rest in "[a-z]{0,4}",
        ) {
            super::proxy_header(format!("PROXY {family} {one} {one} {port} {port}{end}{rest}").as_bytes());
        }
    }
}
