//! Properties that hold for every template and every event. The property tests and the fuzz target
//! call this; it panics when one does not hold.

use serde_json::{Value, json};

use super::template::{Kind, Refusal, TEXT_BYTES, Template};

/// Few enough that arbitrary events reach them.
const MOST: usize = 5;

/// What has a meaning in a URL or an authority. A slash is apart: a pointer may leave it.
const SIGNS: [char; 9] = ['?', '#', '&', '=', '@', ':', ' ', '\\', '/'];

/// Any text is a template or is refused, and one that is comes for any event to few and short texts,
/// none of which has more signs than the template itself: what a value brings stays a value. The
/// first byte is the kind, the first line the template, the rest the event: as JSON, else as a
/// text under `v`.
pub fn template(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let kind = match first % 4 {
        0 => Kind::Tag,
        1 => Kind::Url,
        2 => Kind::Prefix,
        _ => Kind::Host,
    };
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let text = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let event = lines.next().unwrap_or_default();
    let event: Value = serde_json::from_slice(event)
        .unwrap_or_else(|_no_json| json!({ "v": String::from_utf8_lossy(event) }));
    let Ok(template) = Template::parse(&text, kind) else { return };
    let mut out = Vec::new();
    let ended = template.expand(&event, MOST, &mut out);
    assert!(out.len() <= MOST, "{} texts", out.len());
    assert!(ended != Err(Refusal::TooMany) || out.len() == MOST, "too few are too many");
    let own = literal(&text);
    // A template that is one pointer is the whole selector, and is judged as one elsewhere.
    let bare = own.is_empty();
    for found in &out {
        assert!(!found.is_empty() && found.len() <= TEXT_BYTES, "{} bytes", found.len());
        match kind {
            Kind::Url | Kind::Prefix if !bare => stays_a_url(&text, &own, found),
            Kind::Tag | Kind::Host => stays_a_word(&own, found),
            Kind::Url | Kind::Prefix => {}
        }
    }
}

/// The text of a template without its pointers.
fn literal(text: &str) -> String {
    let behind = |piece: &str| piece.split_once('}').map_or(String::new(), |(_, rest)| rest.into());
    let mut pieces = text.split('{');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |own, piece| own + &behind(piece))
}

fn count(text: &str, sign: char) -> usize {
    text.matches(sign).count()
}

fn stays_a_url(text: &str, own: &str, found: &str) {
    for sign in SIGNS.into_iter().filter(|sign| *sign != '/' || !text.contains("{+")) {
        assert_eq!(count(found, sign), count(own, sign), "{sign:?} of {text:?} in {found:?}");
    }
    let path = found.split(['?', '#']).next().unwrap_or_default();
    let dotted = |segment: &str| matches!(segment, "." | "..");
    assert!(!path.split('/').any(dotted), "{found:?} leads elsewhere");
}

fn stays_a_word(own: &str, found: &str) {
    for sign in [' ', ',', '\t', '\n', '\r'] {
        assert_eq!(count(found, sign), count(own, sign), "{sign:?} in {found:?}");
    }
}
