use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::semantics::shape::Part;
use crate::semantics::test_support::{ARRIVAL, Fields, date, fields, get, judged, request};

type Bounds = (u64, u64);
type Answered<'a> = (u16, Option<&'a str>);

fn tag(text: &str) -> StrongValidator {
    StrongValidator::Tag(HeaderValue::from_str(text).unwrap())
}

fn range(first: u64, last: u64, total: Option<u64>) -> ContentRange {
    ContentRange { first, last, total }
}

#[test]
fn content_range_is_read_strictly() {
    let rows = [
        ("bytes 0-4/10", Some((0, 4, Some(10)))),
        ("Bytes 9-9/10", Some((9, 9, Some(10)))),
        (" bytes 0-4/* ", Some((0, 4, None))),
        ("bytes 0-0/1", Some((0, 0, Some(1)))),
        (
            "bytes 18446744073709551613-18446744073709551614/*",
            Some((u64::MAX - 2, u64::MAX - 1, None)),
        ),
        ("bytes 0-18446744073709551615/*", None),
        ("bytes 0-18446744073709551616/*", None),
        ("bytes 0-4/99999999999999999999", None),
        ("bytes 4-3/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("bytes 0-4", None),
        ("bytes 0-/10", None),
        ("bytes -4/10", None),
        ("bytes=0-4/10", None),
        ("items 0-4/10", None),
        ("bytes 0-4/10, bytes 5-9/10", None),
        ("bytes +0-4/10", None),
        ("bytes 0 - 4/10", None),
        ("bytes 0-4/ 10", None),
        ("bytes  0-4/10", None),
        ("bytes 0-4/0x10", None),
        ("bytes", None),
        ("", None),
    ];
    for (field, expected) in rows {
        let expected = expected.map(|(first, last, total)| range(first, last, total));
        assert_eq!(ContentRange::parse(field.as_bytes()), expected, "{field}");
    }
    let twice = fields(&[("content-range", "bytes 0-4/10"), ("content-range", "bytes 0-4/10")]);
    assert_eq!(ContentRange::of(&twice), None);
}

#[test]
fn a_validator_is_strong_only_where_it_cannot_lie() {
    let (made, before) = (date(ARRIVAL), date(ARRIVAL - 1));
    let rows: [(Fields<'_>, Option<&str>); 9] = [
        (&[("etag", "\"a\"")], Some("\"a\"")),
        (&[("etag", "W/\"a\"")], None),
        (&[("etag", "a")], None),
        (&[("etag", "\"a\""), ("etag", "\"b\"")], None),
        (&[("last-modified", &before), ("date", &made)], Some(&before)),
        (&[("last-modified", &made), ("date", &made)], None),
        (&[("last-modified", &before)], None),
        (&[("etag", "W/\"a\""), ("last-modified", &before), ("date", &made)], None),
        (&[], None),
    ];
    for (headers, expected) in rows {
        let found = StrongValidator::of(&fields(headers), Now::at(ARRIVAL).wall);
        let found = found.map(|validator| validator.condition().clone());
        assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{headers:?}");
    }
    assert!(tag("\"a\"").matches(&tag("\"a\"")));
    assert!(!tag("\"a\"").matches(&tag("\"b\"")));
}

#[test]
fn one_gap_is_asked_for() {
    let rows: [(&[Bounds], Option<u64>, Option<&str>); 8] = [
        (&[(0, 4)], Some(10), Some("bytes=5-")),
        (&[(5, 9)], Some(10), Some("bytes=0-4")),
        (&[(0, 2), (7, 9)], Some(10), Some("bytes=3-6")),
        (&[(2, 4)], Some(10), None),
        (&[(0, 1), (3, 4)], Some(10), None),
        (&[(0, 1), (3, 4), (6, 9)], Some(10), None),
        (&[(0, 9)], Some(10), None),
        (&[(0, 4)], None, None),
    ];
    for (parts, total, expected) in rows {
        let extent = extent(parts, total);
        assert_eq!(extent.gap().map(|gap| gap.range()).as_deref(), expected, "{parts:?}");
    }
    let gap = extent(&[(0, 4)], Some(10)).gap().unwrap();
    assert!(gap.is_filled_by(&range(5, 9, Some(10))));
    for other in [range(5, 8, Some(10)), range(4, 9, Some(10)), range(5, 9, None)] {
        assert!(!gap.is_filled_by(&other));
    }
    assert_eq!(Extent::excerpt(None).gap(), None);
}

fn extent(parts: &[(u64, u64)], total: Option<u64>) -> Extent {
    let mut all = parts.iter().map(|(first, last)| range(*first, *last, total));
    let first = Extent::part(&all.next().unwrap(), tag("\"a\""));
    all.fold(first, |extent, range| {
        extent.combined(&range, &tag("\"a\""), u64::MAX).unwrap().extent
    })
}

#[test]
fn what_contradicts_itself_is_not_combined() {
    let known = extent(&[(0, 4)], Some(10));
    let open = extent(&[(0, 4)], None);
    let rows = [
        (&known, range(5, 9, Some(10)), "\"a\"", true),
        (&known, range(5, 9, None), "\"a\"", true),
        (&open, range(5, 9, Some(10)), "\"a\"", true),
        (&known, range(5, 9, Some(10)), "\"b\"", false),
        (&known, range(5, 9, Some(11)), "\"a\"", false),
        (&known, range(5, 10, None), "\"a\"", false),
        (&open, range(0, 2, Some(4)), "\"a\"", false),
    ];
    for (stored, new, validator, expected) in rows {
        let done = stored.combined(&new, &tag(validator), u64::MAX);
        assert_eq!(done.is_some(), expected, "{stored:?} {new:?} {validator}");
    }
    let excerpt = Extent::excerpt(Some(&range(0, 4, Some(10))));
    assert_eq!(excerpt.combined(&range(5, 9, Some(10)), &tag("\"a\""), u64::MAX), None);
    let whole = known.combined(&range(5, 9, None), &tag("\"a\""), u64::MAX).unwrap().extent;
    assert!(whole.is_complete() && !known.is_complete() && !open.is_complete());
}

#[test]
fn a_part_answers_what_lies_within_it() {
    let known = extent(&[(0, 4), (7, 9)], Some(10));
    let open = extent(&[(0, 4), (7, 9)], None);
    let rows: [(&Extent, &str, Option<Answered<'_>>); 18] = [
        (&known, "bytes=0-4", Some((206, Some("bytes 0-4/10")))),
        (&known, "bytes=2-3", Some((206, Some("bytes 2-3/10")))),
        (&known, "bytes=7-", Some((206, Some("bytes 7-9/10")))),
        (&known, "bytes=8-100", Some((206, Some("bytes 8-9/10")))),
        (&known, "bytes=-3", Some((206, Some("bytes 7-9/10")))),
        (&known, "bytes=-4", None),
        (&known, "bytes=4-7", None),
        (&known, "bytes=0-", None),
        (&known, "bytes=0-1,8-9", Some((206, None))),
        (&known, "bytes=0-1,5-9", None),
        (&known, "bytes=10-", Some((416, Some("bytes */10")))),
        (&known, "lines=0-1", None),
        (&open, "bytes=1-4", Some((206, Some("bytes 1-4/*")))),
        (&open, "bytes=7-", None),
        (&open, "bytes=-3", None),
        (&open, "bytes=10-11", None),
        (&open, "bytes=-0", None),
        (&open, "bytes=0-1,8-9", None),
    ];
    for (extent, field, expected) in rows {
        let shape = part_shape(extent, &[("range", field)]);
        let found = shape.as_ref().map(|shape| {
            let range = shape.headers.get(header::CONTENT_RANGE);
            (shape.status.as_u16(), range.map(|value| value.to_str().unwrap()))
        });
        assert_eq!(found, expected, "{field} {extent:?}");
    }
}

fn part_shape(extent: &Extent, asked: Fields<'_>) -> Option<Shape> {
    let stored = [("etag", "\"a\""), ("cache-control", "max-age=60")];
    let terms = judged(200, &stored, &Policy::default()).unwrap();
    let now = Now::at(ARRIVAL + 1);
    let request = get("http://h/", asked);
    shape_part(&request, &fields(&stored), extent, &terms, &Policy::default(), now)
}

#[test]
fn conditions_are_judged_before_the_range() {
    let extent = extent(&[(0, 4)], Some(10));
    let rows: [(Fields<'_>, Option<u16>); 7] = [
        (&[("range", "bytes=0-1"), ("if-none-match", "\"a\"")], Some(304)),
        (&[("if-none-match", "W/\"a\"")], Some(304)),
        (&[("if-none-match", "\"b\"")], None),
        (&[("range", "bytes=0-1"), ("if-none-match", "\"b\"")], Some(206)),
        (&[("range", "bytes=0-1"), ("if-range", "\"a\"")], Some(206)),
        (&[("range", "bytes=0-1"), ("if-range", "\"b\"")], None),
        (&[], None),
    ];
    for (asked, expected) in rows {
        let found = part_shape(&extent, asked).map(|shape| shape.status.as_u16());
        assert_eq!(found, expected, "{asked:?}");
    }
    let excerpt = Extent::excerpt(Some(&range(0, 4, Some(10))));
    assert!(part_shape(&excerpt, &[("range", "bytes=0-1")]).is_none());
    let head = request("HEAD", "http://h/", &[("range", "bytes=0-1")]);
    let terms = judged(200, &[("cache-control", "max-age=60")], &Policy::default()).unwrap();
    let now = Now::at(ARRIVAL);
    let none = HeaderMap::new();
    assert!(shape_part(&head, &none, &extent, &terms, &Policy::default(), now).is_none());
}

/// The byte at each place of the whole.
#[test]
fn an_excerpt_is_cut_but_speaks_of_nothing_else() {
    let terms = judged(200, &[("cache-control", "max-age=60")], &Policy::default()).unwrap();
    let now = Now::at(ARRIVAL + 1);
    let rows: [(Fields<'_>, Option<Answered<'_>>); 9] = [
        (&[("range", "bytes=4-9")], Some((206, Some("bytes 4-9/10")))),
        (&[("range", "bytes=-2")], Some((206, Some("bytes 8-9/10")))),
        (&[("range", "bytes=6-")], Some((206, Some("bytes 6-9/10")))),
        (&[("range", "bytes=3-5")], None),
        (&[("range", "bytes=-7")], None),
        (&[("range", "bytes=10-")], None),
        (&[("range", "bytes=6-"), ("if-range", "W/\"a\"")], None),
        (&[("range", "bytes=6-"), ("if-none-match", "\"a\"")], Some((304, None))),
        (&[], None),
    ];
    for (asked, expected) in rows {
        let request = get("http://h/", asked);
        let stored = fields(&[("etag", "W/\"a\"")]);
        let range = range(4, 9, Some(10));
        let shape = shape_excerpt(&request, &stored, &range, &terms, &Policy::default(), now);
        let found = shape.as_ref().map(|shape| {
            let range = shape.headers.get(header::CONTENT_RANGE);
            (shape.status.as_u16(), range.map(|value| value.to_str().unwrap()))
        });
        assert_eq!(found, expected, "{asked:?}");
    }
}

#[test]
fn only_one_row_of_bytes_has_a_name() {
    assert_eq!(Extent::excerpt(Some(&range(4, 9, None))).range().as_deref(), Some("bytes=4-9"));
    assert_eq!(Extent::excerpt(None).range(), None);
    assert_eq!(extent(&[(0, 1), (4, 5)], None).range(), None);
}

fn byte(at: u64) -> u8 {
    u8::try_from(at * 7 % 251).unwrap()
}

fn body(range: &ContentRange) -> Vec<u8> {
    (range.first..=range.last).map(byte).collect()
}

fn slices(cuts: &[Cut], stored: &[u8], new: &[u8]) -> Vec<u8> {
    let slice = |cut: &Cut| {
        let from = usize::try_from(cut.offset).unwrap();
        let to = from + usize::try_from(cut.length).unwrap();
        let body = if cut.from == From206::Stored { stored } else { new };
        body[from..to].to_vec()
    };
    cuts.iter().flat_map(slice).collect()
}

proptest! {
    #[test]
    fn any_content_range_is_read_without_panic(field: Vec<u8>) {
        let _ = ContentRange::parse(&field);
    }

    #[test]
    fn content_range_read_is_the_one_written(first in 0..u64::MAX - 1, more in 0..1000_u64) {
        let last = first.saturating_add(more).min(u64::MAX - 1);
        let field = format!("bytes {first}-{last}/*");
        prop_assert_eq!(ContentRange::parse(field.as_bytes()), Some(range(first, last, None)));
    }

    /// Against a map of bytes: whatever comes in whatever order, each byte that is there is the
    /// right one, the newest part is all there, and nothing was dropped but for the bounds.
    #[test]
    fn combined_parts_are_the_bytes_of_the_whole(
        parts in proptest::collection::vec((0_u64..200, 1_u64..40), 1..60),
        most in 40_u64..300,
    ) {
        let total = 240;
        let of = |(first, size): &(u64, u64)| range(*first, first + size - 1, Some(total));
        let validator = tag("\"a\"");
        let first = of(&parts[0]);
        let mut extent = Extent::part(&first, validator.clone());
        let mut bytes = body(&first);
        let mut model: BTreeMap<u64, u8> = (first.first..=first.last).map(|at| (at, byte(at))).collect();
        for part in parts.iter().skip(1).map(of) {
            let done = extent.combined(&part, &validator, most).unwrap();
            bytes = slices(&done.cuts, &bytes, &body(&part));
            extent = done.extent;
            model.extend((part.first..=part.last).map(|at| (at, byte(at))));

            prop_assert_eq!(extent.bytes(), bytes.len() as u64);
            prop_assert!(extent.bytes() <= most && extent.spans.len() <= MOST_PIECES);
            prop_assert!(extent.spans.windows(2).all(|pair| pair[0].end() < pair[1].start));
            prop_assert!(extent.offset(part.first, part.size()).is_some());
            let mut there = BTreeMap::new();
            for at in 0..total {
                if let Some(offset) = extent.offset(at, 1) {
                    there.insert(at, bytes[usize::try_from(offset).unwrap()]);
                }
            }
            prop_assert!(there.iter().all(|(at, byte)| model.get(at) == Some(byte)));
            prop_assert_eq!(there.len(), bytes.len());
            prop_assert_eq!(extent.is_complete(), there.len() == usize::try_from(total).unwrap());
            // The model forgets what the bounds took.
            model = there;
        }
    }

    /// Without bounds that bite nothing is lost, and one gap is all that is missing where it says so.
    #[test]
    fn nothing_is_lost_below_the_bounds(
        parts in proptest::collection::vec((0_u64..60, 1_u64..20), 1..MOST_PIECES),
    ) {
        let parts: Vec<(u64, u64)> = parts.iter().map(|(at, size)| (*at, at + size - 1)).collect();
        let extent = extent(&parts, Some(80));
        let there: Vec<u64> = (0..80).filter(|at| extent.offset(*at, 1).is_some()).collect();
        let asked = |at: &u64| parts.iter().any(|(first, last)| (first..=last).contains(&at));
        prop_assert_eq!(&there, &(0..80).filter(asked).collect::<Vec<u64>>());
        if let Some(gap) = extent.gap() {
            let missing: Vec<u64> = (0..80).filter(|at| !there.contains(at)).collect();
            prop_assert_eq!(missing, (gap.first..=gap.last).collect::<Vec<u64>>());
        }
    }

    /// What a part answers is what the whole would answer, or nothing.
    #[test]
    fn a_part_never_answers_other_than_the_whole(
        first in 0_u64..20, size in 1_u64..20, low in proptest::option::of(0_u64..45),
        high in proptest::option::of(0_u64..45),
    ) {
        let text = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        let field = format!("bytes={}-{}", text(low), text(high));
        let part = extent(&[(first, first + size - 1)], Some(40));
        let whole = extent(&[(0, 39)], Some(40));
        if let Some(shape) = part_shape(&part, &[("range", &field)]) {
            let other = part_shape(&whole, &[("range", &field)]).unwrap();
            prop_assert_eq!(shape.status, other.status);
            prop_assert_eq!(shape.headers, other.headers);
            prop_assert_eq!(&shape.part, &other.part);
            if let Part::Range { start, length } = shape.part {
                prop_assert!(part.offset(start, length).is_some());
            }
        }
    }
}
