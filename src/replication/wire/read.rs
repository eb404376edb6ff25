//! Bytes to values, strictly.

use std::sync::Arc;
use std::time::Duration;

use super::WireError;
use crate::replication::identity::{Identity, Incarnation, Name, Source};
use crate::replication::quorum::{SetMark, Standing, Standings, Testimony, WitnessSet};
use crate::replication::record::{Record, Scope};
use crate::replication::retire::Step;
use crate::replication::vector::{Mark, Retired, Vector};

/// Longest name of a node or a site.
const NAME_BYTES: usize = 255;

/// Most witnesses in one list.
const WITNESSES: usize = 16;

/// What is left of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    /// The texts read last: records that stand together are mostly of one node and one site, and so
    /// share them.
    name: Option<Name>,
    site: Option<Arc<str>>,
}

type Read<T> = Result<T, WireError>;

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a [u8]) -> Self {
        Self { left: frame, name: None, site: None }
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.left.is_empty() { Ok(()) } else { Err(WireError::Malformed) }
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed),
        }
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Read<u128> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    pub(super) fn duration(&mut self) -> Read<Duration> {
        Ok(Duration::from_micros(self.u64()?))
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.len()?;
        let (bytes, rest) = self.left.split_at_checked(len).ok_or(WireError::Malformed)?;
        self.left = rest;
        Ok(bytes)
    }

    /// Every item takes at least a byte, so that no list is longer than what is left.
    pub(super) fn list<T>(&mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let len = self.len()?;
        if len > self.left.len() {
            return Err(WireError::Malformed);
        }
        (0..len).map(|_| read(self)).collect()
    }

    pub(super) fn option<T>(&mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn name(&mut self) -> Read<Name> {
        let text = self.text()?;
        if text.is_empty() {
            return Err(WireError::Malformed);
        }
        let same = self.name.take().filter(|name| name.as_str() == text);
        let name = same.unwrap_or_else(|| Name::from(text));
        self.name = Some(name.clone());
        Ok(name)
    }

    pub(super) fn source(&mut self) -> Read<Source> {
        Ok(Source { incarnation: Incarnation(self.u64()?), node: self.name()? })
    }

    /// Sequences end well before the numbers do.
    pub(super) fn identity(&mut self) -> Read<Identity> {
        let (source, sequence) = (self.source()?, self.u64()?);
        if (1..=u64::MAX / 2).contains(&sequence) {
            Ok(Identity { source, sequence })
        } else {
            Err(WireError::Malformed)
        }
    }

    pub(super) fn mark(&mut self) -> Read<Mark> {
        let mark = Mark { sequence: self.u64()?, chain: self.u128()? };
        if mark.sequence > u64::MAX / 2 { Err(WireError::Malformed) } else { Ok(mark) }
    }

    pub(super) fn record(&mut self) -> Read<Arc<Record>> {
        let (identity, before) = (self.identity()?, self.u128()?);
        let scope = match self.byte()? {
            0 => Scope::All,
            1 => Scope::Site(self.site()?),
            _ => return Err(WireError::Malformed),
        };
        let receipt = self.bool()?;
        let payload = self.bytes()?.into();
        Ok(Arc::new(Record { identity, before, scope, receipt, payload }))
    }

    pub(super) fn standing(&mut self) -> Read<Standing> {
        let standing = Standing { count: self.u64()?, incarnation: Incarnation(self.u64()?) };
        if standing.count > u64::MAX / 2 { Err(WireError::Malformed) } else { Ok(standing) }
    }

    pub(super) fn testimony(&mut self) -> Read<Testimony> {
        let (set, generation, standing) = (self.set_mark()?, self.u64()?, self.standing()?);
        Ok(Testimony { set, generation, standing, known: self.standings()? })
    }

    pub(super) fn standings(&mut self) -> Read<Standings> {
        let known = self.list(|from| Ok((from.name()?, from.standing()?)))?;
        if known.len() > WITNESSES {
            return Err(WireError::Malformed);
        }
        Ok(known.into_iter().collect())
    }

    pub(super) fn vector(&mut self) -> Read<Vector> {
        let mut vector = Vector::new(self.retired()?);
        for (source, mark) in self.list(|from| Ok((from.source()?, from.mark()?)))? {
            vector.set(&source, mark);
        }
        Ok(vector)
    }

    pub(super) fn step(&mut self) -> Read<Step> {
        let (from, to) = (self.retired()?, self.retired()?);
        let ended = self.list(|from| Ok((from.source()?, from.mark()?)))?;
        Ok(Step { from, to, ended })
    }

    pub(super) fn set_mark(&mut self) -> Read<SetMark> {
        let set = SetMark { number: self.u64()?, members: self.u64()? };
        if set.number > u64::MAX / 2 { Err(WireError::Malformed) } else { Ok(set) }
    }

    pub(super) fn witnesses(&mut self) -> Read<WitnessSet> {
        let number = self.u64()?;
        let members = self.list(Self::name)?;
        let joining = self.option(|from| from.list(Self::name))?;
        let most = members.len().max(joining.as_ref().map_or(0, Vec::len));
        if most > WITNESSES || number > u64::MAX / 2 {
            return Err(WireError::Malformed);
        }
        Ok(WitnessSet { number, members, joining })
    }

    fn retired(&mut self) -> Read<Retired> {
        let retired = Retired { count: self.u64()?, draw: self.u64()? };
        if retired.count > u64::MAX / 2 { Err(WireError::Malformed) } else { Ok(retired) }
    }

    fn site(&mut self) -> Read<Arc<str>> {
        let text = self.text()?;
        let same = self.site.take().filter(|site| **site == *text);
        let site = same.unwrap_or_else(|| text.into());
        self.site = Some(site.clone());
        Ok(site)
    }

    fn text(&mut self) -> Read<&'a str> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes).ok();
        text.filter(|text| text.len() <= NAME_BYTES).ok_or(WireError::Malformed)
    }

    fn len(&mut self) -> Read<usize> {
        let [first, second, third] = self.array()?;
        let len = u32::from_be_bytes([0, first, second, third]);
        usize::try_from(len).or(Err(WireError::Malformed))
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (array, rest) = self.left.split_first_chunk().ok_or(WireError::Malformed)?;
        self.left = rest;
        Ok(*array)
    }
}
