//! Rows for every rule, each under several cuts, and the properties of [`super::check`].

use bytes::BytesMut;
use http::{Method, StatusCode, Version};
use proptest::prelude::*;

use super::*;
use crate::message::{Refusal, Scheme};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 32 * 1024,
    field_bytes: 8 * 1024,
    cookie_bytes: 16 * 1024,
    fields: 100,
    target_bytes: 8 * 1024,
};

const CHUNK_LIMITS: ChunkLimits =
    ChunkLimits { extension_bytes: 4096, trailer_bytes: 8192, trailer_fields: 32 };

/// Feeds `bytes` cut at multiples of `size` and says what came of them.
fn request(bytes: &[u8], size: usize) -> Result<Option<ParsedRequest>, Refusal> {
    let mut parser = RequestParser::default();
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        match parser.parse(&mut buffer, Scheme::Http, &LIMITS) {
            Ok(None) => {}
            done => return done,
        }
    }
    Ok(None)
}

fn cuts(bytes: &[u8]) -> Vec<usize> {
    if bytes.len() > 4096 { vec![bytes.len(), 1000, 1] } else { vec![bytes.len().max(1), 1, 2, 5] }
}

fn refused(bytes: impl AsRef<[u8]>, expected: Refusal) {
    let bytes = bytes.as_ref();
    for size in cuts(bytes) {
        let outcome = request(bytes, size).map(|parsed| parsed.is_some());
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert_eq!(outcome, Err(expected), "cut by {size}: {shown:?}");
    }
}

fn accepted(bytes: impl AsRef<[u8]>) -> ParsedRequest {
    let bytes = bytes.as_ref();
    let mut last = None;
    for size in cuts(bytes) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        match request(bytes, size) {
            Ok(Some(parsed)) => last = Some(parsed),
            other => panic!("cut by {size}: {shown:?}: {other:?}"),
        }
    }
    last.unwrap()
}

fn post(fields: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

#[test]
fn ambiguous_framing_is_refused() {
    let rows: [(&str, &str, Refusal); 44] = [
        ("A01", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", Refusal::FramingConflict),
        ("A02", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", Refusal::FramingConflict),
        ("A03", "Content-Length: 3\r\nContent-Length: 7\r\n", Refusal::ContentLength),
        ("A04", "Content-Length: 5\r\nContent-Length: 5\r\n", Refusal::ContentLength),
        ("A05", "Content-Length: 5, 5\r\n", Refusal::ContentLength),
        ("A05", "Content-Length: 5, 6\r\n", Refusal::ContentLength),
        ("A05", "Content-Length: 5,\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: +5\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: -1\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: -0\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: 0x5\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: 5 5\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: 9223372036854775808\r\n", Refusal::ContentLength),
        ("A06", "Content-Length: 18446744073709551616\r\n", Refusal::ContentLength),
        ("A08", "Content-Length: 010\r\n", Refusal::ContentLength),
        ("A08", "Content-Length: 00\r\n", Refusal::ContentLength),
        ("A10", "Content-Length:\r\nContent-Length: 31\r\n", Refusal::ContentLength),
        ("A10", "Content-Length: \r\n", Refusal::ContentLength),
        ("A12", "Content-Length: 5\u{b}\r\n", Refusal::FieldSyntax),
        ("A12", "Content-Length: 5\u{c}\r\n", Refusal::FieldSyntax),
        ("A12", "Content-Length: 5\u{a0}\r\n", Refusal::ContentLength),
        ("A14", "Content-Length : 5\r\n", Refusal::FieldSyntax),
        ("A14", "Content-Length\t: 5\r\n", Refusal::FieldSyntax),
        ("A14", " Content-Length: 5\r\n", Refusal::FieldSyntax),
        ("A21", "Transfer-Encoding: identity\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: chunked, identity\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: gzip, chunked\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: chunked;q=1\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: xchunked\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: \"chunked\"\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding:\r\n", Refusal::TransferEncoding),
        ("A21", "Transfer-Encoding: ,chunked\r\n", Refusal::TransferEncoding),
        ("A23", "Transfer-Encoding: chunked, chunked\r\n", Refusal::TransferEncoding),
        (
            "A23",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Refusal::TransferEncoding,
        ),
        ("A12", "Transfer-Encoding: \u{b}chunked\r\n", Refusal::FieldSyntax),
        ("A12", "Transfer-Encoding\0: chunked\r\n", Refusal::FieldSyntax),
        ("A30", "Transfer-Encoding:\r\n chunked\r\n", Refusal::FieldSyntax),
        ("A31", "Foo: x\r\n Transfer-Encoding: chunked\r\n", Refusal::FieldSyntax),
        ("A31", "Foo: x\r\n\tTransfer-Encoding: chunked\r\n", Refusal::FieldSyntax),
        ("A90", "Upgrade: foo\r\nContent-Length: 3\r\n", Refusal::Upgrade),
        ("A90", "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n", Refusal::Upgrade),
        ("A88", "Expect: 200-maybe\r\nContent-Length: 3\r\n", Refusal::Expectation),
        ("A88", "Expect: 100-continue, x\r\nContent-Length: 3\r\n", Refusal::Expectation),
        ("A57", "Content-Length: 3\n", Refusal::FieldSyntax),
    ];
    for (case, fields, expected) in rows {
        let shown = format!("{case}: {fields:?}");
        println!("{shown}");
        refused(post(fields), expected);
    }
}

#[test]
fn transfer_coding_needs_http_1_1() {
    for fields in ["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n"] {
        refused(format!("POST / HTTP/1.0\r\n{fields}\r\n"), Refusal::TransferEncoding);
    }
    refused(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        Refusal::FramingConflict,
    );
}

#[test]
fn request_lines_are_method_target_version() {
    let rows: [(&str, &[u8], Refusal); 42] = [
        ("A57", b"GET / HTTP/1.1\nHost: h\n\n", Refusal::RequestLine),
        ("A57", b"GET / HTTP/1.1\r\nHost: h\n\n", Refusal::FieldSyntax),
        ("A57", b"GET / HTTP/1.1\r\nHost: h\r\n\n", Refusal::FieldSyntax),
        ("A59", b"GET / HTTP/1.1\r\nHost: h\r\n\rX", Refusal::FieldSyntax),
        ("A59", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", Refusal::FieldSyntax),
        ("A59", b"GET / HTTP/1.1\rHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodSyntax),
        ("A61", b"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A61", b"GET / HTTP/1.1\t\r\nHost: h\r\n\r\n", Refusal::RequestLine),
        ("A62", b"GET /\r\n", Refusal::RequestLine),
        ("A62", b"GET\r\n", Refusal::RequestLine),
        ("A62", b"GET / \r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTP\r\n", Refusal::RequestLine),
        ("A62", b"GET / http/1.1\r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTP/1\r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTP/1.10\r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTP/11\r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTPS/1.1\r\n", Refusal::RequestLine),
        ("A62", b"GET / HTTP/0.9\r\n", Refusal::Version),
        ("A62", b"GET / HTTP/1.2\r\n", Refusal::Version),
        ("A64", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version),
        ("A65", b"get / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"Get / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"pOST / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"G(ET / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"G\x01ET / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"GET\0 / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", b"G\xc3\x89T / HTTP/1.1\r\n", Refusal::MethodSyntax),
        ("A65", &[b'A'; 300], Refusal::MethodSyntax),
        ("A66", b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("A66", b"CONNECT /a HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("A66", b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("A66", b"TRACK / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("A100", b"\x16\x03\x01\x02\x00\x01\x00", Refusal::MethodSyntax),
        ("A100", b"220 mail.example ESMTP\r\n", Refusal::RequestLine),
        ("A100", b"EHLO mail.example\r\n", Refusal::RequestLine),
        ("A100", b"\0", Refusal::MethodSyntax),
        ("two empty lines", b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::RequestLine),
    ];
    for (case, bytes, expected) in rows {
        println!("{case}");
        refused(bytes, expected);
    }
}

#[test]
fn one_empty_line_before_the_request_is_passed_over() {
    let parsed = accepted("\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(parsed.head.target, "/x");
}

#[test]
fn methods_are_tokens_in_their_own_case() {
    for method in ["GET", "BREW", "M-SEARCH", "propfind", "query", "X!#$%&'*+-.^_`|~1"] {
        let parsed = accepted(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(parsed.head.method.as_str(), method);
    }
}

#[test]
fn targets_hold_no_byte_that_parsers_disagree_on() {
    for byte in 0..=255_u8 {
        let mut bytes = b"GET /a".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(b"b?c HTTP/1.1\r\nHost: h\r\n\r\n");
        match byte {
            b' ' | b'\r' | b'\n' => refused(bytes, Refusal::RequestLine),
            0..0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'\\' | b'#' => refused(bytes, Refusal::Target),
            _ => {
                assert_eq!(accepted(bytes).head.target, format!("/a{}b?c", char::from(byte)));
            }
        }
    }
}

#[test]
fn targets_have_one_of_the_four_forms() {
    let refused_targets = [
        "a/b",
        "@evil/",
        ":80/",
        "h:443",
        "*",
        "?a",
        ".",
        "",
        "http:/h/",
        "http:///a",
        "http://",
        "ftp://h/",
        "https://h/",
        "http://u@h/",
        "http://u:p@h/",
        "//h/",
        "urn:x",
    ];
    for target in refused_targets {
        match target {
            "//h/" => assert_eq!(accepted(get(target)).head.target, "//h/"),
            _ => refused(get(target), Refusal::Target),
        }
    }
    let rows = [
        ("http://h/a?b", Some("h"), "/a?b"),
        ("HTTP://H:80/a", Some("H:80"), "/a"),
        ("http://h", Some("h"), "/"),
        ("http://h?b", Some("h"), "/?b"),
        ("http://[::1]:8080/", Some("[::1]:8080"), "/"),
        ("http://h/@x", Some("h"), "/@x"),
        ("/a?b=http://c/", None, "/a?b=http://c/"),
        ("/?q=|{}^`[]", None, "/?q=|{}^`[]"),
    ];
    for (given, authority, target) in rows {
        let head = accepted(get(given)).head;
        assert_eq!((head.authority.as_deref(), head.target.as_str()), (authority, target));
    }
    let options = accepted("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(options.head.target, "*");
    let options = accepted("OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(options.head.target, "*");
    refused("OPTIONS *x HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::Target);
}

#[test]
fn host_stands_once() {
    refused("GET / HTTP/1.1\r\n\r\n", Refusal::Host);
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refusal::Host);
    refused("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refusal::Host);
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refusal::Host);
    accepted("GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn field_values_hold_no_control_bytes() {
    for byte in 0..=255_u8 {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\nX: a".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(b"b\r\n\r\n");
        if byte != b'\t' && byte.is_ascii_control() {
            refused(bytes, Refusal::FieldSyntax);
        } else {
            assert_eq!(accepted(bytes).head.headers["x"].as_bytes(), [b'a', byte, b'b']);
        }
    }
}

#[test]
fn only_blanks_and_tabs_are_trimmed() {
    let parsed = accepted(b"GET / HTTP/1.1\r\nHost: h\r\nX:\t \xa0v\xff\x85 \t\r\nY:\r\n\r\n");
    assert_eq!(parsed.head.headers["x"].as_bytes(), b"\xa0v\xff\x85");
    assert_eq!(parsed.head.headers["y"].as_bytes(), b"");
}

#[test]
fn field_names_are_tokens() {
    for line in [": x", "a b: x", "a\"b: x", "a(b): x", "no colon", "a\u{e9}: x", "a,b: x"] {
        refused(post(&format!("{line}\r\n")), Refusal::FieldSyntax);
    }
}

#[test]
fn lengths_and_codings_that_are_sound_are_read() {
    let rows = [
        ("", RequestFraming::None),
        ("Content-Length: 0\r\n", RequestFraming::Length(0)),
        ("Content-Length:\t5 \r\n", RequestFraming::Length(5)),
        ("Content-Length: 9223372036854775807\r\n", RequestFraming::Length(i64::MAX as u64)),
        ("Transfer-Encoding: chunked\t\r\n", RequestFraming::Chunked),
        ("TRANSFER-ENCODING: Chunked\r\n", RequestFraming::Chunked),
        ("Upgrade: foo\r\nContent-Length: 0\r\n", RequestFraming::Length(0)),
        ("Expect: 100-Continue\r\n", RequestFraming::None),
    ];
    for (fields, expected) in rows {
        assert_eq!(accepted(post(fields)).framing, expected, "{fields:?}");
    }
}

#[test]
fn the_connection_goes_on_as_both_agree() {
    let rows = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, expected) in rows {
        let parsed = accepted(format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n"));
        assert_eq!(parsed.keep_alive, expected, "{version} {fields:?}");
    }
}

#[test]
fn a_continue_is_awaited_only_for_a_body_in_http_1_1() {
    let fields = "Host: h\r\nExpect: 100-continue\r\n";
    let rows = [
        ("1.1", "Content-Length: 3\r\n", true),
        ("1.1", "Transfer-Encoding: chunked\r\n", true),
        ("1.1", "Content-Length: 0\r\n", false),
        ("1.1", "", false),
        ("1.0", "Content-Length: 3\r\n", false),
    ];
    for (version, more, expected) in rows {
        let parsed = accepted(format!("POST / HTTP/{version}\r\n{fields}{more}\r\n"));
        assert_eq!(parsed.expect_continue, expected, "{version} {more:?}");
    }
    let ignored = accepted("POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 3\r\n\r\n");
    assert!(!ignored.expect_continue);
}

/// A request whose head is charged exactly `size`: its bytes and 32 for each of its six fields.
fn head_of(size: usize) -> Vec<u8> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for name in ["a", "b", "c"] {
        bytes.extend_from_slice(format!("{name}: {}\r\n", "x".repeat(8000)).as_bytes());
    }
    let rest = size - bytes.len() - 6 * 32 - 2 * "a: \r\n".len();
    for part in [rest / 2, rest - rest / 2] {
        bytes.extend_from_slice(format!("d: {}\r\n", "x".repeat(part)).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn limits_hold_to_the_byte() {
    let line = |size: usize| post(&format!("X: {}\r\n", "x".repeat(size - 3)));
    accepted(line(8192));
    for size in [8193, 65_535, 65_536, 65_537] {
        refused(line(size), Refusal::FieldsTooLarge);
    }
    let cookie = |size: usize| post(&format!("Cookie: {}\r\n", "x".repeat(size - 8)));
    accepted(cookie(16 * 1024));
    refused(cookie(16 * 1024 + 1), Refusal::FieldsTooLarge);
    let two = |size: usize| post(&format!("Cookie: {0}\r\nCookie: {0}\r\n", "x".repeat(size - 8)));
    accepted(two(8 * 1024));
    refused(two(8 * 1024 + 1), Refusal::FieldsTooLarge);
    // The empty line at the end is not charged.
    accepted(head_of(32 * 1024));
    refused(head_of(32 * 1024 + 1), Refusal::FieldsTooLarge);
    accepted(post(&"a: b\r\n".repeat(99)));
    refused(post(&"a: b\r\n".repeat(100)), Refusal::FieldsTooLarge);
    let target = |size: usize| get(&format!("/{}", "x".repeat(size - 1)));
    accepted(target(8192));
    refused(target(8193), Refusal::TargetTooLong);
    refused(target(70_000), Refusal::TargetTooLong);
}

#[test]
fn limits_do_not_wait_for_the_end_of_the_line() {
    refused(format!("GET /{}", "x".repeat(9000)), Refusal::TargetTooLong);
    refused(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000)), Refusal::FieldsTooLarge);
    refused(format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(101)), Refusal::FieldsTooLarge);
}

#[test]
fn what_follows_the_head_stays_in_the_buffer() {
    let mut buffer = BytesMut::from(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /b"[..]);
    let parsed = parse_request(&mut buffer, Scheme::Http, &LIMITS).unwrap().unwrap();
    assert_eq!(parsed.head.version, Version::HTTP_11);
    assert_eq!(&buffer[..], b"GET /b");
    assert!(parse_request(&mut buffer, Scheme::Http, &LIMITS).unwrap().is_none());
}

fn response(bytes: &[u8], method: &Method) -> Result<ParsedResponse, &'static str> {
    let mut last = None;
    for size in cuts(bytes) {
        let mut parser = ResponseParser::default();
        let mut buffer = BytesMut::new();
        let mut outcome = Ok(None);
        for piece in bytes.chunks(size) {
            buffer.extend_from_slice(piece);
            outcome = parser.parse(&mut buffer, method, &LIMITS);
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        let outcome = outcome.map(|parsed| parsed.expect("complete"));
        if let Some(last) = &last {
            assert_eq!(format!("{last:?}"), format!("{outcome:?}"));
        }
        last = Some(outcome);
    }
    last.unwrap()
}

#[test]
fn responses_are_read_as_strictly() {
    let long = format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(65_536));
    let field = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let rows: [&[u8]; 36] = [
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 2OO Letters\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200\tOK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 O\x7fK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nX: y\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLocation: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 01\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 No\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        long.as_bytes(),
        field.as_bytes(),
        fields.as_bytes(),
    ];
    for bytes in rows {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert!(response(bytes, &Method::GET).is_err(), "{shown:?}");
    }
}

#[test]
fn response_bodies_end_as_rfc_9112_says() {
    use ResponseFraming::{Chunked, Close, Length, None};
    let rows: [(&str, &str, Method, ResponseFraming, bool); 19] = [
        ("1.1 200 OK", "Content-Length: 5", Method::GET, Length(5), true),
        ("1.1 200", "Content-Length: 5", Method::GET, Length(5), true),
        ("1.1 200 ", "Content-Length: 0", Method::GET, Length(0), true),
        ("1.1 200 \u{e9}", "Content-Length: 0", Method::GET, Length(0), true),
        ("1.1 200 OK", "Transfer-Encoding: chunked\t", Method::GET, Chunked, true),
        ("1.1 200 OK", "X: y", Method::GET, Close, false),
        ("1.1 200 OK", "Connection: keep-alive", Method::GET, Close, false),
        ("1.1 200 OK", "Content-Length: 5", Method::HEAD, None, true),
        ("1.1 200 OK", "Transfer-Encoding: chunked", Method::HEAD, None, true),
        ("1.1 200 OK", "X: y", Method::HEAD, None, true),
        ("1.1 204 No Content", "X: y", Method::GET, None, true),
        ("1.1 204 No Content", "Content-Length: 0", Method::GET, None, true),
        ("1.1 304 Not Modified", "Content-Length: 5", Method::GET, None, true),
        ("1.1 103 Early Hints", "Link: </a>", Method::GET, None, true),
        ("1.1 200 OK", "Content-Length: 5\r\nConnection: close", Method::GET, Length(5), false),
        ("1.0 200 OK", "Content-Length: 5", Method::GET, Length(5), false),
        ("1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive", Method::GET, Length(5), true),
        ("1.0 200 OK", "X: y", Method::GET, Close, false),
        ("1.1 999 Odd", "Content-Length: 5", Method::GET, Length(5), true),
    ];
    for (line, fields, method, framing, keep_alive) in rows {
        let parsed = response(format!("HTTP/{line}\r\n{fields}\r\n\r\n").as_bytes(), &method)
            .unwrap_or_else(|rule| panic!("{line}, {fields}: {rule}"));
        assert_eq!((parsed.framing, parsed.keep_alive), (framing, keep_alive), "{line}, {fields}");
    }
}

/// Data and what was left after the end, or the rule that was broken; the same for every cut.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ChunkError> {
    let mut last: Option<Result<_, _>> = None;
    for size in cuts(bytes) {
        let mut decoder = ChunkedDecoder::new(CHUNK_LIMITS);
        let mut buffer = BytesMut::new();
        let mut data = Vec::new();
        let mut outcome = Ok(None);
        'pieces: for piece in bytes.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Chunk::Data(piece)) => data.extend_from_slice(&piece),
                    Ok(Chunk::More | Chunk::End) => break,
                    Err(error) => {
                        outcome = Err(error);
                        break 'pieces;
                    }
                }
            }
        }
        if outcome.is_ok() && decoder.is_done() {
            outcome = Ok(Some((data, buffer.to_vec())));
        }
        if let Some(last) = &last {
            assert_eq!(*last, outcome, "cut by {size}");
        }
        last = Some(outcome);
    }
    last.unwrap()
}

#[test]
fn chunked_bodies_are_read_to_their_end_and_no_further() {
    let rows: [(&[u8], &[u8], &[u8]); 11] = [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
        (b"1\r\na\r\n2\r\nbc\r\n00\r\n\r\n", b"abc", b""),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x", b""),
        (b"1;a;b=c\r\nx\r\n0;d=\"e;f=,\xff\"\r\n\r\n", b"x", b""),
        (b"1 ; a = \"b\"\r\nx\r\n0\r\n\r\n", b"x", b""),
        (b"1\r\nx\r\n0\r\nTrailer: v\r\nOther:\r\n\r\nrest", b"x", b"rest"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", b""),
    ];
    for (bytes, data, rest) in rows {
        assert_eq!(chunked(bytes), Ok(Some((data.to_vec(), rest.to_vec()))), "{bytes:?}");
    }
}

#[test]
fn broken_chunks_are_refused() {
    let extensions = "1;".to_owned() + &"x".repeat(4096) + "\r\na\r\n0\r\n\r\n";
    let summed = format!("1;{}\r\na\r\n", "x".repeat(1400)).repeat(3);
    let zeros = "0".repeat(1000) + "5\r\nhello\r\n0\r\n\r\n";
    let rows: [(&str, &[u8]); 44] = [
        ("A36", b"5\nhello\r\n0\r\n\r\n"),
        ("A36", b"0\n\r\n"),
        ("A37", b"5\r\nhello\n0\r\n\r\n"),
        ("A38", b"5\r\nhello\r\n0\r\n\n"),
        ("A38", b"0\r\n\n"),
        ("A39", b"5;\nhello\r\n0\r\n\r\n"),
        ("A39", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("A40", b"5\r\r;a\r\nhello\r\n0\r\n\r\n"),
        ("A40", b"5;a\rX\r\nhello\r\n0\r\n\r\n"),
        ("A40", b"5\rhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"\\\"\"\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"\\a\"\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;=b\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;a=\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5;\r\nhello\r\n0\r\n\r\n"),
        ("A41", b"5 a\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"5_0\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"5g\r\nhello\r\n0\r\n\r\n"),
        ("A42", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("A42", b"5 \r\nhello\r\n0\r\n\r\n"),
        ("A42", b"5\t\r\nhello\r\n0\r\n\r\n"),
        ("A44", b"\r\nhello\r\n0\r\n\r\n"),
        ("A44", b";a\r\nhello\r\n0\r\n\r\n"),
        ("A45", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("A45", b"FFFFFFFFFFFFFFED\r\nhello\r\n0\r\n\r\n"),
        ("A45", b"8000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("A46", zeros.as_bytes()),
        ("A48", b"5\r\nhelloX\r\n0\r\n\r\n"),
        ("A48", b"5\r\nhello0\r\n\r\n"),
        ("A50", extensions.as_bytes()),
        ("A50", summed.as_bytes()),
        ("A54", b"0\r\nno colon\r\n\r\n"),
        ("A54", b"0\r\na: b\r\n c\r\n\r\n"),
        ("A54", b"0\r\na: \0\r\n\r\n"),
        ("A54", b"0\r\na : b\r\n\r\n"),
        ("A54", b"0\r\na: b\n\r\n"),
    ];
    for (case, bytes) in rows {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(chunked(bytes).is_err(), "{case}: {shown:?}");
    }
}

#[test]
fn trailers_are_bounded() {
    let many = |count: usize| format!("0\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert!(chunked(many(32).as_bytes()).unwrap().is_some());
    let error = chunked(many(33).as_bytes()).unwrap_err();
    assert_eq!(error.refusal(), Refusal::Trailers);
    let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(8192));
    assert_eq!(chunked(long.as_bytes()).unwrap_err().refusal(), Refusal::Trailers);
}

#[test]
fn tiny_chunks_are_gathered() {
    let mut buffer = BytesMut::from("1\r\nx\r\n".repeat(10_000).as_bytes());
    let mut decoder = ChunkedDecoder::new(CHUNK_LIMITS);
    let mut pieces = 0;
    let mut bytes = 0;
    while let Ok(Chunk::Data(piece)) = decoder.decode(&mut buffer) {
        pieces += 1;
        bytes += piece.len();
    }
    assert_eq!((pieces, bytes), (1, 10_000));
}

#[test]
fn a_length_is_read_to_its_end_and_no_further() {
    let mut buffer = BytesMut::from(&b"abcdef"[..]);
    let mut decoder = LengthDecoder::new(8);
    assert_eq!(decoder.decode(&mut buffer), Chunk::Data("abcdef".into()));
    assert_eq!(decoder.decode(&mut buffer), Chunk::More);
    buffer.extend_from_slice(b"ghi");
    assert_eq!(decoder.decode(&mut buffer), Chunk::Data("gh".into()));
    assert_eq!(decoder.decode(&mut buffer), Chunk::End);
    assert_eq!(&buffer[..], b"i");
}

#[test]
fn what_means_one_connection_goes_no_further() {
    let mut headers = accepted(post(
        "Connection: close, X-Forwarded-For, Via, Host, Cache-Control, TE\r\nConnection: x-more\r\n\
         X-Forwarded-For: a\r\nVia: b\r\nX-More: c\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
         TE: gzip, Trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTrailer: t\r\n\
         Cache-Control: private\r\nX-Kept: d\r\n",
    ))
    .head
    .headers;
    remove_hop_by_hop(&mut headers);
    let mut kept: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    kept.sort_unstable();
    let expected =
        [("cache-control", "private"), ("host", "h"), ("te", "trailers"), ("x-kept", "d")];
    assert_eq!(kept, expected);
    let mut headers = accepted(post("TE: chunked, gzip\r\n")).head.headers;
    remove_hop_by_hop(&mut headers);
    assert!(!headers.contains_key("te"));
}

#[test]
fn heads_are_written_with_our_framing_only() {
    let headers = accepted(post(
        "Content-Length: 99\r\nConnection: x\r\nExpect: 100-continue\r\nX: y\r\nTE: trailers\r\n",
    ))
    .head
    .headers;
    let mut out = BytesMut::new();
    encode_request(&Method::PUT, "/a?b", &headers, RequestFraming::Chunked, &mut out);
    let expected = "PUT /a?b HTTP/1.1\r\nhost: h\r\nx: y\r\nte: trailers\r\nconnection: te\r\n\
                    transfer-encoding: chunked\r\n\r\n";
    assert_eq!(out, expected);

    let rows = [
        (BodyFraming::None, true, Version::HTTP_11, ""),
        (BodyFraming::Length(12), true, Version::HTTP_11, "content-length: 12\r\n"),
        (BodyFraming::Chunked, true, Version::HTTP_11, "transfer-encoding: chunked\r\n"),
        (BodyFraming::Close, false, Version::HTTP_10, "connection: close\r\n"),
        (
            BodyFraming::Length(0),
            true,
            Version::HTTP_10,
            "content-length: 0\r\nconnection: keep-alive\r\n",
        ),
    ];
    for (framing, keep_alive, version, lines) in rows {
        let mut out = BytesMut::new();
        encode_response(version, StatusCode::NOT_FOUND, &headers, framing, keep_alive, &mut out);
        let expected = format!(
            "HTTP/1.1 404 Not Found\r\nhost: h\r\nexpect: 100-continue\r\nx: y\r\n{lines}\r\n"
        );
        assert_eq!(out, expected);
    }
}

#[test]
fn chunk_heads_are_hexadecimal() {
    for length in [1, 9, 15, 16, 17, 255, 256, 4096, 65_535, 65_536, usize::MAX] {
        let mut out = BytesMut::new();
        encode_chunk_head(length, &mut out);
        assert_eq!(out, format!("{length:x}\r\n"));
    }
}

/// Pieces from which heads that are nearly right are put together.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"POST /a?b HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"Host: h\r\n",
            b"OPTIONS * HTTP/1.1\r\n", b"GET http://h/x HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n",
            b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close, x\r\n",
            b"TE: trailers\r\n", b"Cookie: a=b\r\n", b"X: \xff\xa0 \r\n", b"Expect: 100-continue\r\n",
            b"Upgrade: h2c\r\n", b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"0\r\n\r\n",
            b"0\r\n", b"1\r\nx\r\n", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.1 103 Early Hints\r\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::sample::select(vec![
            &b"\r"[..], b"\n", b" ", b"\t", b":", b";", b"\0", b",", b"\"", b"/", b"\x80",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => (1..700_usize).prop_map(|size| vec![b'a'; size]),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn request_heads_mean_the_same_however_they_are_cut(bytes in fragments()) {
        check::request_head(&bytes);
    }

    #[test]
    fn response_heads_mean_the_same_however_they_are_cut(bytes in fragments()) {
        check::response_head(&bytes);
    }

    #[test]
    fn chunked_bodies_mean_the_same_however_they_are_cut(bytes in fragments()) {
        check::chunked(&bytes);
    }

    #[test]
    fn sound_requests_survive_encoding(
        target in "/[!$-;=?-Z^-~\\[\\]]{0,60}",
        names in prop::collection::vec("[a-zA-Z0-9-]{1,12}", 0..8),
        values in prop::collection::vec(prop::collection::vec(0x21..=0xff_u8, 0..20), 8),
    ) {
        let mut bytes = format!("POST {target} HTTP/1.1\r\nHost: h\r\n").into_bytes();
        for (name, value) in names.iter().zip(&values) {
            bytes.extend_from_slice(format!("X{name}: ").as_bytes());
            bytes.extend(value.iter().filter(|byte| **byte != 0x7f));
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        check::request_head(&bytes);
    }

    #[test]
    fn chunks_that_are_written_are_read_back(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..10),
    ) {
        let mut out = BytesMut::new();
        for piece in &pieces {
            encode_chunk_head(piece.len(), &mut out);
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(LAST_CHUNK);
        check::chunked(&out);
        prop_assert_eq!(chunked(&out), Ok(Some((pieces.concat(), Vec::new()))));
    }
}
