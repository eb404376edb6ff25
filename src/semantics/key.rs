//! What identifies a stored response: the cache key, and a hash for each variant under it.
//!
//! A key is a row of parts, each behind its length, so that no part can pretend to be the end of
//! another. The URL is chosen by strangers, hence the hash is keyed and the row itself is kept and
//! compared: two keys that collide are still two keys.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::message::Scheme;
use crate::semantics::normalise::Request;
use crate::semantics::policy::Policy;

/// Secret of the keyed hash; random at start, never shown.
#[derive(Clone, Copy)]
pub struct KeySecret(pub [u64; 2]);

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("KeySecret(..)")
    }
}

impl KeySecret {
    /// Keyed 128-bit hash of `parts`, each behind its length.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> u128 {
        let [first, second] = self.0;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// Hash by which requests of a kind find the same server: of `parts`, each behind its length, and
/// alike on all nodes and after every start. It is no secret, so whoever chooses URLs can choose
/// a server too; the bound on each server's load is the answer to that, not the hash.
#[must_use]
pub fn affinity(parts: &[&[u8]]) -> u64 {
    let hash = KeySecret([0x6174_6F6C_6C20_6166, 0x6669_6E69_7479_2031]).hash(parts);
    u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default()
}

/// What identifies a stored response before `Vary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// Keyed hash of `parts`.
    pub hash: u128,
    /// Site, scheme, host, port, path, query and what policy adds, each behind its length.
    pub parts: Box<[u8]>,
}

impl CacheKey {
    /// The key of `request` within `site`, to which the key policy has been applied
    /// ([`crate::semantics::apply_key_policy`]). The method is not in it: HEAD is answered from GET.
    #[must_use]
    pub fn of(secret: KeySecret, site: &str, request: &Request, policy: &Policy) -> Self {
        let query = request.query.as_deref();
        let text = site.len() + request.host.len() + request.path.len() + query.map_or(0, str::len);
        let mut parts = Vec::with_capacity(text + 7 * 4 + 2 + 1 + request.scheme.as_str().len());
        push(&mut parts, site.as_bytes());
        push(&mut parts, request.scheme.as_str().as_bytes());
        push(&mut parts, request.host.as_bytes());
        push(&mut parts, &request.port.to_le_bytes());
        push(&mut parts, request.path.as_bytes());
        // `/a` and `/a?` are two URLs: the absent query is no part, the empty one an empty part.
        parts.push(u8::from(query.is_some()));
        push(&mut parts, query.unwrap_or_default().as_bytes());
        // What policy adds; mostly nothing, and then the part is there and empty.
        match policy.key_in_force() {
            None => push(&mut parts, &[]),
            Some(key) => push(&mut parts, &key.added(&request.headers)),
        }
        let hash = secret.hash(&[&parts]);
        Self { hash, parts: parts.into_boxed_slice() }
    }

    /// Host, path and query as they stand in `parts`; `None` where those are made otherwise.
    #[must_use]
    pub fn url(&self) -> Option<(&str, &str, Option<&str>)> {
        let mut rest = &*self.parts;
        let (_site, _scheme) = (take(&mut rest)?, take(&mut rest)?);
        let (host, _port, path) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        let (mark, mut rest) = rest.split_first()?;
        let query = take(&mut rest)?;
        let text = |part| std::str::from_utf8(part).ok();
        let query = if *mark == 0 { None } else { Some(text(query)?) };
        Some((text(host)?, text(path)?, query))
    }

    /// The URL whole, as a client would ask for it: scheme, authority, target. `None` where the URL is
    /// not all that the key says: where policy adds to it, and under keys of what belongs to others.
    #[must_use]
    pub fn whole_url(&self) -> Option<(Scheme, String, String)> {
        let mut rest = &*self.parts;
        let (_site, scheme) = (take(&mut rest)?, take(&mut rest)?);
        let (_host, port, _path) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        let mut rest = rest.get(1..)?;
        let (_query, added) = (take(&mut rest)?, take(&mut rest)?);
        if !added.is_empty() || !rest.is_empty() {
            return None;
        }
        let scheme = match scheme {
            b"http" => Scheme::Http,
            b"https" => Scheme::Https,
            _ => return None,
        };
        let port = u16::from_le_bytes(port.try_into().ok()?);
        let (host, path, query) = self.url()?;
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        Some((scheme, format!("{host}:{port}"), target))
    }

    /// A key of what belongs to this one: its row of parts goes on with `more`, and so is that of no
    /// request.
    #[must_use]
    pub fn beneath(&self, secret: KeySecret, more: &[&[u8]]) -> Self {
        let text: usize = more.iter().map(|part| part.len() + 4).sum();
        let mut parts = Vec::with_capacity(self.parts.len() + text);
        parts.extend_from_slice(&self.parts);
        for part in more {
            push(&mut parts, part);
        }
        let hash = secret.hash(&[&parts]);
        Self { hash, parts: parts.into_boxed_slice() }
    }

    /// Hash of the variant with these `Vary` values (see [`crate::semantics::VaryFields`]).
    #[must_use]
    pub fn variant(&self, secret: KeySecret, secondary: &[u8]) -> u128 {
        secret.hash(&[&self.hash.to_le_bytes(), secondary])
    }
}

/// Appends `part` behind its length.
pub(super) fn push(parts: &mut Vec<u8>, part: &[u8]) {
    // A part is bounded by the request head, far below 4 GiB; a longer one would only collide
    // in hash input that is compared in full anyway.
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    parts.extend_from_slice(&length.to_le_bytes());
    parts.extend_from_slice(part);
}

/// The part that `rest` begins with, as [`push`] wrote it; `rest` goes on behind it.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::get;

    const SECRET: KeySecret = KeySecret([1, 2]);

    fn key(site: &str, url: &str) -> CacheKey {
        CacheKey::of(SECRET, site, &get(url, &[]), &Policy::default())
    }

    #[test]
    fn equal_urls_have_one_key_and_different_ones_two() {
        let rows = [
            ("http://h/a", "http://H.:80/a", true),
            ("http://h/a%2fb", "http://h/a%2Fb", true),
            ("http://h/a%2fb", "http://h/a/b", false),
            ("http://h/a", "https://h/a", false),
            ("http://h/a", "http://h:81/a", false),
            ("http://h/a", "http://h/a?", false),
            ("http://h/a?b", "http://h/a%3Fb", false),
            ("http://h/a//b", "http://h/a/b", false),
            ("http://h/A", "http://h/a", false),
        ];
        for (one, other, same) in rows {
            assert_eq!(key("s", one) == key("s", other), same, "{one} {other}");
            assert_eq!(key("s", one).hash == key("s", other).hash, same, "{one} {other}");
        }
        assert_ne!(key("s", "http://h/a"), key("t", "http://h/a"));
    }

    #[test]
    fn url_is_read_back_from_the_parts() {
        for (url, expected) in [
            ("http://h/a", ("h", "/a", None)),
            ("https://H:81/a//b?", ("h", "/a//b", Some(""))),
            ("http://[::1]/?q=%c3", ("[::1]", "/", Some("q=%C3"))),
        ] {
            assert_eq!(key("s", url).url(), Some(expected), "{url}");
        }
        for parts in [&b""[..], b"abc", b"\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0"] {
            assert_eq!(CacheKey { hash: 0, parts: parts.into() }.url(), None, "{parts:?}");
        }
    }

    #[test]
    fn a_url_asked_for_again_has_the_same_key() {
        for url in ["http://h/a", "https://H:81/a//b?", "http://[::1]/?q=%c3", "https://h/%2F?a=b"]
        {
            let first = key("s", url);
            let (scheme, authority, target) = first.whole_url().unwrap();
            let again = format!("{}://{authority}{target}", scheme.as_str());
            assert_eq!(key("s", &again), first, "{url} is {again}");
        }
        let key = key("s", "http://h/a");
        assert_eq!(key.beneath(SECRET, &[b"part"]).whole_url(), None);
        assert_eq!(CacheKey { hash: 0, parts: b"abc"[..].into() }.whole_url(), None);
    }

    #[test]
    fn secret_and_secondary_change_the_hash() {
        let key = key("s", "http://h/a");
        let other =
            CacheKey::of(KeySecret([3, 4]), "s", &get("http://h/a", &[]), &Policy::default());
        assert_eq!(key.parts, other.parts);
        assert_ne!(key.hash, other.hash);
        assert_ne!(key.variant(SECRET, b"a"), key.variant(SECRET, b"b"));
        assert_ne!(key.variant(SECRET, b""), key.hash);
    }

    #[test]
    fn keys_chosen_against_one_secret_are_spread_under_another() {
        // Whoever knew a secret could choose URLs that all fall into one of 256 places.
        let falls_into_it = |secret: KeySecret, url: &str| {
            let key = CacheKey::of(secret, "s", &get(url, &[]), &Policy::default());
            key.hash.is_multiple_of(256)
        };
        let urls = (0..10_000).map(|number| format!("http://h/{number}"));
        let chosen: Vec<_> = urls.filter(|url| falls_into_it(SECRET, url)).collect();
        assert!(chosen.len() >= 16, "{} were found", chosen.len());
        let still = chosen.iter().filter(|url| falls_into_it(KeySecret([3, 4]), url)).count();
        assert!(still <= 2, "{still} of {} fall into it under another secret", chosen.len());
    }

    #[test]
    fn what_lies_beneath_a_key_has_another() {
        let key = key("s", "http://h/a");
        let one = key.beneath(SECRET, &[b"x"]);
        for other in [&[][..], &[b"".as_slice()], &[b"y"], &[b"x", b""], &[b"", b"x"]] {
            let other = key.beneath(SECRET, other);
            assert_ne!(one, other);
            assert_ne!(one.hash, other.hash);
        }
        assert_ne!(one.parts, key.parts);
        assert_eq!(one, key.beneath(SECRET, &[b"x"]));
    }

    proptest! {
        #[test]
        fn parts_are_injective(
            one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 3),
            other in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 3),
        ) {
            let row = |parts: &[Vec<u8>]| {
                let mut out = Vec::new();
                for part in parts { push(&mut out, part); }
                out
            };
            prop_assert_eq!(one == other, row(&one) == row(&other));
        }
    }
}
