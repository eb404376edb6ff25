//! The PROXY protocol, versions 1 and 2: a balancer in front tells the client's address in bytes
//! before the connection's own.
//!
//! Only listeners that are told to expect the header read it, from the networks they are told to
//! trust, and they insist on it: guessing would let any client name any address. Whoever is not
//! in these networks is turned away, even without a header: taken as a client it would have the
//! balancer's standing.
//!
//! A header is read whole or not at all. Extensions are not used, but they have to be sound: where
//! they do not end where the header does, it is open where the connection's own bytes begin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of version 1, CRLF included.
const LONGEST_LINE: usize = 107;
/// Fixed part of version 2: signature, version and command, family, length.
const FIXED: usize = 16;
/// Longest addresses and extensions of version 2 that are read.
const LONGEST_REST: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Addresses that a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
}

/// A header that is none, or not sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `None`: the balancer speaks for itself (`UNKNOWN`, `LOCAL`), the socket's addresses hold.
    pub(super) told: Option<Told>,
    /// Bytes that the header takes.
    pub(super) length: usize,
}

/// Parses the header that `input` begins with. `None`: more bytes are needed.
pub(super) fn parse(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let signature = input.len().min(SIGNATURE.len());
    if input.get(..signature) == SIGNATURE.get(..signature) {
        return version_2(input);
    }
    if input.starts_with(b"PROXY ") || b"PROXY ".starts_with(input) {
        return version_1(input);
    }
    Err(Malformed)
}

/// Reads a header from `io`. Bytes that came after it stay in `buffer`.
pub(super) async fn read<IO: AsyncRead + Unpin>(
    io: &mut IO,
    buffer: &mut BytesMut,
) -> std::io::Result<Option<Told>> {
    loop {
        if let Some(header) = parse(buffer).map_err(|Malformed| malformed())? {
            buffer.advance(header.length);
            return Ok(header.told);
        }
        if io.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn malformed() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "malformed PROXY protocol header")
}

fn version_1(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let searched = input.get(..LONGEST_LINE).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', searched) else {
        return if input.len() >= LONGEST_LINE { Err(Malformed) } else { Ok(None) };
    };
    let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_invalid| Malformed)?;
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Some(Header { told: None, length }));
    }
    let [Some(client), Some(local), Some(client_port), Some(local_port), None] =
        std::array::from_fn(|_| words.next())
    else {
        return Err(Malformed);
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_invalid| Malformed),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_invalid| Malformed),
        _ => Err(Malformed),
    };
    let told = Told {
        client: SocketAddr::new(address(client)?, port(client_port)?),
        local: SocketAddr::new(address(local)?, port(local_port)?),
    };
    Ok(Some(Header { told: Some(told), length }))
}

/// A port as the specification writes it: no sign, no leading zero.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed);
    }
    text.parse().map_err(|_invalid| Malformed)
}

fn version_2(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(&[version_command, family, high, low]) =
        input.get(SIGNATURE.len()..FIXED).and_then(|fixed| <&[u8; 4]>::try_from(fixed).ok())
    else {
        return Ok(None);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || version_command & 15 > 1 || rest > LONGEST_REST {
        return Err(Malformed);
    }
    let length = FIXED + rest;
    let Some(addresses) = input.get(FIXED..length) else { return Ok(None) };
    let local_command = version_command & 15 == 0;
    let told = match family {
        // What follows means nothing then, and is passed over.
        _ if local_command => None,
        0x11 => Some(addresses_of::<4>(addresses)?),
        0x21 => Some(addresses_of::<16>(addresses)?),
        // Unspecified, datagrams and UNIX sockets: nothing that names a client of ours.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(Malformed),
    };
    Ok(Some(Header { told, length }))
}

/// Two addresses of `SIZE` bytes and two ports.
fn addresses_of<const SIZE: usize>(mut from: &[u8]) -> Result<Told, Malformed>
where
    IpAddr: From<[u8; SIZE]>,
{
    if from.len() < 2 * SIZE + 4 {
        return Err(Malformed);
    }
    let mut address = [[0_u8; SIZE]; 2];
    from.copy_to_slice(&mut address[0]);
    from.copy_to_slice(&mut address[1]);
    let [client, local] = address.map(IpAddr::from);
    let told = Told {
        client: SocketAddr::new(client, from.get_u16()),
        local: SocketAddr::new(local, from.get_u16()),
    };
    extensions_are_sound(from).then_some(told).ok_or(Malformed)
}

/// Whether the rest of a header is extensions: a type, a length of two bytes, so many bytes.
fn extensions_are_sound(mut rest: &[u8]) -> bool {
    while let [_, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = after.get(length..) else { return false };
        rest = next;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(client: &str, local: &str) -> Option<Told> {
        Some(Told { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    fn version_2_of(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut all = SIGNATURE.to_vec();
        all.extend([version_command, family]);
        all.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        all.extend(rest);
        all
    }

    #[test]
    fn sound_headers_are_read_whole_however_they_are_cut() {
        let ipv4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        let mut ipv6 = [0; 36];
        ipv6[..2].copy_from_slice(&[0x20, 0x01]);
        ipv6[15] = 1;
        ipv6[31] = 1;
        ipv6[35] = 80;
        let with_extension = [&ipv4[..], &[4, 0, 1, 0]].concat();
        let rows: Vec<(Vec<u8>, Option<Told>)> = vec![
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(),
                told("192.0.2.1:56324", "198.51.100.1:443"),
            ),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), told("[2001:db8::1]:1", "[::1]:2")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 x y z\r\n".to_vec(), None),
            (version_2_of(0x21, 0x11, &ipv4), told("192.0.2.1:56324", "198.51.100.1:443")),
            (
                version_2_of(0x21, 0x11, &with_extension),
                told("192.0.2.1:56324", "198.51.100.1:443"),
            ),
            (version_2_of(0x21, 0x21, &ipv6), told("[2001::1]:0", "[::1]:80")),
            (version_2_of(0x20, 0x00, &[]), None),
            (version_2_of(0x20, 0x11, &ipv4), None),
            (version_2_of(0x20, 0x11, &[1, 2, 3]), None),
            (version_2_of(0x21, 0x00, &[1, 2, 3]), None),
            (
                version_2_of(0x21, 0x11, &[&ipv4[..], &[1, 0, 2, b'h', b'2', 4, 0, 0]].concat()),
                told("192.0.2.1:56324", "198.51.100.1:443"),
            ),
            (version_2_of(0x21, 0x31, &[0; 216]), None),
        ];
        for (bytes, expected) in rows {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
            let whole = parse(&[&bytes[..], b"GET"].concat()).unwrap().unwrap();
            assert_eq!((whole.told, whole.length), (expected, bytes.len()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let rows: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n".to_vec(),
            long.into_bytes(),
            version_2_of(0x11, 0x11, &[0; 12]),
            version_2_of(0x22, 0x11, &[0; 12]),
            version_2_of(0x21, 0x11, &[0; 11]),
            version_2_of(0x21, 0x21, &[0; 35]),
            version_2_of(0x21, 0x41, &[0; 12]),
            version_2_of(0x21, 0x11, &[0; 13]),
            version_2_of(0x21, 0x11, &[0; 14]),
            version_2_of(0x21, 0x11, &[&[0; 12][..], &[4, 0, 2, 0]].concat()),
            version_2_of(0x21, 0x11, &[&[0; 12][..], &[4, 0, 1, 0, 4]].concat()),
            version_2_of(0x21, 0x21, &[&[0; 36][..], &[4, 0xff, 0xff, 0]].concat()),
            version_2_of(0x21, 0x11, &[0; LONGEST_REST + 1]),
        ];
        for bytes in rows {
            assert_eq!(parse(&bytes), Err(Malformed), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, version: bool) {
            let start: &[u8] = if version { SIGNATURE } else { b"PROXY TCP4 " };
            let _ = parse(&bytes);
            let _ = parse(&[start, &bytes].concat());
        }
    }
}
