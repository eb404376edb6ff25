//! How an act becomes a line, and how a line is known again.
//!
//! A line's hash is the SHA-256 of the line itself up to `,"hash":`, as it stands in the file. The
//! hash of the line before stands in it as `prev`, and so goes into the next one. No form of JSON has
//! to be agreed on for that: what was written is what is hashed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Act, Signature};
use crate::purge::Selector;
use crate::telemetry::rfc3339;

/// A SHA-256 in hexadecimal.
pub(super) type Hash = Box<str>;

/// What stands before a line's own hash.
const MARK: &str = ",\"hash\":\"";
/// Bytes of a line behind what is hashed.
const TAIL: usize = MARK.len() + 64 + 2;

/// The hash before the first line.
pub(super) fn genesis() -> Hash {
    "0".repeat(64).into_boxed_str()
}

/// Where a line stands in the chain.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) prev: Hash,
    /// Bytes before it that are no line: a write broke off there.
    pub(super) torn: u64,
    /// Acts before it whose lines could not be written.
    pub(super) missing: u64,
}

/// The line of an act, without its end, and its hash.
pub(super) fn encode(
    act: &Act,
    place: &Place,
    signature: &Signature,
) -> Result<(String, Hash), serde_json::Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        seq: u64,
        time: String,
        node: &'a str,
        incarnation: &'a str,
        #[serde(skip_serializing_if = "is_zero")]
        torn: u64,
        #[serde(skip_serializing_if = "is_zero")]
        missing: u64,
        act: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
        #[serde(skip_serializing_if = "Map::is_empty")]
        what: &'a Map<String, Value>,
        outcome: &'a str,
        prev: &'a str,
    }
    let mut text = serde_json::to_string(&Line {
        seq: place.seq,
        time: rfc3339(act.at),
        node: &signature.node,
        incarnation: &signature.incarnation,
        torn: place.torn,
        missing: place.missing,
        act: act.name,
        token: act.by.as_ref().map(|(token, _)| &**token),
        from: act.by.as_ref().map(|(_, address)| *address),
        what: &act.what,
        outcome: act.outcome,
        prev: &place.prev,
    })?;
    // The closing brace comes behind the hash.
    text.pop();
    let hash = hash(text.as_bytes());
    text.push_str(MARK);
    text.push_str(&hash);
    text.push_str("\"}");
    Ok((text, hash))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A line that is as it was written, by its own hash.
pub(super) fn decode(raw: &[u8]) -> Option<(Place, Hash)> {
    #[derive(Deserialize)]
    struct Line {
        seq: u64,
        prev: Hash,
        #[serde(default)]
        torn: u64,
        #[serde(default)]
        missing: u64,
        hash: Hash,
    }
    let hashed = raw.get(..raw.len().checked_sub(TAIL)?)?;
    let line: Line = serde_json::from_slice(raw).ok()?;
    let place = Place { seq: line.seq, prev: line.prev, torn: line.torn, missing: line.missing };
    let end = format!("{MARK}{}\"}}", line.hash);
    (raw.ends_with(end.as_bytes()) && hash(hashed) == line.hash).then_some((place, line.hash))
}

fn hash(bytes: &[u8]) -> Hash {
    use std::fmt::Write as _;
    let digest = digest::digest(&digest::SHA256, bytes);
    let text = digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.into_boxed_str()
}

/// Selectors that are about the same sites, in the words of a purge request. Sent to each of the
/// sites they come to the very same selectors, whoever sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// The sites; none for everything of all sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Arc<str>>,
    /// URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Hosts with the beginning of a path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Patterns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<String>,
    /// Everything of the sites.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Part {
    fn add(&mut self, kind: &str, text: String) {
        match kind {
            "url" => self.urls.push(format!("http://{text}")),
            "tag" => self.tags.push(text),
            "prefix" => self.prefixes.push(text),
            "host" => self.hosts.push(text),
            "glob" => self.globs.push(text),
            _ => self.all = true,
        }
    }
}

/// The selectors of a purge, told once for all the sites that they are about.
#[must_use]
pub fn parts(selectors: &[Selector]) -> Vec<Part> {
    let mut order: Vec<(&'static str, String, Vec<Arc<str>>)> = Vec::new();
    let mut known: HashMap<(&'static str, String), usize> = HashMap::new();
    for selector in selectors {
        let whole = matches!(selector, Selector::Site { .. } | Selector::All);
        let text = if whole { String::new() } else { selector.text() };
        let at = *known.entry((selector.kind(), text)).or_insert_with_key(|(kind, text)| {
            order.push((kind, text.clone(), Vec::new()));
            order.len() - 1
        });
        if let (Some((_, _, sites)), Some(site)) = (order.get_mut(at), selector.site()) {
            sites.push(Arc::clone(site));
        }
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut places: HashMap<(Vec<Arc<str>>, bool), usize> = HashMap::new();
    for (kind, text, sites) in order {
        // Everything stands without other selectors.
        let group = (sites, matches!(kind, "site" | "all"));
        let at = *places.entry(group).or_insert_with_key(|(sites, _)| {
            parts.push(Part { sites: sites.clone(), ..Part::default() });
            parts.len() - 1
        });
        if let Some(part) = parts.get_mut(at) {
            part.add(kind, text);
        }
    }
    parts
}
