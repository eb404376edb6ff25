//! What goes out, and what does not.

use bytes::BytesMut;
use http::{Method, StatusCode, Version};

use super::super::*;
use super::requests::{accepted, post};
use crate::message::{Added, Fields};

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
        encode_response(
            version,
            StatusCode::NOT_FOUND,
            (None, &headers),
            framing,
            keep_alive,
            &mut out,
        );
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

#[test]
fn fields_at_rest_are_written_like_others_and_before_them() {
    let map = |fields: &[(&'static str, &'static str)]| {
        fields
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect::<http::HeaderMap>()
    };
    let stored = map(&[
        ("date", "today"),
        ("x-own", "1"),
        ("connection", "close"),
        ("te", "trailers"),
        ("http2-settings", "a"),
        ("etag", ""),
    ]);
    let own = map(&[("x-more", "6"), ("upgrade", "x")]);
    let mut added = Added::default();
    added.add(&http::header::AGE, |out| out.push('5'));
    let mut both = stored.clone();
    both.extend(added.fields());
    both.extend(own.clone());
    let write = |fields: (Option<&(Fields, Added)>, &http::HeaderMap)| {
        let mut out = BytesMut::new();
        let length = BodyFraming::Length(3);
        encode_response(Version::HTTP_11, StatusCode::OK, fields, length, true, &mut out);
        out
    };
    let stored = (Fields::of(&stored), added);
    assert_eq!(write((Some(&stored), &own)), write((None, &both)));
    assert!(
        write((Some(&stored), &own)).starts_with(b"HTTP/1.1 200 OK\r\ndate: today\r\nx-own: 1\r\n")
    );
}
