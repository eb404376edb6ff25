//! Membership's datagrams as bytes, and what of them may be believed.
//!
//! ```text
//! sender | its incarnation 2 bytes | receiver | kind 1 byte [target, probe number 1 byte]
//! [ number of updates 2 bytes | update ... ]        update: node | incarnation 2 bytes | state 1 byte
//! node: name | PoP | address | bump 8 bytes
//! ```
//!
//! A datagram is read strictly before membership sees it. It must come from the node that the link
//! belongs to, and name no other than nodes of the roster; what it says of others is left out, so that
//! no list grows beyond the roster.

use std::fmt;
use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::hello::{read_address, read_text, write_address, write_text};
use crate::replication::Name;

/// A node as membership knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    /// Its name, by which two identities are the same node.
    pub(super) name: Name,
    /// Its PoP.
    pub(super) pop: Name,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// A higher one is newer.
    pub(super) bump: u64,
}

impl foca::Identity for Id {
    type Addr = Name;

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> Name {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.bump > adversary.bump
    }
}

/// Bytes that are no datagram, or a datagram that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad;

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no datagram of membership, or one that does not fit")
    }
}

impl std::error::Error for Bad {}

/// Reads and writes for `foca`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire;

impl Codec<Id> for Wire {
    type Error = Bad;

    fn encode_header(&mut self, header: &Header<Id>, buf: impl BufMut) -> Result<(), Bad> {
        let mut to = Vec::new();
        write_header(header, &mut to).ok_or(Bad)?;
        put(&to, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Id>, Bad> {
        take(buf, read_header)
    }

    fn encode_member(&mut self, member: &Member<Id>, buf: impl BufMut) -> Result<(), Bad> {
        let mut to = Vec::new();
        write_member(member, &mut to);
        put(&to, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Id>, Bad> {
        take(buf, read_member)
    }
}

fn put(bytes: &[u8], mut buf: impl BufMut) -> Result<(), Bad> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Bad);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn take<T>(mut buf: impl Buf, read: impl Fn(&mut &[u8]) -> Option<T>) -> Result<T, Bad> {
    let mut from = buf.chunk();
    let before = from.len();
    let value = read(&mut from).ok_or(Bad)?;
    let used = before - from.len();
    buf.advance(used);
    Ok(value)
}

fn write_id(id: &Id, to: &mut Vec<u8>) {
    write_text(id.name.as_str(), to);
    write_text(id.pop.as_str(), to);
    write_address(id.address, to);
    to.put_u64(id.bump);
}

fn read_id(from: &mut &[u8]) -> Option<Id> {
    Some(Id {
        name: read_text(from)?.into(),
        pop: read_text(from)?.into(),
        address: read_address(from)?,
        bump: from.try_get_u64().ok()?,
    })
}

fn write_member(member: &Member<Id>, to: &mut Vec<u8>) {
    write_id(member.id(), to);
    to.put_u16(member.incarnation());
    to.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

fn read_member(from: &mut &[u8]) -> Option<Member<Id>> {
    let id = read_id(from)?;
    let incarnation = from.try_get_u16().ok()?;
    let state = match from.try_get_u8().ok()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return None,
    };
    Some(Member::new(id, incarnation, state))
}

/// `None` for broadcasts, which are not used.
fn write_header(header: &Header<Id>, to: &mut Vec<u8>) -> Option<()> {
    write_id(&header.src, to);
    to.put_u16(header.src_incarnation);
    write_id(&header.dst, to);
    let (kind, about) = match &header.message {
        Message::Ping(number) => (0, Some((None, *number))),
        Message::Ack(number) => (1, Some((None, *number))),
        Message::PingReq { target, probe_number } => (2, Some((Some(target), *probe_number))),
        Message::IndirectPing { origin, probe_number } => (3, Some((Some(origin), *probe_number))),
        Message::IndirectAck { target, probe_number } => (4, Some((Some(target), *probe_number))),
        Message::ForwardedAck { origin, probe_number } => (5, Some((Some(origin), *probe_number))),
        Message::Announce => (6, None),
        Message::Feed => (7, None),
        Message::Gossip => (8, None),
        Message::TurnUndead => (9, None),
        Message::Broadcast => return None,
    };
    to.put_u8(kind);
    if let Some((node, number)) = about {
        if let Some(node) = node {
            write_id(node, to);
        }
        to.put_u8(number);
    }
    Some(())
}

fn read_header(from: &mut &[u8]) -> Option<Header<Id>> {
    let src = read_id(from)?;
    let src_incarnation = from.try_get_u16().ok()?;
    let dst = read_id(from)?;
    let kind = from.try_get_u8().ok()?;
    let mut about = || Some((read_id(from)?, from.try_get_u8().ok()?));
    let message = match kind {
        2 => about().map(|(target, probe_number)| Message::PingReq { target, probe_number })?,
        3 => {
            about().map(|(origin, probe_number)| Message::IndirectPing { origin, probe_number })?
        }
        4 => about().map(|(target, probe_number)| Message::IndirectAck { target, probe_number })?,
        5 => {
            about().map(|(origin, probe_number)| Message::ForwardedAck { origin, probe_number })?
        }
        0 => Message::Ping(from.try_get_u8().ok()?),
        1 => Message::Ack(from.try_get_u8().ok()?),
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::TurnUndead,
        _ => return None,
    };
    Some(Header { src, src_incarnation, dst, message })
}

/// The other node that a message is about.
fn about(message: &Message<Id>) -> Option<&Id> {
    match message {
        Message::PingReq { target: node, .. }
        | Message::IndirectPing { origin: node, .. }
        | Message::IndirectAck { target: node, .. }
        | Message::ForwardedAck { origin: node, .. } => Some(node),
        Message::Ping(_)
        | Message::Ack(_)
        | Message::Announce
        | Message::Feed
        | Message::Gossip
        | Message::Broadcast
        | Message::TurnUndead => None,
    }
}

/// What is left of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sifted {
    /// The datagram, about nodes of the roster only.
    pub(super) bytes: Vec<u8>,
    /// The highest bump that somebody says this node has.
    pub(super) own: Option<u64>,
}

/// Reads a datagram that came from `from` and leaves out what is not about nodes that are `known`;
/// `None` where nothing of it may be believed.
pub(super) fn sift(
    mut datagram: &[u8],
    from: &Name,
    me: &Name,
    known: impl Fn(&Name) -> bool,
) -> Option<Sifted> {
    let data = &mut datagram;
    let header = read_header(data)?;
    let about = about(&header.message);
    if header.src.name != *from
        || header.dst.name != *me
        || about.is_some_and(|node| !known(&node.name))
    {
        return None;
    }
    let updates = read_updates(data, header.message == Message::Announce)?;
    let own = updates.iter().filter(|update| update.id().name == *me).map(|own| own.id().bump);
    let own = own.chain([header.dst.bump]).max();
    let kept: Vec<_> = updates.iter().filter(|update| known(&update.id().name)).collect();
    let mut bytes = Vec::with_capacity(datagram.len());
    write_header(&header, &mut bytes)?;
    if !kept.is_empty() {
        bytes.put_u16(u16::try_from(kept.len()).ok()?);
        kept.into_iter().for_each(|update| write_member(update, &mut bytes));
    }
    Some(Sifted { bytes, own })
}

/// The updates behind a header, to the end of the datagram.
fn read_updates(data: &mut &[u8], none: bool) -> Option<Vec<Member<Id>>> {
    if data.is_empty() {
        return Some(Vec::new());
    }
    let count = data.try_get_u16().ok()?;
    let updates: Option<Vec<_>> = (0..count).map(|_| read_member(data)).collect();
    updates.filter(|_| data.is_empty() && !none)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check;
    use super::*;

    fn id(name: &str) -> Id {
        let address = SocketAddr::from(([192, 0, 2, 1], 7946));
        Id { name: name.into(), pop: "fra".into(), address, bump: 7 }
    }

    fn messages() -> Vec<Message<Id>> {
        let (b, n) = (id("b"), 213);
        vec![
            Message::Ping(n),
            Message::Ack(n),
            Message::PingReq { target: b.clone(), probe_number: n },
            Message::IndirectPing { origin: b.clone(), probe_number: n },
            Message::IndirectAck { target: b.clone(), probe_number: n },
            Message::ForwardedAck { origin: b, probe_number: n },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ]
    }

    fn datagram(message: Message<Id>, about: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = Header { src: id("a"), src_incarnation: 3, dst: id("me"), message };
        write_header(&header, &mut bytes).unwrap();
        if !about.is_empty() {
            bytes.put_u16(u16::try_from(about.len()).unwrap());
            for name in about {
                write_member(&Member::new(id(name), 9, State::Suspect), &mut bytes);
            }
        }
        bytes
    }

    fn sifted(bytes: &[u8]) -> Option<Sifted> {
        sift(bytes, &"a".into(), &"me".into(), |name| ["a", "b", "me"].contains(&name.as_str()))
    }

    #[test]
    fn every_message_is_read_as_it_is_written() {
        for message in messages() {
            let header = Header { src: id("a"), src_incarnation: 3, dst: id("me"), message };
            let mut bytes = Vec::new();
            Wire.encode_header(&header, &mut bytes).unwrap();
            let mut rest = &bytes[..];
            assert_eq!(Wire.decode_header(&mut rest), Ok(header));
            assert!(rest.is_empty());
            assert_eq!(sifted(&bytes).unwrap().bytes, bytes);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let mut room = [0; 10];
        let member = Member::alive(id("a"));
        assert_eq!(Wire.encode_member(&member, &mut room[..]), Err(Bad));
        assert_eq!(room, [0; 10]);
    }

    #[test]
    fn nodes_outside_the_roster_are_left_out() {
        let bytes = datagram(Message::Gossip, &["b", "stranger", "me"]);
        let expected = datagram(Message::Gossip, &["b", "me"]);
        assert_eq!(sifted(&bytes), Some(Sifted { bytes: expected, own: Some(7) }));
    }

    #[test]
    fn nobody_speaks_for_another_or_about_strangers() {
        let ping = datagram(Message::Ping(1), &[]);
        let known = |_: &Name| true;
        assert_eq!(sift(&ping, &"b".into(), &"me".into(), known), None, "another's link");
        assert_eq!(sift(&ping, &"a".into(), &"b".into(), known), None, "another's datagram");
        let target = id("stranger");
        let stranger = datagram(Message::PingReq { target, probe_number: 1 }, &[]);
        assert_eq!(sifted(&stranger), None);
        assert_eq!(sifted(&datagram(Message::Announce, &["b"])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_sifted_or_refused(
            which in 0_usize..10,
            about in prop::collection::vec("[ab]|me|x", 0..5),
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            cut in any::<usize>(),
        ) {
            let about: Vec<&str> = about.iter().map(String::as_str).collect();
            let mut bytes = datagram(messages()[which].clone(), &about);
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            check::datagram(&bytes);
            check::datagram(&bytes[..cut % bytes.len()]);
        }
    }
}
