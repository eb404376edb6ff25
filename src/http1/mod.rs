//! HTTP/1.1 without I/O (RFC 9112): bytes in, heads and body pieces out, and back again. Strict.
//!
//! Framing is judged here, before anything could repair it. A message that two parsers might cut
//! differently is refused: bare LF, folded lines, blanks where none belong, two lengths, a length
//! beside a transfer coding, any coding but one `chunked`. What goes out is written anew from what
//! was understood, with the one framing field that we computed.
//!
//! The same bytes give the same outcome however they are cut up: every rule looks at the message
//! in order and decides at the first byte that breaks it, and a limit is judged as soon as it is
//! passed, not when the line ends. [`check`] states that and the other properties as functions
//! that the property tests and the fuzz targets share.
//!
//! ```text
//! request.rs   response.rs     first line, and what the fields say together
//!        fields.rs             field lines, limits, lengths and codings
//!        lines.rs              CRLF
//! chunked.rs                   bodies
//! encode.rs    hop_by_hop.rs   the way out
//! upgrade.rs                   another protocol on the same connection
//! ```

pub mod check;
mod chunked;
mod encode;
mod fields;
mod hop_by_hop;
mod lines;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod upgrade;

pub use chunked::{Chunk, ChunkError, ChunkLimits, ChunkedDecoder, LengthDecoder};
pub use encode::{
    BodyFraming, LAST_CHUNK, encode_chunk_head, encode_interim, encode_request, encode_response,
};
pub use fields::HeadLimits;
pub use hop_by_hop::{nominated, remove_hop_by_hop};
pub use request::{ParsedRequest, RequestFraming, RequestParser, parse_request};
pub use response::{ParsedResponse, ResponseFraming, ResponseParser, parse_response};
pub use upgrade::{encode_switching, encode_upgrade_request, is_protocol, upgrade_protocol};
