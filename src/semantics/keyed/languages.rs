//! Which of a site's languages suits a client: `Accept-Language` (RFC 9110 section 12.5.4) by
//! Lookup (RFC 4647 section 3.4), so that every client gets exactly one.
//!
//! The ranges that a client accepts are tried from the most wanted to the least, equals in the
//! order in which they stand, each one shortened from its end until a language of the site is equal
//! to it: `de-AT` finds `de`. A range as it stands also finds a narrower language: `en` finds
//! `en-US`, which Lookup alone would not. A language whose narrowest range has the weight 0 is not
//! chosen; `*` chooses the first one that no other range names. Where nothing suits, the first.

use http::header::{self, HeaderMap, HeaderValue};

use crate::semantics::vary::weight;

/// Ranges that are read: no person has more.
const MOST_RANGES: usize = 64;
/// Bytes of a range that is read; tags end far below (RFC 5646 section 4.4.1).
const MOST_BYTES: usize = 64;

/// A language range; the weight in thousandths.
struct Range<'a> {
    tag: &'a [u8],
    weight: u16,
}

/// The language among `offered` that suits best; `None` where none is offered.
pub(super) fn choose(offered: &[HeaderValue], headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(header::ACCEPT_LANGUAGE).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut ranges: Vec<Range<'_>> =
        members.take(MOST_RANGES).filter_map(|member| range(member.trim_ascii())).collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.weight));
    let wanted = ranges.iter().filter(|range| range.weight > 0);
    let found = wanted.filter_map(|range| find(range.tag, offered, &ranges)).next();
    found.or(offered.first()).cloned()
}

/// `de-AT;q=0.8`; what is not a range with its weight is passed over.
fn range(member: &[u8]) -> Option<Range<'_>> {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let tag = parts.next().filter(|tag| !tag.is_empty() && tag.len() <= MOST_BYTES)?;
    let weight = parts.next().map_or(Some(1000), weight)?;
    parts.next().is_none().then_some(Range { tag, weight })
}

fn find<'a>(
    wanted: &[u8],
    offered: &'a [HeaderValue],
    ranges: &[Range<'_>],
) -> Option<&'a HeaderValue> {
    if wanted == b"*" {
        return offered.iter().find(|tag| narrowest(tag.as_bytes(), ranges).is_none());
    }
    let accepted = offered
        .iter()
        .filter(|tag| narrowest(tag.as_bytes(), ranges).is_none_or(|range| range.weight > 0));
    let mut shortened = Some(wanted);
    while let Some(range) = shortened {
        let equal = |tag: &&HeaderValue| tag.as_bytes().eq_ignore_ascii_case(range);
        if let Some(tag) = accepted.clone().find(equal) {
            return Some(tag);
        }
        if range.len() == wanted.len()
            && let Some(tag) = accepted.clone().find(|tag| covers(range, tag.as_bytes()))
        {
            return Some(tag);
        }
        shortened = shorter(range);
    }
    None
}

/// A range without its last subtag, and without a single letter that then is the last.
fn shorter(range: &[u8]) -> Option<&[u8]> {
    let cut = |range: &[u8]| range.iter().rposition(|byte| *byte == b'-');
    let rest = range.get(..cut(range)?)?;
    match cut(rest) {
        Some(at) if rest.len() - at == 2 => rest.get(..at),
        _ => Some(rest),
    }
}

/// Whether a range is a language or the beginning of it (RFC 4647 section 3.3.1).
fn covers(range: &[u8], tag: &[u8]) -> bool {
    tag.split_at_checked(range.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(range) && matches!(rest.first(), None | Some(b'-'))
    })
}

/// The longest range that covers a language.
fn narrowest<'r, 'a>(tag: &[u8], ranges: &'r [Range<'a>]) -> Option<&'r Range<'a>> {
    ranges.iter().filter(|range| covers(range.tag, tag)).max_by_key(|range| range.tag.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::fields;

    fn chosen(offered: &[&str], accepted: Option<&str>) -> String {
        let offered: Vec<HeaderValue> = offered.iter().map(|tag| tag.parse().unwrap()).collect();
        let headers = accepted.map(|accepted| ("accept-language", accepted));
        let chosen = choose(&offered, &fields(headers.as_slice()));
        chosen.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_best_of_the_sites_languages_is_chosen() {
        let two = ["en", "de"];
        let narrow = ["de-DE", "en-US", "zh-Hant"];
        let rows: [(&[&str], Option<&str>, &str); 24] = [
            (&two, None, "en"),
            (&two, Some(""), "en"),
            (&two, Some("de"), "de"),
            (&two, Some("DE"), "de"),
            (&two, Some("de-AT, en;q=0.5"), "de"),
            (&two, Some("en;q=0.5, de;q=0.6"), "de"),
            (&two, Some("de;q=0.5, en;q=0.5"), "de"),
            (&two, Some("fr, de;q=0.1"), "de"),
            (&two, Some("fr"), "en"),
            (&two, Some("*"), "en"),
            (&two, Some("en;q=0.1, *"), "de"),
            (&two, Some("en;q=0, *;q=0.5"), "de"),
            (&two, Some("en-US, en;q=0, de;q=0.1"), "de"),
            (&two, Some("de;q=0, en;q=0"), "en"),
            (&two, Some("de;q=x, en;q=0.1"), "en"),
            (&two, Some("de;q=1;x=1"), "en"),
            (&two, Some(",, de"), "de"),
            (&two, Some("den"), "en"),
            (&narrow, Some("en"), "en-US"),
            (&narrow, Some("en-GB"), "de-DE"),
            (&narrow, Some("en-US, en;q=0"), "en-US"),
            (&narrow, Some("en, en-US;q=0"), "de-DE"),
            (&narrow, Some("zh-Hant-TW"), "zh-Hant"),
            (&narrow, Some("zh-Hant-x-wadegile-private"), "zh-Hant"),
        ];
        for (offered, accepted, expected) in rows {
            assert_eq!(chosen(offered, accepted), expected, "{offered:?} {accepted:?}");
        }
    }

    #[test]
    fn ranges_are_shortened_as_the_standard_shows() {
        let mut all = Vec::new();
        let mut range = Some(&b"zh-Hant-CN-x-private1-private2"[..]);
        while let Some(tag) = range {
            all.push(std::str::from_utf8(tag).unwrap());
            range = shorter(tag);
        }
        let expected = ["zh-Hant-CN-x-private1-private2", "zh-Hant-CN-x-private1", "zh-Hant-CN"];
        assert_eq!(all, [&expected[..], &["zh-Hant", "zh"]].concat());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_one_of_the_sites_languages_is_chosen(accepted in "[ -~]{0,60}") {
            let offered = ["en", "de-DE", "fr"];
            prop_assert!(offered.contains(&&*chosen(&offered, Some(&accepted))));
        }
    }
}
