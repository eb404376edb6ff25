//! The header of the PROXY protocol towards origins: whose connection this is, said before the
//! first byte of TLS or HTTP.
//!
//! What it says holds for the whole connection. A connection that bears one is therefore used for
//! one request and closed: kept for the next client it would speak in the name of the last. A pool
//! by client address was not worth its danger; whoever needs both, reuse and the address, reads
//! `X-Forwarded-For`.
//!
//! Connections that carry no client's request (probes) say so: `LOCAL` in version 2, `UNKNOWN` in
//! version 1.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::ProxyProtocol;

use super::Hop;

/// First twelve bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a connection made for `hop`; `None` where none is to be sent.
pub(super) fn encode(version: ProxyProtocol, hop: Option<Hop>) -> Option<Vec<u8>> {
    match version {
        ProxyProtocol::None => None,
        ProxyProtocol::V1 => Some(text(hop).into_bytes()),
        ProxyProtocol::V2 => Some(binary(hop)),
    }
}

fn text(hop: Option<Hop>) -> String {
    let Some(hop) = hop else { return "PROXY UNKNOWN\r\n".to_owned() };
    let mut line = String::with_capacity(107);
    let (from, to) = (hop.from.port(), hop.to.port());
    let _ = match alike(hop) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            write!(line, "PROXY TCP4 {source} {target} {from} {to}\r\n")
        }
        // A mapped address is written in digits and colons alone: not every reader takes dots.
        (source, target) => {
            write!(line, "PROXY TCP6 {} {} {from} {to}\r\n", colons(source), colons(target))
        }
    };
    line
}

fn binary(hop: Option<Hop>) -> Vec<u8> {
    /// Version 2 and a command.
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    /// A family, over TCP.
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let mut header = Vec::with_capacity(52);
    header.extend(SIGNATURE);
    let Some(hop) = hop else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    match alike(hop) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            header.extend([PROXY, TCP4, 0, 12]);
            header.extend(source.octets());
            header.extend(target.octets());
        }
        (source, target) => {
            header.extend([PROXY, TCP6, 0, 36]);
            header.extend(v6(source).octets());
            header.extend(v6(target).octets());
        }
    }
    header.extend(hop.from.port().to_be_bytes());
    header.extend(hop.to.port().to_be_bytes());
    header
}

/// Both addresses in IPv4 where both can be: the header has one family for the two.
fn alike(hop: Hop) -> (IpAddr, IpAddr) {
    let (from, to) = (canonical(hop.from), canonical(hop.to));
    if from.is_ipv4() && to.is_ipv4() { (from, to) } else { (v6(from).into(), v6(to).into()) }
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn colons(address: IpAddr) -> String {
    let address = v6(address);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, to: &str) -> Option<Hop> {
        Some(Hop { from: from.parse().unwrap(), to: to.parse().unwrap() })
    }

    #[test]
    fn version_1_is_a_line() {
        let cases = [
            (None, "PROXY UNKNOWN\r\n"),
            (
                hop("192.0.2.7:4711", "198.51.100.1:443"),
                "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            ),
            (
                hop("[2001:db8::7]:4711", "[2001:db8::1]:443"),
                "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
            ),
            (
                hop("[::ffff:192.0.2.7]:4711", "198.51.100.1:443"),
                "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            ),
            (
                hop("192.0.2.7:4711", "[2001:db8::1]:443"),
                "PROXY TCP6 ::ffff:c000:207 2001:db8::1 4711 443\r\n",
            ),
        ];
        for (hop, expected) in cases {
            let header = encode(ProxyProtocol::V1, hop).unwrap();
            assert_eq!(String::from_utf8(header).unwrap(), expected);
            assert!(expected.len() <= 107, "the protocol's bound");
        }
    }

    #[test]
    fn version_2_is_binary() {
        let local = encode(ProxyProtocol::V2, None).unwrap();
        assert_eq!(local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        let v4 = encode(ProxyProtocol::V2, hop("192.0.2.7:4711", "198.51.100.1:443")).unwrap();
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
        assert_eq!(v4, expected);
        let v6 = encode(ProxyProtocol::V2, hop("[2001:db8::7]:1", "192.0.2.1:2")).unwrap();
        assert_eq!(v6.len(), 16 + 36);
        assert_eq!(v6[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(v6[16..32], "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(v6[32..48], "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(v6[48..], [0, 1, 0, 2]);
    }

    #[test]
    fn most_origins_get_none() {
        assert_eq!(encode(ProxyProtocol::None, None), None);
        assert_eq!(encode(ProxyProtocol::None, hop("192.0.2.7:1", "192.0.2.8:2")), None);
    }
}
