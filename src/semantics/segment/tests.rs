use proptest::prelude::*;

use super::*;
use crate::clock::Now;
use crate::semantics::test_support::{ARRIVAL, Fields, date, get, response};

const KIB: u64 = 1024;

fn grid(segment: u64) -> Grid {
    let policy = Policy { segment: Some(segment), ..Policy::default() };
    Grid::of(&policy, u64::MAX).unwrap()
}

fn now() -> SystemTime {
    Now::at(ARRIVAL).wall
}

#[test]
fn a_grid_is_made_of_blocks_that_can_be_stored() {
    let rows = [
        // segment, largest stored, block, blocks
        (1024 * KIB, u64::MAX, 64 * KIB, 16),
        (4096 * KIB, u64::MAX, 256 * KIB, 16),
        (64 * KIB, u64::MAX, 64 * KIB, 1),
        (100 * KIB, u64::MAX, 64 * KIB, 1),
        (256 * KIB, u64::MAX, 64 * KIB, 4),
        (64 * 1024 * KIB, 1024 * KIB, 1024 * KIB, 64),
        (4096 * KIB, 70 * KIB, 70 * KIB, 58),
    ];
    for (segment, largest, block, blocks) in rows {
        let policy = Policy { segment: Some(segment), ..Policy::default() };
        assert_eq!(Grid::of(&policy, largest), Some(Grid { block, blocks }), "{segment}");
    }
    let policy = Policy { segment: Some(1024 * KIB), ..Policy::default() };
    assert_eq!(Grid::of(&policy, 64 * KIB - 1), None, "not even a block could be stored");
    assert_eq!(Grid::of(&Policy::default(), u64::MAX), None, "off by default");
}

#[test]
fn a_cold_request_asks_for_what_it_touches_of_its_first_segment() {
    // Segments of 1 MiB, blocks of 64 KiB.
    let (block, segment) = (64 * KIB, 1024 * KIB);
    let rows = [
        (None, (0, segment)),
        (Some("bytes=0-"), (0, segment)),
        (Some("bytes=0-99"), (0, segment)),
        (Some("bytes=2000000-2000099"), (segment, 2 * segment)),
        (Some("bytes=1048576-1310719"), (segment, segment + 4 * block)),
        (Some("bytes=300000-"), (4 * block, segment)),
        (Some("bytes=300000-99999999"), (4 * block, segment)),
        (Some("bytes=300000-600000"), (4 * block, 10 * block)),
        (Some("bytes=-5"), (0, block)),
        (Some("bytes=300000-600000, 0-1"), (4 * block, 10 * block)),
        (Some("bytes= , 300000-600000"), (4 * block, 10 * block)),
        // What cannot be met or read begins at the first byte.
        (Some("bytes=5-1"), (0, segment)),
        (Some("lines=5-10"), (0, segment)),
        (Some("bytes=a-b"), (0, segment)),
        (Some("bytes=18446744073709551615-"), (0, segment)),
        (Some("bytes=99999999999999999999999-"), (0, segment)),
    ];
    for (range, (first, end)) in rows {
        let fields: Vec<(&str, &str)> = range.map(|range| ("range", range)).into_iter().collect();
        let span = grid(segment).opening(&get("http://h/", &fields));
        assert_eq!(span, Span { first, last: end - 1 }, "{range:?}");
    }
}

#[test]
fn a_first_answer_is_cut_only_where_it_is_what_was_asked_for_and_can_be_continued() {
    let grid = grid(64 * KIB);
    let asked = Span { first: 65_536, last: 131_071 };
    let tag: (&str, &str) = ("etag", "\"a\"");
    let range = "bytes 65536-131071/1000000";
    let cut = Opening::Segmented(Segments::new(grid, 1_000_000).unwrap());
    let (made, changed) = (date(ARRIVAL), date(ARRIVAL - 10));
    let rows: [(u16, Fields<'_>, Option<u64>, Opening); 16] = [
        (206, &[tag, ("content-range", range)], Some(65_536), cut),
        (206, &[tag, ("content-range", range)], None, cut),
        (206, &[("last-modified", &changed), ("date", &made), ("content-range", range)], None, cut),
        (206, &[("last-modified", &changed), ("content-range", range)], None, Opening::Unfit),
        (206, &[tag, ("content-range", range)], Some(65_535), Opening::Unfit),
        (206, &[tag, ("content-range", "bytes 65536-131071/*")], None, Opening::Unfit),
        (206, &[tag, ("content-range", "bytes 0-131071/1000000")], None, Opening::Unfit),
        (206, &[tag, ("content-range", "bytes 65536-131070/1000000")], None, Opening::Unfit),
        (206, &[tag], None, Opening::Unfit),
        (206, &[("etag", "W/\"a\""), ("content-range", range)], None, Opening::Unfit),
        (206, &[("content-range", range)], None, Opening::Unfit),
        (
            206,
            &[tag, ("content-range", "bytes 65536-69999/70000")],
            None,
            Opening::Segmented(Segments::new(grid, 70_000).unwrap()),
        ),
        (416, &[tag, ("content-range", "bytes */10")], None, Opening::Beyond),
        (200, &[tag], Some(1_000_000), Opening::Ordinary),
        (404, &[], None, Opening::Ordinary),
        (503, &[], None, Opening::Ordinary),
    ];
    for (status, headers, length, expected) in rows {
        let found = opening(grid, asked, &response(status, headers), length, now());
        assert_eq!(found, expected, "{status} {headers:?} {length:?}");
    }
    let whole = response(206, &[("content-range", "bytes 0-99/100")]);
    assert_eq!(opening(grid, grid.start(), &whole, Some(100), now()), Opening::Whole);
}

#[test]
fn a_further_answer_goes_on_only_with_the_same_bytes() {
    let segments = Segments::new(grid(64 * KIB), 1_000_000).unwrap();
    let asked = segments.span(1, 2);
    let stored = response(200, &[("etag", "\"a\"")]);
    let validator = StrongValidator::of(&stored.headers, now()).unwrap();
    let range = ("content-range", "bytes 65536-196607/1000000");
    let tag: (&str, &str) = ("etag", "\"a\"");
    use Continuation::{Changed, Failed, Fits, Refused};
    let rows: [(u16, Fields<'_>, Option<u64>, Continuation); 17] = [
        (206, &[tag, range], Some(131_072), Fits),
        (206, &[tag, range], None, Fits),
        (206, &[("etag", "\"b\""), range], None, Changed),
        (206, &[("etag", "W/\"a\""), range], None, Changed),
        (206, &[range], None, Changed),
        (206, &[tag, ("content-range", "bytes 65536-196607/1000001")], None, Changed),
        (206, &[tag, ("content-range", "bytes 65536-196607/*")], None, Changed),
        (206, &[tag, ("content-range", "bytes 65536-196606/1000000")], None, Changed),
        (206, &[tag, ("content-range", "bytes 0-131071/1000000")], None, Changed),
        (206, &[tag, range], Some(131_071), Changed),
        (200, &[tag], None, Changed),
        (412, &[], None, Changed),
        (416, &[], None, Changed),
        (404, &[], None, Changed),
        (403, &[], None, Refused),
        (302, &[], None, Refused),
        (503, &[], None, Failed),
    ];
    for (status, headers, length, expected) in rows {
        let head = response(status, headers);
        let found = continuation(&segments, asked, &validator, &head, length, now());
        assert_eq!(found, expected, "{status} {headers:?} {length:?}");
    }
}

#[test]
fn the_precondition_is_the_validator() {
    let (made, changed) = (date(ARRIVAL), date(ARRIVAL - 10));
    let tagged = response(200, &[("etag", "\"a\""), ("last-modified", &changed), ("date", &made)]);
    let dated = response(200, &[("last-modified", &changed), ("date", &made)]);
    for (head, name, value) in
        [(tagged, header::IF_MATCH, "\"a\""), (dated, header::IF_UNMODIFIED_SINCE, &*changed)]
    {
        let validator = StrongValidator::of(&head.headers, now()).unwrap();
        let (field, condition) = precondition(&validator);
        assert_eq!((field, condition.to_str().unwrap()), (name, value));
    }
}

#[test]
fn the_head_of_a_part_becomes_that_of_the_whole() {
    let mut head = response(
        206,
        &[
            ("content-range", "bytes 0-1/2"),
            ("content-length", "2"),
            ("content-digest", "sha-256=:AA==:"),
            ("content-md5", "AA=="),
            ("repr-digest", "sha-256=:BB==:"),
            ("etag", "\"a\""),
        ],
    );
    make_whole(&mut head);
    assert_eq!(head.status, StatusCode::OK);
    let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["etag", "repr-digest"]);
}

/// A grid in small: the arithmetic does not care how large a block is.
fn small() -> impl Strategy<Value = Segments> {
    (1_u64..9, 1_u64..6, 1_u64..200)
        .prop_map(|(block, blocks, total)| Segments::new(Grid { block, blocks }, total).unwrap())
}

fn many(count: u64) -> usize {
    usize::try_from(count).unwrap()
}

proptest! {
    #[test]
    fn slices_in_a_row_are_the_bytes_asked_for(
        segments in small(), start in 0_u64..250, length in 0_u64..250,
    ) {
        let bytes: Vec<u64> = (0..segments.total()).collect();
        let (mut at, mut left, mut got) = (start, length, Vec::new());
        while let Some(slice) = segments.slice(at, left) {
            let span = segments.span(slice.block, slice.block);
            prop_assert_eq!(span.size(), segments.block_bytes(slice.block));
            prop_assert!(slice.offset + slice.length <= span.size());
            let from = span.first + slice.offset;
            got.extend(bytes.iter().copied().skip(many(from)).take(many(slice.length)));
            at += slice.length;
            left -= slice.length;
        }
        let expected: Vec<u64> =
            bytes.into_iter().skip(many(start)).take(many(length)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn what_is_wanted_holds_what_is_asked_for_and_little_more(
        segments in small(), start in 0_u64..200, length in 1_u64..250,
    ) {
        let start = start % segments.total();
        let last = (start + length - 1).min(segments.total() - 1);
        let (from, to) = segments.wanted(start, length);
        let span = segments.span(from, to);
        prop_assert!(span.first <= start && last <= span.last && span.last < segments.total());
        let Grid { block, blocks } = segments.grid;
        if last - start + 1 >= block {
            prop_assert!(start - span.first < block && span.last - last < block);
        } else {
            prop_assert!(span.size() <= 2 * block * blocks);
            prop_assert_eq!(segments.neighbours(from).0, from);
            prop_assert_eq!(segments.neighbours(to).1, to);
        }
    }

    #[test]
    fn blocks_and_segments_cover_the_body_once(segments in small()) {
        let mut next = 0;
        for block in 0..=segments.last_block() {
            let span = segments.span(block, block);
            prop_assert_eq!(span.first, next);
            for byte in span.first..=span.last {
                prop_assert_eq!(segments.block_of(byte), block);
            }
            let (first, last) = segments.neighbours(block);
            prop_assert!(first <= block && block <= last);
            prop_assert_eq!(segments.segment_of(first), segments.segment_of(last));
            next = span.last + 1;
        }
        prop_assert_eq!(next, segments.total());
    }

    #[test]
    fn any_range_opens_with_one_segment_or_less(field in ".{0,40}", number: u64, other: u64) {
        let grid = grid(256 * KIB);
        for field in [field, format!("bytes={number}-{other}"), format!("bytes={number}-")] {
            let Ok(value) = HeaderValue::try_from(field.as_str()) else { continue };
            let mut request = get("http://h/", &[]);
            request.headers.insert(header::RANGE, value);
            let span = grid.opening(&request);
            prop_assert!(span.first.is_multiple_of(grid.block));
            prop_assert!((span.last + 1).is_multiple_of(grid.block));
            prop_assert!(span.first / grid.segment() == span.last / grid.segment());
            if let Some(Asked::From(first, _)) = first_range(field.as_bytes())
                && first < FARTHEST
            {
                prop_assert!(span.first <= first && first <= span.last);
            }
        }
    }
}
