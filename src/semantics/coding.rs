//! Content codings made at the edge: which stored responses are coded, which coding a client gets,
//! and under which entity tag (RFC 9110 sections 8.4, 8.8.3.3 and 12.5.3).
//!
//! The origin's bytes are stored as they came; a coded copy is a sibling beside them, made once and
//! off the request path. Until it is there the client gets the origin's bytes: any client reads
//! those, and nobody waits for a compressor.
//!
//! ```text
//! stored "abc"    text, nothing coded          -> to all who want it so, and while there is no sibling
//!   sibling zstd  "abc-zstd.5d0c2f1e77a90b34"  -> to who ranks zstd highest
//!   sibling br    "abc-br.93ab10c4de01f2a7"
//! ```
//!
//! **The tag of a sibling** is the origin's, the coding's name and a print of the coded bytes. With
//! the print a strong tag stays strong: another version of a compressor, after an upgrade or on
//! another node, may make other bytes of the same text, and ranges of the two must never be joined.
//! A weak tag stays weak. In `If-None-Match`, where comparison is weak and equal text is enough,
//! any print of a coding that the client accepts will do. The form is odd enough that no origin's
//! own tag (Apache writes `-gzip`) is mistaken for one of ours; so on the way to the origin a tag
//! can be turned back into the origin's.
//!
//! **`If-Range` with a date** cannot tell one coding from another, as `Last-Modified` is the same
//! for all: it gets the whole.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use crate::semantics::cache_control::forbids_transform;
use crate::semantics::conditional::{entity_tags, opaque, weakly_equal};
use crate::semantics::normalise::Request;
use crate::semantics::vary::weight;

/// A content coding that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

/// How many there are.
const CODINGS: usize = 3;

impl Coding {
    /// Every one.
    pub const ALL: [Self; CODINGS] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Name in `Content-Encoding`, configuration and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Number of the sibling in the store.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Zstd => 0,
            Self::Br => 1,
            Self::Gzip => 2,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        // `x-gzip` is an old name of the same (RFC 9110 section 8.4.1.3).
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
    }
}

/// What an operator decided about coding at the edge. Part of the policy of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Compression {
    /// Codings that are made, by our preference among those that a client ranks equal. None: off.
    pub codings: Vec<Coding>,
    /// Media types that are worth it.
    pub types: Vec<TypePattern>,
    /// Least body in bytes.
    pub from_bytes: u64,
    /// Largest body in bytes.
    pub up_to_bytes: u64,
}

/// Types of text that are not below `text/`, and those that are.
const TEXT_TYPES: [&str; 11] = [
    "text/*",
    "+json",
    "+xml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "application/vnd.apple.mpegurl",
    "application/wasm",
];

impl Default for Compression {
    fn default() -> Self {
        let types = TEXT_TYPES.iter().filter_map(|text| TypePattern::parse(text)).collect();
        Self { codings: Vec::new(), types, from_bytes: 1024, up_to_bytes: 8 * 1024 * 1024 }
    }
}

impl Compression {
    /// Whether nothing is coded here.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.codings.is_empty()
    }

    fn covers(&self, content_type: &HeaderValue) -> bool {
        let essence = content_type.as_bytes().split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        self.types.iter().any(|pattern| pattern.matches(essence))
    }
}

/// Media types by name, in lower case: one, all of a kind, all with a suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// `application/json`.
    One(Box<str>),
    /// `text/*`, kept as `text/`.
    Kind(Box<str>),
    /// `+json` (RFC 6839).
    Suffix(Box<str>),
}

impl TypePattern {
    /// Reads `type/subtype`, `type/*` or `+suffix`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = |text: &str| {
            let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
            !text.is_empty() && text.bytes().all(byte)
        };
        let text = text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix('+') {
            return is_token(suffix).then(|| Self::Suffix(text.as_str().into()));
        }
        let (kind, subtype) = text.split_once('/')?;
        match subtype {
            "*" if is_token(kind) => Some(Self::Kind(text.strip_suffix('*')?.into())),
            _ if is_token(kind) && is_token(subtype) => Some(Self::One(text.into())),
            _ => None,
        }
    }

    fn matches(&self, essence: &[u8]) -> bool {
        let (part, pattern) = match self {
            Self::One(name) => (Some(essence), name),
            Self::Kind(kind) => (essence.get(..kind.len()), kind),
            Self::Suffix(suffix) => {
                (essence.len().checked_sub(suffix.len()).and_then(|at| essence.get(at..)), suffix)
            }
        };
        part.is_some_and(|part| part.eq_ignore_ascii_case(pattern.as_bytes()))
    }
}

/// Fields that speak of the very bytes they came with: beside other bytes they would be wrong, and
/// without them the answer would lack what the origin meant to prove.
const BOUND_TO_BYTES: [&str; 7] = [
    "content-range",
    "content-md5",
    "content-digest",
    "repr-digest",
    "digest",
    "signature",
    "signature-input",
];

/// Whether codings of a complete response may be made; so whether answers for its URL differ by
/// `Accept-Encoding`. `length` is `None` while it is not known.
#[must_use]
pub fn may_be_coded(
    status: StatusCode,
    fields: &HeaderMap,
    length: Option<u64>,
    policy: &Compression,
) -> bool {
    if policy.is_off() || status != StatusCode::OK {
        return false;
    }
    let mut types = fields.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        return false;
    };
    length.is_none_or(|length| (policy.from_bytes..=policy.up_to_bytes).contains(&length))
        && policy.covers(content_type)
        && is_uncoded(fields)
        && !BOUND_TO_BYTES.iter().any(|name| fields.contains_key(*name))
        && fields.get(header::ETAG).is_none_or(|etag| is_entity_tag(etag.as_bytes()))
        && !forbids_transform(fields)
}

fn is_uncoded(fields: &HeaderMap) -> bool {
    fields.get_all(header::CONTENT_ENCODING).iter().all(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.all(|name| name.is_empty() || name.eq_ignore_ascii_case(b"identity"))
    })
}

/// Whether it has the form of RFC 9110 section 8.8.3: nothing can be written into another.
fn is_entity_tag(tag: &[u8]) -> bool {
    let inner = opaque(tag).strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(|inner| !inner.contains(&b'"'))
}

/// What a client may get of a response that may be coded.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiation {
    /// Codings that it would rather have than the bytes as stored, best first.
    pub wanted: SmallVec<[Coding; CODINGS]>,
    /// What it says that it has.
    pub known: Known,
    /// Its `If-Range` is a date, which all codings share: no part may be sent.
    pub whole_only: bool,
}

/// What a client says that it has, and may keep: then that is what it gets, as a 304.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Nothing of this response.
    Nothing,
    /// The bytes as stored.
    Identity,
    /// A coding, under this tag.
    Coded(HeaderValue),
}

/// Negotiates over a response with these fields; `None` where it is never coded.
#[must_use]
pub fn negotiate(
    request: &Request,
    status: StatusCode,
    fields: &HeaderMap,
    length: Option<u64>,
    policy: &Compression,
) -> Option<Negotiation> {
    if !may_be_coded(status, fields, length, policy) {
        return None;
    }
    let weights = Weights::of(&request.headers);
    let wanted = match request.directives.no_transform {
        true => SmallVec::new(),
        false => weights.preferred(&policy.codings),
    };
    let date_condition = request
        .headers
        .get(header::IF_RANGE)
        .is_some_and(|condition| !condition.as_bytes().contains(&b'"'));
    Some(Negotiation {
        wanted,
        known: known(request, fields, &weights),
        whole_only: date_condition && request.has_range(),
    })
}

fn known(request: &Request, fields: &HeaderMap, weights: &Weights) -> Known {
    let Some(etag) = fields.get(header::ETAG).map(HeaderValue::as_bytes) else {
        return Known::Nothing;
    };
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Known::Nothing;
    }
    let mut known = Known::Nothing;
    for line in request.headers.get_all(header::IF_NONE_MATCH) {
        for tag in entity_tags(line.as_bytes()) {
            if weakly_equal(tag, etag) && weights.identity != Some(0) {
                known = Known::Identity;
            }
            // A cache behind us may have both, and a client of its own that wants it coded.
            let ours = CodedTag::parse(tag)
                .filter(|ours| ours.is_of(etag) && weights.of_coding(ours.coding) > 0)
                .and_then(|_| HeaderValue::from_bytes(tag).ok());
            if let Some(tag) = ours {
                return Known::Coded(tag);
            }
        }
    }
    known
}

/// `Accept-Encoding` in thousandths (RFC 9110 section 12.5.3).
///
/// Without the field, or in doubt, the bytes go as they are stored: every client reads those. Of
/// a coding named twice the lesser weight counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    codings: [Option<u16>; CODINGS],
    /// `None` where nothing is said of it: acceptable, and liked less than any coding named.
    identity: Option<u16>,
}

/// Members of `Accept-Encoding` that are read; a longer list is no preference of anybody.
const MOST_MEMBERS: usize = 32;

impl Weights {
    fn of(request: &HeaderMap) -> Self {
        let mut found = Self::default();
        let (mut any, mut members) = (None, 0);
        for line in request.get_all(header::ACCEPT_ENCODING) {
            for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if member.is_empty() {
                    continue;
                }
                members += 1;
                if members > MOST_MEMBERS {
                    return Self::default();
                }
                let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let name = parts.next().unwrap_or_default();
                let weight = match (parts.next(), parts.next()) {
                    (None, _) => 1000,
                    (Some(parameter), None) => weight(parameter).unwrap_or(0),
                    (Some(_), Some(_)) => 0,
                };
                if let Some(place) = found.place(name, &mut any) {
                    *place = Some(place.map_or(weight, |known| known.min(weight)));
                }
            }
        }
        // `*` stands for whatever is not named, identity included.
        for place in &mut found.codings {
            *place = place.or(any);
        }
        found.identity = found.identity.or(any);
        found
    }

    fn place<'a>(
        &'a mut self,
        name: &[u8],
        any: &'a mut Option<u16>,
    ) -> Option<&'a mut Option<u16>> {
        if name == b"*" {
            return Some(any);
        }
        if name.eq_ignore_ascii_case(b"identity") {
            return Some(&mut self.identity);
        }
        self.codings.get_mut(usize::from(Coding::named(name)?.number()))
    }

    fn of_coding(&self, coding: Coding) -> u16 {
        self.codings.get(usize::from(coding.number())).copied().flatten().unwrap_or(0)
    }

    /// Those of `ours` that are acceptable and liked no less than identity, best first.
    fn preferred(&self, ours: &[Coding]) -> SmallVec<[Coding; CODINGS]> {
        let least = self.identity.unwrap_or(0).max(1);
        let liked = |coding: &Coding| self.of_coding(*coding) >= least;
        let mut wanted: SmallVec<[Coding; CODINGS]> = ours.iter().copied().filter(liked).collect();
        wanted.sort_by_key(|coding| std::cmp::Reverse(self.of_coding(*coding)));
        wanted
    }
}

/// Print of coded bytes.
pub type Print = [u8; 8];

/// An entity tag of ours, taken apart.
struct CodedTag<'a> {
    /// The origin's tag without its closing quote.
    open: &'a [u8],
    coding: Coding,
}

impl<'a> CodedTag<'a> {
    fn parse(tag: &'a [u8]) -> Option<Self> {
        if !is_entity_tag(tag) {
            return None;
        }
        let inner = tag.strip_suffix(b"\"")?;
        let at = inner.len().checked_sub(2 * size_of::<Print>())?;
        let (rest, print) = inner.split_at_checked(at)?;
        let is_print = print.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let rest = rest.strip_suffix(b".").filter(|_| is_print)?;
        Coding::ALL.into_iter().find_map(|coding| {
            let open = rest.strip_suffix(coding.name().as_bytes())?.strip_suffix(b"-")?;
            opaque(open).starts_with(b"\"").then_some(Self { open, coding })
        })
    }

    fn is_of(&self, etag: &[u8]) -> bool {
        opaque(etag).strip_suffix(b"\"") == Some(opaque(self.open))
    }

    fn origins(&self) -> Vec<u8> {
        let mut tag = self.open.to_vec();
        tag.push(b'"');
        tag
    }
}

/// Fields of the sibling of a response with the fields `stored`.
#[must_use]
pub fn coded_fields(stored: &HeaderMap, coding: Coding, print: Print) -> HeaderMap {
    let mut fields = stored.clone();
    fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    if let Some(etag) = fields.remove(header::ETAG)
        && let Some(tag) = coded_tag(&etag, coding, print)
    {
        fields.insert(header::ETAG, tag);
    }
    fields
}

fn coded_tag(etag: &HeaderValue, coding: Coding, print: Print) -> Option<HeaderValue> {
    let open = etag.as_bytes().strip_suffix(b"\"")?;
    let print = u64::from_be_bytes(print);
    let end = format!("-{}.{print:016x}\"", coding.name());
    HeaderValue::from_bytes(&[open, end.as_bytes()].concat()).ok()
}

/// Notes that answers differ by `Accept-Encoding`, once.
pub fn add_vary(fields: &mut HeaderMap) {
    let members = |line: &HeaderValue| {
        line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|name| {
            name == b"*" || name.eq_ignore_ascii_case(header::ACCEPT_ENCODING.as_str().as_bytes())
        })
    };
    if fields.get_all(header::VARY).iter().any(members) {
        return;
    }
    let lines: Vec<&[u8]> = fields
        .get_all(header::VARY)
        .iter()
        .map(HeaderValue::as_bytes)
        .chain([&b"Accept-Encoding"[..]])
        .filter(|line| !line.trim_ascii().is_empty())
        .collect();
    if let Ok(value) = HeaderValue::from_bytes(&lines.join(&b", "[..])) {
        fields.insert(header::VARY, value);
    }
}

/// Turns tags of ours in the conditions of a request that goes to the origin back into the
/// origin's own. `If-Range` stays: the origin must not send parts of other bytes for it.
pub fn conditions_of_origin(fields: &mut HeaderMap) {
    for name in [header::IF_NONE_MATCH, header::IF_MATCH] {
        let ours = |line: &HeaderValue| {
            entity_tags(line.as_bytes()).any(|tag| CodedTag::parse(tag).is_some())
        };
        if !fields.get_all(&name).iter().any(ours) {
            continue;
        }
        let lines: Vec<HeaderValue> = fields.get_all(&name).iter().map(origins_line).collect();
        fields.remove(&name);
        for line in lines {
            fields.append(name.clone(), line);
        }
    }
}

fn origins_line(line: &HeaderValue) -> HeaderValue {
    let tags: Vec<Vec<u8>> = entity_tags(line.as_bytes())
        .map(|tag| CodedTag::parse(tag).map_or_else(|| tag.to_vec(), |ours| ours.origins()))
        .collect();
    // A line without a tag is `*`, or something that the origin may make sense of.
    match HeaderValue::from_bytes(&tags.join(&b", "[..])) {
        Ok(value) if !tags.is_empty() => value,
        _ => line.clone(),
    }
}

/// What an answer of the origin to a request whose conditions were turned back must say to the
/// client: which of its copies a 304 means, and that answers differ.
pub fn relayed(
    request: &HeaderMap,
    status: StatusCode,
    fields: &mut HeaderMap,
    length: Option<u64>,
    policy: &Compression,
) {
    if status == StatusCode::NOT_MODIFIED {
        if let Some(tag) = confirmed_copy(request, fields) {
            fields.insert(header::ETAG, tag);
            add_vary(fields);
        }
    } else if may_be_coded(status, fields, length, policy) {
        add_vary(fields);
    }
}

/// The tag of the coded copy that a 304 with the origin's tag confirms, where the client has no
/// other.
fn confirmed_copy(request: &HeaderMap, not_modified: &HeaderMap) -> Option<HeaderValue> {
    let etag = not_modified.get(header::ETAG)?.as_bytes();
    let mut copy = None;
    for line in request.get_all(header::IF_NONE_MATCH) {
        for tag in entity_tags(line.as_bytes()) {
            if weakly_equal(tag, etag) {
                return None;
            }
            if copy.is_none() && CodedTag::parse(tag).is_some_and(|ours| ours.is_of(etag)) {
                copy = HeaderValue::from_bytes(tag).ok();
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests;
