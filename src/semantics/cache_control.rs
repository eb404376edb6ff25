//! `Cache-Control` of requests and responses (RFC 9111 section 5.2) and its targeted forms
//! (RFC 9213).
//!
//! `Cache-Control` is older than structured fields and is written by hand in countless servers, so
//! it is read tolerantly, and doubt always falls on the side of asking the origin again:
//!
//! - of two values of a directive the lesser counts; a value that is no number counts as 0;
//! - directives that forbid are found even in a damaged list, numbers only in a sound one;
//! - numbers above 2^31 are 2^31 (RFC 9111 section 1.2.2);
//! - a list longer than [`MOST_BYTES`] or [`MOST_DIRECTIVES`] counts as `no-store`.
//!
//! The targeted fields `Atoll-Cache-Control` and `CDN-Cache-Control` are structured fields: valid
//! or ignored. The first valid one replaces `Cache-Control` and `Expires` (RFC 9213 section 2.2).

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// Bytes of `Cache-Control` that are read.
const MOST_BYTES: usize = 64 * 1024;
/// Directives that are read.
const MOST_DIRECTIVES: usize = 1000;
/// Largest number of seconds (RFC 9111 section 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// Name of the field that speaks to atoll alone; removed from answers.
pub(super) const ATOLL_CACHE_CONTROL: HeaderName = HeaderName::from_static("atoll-cache-control");
/// Name of the field that speaks to every CDN (RFC 9213 section 3.1); passed on.
pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What a request asks of caches (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` without `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `max-stale`; without a value 2^31 seconds.
    pub max_stale: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `no-transform`.
    pub no_transform: bool,
}

impl RequestDirectives {
    /// Reads them from the fields of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if headers.contains_key(header::CACHE_CONTROL) {
            let whole = read(headers.get_all(header::CACHE_CONTROL).iter(), |directive| {
                found.apply(directive);
            });
            found.no_cache |= !whole;
        } else if headers.contains_key(header::PRAGMA) {
            read(headers.get_all(header::PRAGMA).iter(), |directive| {
                found.no_cache |= directive.is("no-cache");
            });
        }
        found
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        if directive.is("no-cache") {
            self.no_cache = true;
        } else if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("only-if-cached") {
            self.only_if_cached = true;
        } else if directive.is("no-transform") {
            self.no_transform = true;
        } else if directive.is("max-age") {
            self.max_age = least(self.max_age, directive.seconds());
        } else if directive.is("min-fresh") {
            // Here the greater number is the careful one.
            self.min_fresh = self.min_fresh.max(Some(directive.seconds()));
        } else if directive.is("max-stale") {
            let seconds = match directive.value {
                None => Duration::from_secs(MOST_SECONDS),
                Some(_) => directive.seconds(),
            };
            self.max_stale = least(self.max_stale, seconds);
        }
    }
}

/// Which field the directives of a response came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// `Cache-Control`, or none at all.
    #[default]
    CacheControl,
    /// `CDN-Cache-Control`.
    Cdn,
    /// `Atoll-Cache-Control`.
    Atoll,
}

/// What a response says to this cache (RFC 9111 section 5.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseDirectives {
    pub(super) source: Source,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    pub(super) no_store: bool,
    /// Without field names.
    pub(super) no_cache: bool,
    /// Without field names.
    pub(super) private: bool,
    /// Fields named by `no-cache` or `private`: not to be stored.
    pub(super) withheld: Vec<HeaderName>,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    /// Never changes while it is fresh (RFC 8246).
    pub(super) immutable: bool,
}

impl ResponseDirectives {
    /// Reads the field that counts for this cache.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        targeted(headers, &ATOLL_CACHE_CONTROL, Source::Atoll)
            .or_else(|| targeted(headers, &CDN_CACHE_CONTROL, Source::Cdn))
            .unwrap_or_else(|| Self::classic(headers))
    }

    fn classic(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let whole = read(headers.get_all(header::CACHE_CONTROL).iter(), |directive| {
            found.apply(directive);
        });
        found.no_store |= !whole;
        found
    }

    /// Whether a response to a request with `Authorization` may be shared (RFC 9111 section 3.5).
    pub(super) fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("no-cache") {
            self.no_cache |= !self.withhold(directive);
        } else if directive.is("private") {
            self.private |= !self.withhold(directive);
        } else if directive.is("must-revalidate") {
            self.must_revalidate = true;
        } else if directive.is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if directive.is("max-age") {
            self.max_age = least(self.max_age, directive.seconds());
        } else if directive.is("s-maxage") {
            self.s_maxage = least(self.s_maxage, directive.seconds());
        } else if directive.is("stale-while-revalidate") {
            self.stale_while_revalidate = least(self.stale_while_revalidate, directive.seconds());
        } else if directive.is("stale-if-error") {
            self.stale_if_error = least(self.stale_if_error, directive.seconds());
        } else if !directive.damaged && directive.is("public") {
            self.public = true;
        } else if !directive.damaged && directive.is("must-understand") {
            self.must_understand = true;
        } else if !directive.damaged && directive.is("immutable") {
            self.immutable = true;
        }
    }

    /// Notes the field names that a directive is limited to. `false` where it is not limited, or
    /// not in a way that can be trusted: then it holds for the whole response.
    fn withhold(&mut self, directive: &Directive<'_>) -> bool {
        match directive.value {
            Some(value) if !directive.damaged => self.withhold_names(&unquote(value)),
            _ => false,
        }
    }

    fn withhold_names(&mut self, list: &[u8]) -> bool {
        let before = self.withheld.len();
        for name in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(name) {
                Ok(name) => self.withheld.push(name),
                Err(_) => return false,
            }
        }
        self.withheld.len() > before
    }
}

/// Whether nobody on the way may change the body (RFC 9111 section 5.2.2.6). A targeted field cannot
/// take back what `Cache-Control` says to everyone, so all of them are heard.
pub(super) fn forbids_transform(headers: &HeaderMap) -> bool {
    [header::CACHE_CONTROL, CDN_CACHE_CONTROL, ATOLL_CACHE_CONTROL].iter().any(|name| {
        let mut found = false;
        let whole = read(headers.get_all(name).iter(), |directive| {
            found |= directive.is("no-transform");
        });
        found || !whole
    })
}

/// Directives of a targeted field; `None` where it is absent, empty or invalid.
fn targeted(headers: &HeaderMap, name: &HeaderName, source: Source) -> Option<ResponseDirectives> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let text = match lines.as_slice() {
        [] => return None,
        lines => lines.join(&b", "[..]),
    };
    if text.len() > MOST_BYTES {
        return None;
    }
    let members: Dictionary = Parser::new(&text).parse().ok()?;
    if members.is_empty() || members.len() > MOST_DIRECTIVES {
        return None;
    }
    let mut found = ResponseDirectives { source, ..ResponseDirectives::default() };
    for (key, member) in &members {
        found.apply_structured(key.as_str(), member)?;
    }
    Some(found)
}

impl ResponseDirectives {
    /// Applies one member. `None` where a directive that is known has a value of the wrong type:
    /// then the whole field is not to be trusted.
    fn apply_structured(&mut self, name: &str, member: &ListEntry) -> Option<()> {
        let item = match member {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        match name {
            "max-age" => self.max_age = Some(structured_seconds(item)?),
            "s-maxage" => self.s_maxage = Some(structured_seconds(item)?),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = Some(structured_seconds(item)?);
            }
            "stale-if-error" => self.stale_if_error = Some(structured_seconds(item)?),
            "no-cache" => match item {
                Some(BareItem::String(names)) if self.withhold_names(names.as_str().as_bytes()) => {
                }
                _ => self.no_cache = forbids(item),
            },
            "private" => match item {
                Some(BareItem::String(names)) if self.withhold_names(names.as_str().as_bytes()) => {
                }
                _ => self.private = forbids(item),
            },
            "no-store" => self.no_store = forbids(item),
            "must-revalidate" => self.must_revalidate = forbids(item),
            "proxy-revalidate" => self.proxy_revalidate = forbids(item),
            "public" => self.public = matches!(item, Some(BareItem::Boolean(true))),
            "must-understand" => {
                self.must_understand = matches!(item, Some(BareItem::Boolean(true)));
            }
            "immutable" => self.immutable = matches!(item, Some(BareItem::Boolean(true))),
            _ => {}
        }
        Some(())
    }
}

/// A directive that forbids does so with whatever value but an explicit "no".
fn forbids(item: Option<&BareItem>) -> bool {
    !matches!(item, Some(BareItem::Boolean(false)))
}

fn structured_seconds(item: Option<&BareItem>) -> Option<Duration> {
    match item {
        Some(BareItem::Integer(number)) => {
            let seconds = u64::try_from(i64::from(*number)).unwrap_or(0);
            Some(Duration::from_secs(seconds.min(MOST_SECONDS)))
        }
        _ => None,
    }
}

fn least(known: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(known.map_or(new, |known| known.min(new)))
}

/// One directive as it stands in a list.
struct Directive<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
    /// The list is broken around it: only what forbids may be believed.
    damaged: bool,
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Its value in seconds; 0 where that is not a plain number.
    fn seconds(&self) -> Duration {
        let value = match self.value {
            Some(value) if !self.damaged => unquote(value),
            _ => return Duration::ZERO,
        };
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Duration::ZERO;
        }
        let seconds = value
            .iter()
            .fold(0_u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS));
        Duration::from_secs(seconds)
    }
}

/// Content of a quoted-string, or the bytes themselves.
fn unquote(value: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.into();
    };
    if !inner.contains(&b'\\') {
        return inner.into();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        out.push(*byte);
    }
    out.into()
}

/// Hands every directive of the lines to `visit`. `false` where there were too many to read.
fn read<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
    mut visit: impl FnMut(&Directive<'_>),
) -> bool {
    let (mut bytes, mut directives) = (0, 0);
    for line in lines {
        bytes += line.len();
        if bytes > MOST_BYTES {
            return false;
        }
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (member, after, terminated) = split_member(rest, b',');
            rest = after;
            directives += 1;
            if directives > MOST_DIRECTIVES {
                return false;
            }
            if terminated {
                visit_member(member, &mut visit);
            } else {
                // A quote that is never closed: what follows may be anything.
                for piece in member.split(|byte| matches!(byte, b',' | b';' | b'"')) {
                    visit_piece(piece, true, &mut visit);
                }
            }
        }
    }
    true
}

/// The bytes before the first `separator` outside quotes, those after it, and whether every quote
/// was closed.
fn split_member(text: &[u8], separator: u8) -> (&[u8], &[u8], bool) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            escaped = *byte == b'\\';
            quoted = *byte != b'"';
        } else if *byte == b'"' {
            quoted = true;
        } else if *byte == separator {
            let (member, after) = text.split_at(at);
            return (member, after.get(1..).unwrap_or_default(), true);
        }
    }
    (text, &[], !quoted)
}

/// A member that holds `;` was meant as several directives by its author, but is one unknown
/// directive by the grammar: it is read for what it forbids.
fn visit_member(member: &[u8], visit: &mut impl FnMut(&Directive<'_>)) {
    let (first, mut rest, _) = split_member(member, b';');
    let damaged = first.len() < member.len();
    visit_piece(first, damaged, visit);
    while !rest.is_empty() {
        let (piece, after, _) = split_member(rest, b';');
        visit_piece(piece, true, visit);
        rest = after;
    }
}

fn visit_piece(piece: &[u8], damaged: bool, visit: &mut impl FnMut(&Directive<'_>)) {
    let piece = piece.trim_ascii();
    if piece.is_empty() {
        return;
    }
    let directive = match piece.iter().position(|byte| *byte == b'=') {
        None => Directive { name: piece, value: None, damaged },
        Some(at) => {
            let (name, value) = piece.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            // Blanks around `=` are not in the grammar: who ignores them, who does not?
            let blanks = name.trim_ascii().len() != name.len();
            Directive { name: name.trim_ascii(), value: Some(value), damaged: damaged || blanks }
        }
    };
    visit(&directive);
}

#[cfg(test)]
mod tests;
