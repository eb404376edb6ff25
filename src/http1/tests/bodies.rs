//! Chunked and plain bodies.

use bytes::BytesMut;

use super::super::*;
use super::{CHUNK_LIMITS, cuts};
use crate::message::Refusal;

/// Data of a body and what was left in the buffer after its end.
type DataAndRest = (Vec<u8>, Vec<u8>);

/// Data and what was left after the end, or the rule that was broken; the same for every cut.
pub(super) fn chunked(bytes: &[u8]) -> Result<Option<DataAndRest>, ChunkError> {
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
