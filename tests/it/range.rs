//! Ranges of what is stored.

use crate::support::{Edge, Origin, Reply, Response, pattern};

const LENGTH: usize = 1000;

fn origin() -> Origin {
    let reply =
        Reply::fresh(pattern(LENGTH)).field("ETag", "\"1\"").field("Content-Type", "text/x");
    Origin::serving(reply)
}

async fn ranged(edge: &Edge, range: &str) -> Response {
    edge.get_with("/a", &[("Range", range)]).await
}

#[tokio::test]
async fn one_range_of_a_stored_response() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let body = pattern(LENGTH);
    for (range, start, end) in [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=990-", 990, 999),
        ("bytes=990-5000", 990, 999),
        ("bytes=-5", 995, 999),
        ("bytes=-5000", 0, 999),
    ] {
        let answer = ranged(&edge, range).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert!(answer.says("hit"), "{range}: {}", answer.cache());
        let expected = format!("bytes {start}-{end}/1000");
        assert_eq!(answer.field("content-range"), Some(&*expected), "{range}");
        assert_eq!(answer.body, body[start..=end], "{range}");
        assert_eq!(answer.field("etag"), Some("\"1\""));
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn ranges_that_cannot_be_met_or_read() {
    let edge_origin = origin();
    let edge = Edge::start(&edge_origin);
    edge.fill("/a").await;
    for range in ["bytes=1000-", "bytes=5000-6000", "bytes=-0"] {
        let answer = ranged(&edge, range).await;
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(answer.field("content-range"), Some("bytes */1000"), "{range}");
    }
    for range in ["bytes=", "bytes=5-1", "lines=1-2", "bytes=a-b", "bytes"] {
        let answer = ranged(&edge, range).await;
        assert_eq!((answer.status(), answer.body.len()), (200, LENGTH), "{range}");
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let answer = ranged(&edge, "bytes=0-4,100-104,-5").await;
    assert_eq!(answer.status(), 206);
    let kind = answer.field("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap().trim_matches('"');
    let body = pattern(LENGTH);
    let text = answer.text();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 5, "preamble, three parts, end: {text}");
    assert_eq!(parts[4].trim_end(), "--");
    for (part, start, end) in [(1, 0, 4), (2, 100, 104), (3, 995, 999)] {
        let (head, rest) = parts[part].split_once("\r\n\r\n").unwrap();
        let range = format!("content-range: bytes {start}-{end}/1000");
        assert!(head.to_ascii_lowercase().contains(&range), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/x"), "{head}");
        let expected = format!("{}\r\n", std::str::from_utf8(&body[start..=end]).unwrap());
        assert_eq!(rest, expected);
    }
}

#[tokio::test]
async fn many_or_overlapping_ranges_cost_no_more_than_the_whole() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let many: Vec<String> = (0..100).map(|i| format!("{}-{}", i * 5, i * 5 + 1)).collect();
    let overlapping = ["0-"; 200].join(",");
    for ranges in [many.join(","), overlapping] {
        let answer = ranged(&edge, &format!("bytes={ranges}")).await;
        assert!(matches!(answer.status(), 200 | 206 | 416), "{answer:?}");
        assert!(answer.body.len() <= LENGTH + 4096, "{} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn if_range_gives_the_part_only_of_the_same_thing() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    for (condition, status) in [("\"1\"", 206), ("\"2\"", 200), ("W/\"1\"", 200)] {
        let fields = [("Range", "bytes=0-1"), ("If-Range", condition)];
        assert_eq!(edge.get_with("/a", &fields).await.status(), status, "{condition}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_range_of_what_is_not_stored_is_the_origins_and_never_a_whole() {
    let origin = Origin::start(|seen| match seen.field("range") {
        Some(_) => Reply::new(206)
            .body("he")
            .field("Content-Range", "bytes 0-1/5")
            .field("Cache-Control", "max-age=60"),
        None => Reply::fresh("hello"),
    });
    let edge = Edge::start(&origin);
    let part = edge.fill_with("/a", &[("Range", "bytes=0-1")]).await;
    assert_eq!((part.status(), part.text()), (206, "he"));
    edge.fill("/a").await.expect(200, "hello", "fwd=partial");
    edge.get_with("/a", &[("Range", "bytes=1-2")]).await.expect(206, "el", "hit");
}

#[tokio::test]
async fn head_asks_for_no_range() {
    let origin = origin();
    let edge = Edge::start(&origin);
    edge.fill("/a").await;
    let head = edge.ask("HEAD", "site.test", "/a", &[("Range", "bytes=0-1")]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1000")));
}
