//! What a record carries: a purge, in bytes that a later version can tell from its own.
//!
//! ```text
//! version 1 | strength 1 | issued, wall clock, ms 8 | author | sites | selectors
//! author     0, or 1 | token | address (4 or 6, then its bytes)
//! sites      number 2 | texts             each site's name once
//! selectors  number 4 | kind 1 | site 2 | texts, as the kind has them
//! text       length 2 | UTF-8
//! ```
//!
//! Reading is strict: an unknown version, strength or kind, a pattern that is none here, a byte too
//! few or too many, and the whole is not understood. Then the node applies the record as wide as its
//! outer frame says, which is never narrower than what the bytes meant. So a selector is never left
//! out because it is new.
//!
//! One purge may name more than a record holds. It then travels as several, each complete in itself,
//! one after the other; whoever has the last has them all, and so the last one's name stands for the
//! purge. The wall clock is for people: nothing is decided by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::purge::{Glob, Selector, Strength};
use crate::replication::Scope;
use crate::store::Author;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// Bytes of one record's payload; the core takes a little more.
const PART_BYTES: usize = 56 << 10;

/// Bytes kept of a token's name.
const TOKEN_BYTES: usize = 255;

/// A purge, as far as one record carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Purge {
    /// Who asked for it, where somebody did.
    pub(super) by: Option<Author>,
    /// When it was issued, to the millisecond of the issuer's wall clock.
    pub(super) at: SystemTime,
    /// How strong it is.
    pub(super) strength: Strength,
    /// What it names.
    pub(super) selectors: Vec<Selector>,
}

/// One record's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// How wide it reaches at most.
    pub(super) scope: Scope,
    /// Its bytes.
    pub(super) payload: Arc<[u8]>,
}

/// A selector that is longer than a record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The parts that a purge travels in, in order; at least one.
pub(super) fn encode(
    by: Option<&Author>,
    at: SystemTime,
    strength: Strength,
    selectors: &[Selector],
) -> Result<Vec<Part>, TooLong> {
    let head = head(by, at, strength);
    let mut parts = Vec::new();
    let mut open = Open::default();
    for selector in selectors {
        if !open.fits(&head, selector) {
            if open.number > 0 {
                parts.push(std::mem::take(&mut open).finish(&head));
            }
            if !open.fits(&head, selector) {
                return Err(TooLong);
            }
        }
        open.push(selector);
    }
    if open.number > 0 || parts.is_empty() {
        parts.push(open.finish(&head));
    }
    Ok(parts)
}

/// The purge that a payload carries; `None` where it is not understood.
pub(super) fn decode(payload: &[u8]) -> Option<Purge> {
    let mut from = Reader(payload);
    if from.byte()? != VERSION {
        return None;
    }
    let strength = match from.byte()? {
        0 => Strength::Hard,
        1 => Strength::Check,
        2 => Strength::Soft,
        _ => return None,
    };
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(from.u64()?))?;
    let by = from.author()?;
    let sites = from.u16()?;
    let sites: Vec<Arc<str>> =
        (0..sites).map(|_| from.text().map(Arc::from)).collect::<Option<_>>()?;
    let number = usize::try_from(from.u32()?).ok()?;
    // Every selector takes a byte at least.
    if number > from.0.len() {
        return None;
    }
    let selectors = (0..number).map(|_| from.selector(&sites)).collect::<Option<_>>()?;
    from.0.is_empty().then_some(Purge { by, at, strength, selectors })
}

fn head(by: Option<&Author>, at: SystemTime, strength: Strength) -> Vec<u8> {
    let strength = match strength {
        Strength::Hard => 0,
        Strength::Check => 1,
        Strength::Soft => 2,
    };
    let mut head = vec![VERSION, strength];
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    head.extend(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
    let Some(by) = by else {
        head.push(0);
        return head;
    };
    head.push(1);
    let end = by.token.floor_char_boundary(TOKEN_BYTES);
    text(&mut head, by.token.get(..end).unwrap_or_default());
    match by.address {
        IpAddr::V4(address) => {
            head.push(4);
            head.extend(address.octets());
        }
        IpAddr::V6(address) => {
            head.push(6);
            head.extend(address.octets());
        }
    }
    head
}

/// A part that takes selectors.
#[derive(Debug, Default)]
struct Open {
    sites: Vec<Arc<str>>,
    site_bytes: usize,
    all: bool,
    number: u32,
    selectors: Vec<u8>,
}

impl Open {
    fn fits(&self, head: &[u8], selector: &Selector) -> bool {
        let new = |site: &&Arc<str>| !self.sites.contains(site);
        let site = selector.site().filter(new).map_or(0, |site| 2 + site.len());
        let lists = 2 + self.site_bytes + 4 + self.selectors.len();
        let texts = texts(selector);
        let own = 3 + texts.iter().flatten().map(|text| 2 + text.len()).sum::<usize>();
        // A text's length must fit its two bytes, too; a part is shorter than they can say.
        head.len() + lists + site + own <= PART_BYTES
    }

    fn push(&mut self, selector: &Selector) {
        self.number += 1;
        self.selectors.push(kind(selector));
        if let Some(site) = selector.site() {
            let at = self.place(site);
            self.selectors.extend(at.to_be_bytes());
        } else {
            self.all = true;
        }
        texts(selector).into_iter().flatten().for_each(|own| text(&mut self.selectors, own));
    }

    fn place(&mut self, site: &Arc<str>) -> u16 {
        let known = self.sites.iter().position(|known| known == site);
        let at = known.unwrap_or_else(|| {
            self.sites.push(Arc::clone(site));
            self.site_bytes += 2 + site.len();
            self.sites.len() - 1
        });
        // A part has fewer bytes than two can number.
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn finish(self, head: &[u8]) -> Part {
        let scope = match self.sites.as_slice() {
            [site] if !self.all => Scope::Site(Arc::clone(site)),
            _ => Scope::All,
        };
        let mut bytes = head.to_vec();
        bytes.extend(u16::try_from(self.sites.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.sites.iter().for_each(|site| text(&mut bytes, site));
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.selectors);
        Part { scope, payload: bytes.into() }
    }
}

fn kind(selector: &Selector) -> u8 {
    match selector {
        Selector::All => 0,
        Selector::Site { .. } => 1,
        Selector::Host { .. } => 2,
        Selector::Prefix { .. } => 3,
        Selector::Url { .. } => 4,
        Selector::Tag { .. } => 5,
        Selector::Glob { .. } => 6,
    }
}

fn texts(selector: &Selector) -> [Option<&str>; 2] {
    match selector {
        Selector::All | Selector::Site { .. } => [None, None],
        Selector::Host { host, .. } => [Some(host), None],
        Selector::Prefix { host, path, .. } => [Some(host), Some(path)],
        Selector::Url { host, target, .. } => [Some(host), Some(target)],
        Selector::Tag { tag, .. } => [Some(tag), None],
        Selector::Glob { glob, .. } => [Some(glob.as_str()), None],
    }
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend(text.as_bytes());
}

/// What is left of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = self.u16()?;
        std::str::from_utf8(self.take(bytes.into())?).ok()
    }

    #[expect(clippy::option_option, reason = "outside: not understood; inside: nobody")]
    fn author(&mut self) -> Option<Option<Author>> {
        match self.byte()? {
            0 => Some(None),
            1 => {
                let token = self.text()?.into();
                let address = match self.byte()? {
                    4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
                    6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
                    _ => return None,
                };
                Some(Some(Author { token, address }))
            }
            _ => None,
        }
    }

    fn selector(&mut self, sites: &[Arc<str>]) -> Option<Selector> {
        let kind = self.byte()?;
        if kind == 0 {
            return Some(Selector::All);
        }
        let site = sites.get(usize::from(self.u16()?)).map(Arc::clone)?;
        Some(match kind {
            1 => Selector::Site { site },
            2 => Selector::Host { site, host: self.text()?.to_owned() },
            3 => Selector::Prefix {
                site,
                host: self.text()?.to_owned(),
                path: self.text()?.to_owned(),
            },
            4 => Selector::Url {
                site,
                host: self.text()?.to_owned(),
                target: self.text()?.to_owned(),
            },
            5 => Selector::Tag { site, tag: self.text()?.to_owned() },
            6 => Selector::Glob { site, glob: Glob::parse(self.text()?).ok()? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selectors() -> impl Strategy<Value = Selector> {
        let site = || "[a-z]{1,3}".prop_map(|site: String| Arc::<str>::from(site));
        let word = || "[a-zäß/?=%.]{0,12}";
        prop_oneof![
            Just(Selector::All),
            site().prop_map(|site| Selector::Site { site }),
            (site(), word()).prop_map(|(site, host)| Selector::Host { site, host }),
            (site(), word(), word()).prop_map(|(site, host, path)| Selector::Prefix {
                site,
                host,
                path
            }),
            (site(), word(), word()).prop_map(|(site, host, target)| Selector::Url {
                site,
                host,
                target
            }),
            (site(), word()).prop_map(|(site, tag)| Selector::Tag { site, tag }),
            (site(), "/[a-z]{0,6}\\*").prop_map(|(site, glob)| Selector::Glob {
                site,
                glob: Glob::parse(&glob).unwrap(),
            }),
        ]
    }

    fn authors() -> impl Strategy<Value = Option<Author>> {
        proptest::option::of(("[a-z]{0,9}", any::<IpAddr>()))
            .prop_map(|by| by.map(|(token, address)| Author { token: token.into(), address }))
    }

    fn strengths() -> impl Strategy<Value = Strength> {
        prop_oneof![Just(Strength::Hard), Just(Strength::Check), Just(Strength::Soft)]
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_stays_within_its_scope(
            by in authors(),
            strength in strengths(),
            millis in 0..u64::MAX / 1_000_000,
            selectors in proptest::collection::vec(selectors(), 1..40),
        ) {
            let parts = encode(by.as_ref(), at(millis), strength, &selectors).unwrap();
            let mut read = Vec::new();
            for part in &parts {
                let purge = decode(&part.payload).unwrap();
                prop_assert_eq!((&purge.by, purge.at, purge.strength), (&by, at(millis), strength));
                if let Scope::Site(site) = &part.scope {
                    prop_assert!(purge.selectors.iter().all(|one| one.site() == Some(site)));
                }
                read.extend(purge.selectors);
            }
            prop_assert_eq!(read, selectors);
        }

        #[test]
        fn no_bytes_panic_and_none_are_left_over(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(purge) = decode(&bytes) {
                let mut longer = bytes.clone();
                longer.push(0);
                prop_assert_eq!(decode(&longer), None, "{:?}", purge);
            }
        }

        #[test]
        fn a_purge_cut_short_is_not_understood(selectors in proptest::collection::vec(selectors(), 1..6)) {
            let parts = encode(None, at(5), Strength::Hard, &selectors).unwrap();
            let payload = &parts[0].payload;
            for end in 0..payload.len() {
                prop_assert_eq!(decode(&payload[..end]), None);
            }
        }
    }

    fn url(target: String) -> Selector {
        Selector::Url { site: "s".into(), host: "example.org".to_owned(), target }
    }

    #[test]
    fn a_long_purge_travels_in_several_parts_and_a_longer_selector_in_none() {
        let long = |number: usize| url(format!("/{number}/{}", "x".repeat(8_000)));
        let selectors: Vec<Selector> = (0..1_000).map(long).collect();
        let parts = encode(None, at(0), Strength::Soft, &selectors).unwrap();
        assert!(parts.len() > 100);
        assert!(parts.iter().all(|part| part.payload.len() <= PART_BYTES));
        assert!(parts.iter().all(|part| part.scope == Scope::Site("s".into())));
        let read = parts.iter().flat_map(|part| decode(&part.payload).unwrap().selectors);
        assert!(read.eq(selectors));
        let longer = url("x".repeat(PART_BYTES));
        assert_eq!(encode(None, at(0), Strength::Hard, &[long(1), longer]), Err(TooLong));
    }

    #[test]
    fn what_is_newer_is_not_understood() {
        let part = encode(None, at(0), Strength::Hard, &[Selector::All]).unwrap().remove(0);
        let with = |at: usize, byte: u8| {
            let mut bytes = part.payload.to_vec();
            bytes[at] = byte;
            decode(&bytes)
        };
        assert!(with(0, 1).is_some());
        assert_eq!(with(0, 2), None, "another version");
        assert_eq!(with(1, 3), None, "another strength");
        assert_eq!(with(part.payload.len() - 1, 7), None, "another kind");
    }

    #[test]
    fn purges_of_several_sites_reach_as_wide_as_all() {
        let of = |site: &str| Selector::Site { site: site.into() };
        let scope = |selectors: &[Selector]| {
            encode(None, at(0), Strength::Hard, selectors).unwrap().remove(0).scope
        };
        assert_eq!(scope(&[of("a"), of("a")]), Scope::Site("a".into()));
        assert_eq!(scope(&[of("a"), of("b")]), Scope::All);
        assert_eq!(scope(&[of("a"), Selector::All]), Scope::All);
    }
}
