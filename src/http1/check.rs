//! Properties that hold for every input. The property tests and the fuzz targets call these
//! functions; each panics when its property does not hold.

use bytes::BytesMut;
use http::Method;

use super::{
    Chunk, ChunkLimits, ChunkedDecoder, HeadLimits, ParsedRequest, ParsedResponse, RequestFraming,
    RequestParser, ResponseParser, encode_interim, encode_request, parse_request, parse_response,
    remove_hop_by_hop,
};
use crate::message::{Refusal, Scheme};

/// Small enough that arbitrary input reaches them.
const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 2048,
    field_bytes: 512,
    cookie_bytes: 1024,
    fields: 24,
    target_bytes: 256,
};

const ROOMY: HeadLimits = HeadLimits {
    head_bytes: 1 << 20,
    field_bytes: 1 << 16,
    cookie_bytes: 1 << 16,
    fields: 1000,
    target_bytes: 1 << 16,
};

const CHUNK_LIMITS: ChunkLimits =
    ChunkLimits { extension_bytes: 64, trailer_bytes: 256, trailer_fields: 4 };

/// What came of a message fed in pieces, and what was left over.
type Outcome<T, E> = (Result<Option<T>, E>, Vec<u8>);

/// A request head means the same however it is cut up; and what we would send to an origin for it
/// is read back as the same request, with one framing field.
pub fn request_head(bytes: &[u8]) {
    for scheme in [Scheme::Http, Scheme::Https] {
        let whole = feed_request(bytes, bytes.len().max(1), scheme);
        for size in [1, 2, 3, 7] {
            let pieces = feed_request(bytes, size, scheme);
            assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "pieces of {size}");
        }
        if let (Ok(Some(parsed)), _) = whole {
            request_survives_encoding(parsed);
        }
    }
}

/// A response head means the same however it is cut up; and what we would send on of it is read
/// back with the same fields.
pub fn response_head(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = feed_response(bytes, bytes.len().max(1), &method);
        for size in [1, 2, 3, 7] {
            let pieces = feed_response(bytes, size, &method);
            assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "pieces of {size}");
        }
        if let (Ok(Some(parsed)), _) = whole {
            response_survives_encoding(parsed);
        }
    }
}

/// A chunked body means the same however it is cut up.
pub fn chunked(bytes: &[u8]) {
    let whole = feed_chunked(bytes, bytes.len().max(1));
    for size in [1, 2, 3, 7] {
        assert_eq!(whole, feed_chunked(bytes, size), "pieces of {size}");
    }
}

fn feed_request(bytes: &[u8], size: usize, scheme: Scheme) -> Outcome<ParsedRequest, Refusal> {
    let mut parser = RequestParser::default();
    let mut buffer = BytesMut::new();
    let mut result = Ok(None);
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        if let Ok(None) = result {
            result = parser.parse(&mut buffer, scheme, &LIMITS);
            // A parser without memory of what it has seen says the same.
            if let Ok(None) = result {
                assert!(matches!(parse_request(&mut buffer.clone(), scheme, &LIMITS), Ok(None)));
            }
        }
    }
    (result, buffer.to_vec())
}

fn feed_response(
    bytes: &[u8],
    size: usize,
    method: &Method,
) -> Outcome<ParsedResponse, &'static str> {
    let mut parser = ResponseParser::default();
    let mut buffer = BytesMut::new();
    let mut result = Ok(None);
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        if let Ok(None) = result {
            result = parser.parse(&mut buffer, method, &LIMITS);
        }
    }
    (result, buffer.to_vec())
}

/// Data, whether the end came or which rule was broken, and what was left over after the end.
type Body = (Vec<u8>, Result<Option<Vec<u8>>, &'static str>);

fn feed_chunked(bytes: &[u8], size: usize) -> Body {
    let mut decoder = ChunkedDecoder::new(CHUNK_LIMITS);
    let mut buffer = BytesMut::new();
    let mut data = Vec::new();
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Chunk::Data(piece)) => {
                    assert!(!piece.is_empty());
                    data.extend_from_slice(&piece);
                }
                Ok(Chunk::More | Chunk::End) => break,
                Err(error) => return (data, Err(error.rule())),
            }
        }
    }
    let end = decoder.is_done().then(|| buffer.to_vec());
    (data, Ok(end))
}

fn request_survives_encoding(parsed: ParsedRequest) {
    let mut head = parsed.head;
    if !head.headers.contains_key(http::header::HOST) {
        return;
    }
    remove_hop_by_hop(&mut head.headers);
    let mut sent = BytesMut::new();
    encode_request(&head.method, &head.target, &head.headers, parsed.framing, &mut sent);
    let first = sent.clone();
    let again = parse_request(&mut sent, head.scheme, &ROOMY);
    let Ok(Some(mut again)) = again else {
        unreachable!("not read back: {again:?} from {first:?}");
    };
    assert!(sent.is_empty());
    assert_eq!((&again.head.method, &again.head.target), (&head.method, &head.target));
    assert_eq!(again.framing, parsed.framing);
    let lines = again.head.headers.get_all(http::header::CONTENT_LENGTH).iter().count()
        + again.head.headers.get_all(http::header::TRANSFER_ENCODING).iter().count();
    assert_eq!(lines, usize::from(parsed.framing != RequestFraming::None));
    remove_hop_by_hop(&mut again.head.headers);
    encode_request(
        &again.head.method,
        &again.head.target,
        &again.head.headers,
        again.framing,
        &mut sent,
    );
    assert_eq!(first, sent);
}

fn response_survives_encoding(parsed: ParsedResponse) {
    let mut head = parsed.head;
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(http::header::CONTENT_LENGTH);
    let mut sent = BytesMut::new();
    encode_interim(&head, &mut sent);
    let again = parse_response(&mut sent, &Method::GET, &ROOMY);
    let Ok(Some(again)) = again else {
        unreachable!("not read back: {again:?}");
    };
    assert!(sent.is_empty());
    assert_eq!(again.head.status, head.status);
    assert_eq!(again.head.headers, head.headers);
}
