use super::*;
use crate::semantics::test_support::{ARRIVAL, Fields, date, fields, get, judged, request};

const TEXT: Fields<'_> = &[
    ("cache-control", "max-age=60"),
    ("content-type", "text/plain"),
    ("content-encoding", "br"),
    ("content-language", "en"),
    ("content-location", "/a.txt"),
    ("etag", "\"a\""),
    ("expires", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("last-modified", "Sun, 09 Sep 2001 01:46:00 GMT"),
    ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
    ("vary", "accept-encoding"),
];

/// Shapes 10 bytes that arrived five seconds ago.
fn shaped(request: &Request, status: u16, stored: Fields<'_>, policy: &Policy) -> Shape {
    let terms = judged(status, stored, policy).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    let now = Now::at(ARRIVAL + 5);
    shape(request, status, fields(stored), Some(10), Some(&terms), policy, now)
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

fn text(shape: &Shape, name: &str) -> String {
    shape.headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_plain_hit_is_the_stored_response_with_its_age() {
    let hit = shaped(&get("http://h/", &[]), 200, TEXT, &Policy::default());
    assert_eq!((hit.status, &hit.part), (StatusCode::OK, &Part::Whole));
    assert_eq!(text(&hit, "age"), "5");
    assert_eq!(text(&hit, "date"), "Sun, 09 Sep 2001 01:46:40 GMT");
    assert_eq!(hit.headers.len(), TEXT.len() + 1);
    let head = shaped(&request("HEAD", "http://h/", &[]), 200, TEXT, &Policy::default());
    assert_eq!((&head.part, head.head_length), (&Part::None, Some(10)));
    assert_eq!(head.headers, hit.headers);
}

#[test]
fn a_missing_date_is_the_time_of_arrival() {
    let stored = [("cache-control", "max-age=60")];
    let hit = shaped(&get("http://h/", &[]), 200, &stored, &Policy::default());
    assert_eq!(text(&hit, "date"), date(ARRIVAL));
}

#[test]
fn tags_and_what_speaks_to_us_stay_here() {
    let stored = [
        ("atoll-cache-control", "max-age=60"),
        ("cdn-cache-control", "max-age=1"),
        ("surrogate-key", "a"),
        ("cache-tag", "a"),
        ("edge-cache-tag", "a"),
        ("xkey", "a"),
        ("cache-groups", "\"a\""),
    ];
    let plain = shaped(&get("http://h/", &[]), 200, &stored, &Policy::default());
    assert_eq!(names(&plain.headers), ["age", "cdn-cache-control", "date"]);
    let keep = Policy { keep_tags: true, ..Policy::default() };
    let kept = shaped(&get("http://h/", &[]), 200, &stored, &keep);
    assert_eq!(kept.headers.len(), stored.len() + 1);
    assert!(!kept.headers.contains_key("atoll-cache-control"));
}

#[test]
fn conditions_are_answered() {
    let old = "Sun, 09 Sep 2001 01:45:00 GMT";
    let same = "Sun, 09 Sep 2001 01:46:00 GMT";
    let same_obsolete = "Sunday, 09-Sep-01 01:46:00 GMT";
    let rows: [(Fields<'_>, u16); 12] = [
        (&[("if-none-match", "\"a\"")], 304),
        (&[("if-none-match", "W/\"a\"")], 304),
        (&[("if-none-match", "\"x\", \"a\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"b\"")], 200),
        (&[("if-none-match", "\"a\""), ("if-modified-since", old)], 304),
        (&[("if-none-match", "\"b\""), ("if-modified-since", same)], 200),
        (&[("if-modified-since", same)], 304),
        (&[("if-modified-since", same_obsolete)], 304),
        (&[("if-modified-since", old)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        (&[("if-none-match", "\"a\""), ("range", "bytes=0-1")], 304),
    ];
    for (headers, status) in rows {
        for method in ["GET", "HEAD"] {
            let shape =
                shaped(&request(method, "http://h/", headers), 200, TEXT, &Policy::default());
            assert_eq!(shape.status.as_u16(), status, "{method} {headers:?}");
        }
    }
    let asked = get("http://h/", &[("if-none-match", "*")]);
    let error = shaped(&asked, 404, TEXT, &Policy::default());
    assert_eq!(error.status, StatusCode::NOT_FOUND);
}

#[test]
fn a_304_keeps_what_it_must_and_describes_no_body() {
    let asked = get("http://h/", &[("if-none-match", "\"a\"")]);
    let shape = shaped(&asked, 200, TEXT, &Policy::default());
    assert_eq!(shape.part, Part::None);
    assert_eq!(
        names(&shape.headers),
        [
            "age",
            "cache-control",
            "content-location",
            "date",
            "etag",
            "expires",
            "last-modified",
            "vary"
        ]
    );
}

#[test]
fn dates_stand_in_for_last_modified() {
    let asked = |seconds| get("http://h/", &[("if-modified-since", date(seconds).as_str())]);
    let stored = [("cache-control", "max-age=60")];
    let policy = Policy::default();
    assert_eq!(shaped(&asked(ARRIVAL), 200, &stored, &policy).status, StatusCode::NOT_MODIFIED);
    assert_eq!(shaped(&asked(ARRIVAL - 1), 200, &stored, &policy).status, StatusCode::OK);
}

#[test]
fn ranges_are_cut_from_complete_responses() {
    let single = |start, length| Part::Range { start, length };
    let same = "Sun, 09 Sep 2001 01:46:00 GMT";
    let rows: [(Fields<'_>, u16, Part, &str); 12] = [
        (&[("range", "bytes=2-4")], 206, single(2, 3), "bytes 2-4/10"),
        (&[("range", "bytes=-4")], 206, single(6, 4), "bytes 6-9/10"),
        (&[("range", "bytes=0-3,2-5")], 206, single(0, 6), "bytes 0-5/10"),
        (&[("range", "bytes=10-")], 416, Part::None, "bytes */10"),
        (&[("range", "bytes=")], 200, Part::Whole, ""),
        (&[("range", "lines=1-2")], 200, Part::Whole, ""),
        (&[("range", "bytes=2-4"), ("if-range", "\"a\"")], 206, single(2, 3), "bytes 2-4/10"),
        (&[("range", "bytes=2-4"), ("if-range", "W/\"a\"")], 200, Part::Whole, ""),
        (&[("range", "bytes=2-4"), ("if-range", "\"b\"")], 200, Part::Whole, ""),
        (&[("range", "bytes=2-4"), ("if-range", same)], 206, single(2, 3), "bytes 2-4/10"),
        (&[("range", "bytes=99-"), ("if-range", "\"b\"")], 200, Part::Whole, ""),
        (&[("range", "bytes=2-4"), ("if-range", "x")], 200, Part::Whole, ""),
    ];
    for (headers, status, part, content_range) in rows {
        let shape = shaped(&get("http://h/", headers), 200, TEXT, &Policy::default());
        assert_eq!(shape.status.as_u16(), status, "{headers:?}");
        assert_eq!(shape.part, part, "{headers:?}");
        assert_eq!(text(&shape, "content-range"), content_range, "{headers:?}");
        assert_eq!(shape.headers.contains_key("etag"), status != 416);
    }
}

#[test]
fn ranges_apply_to_get_of_a_complete_200_only() {
    let range = [("range", "bytes=0-1")];
    let policy = Policy::default();
    let head = shaped(&request("HEAD", "http://h/", &range), 200, TEXT, &policy);
    assert_eq!((head.status, head.head_length), (StatusCode::OK, Some(10)));
    let missing = shaped(&get("http://h/", &range), 404, TEXT, &policy);
    assert_eq!((missing.status, missing.part), (StatusCode::NOT_FOUND, Part::Whole));
    let now = Now::at(ARRIVAL);
    let status = StatusCode::OK;
    let arriving = shape(&get("http://h/", &range), status, fields(TEXT), None, None, &policy, now);
    assert_eq!((arriving.status, arriving.part), (StatusCode::OK, Part::Whole));
    assert!(!arriving.headers.contains_key("age"));
    let weak: Vec<_> =
        TEXT.iter().map(|(n, v)| (*n, if *n == "etag" { "W/\"a\"" } else { v })).collect();
    let asked = get("http://h/", &[("range", "bytes=0-1"), ("if-range", "W/\"a\"")]);
    assert_eq!(shaped(&asked, 200, &weak, &policy).status, StatusCode::OK);
}

#[test]
fn several_ranges_are_a_multipart() {
    let asked = get("http://h/", &[("range", "bytes=0-1,8-")]);
    let shape = shaped(&asked, 200, TEXT, &Policy::default());
    let Part::Multipart { pieces, tail, length } = &shape.part else { panic!("{:?}", shape.part) };
    let total: u64 = pieces.iter().map(|(head, _, size)| head.len() as u64 + size).sum();
    assert_eq!(total + tail.len() as u64, *length);
    assert_eq!(pieces.iter().map(|piece| (piece.1, piece.2)).collect::<Vec<_>>(), [(0, 2), (8, 2)]);
    let boundary = text(&shape, "content-type");
    let boundary = boundary.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(
        pieces[0].0.starts_with(format!("--{boundary}\r\nContent-Type: text/plain\r\n").as_bytes())
    );
    assert!(!shape.headers.contains_key("content-range"));
}

#[test]
fn stored_fields_hold_nothing_of_the_way() {
    let head = fields(&[
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "1"),
        ("upgrade", "x"),
        ("proxy-authenticate", "x"),
        ("proxy-authentication-info", "x"),
        ("proxy-connection", "x"),
        ("te", "x"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("content-length", "10"),
        ("age", "5"),
        ("via", "1.1 x"),
        ("x-cache", "HIT"),
        ("cache-status", "x; hit"),
        ("x-request-id", "x"),
        ("cache-control", "max-age=60, no-cache=\"a\", private=\"b, c\""),
        ("a", "1"),
        ("b", "1"),
        ("c", "1"),
        ("d", "1"),
        ("d", "\u{e9}"),
        ("surrogate-key", "x"),
        ("set-cookie2", "x"),
        ("content-range", "odd"),
    ]);
    let stored = stored_fields(&head, &Policy::default());
    assert_eq!(
        names(&stored),
        ["cache-control", "content-range", "d", "set-cookie2", "surrogate-key"]
    );
    assert_eq!(stored.get_all("d").iter().count(), 2);
}

mod plain {
    use proptest::prelude::*;

    use super::*;

    const STORED: [(&str, &str); 13] = [
        ("cache-control", "max-age=60"),
        ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
        ("content-type", "text/plain"),
        ("content-type", "Text/Event-Stream"),
        ("content-length", "10"),
        ("etag", "\"a\""),
        ("last-modified", "Sun, 09 Sep 2001 01:46:00 GMT"),
        ("surrogate-key", "a"),
        ("atoll-cache-control", "max-age=9"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("vary", "accept-encoding"),
        ("x-own", "1"),
    ];

    const ASKED: [(&str, &str); 8] = [
        ("if-none-match", "\"a\""),
        ("if-none-match", "\"b\""),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:40 GMT"),
        ("range", "bytes=0-1"),
        ("range", "lines=1-2"),
        ("if-range", "\"a\""),
        ("if-match", "\"a\""),
        ("accept", "text/plain"),
    ];

    fn some_of<T: Copy + std::fmt::Debug + 'static>(
        all: &'static [T],
    ) -> impl Strategy<Value = Vec<T>> {
        proptest::sample::subsequence(all, 0..=all.len())
    }

    /// What the short way and the long way give; the first where it is to be had.
    fn both(
        method: &str,
        asked: Fields<'_>,
        status: u16,
        stored: Fields<'_>,
        seconds: u64,
    ) -> (Option<Shape>, Shape) {
        let request = request(method, "http://h/", asked);
        let policy = Policy::default();
        let lasting = judged(200, &[("cache-control", "max-age=60")], &policy).unwrap();
        let terms = judged(status, stored, &policy).unwrap_or(lasting);
        let status = StatusCode::from_u16(status).unwrap();
        let now = Now::at(ARRIVAL + seconds);
        let stored = stored_fields(&fields(stored), &policy);
        let short = (is_plain(status, &stored, &terms) && asks_plainly(&request)).then(|| {
            let mut headers = stored.clone();
            headers.append(header::AGE, HeaderValue::from(terms.age(now).as_secs()));
            Shape { status, headers, part: Part::Whole, head_length: None }
        });
        (short, shape(&request, status, stored, Some(10), Some(&terms), &policy, now))
    }

    fn row(shape: &Shape) -> Vec<(&str, &[u8])> {
        shape.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn the_short_way_is_there_for_a_plain_hit_only() {
        let short = |method, asked: Fields<'_>, status, stored: Fields<'_>| {
            both(method, asked, status, stored, 5).0.is_some()
        };
        assert!(short("GET", &[], 200, TEXT));
        assert!(short("GET", &[("accept", "a")], 200, TEXT));
        assert!(!short("HEAD", &[], 200, TEXT));
        assert!(!short("GET", &[], 404, TEXT));
        assert!(!short("GET", &[("range", "bytes=0-1")], 200, TEXT));
        assert!(!short("GET", &[("if-none-match", "\"b\"")], 200, TEXT));
        assert!(!short("GET", &[], 200, &[("cache-control", "max-age=60")]));
    }

    proptest! {
        #[test]
        fn the_short_way_ends_where_the_long_one_does(
            method in prop_oneof![9 => Just("GET"), 1 => Just("HEAD"), 1 => Just("POST")],
            asked in prop_oneof![Just(Vec::new()), some_of(&ASKED)],
            status in prop_oneof![9 => Just(200_u16), 1 => Just(204), 1 => Just(404), 1 => Just(206)],
            stored in some_of(&STORED),
            seconds in 0..100_u64,
        ) {
            // A request with a field twice that may be there once is refused before.
            let mut asked = asked;
            asked.dedup_by_key(|(name, _)| *name);
            let (short, long) = both(method, &asked, status, &stored, seconds);
            if let Some(short) = short {
                prop_assert_eq!(row(&short), row(&long));
                prop_assert_eq!(
                    (short.status, short.part, short.head_length),
                    (long.status, long.part, long.head_length)
                );
            }
        }
    }
}
