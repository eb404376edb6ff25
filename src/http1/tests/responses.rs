//! Response heads.

use bytes::BytesMut;
use http::Method;

use super::super::*;
use super::{LIMITS, cuts};

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
