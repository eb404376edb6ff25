use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::clock::Now;
use crate::message::Scheme;
use crate::semantics::Outcome;
use crate::telemetry::{RequestId, TraceParent};

/// 21 November 2026, 21:42:00.123 UTC.
fn time() -> Now {
    Now::at(1_795_297_320).plus(Duration::from_millis(123))
}

fn record(target: &str, user_agent: &[u8]) -> Record {
    let mut record = Record::blank(None);
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_bytes(user_agent).unwrap());
    headers.insert("referer", HeaderValue::from_static("http://r.example/"));
    record.set_request(&Method::GET, "a.example", target, &headers);
    record.started = time();
    record.request_id = RequestId::given(b"id-1").unwrap();
    record.client = SocketAddr::from(([192, 0, 2, 7], 4711));
    record.status = 200;
    record.bytes_sent = 1024;
    record.took = Duration::from_micros(42);
    record.complete = true;
    record
}

fn line(format: AccessFormat, record: &Record, site: &str) -> String {
    let mut out = Vec::new();
    Formatter::new(format).line(record, site, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn json_line_of_a_plain_hit() {
    let mut record = record("/x?y=1", b"curl/8");
    record.outcome = Outcome::Hit;
    record.ttl = Some(-5);
    assert_eq!(
        line(AccessFormat::Json, &record, "shop"),
        concat!(
            r#"{"time":"2026-11-21T21:42:00.123Z","id":"id-1","client":"192.0.2.7","port":4711,"#,
            r#""site":"shop","method":"GET","scheme":"http","host":"a.example","target":"/x?y=1","#,
            r#""http":"1.1","status":200,"bytes":1024,"duration_us":42,"cache":"hit","ttl":-5,"#,
            r#""user_agent":"curl/8","referer":"http://r.example/"}"#,
            "\n"
        )
    );
}

#[test]
fn json_line_with_everything_is_one_object() {
    let mut record = record("/", b"x");
    record.scheme = Scheme::Https;
    record.version = Version::HTTP_2;
    record.tls = Some("TLSv1.3");
    record.first_byte = Some(Duration::from_millis(3));
    record.forward = Some(Forward::UriMiss);
    record.stored = true;
    record.detail = Some("no-freshness");
    record.origin = Some("[2001:db8::1]:443".parse().unwrap());
    record.origin_error = Some("dns_timeout");
    record.refusal = Some(Refusal::Overload);
    record.trace = TraceParent::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    record.complete = false;
    let value: serde_json::Value =
        serde_json::from_str(&line(AccessFormat::Json, &record, "")).unwrap();
    let rows = [
        ("scheme", "https"),
        ("http", "2"),
        ("tls", "TLSv1.3"),
        ("fwd", "uri-miss"),
        ("detail", "no-freshness"),
        ("origin", "[2001:db8::1]:443"),
        ("origin_error", "dns_timeout"),
        ("refusal", "overload"),
        ("trace", "0af7651916cd43dd8448eb211c80319c"),
    ];
    for (name, expected) in rows {
        assert_eq!(value[name], expected, "{name}");
    }
    assert_eq!(value["first_byte_us"], 3000);
    assert_eq!((&value["stored"], &value["incomplete"]), (&true.into(), &true.into()));
    assert!(value.get("site").is_none());
}

#[test]
fn combined_line_is_as_web_log_tools_expect_it() {
    assert_eq!(
        line(AccessFormat::Combined, &record("/x", b"curl/8"), "shop"),
        "192.0.2.7 - - [21/Nov/2026:21:42:00 +0000] \"GET /x HTTP/1.1\" 200 1024 \
         \"http://r.example/\" \"curl/8\"\n"
    );
    let mut unanswered = record("/x", b"");
    unanswered.status = 0;
    assert!(
        line(AccessFormat::Combined, &unanswered, "")
            .ends_with("000 1024 \"http://r.example/\" \"-\"\n")
    );
}

#[test]
fn hostile_text_stays_within_its_line_and_quotes() {
    let hostile: &[&[u8]] =
        &[b"a\"b\\c", b"tab\there", b"caf\xe9", "caf\u{e9} \u{2028}".as_bytes(), b"\xff\xfe\x80"];
    for text in hostile {
        let mut record = record("/", b"x");
        let target = "/\r\n\u{1b}[2J\u{9b}\u{7f}\"";
        record.set_request(
            &Method::GET,
            "h\n",
            target,
            &HeaderMap::from_iter([(
                http::header::USER_AGENT,
                HeaderValue::from_bytes(text).unwrap(),
            )]),
        );
        let json = line(AccessFormat::Json, &record, "s");
        assert_eq!(json.matches('\n').count(), 1);
        assert!(!json.trim_end().chars().any(char::is_control), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["target"], target);
        if let Ok(valid) = std::str::from_utf8(text) {
            assert_eq!(value["user_agent"], valid);
        }
        let combined = line(AccessFormat::Combined, &record, "s");
        assert!(combined.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{combined}");
        let quotes = combined.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(quotes.matches('"').count(), 6, "{combined}");
    }
}

#[test]
fn calendar_knows_leap_years() {
    let rows = [
        (0, "1970-01-01T00:00:00"),
        (951_782_399, "2000-02-28T23:59:59"),
        (951_782_400, "2000-02-29T00:00:00"),
        (951_868_800, "2000-03-01T00:00:00"),
        (4_107_542_400, "2100-03-01T00:00:00"),
        (1_798_761_599, "2026-12-31T23:59:59"),
    ];
    for (seconds, expected) in rows {
        assert_eq!(Civil::of(seconds).rfc3339(), expected);
    }
}
