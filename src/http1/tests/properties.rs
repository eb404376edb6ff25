//! Properties of everything that is read.

use bytes::BytesMut;
use proptest::prelude::*;

use super::super::*;
use super::bodies::chunked;

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
