//! The greeting: the first frame of each side, in which it says who it is.
//!
//! The certificate has proved the name already; the greeting must say the same one, and adds what a
//! certificate can't: where the sender listens, which of its lives speaks, and which connection of the
//! receiver it has seen last, by which two that dialled each other agree on one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf as _, BufMut as _};

use crate::replication::Name;

/// The version that is spoken. A later one may add to the end of a greeting.
pub(super) const VERSION: u8 = 1;

/// What a link is for. There is one purpose.
const MESH: u8 = 1;

/// Longest name.
const NAME_BYTES: usize = 64;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Its name, which its certificate bears.
    pub(super) name: Name,
    /// Its PoP.
    pub(super) pop: Name,
    /// Drawn when its links were opened; another one is another process.
    pub(super) life: u64,
    /// Number of the connection among those that its dialler dialled in this life; 0 from the side
    /// that was dialled.
    pub(super) dial: u64,
    /// The highest such number of the receiver's present life that the sender has taken.
    pub(super) seen: u64,
    /// Number of its word on where it listens; a higher one is newer.
    pub(super) bump: u64,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloError {
    /// It ends too soon, or something follows, or a value is none of those allowed.
    Malformed,
    /// It is no node of a mesh that wants a link.
    Purpose(u8),
}

/// A greeting as bytes.
pub(super) fn encode(hello: &Hello) -> Vec<u8> {
    let mut to = vec![VERSION, MESH];
    write_text(hello.name.as_str(), &mut to);
    write_text(hello.pop.as_str(), &mut to);
    for number in [hello.life, hello.dial, hello.seen, hello.bump] {
        to.put_u64(number);
    }
    write_address(hello.address, &mut to);
    to
}

/// The greeting that bytes are.
///
/// # Errors
/// When they are none.
pub(super) fn decode(mut from: &[u8]) -> Result<Hello, HelloError> {
    let from = &mut from;
    let version = byte(from)?;
    if version == 0 {
        return Err(HelloError::Malformed);
    }
    match byte(from)? {
        MESH => {}
        other => return Err(HelloError::Purpose(other)),
    }
    let hello = Hello {
        name: read_name(from)?,
        pop: read_name(from)?,
        life: number(from)?,
        dial: number(from)?,
        seen: number(from)?,
        bump: number(from)?,
        address: read_address(from).ok_or(HelloError::Malformed)?,
    };
    if version == VERSION && !from.is_empty() {
        return Err(HelloError::Malformed);
    }
    Ok(hello)
}

fn byte(from: &mut &[u8]) -> Result<u8, HelloError> {
    from.try_get_u8().map_err(|_short| HelloError::Malformed)
}

fn number(from: &mut &[u8]) -> Result<u64, HelloError> {
    from.try_get_u64().map_err(|_short| HelloError::Malformed)
}

fn read_name(from: &mut &[u8]) -> Result<Name, HelloError> {
    read_text(from).map(Name::from).ok_or(HelloError::Malformed)
}

/// Writes a name behind its length.
pub(super) fn write_text(text: &str, to: &mut Vec<u8>) {
    let text = text.get(..NAME_BYTES).unwrap_or(text);
    to.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    to.put_slice(text.as_bytes());
}

/// Reads a name behind its length.
pub(super) fn read_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(from.try_get_u8().ok()?);
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && text.len() <= NAME_BYTES).then_some(text)
}

/// Writes an address behind its family.
pub(super) fn write_address(address: SocketAddr, to: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            to.put_u8(4);
            to.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.put_u8(6);
            to.put_slice(&ip.octets());
        }
    }
    to.put_u16(address.port());
}

/// Reads an address behind its family.
pub(super) fn read_address(from: &mut &[u8]) -> Option<SocketAddr> {
    let ip = match from.try_get_u8().ok()? {
        4 => IpAddr::V4(Ipv4Addr::from_bits(from.try_get_u32().ok()?)),
        6 => IpAddr::V6(Ipv6Addr::from_bits(from.try_get_u128().ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, from.try_get_u16().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check;
    use super::*;

    fn hello() -> impl Strategy<Value = Hello> {
        let name = || "[a-z0-9.-]{1,64}".prop_map(|name| Name::from(&*name));
        let address = (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
        (name(), name(), any::<[u64; 4]>(), address).prop_map(|(name, pop, numbers, address)| {
            let [life, dial, seen, bump] = numbers;
            Hello { name, pop, life, dial, seen, bump, address }
        })
    }

    proptest! {
        #[test]
        fn a_greeting_is_read_as_it_is_written(hello in hello()) {
            prop_assert_eq!(decode(&encode(&hello)), Ok(hello));
        }

        #[test]
        fn a_greeting_that_is_cut_or_goes_on_is_refused(hello in hello(), cut in any::<usize>(), more in 1_u8..) {
            let mut bytes = encode(&hello);
            prop_assert!(decode(&bytes[..cut % bytes.len()]).is_err());
            bytes.push(more);
            prop_assert_eq!(decode(&bytes), Err(HelloError::Malformed));
            // A later version may say more than this one understands.
            bytes[0] = 2;
            prop_assert_eq!(decode(&bytes), Ok(hello));
        }

        #[test]
        fn any_change_of_a_byte_is_refused_or_another_greeting(hello in hello(), at in any::<usize>(), by in 1_u8..) {
            let mut bytes = encode(&hello);
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(by);
            check::hello(&bytes);
            prop_assert!(at == 0 || decode(&bytes) != Ok(hello));
        }
    }

    #[test]
    fn another_purpose_is_told_as_such() {
        assert_eq!(decode(&[1, 2]), Err(HelloError::Purpose(2)));
        assert_eq!(decode(&[0, 1]), Err(HelloError::Malformed));
    }
}
