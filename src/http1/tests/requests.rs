//! Request heads.

use bytes::BytesMut;
use http::Version;

use super::super::*;
use super::{LIMITS, cuts};
use crate::message::{Refusal, Scheme};

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

pub(super) fn refused(bytes: impl AsRef<[u8]>, expected: Refusal) {
    let bytes = bytes.as_ref();
    for size in cuts(bytes) {
        let outcome = request(bytes, size).map(|parsed| parsed.is_some());
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert_eq!(outcome, Err(expected), "cut by {size}: {shown:?}");
    }
}

pub(super) fn accepted(bytes: impl AsRef<[u8]>) -> ParsedRequest {
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

pub(super) fn post(fields: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()
}

pub(super) fn get(target: &str) -> Vec<u8> {
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

#[test]
fn what_follows_the_head_stays_in_the_buffer() {
    let mut buffer = BytesMut::from(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /b"[..]);
    let parsed = parse_request(&mut buffer, Scheme::Http, &LIMITS).unwrap().unwrap();
    assert_eq!(parsed.head.version, Version::HTTP_11);
    assert_eq!(&buffer[..], b"GET /b");
    assert!(parse_request(&mut buffer, Scheme::Http, &LIMITS).unwrap().is_none());
}
