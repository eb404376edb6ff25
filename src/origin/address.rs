//! Addresses that a DNS answer must not point to: our own machine, the link, cloud metadata.
//!
//! Whoever controls a name's records could otherwise make the edge fetch from services that trust
//! the machine they run on. Private networks (RFC 1918, RFC 4193) are allowed: origins live there.
//!
//! Whether an address is this machine's own is asked of the system each time: addresses come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Metadata services outside the link-local range: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Metadata service of Google over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// Whether `address` is loopback, unspecified, link-local, multicast, broadcast or a metadata
/// service, however it is wrapped (IPv4-mapped or -compatible, NAT64, 6to4).
pub(super) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_internal_v4(inner),
            None => is_internal_v6(address),
        },
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address == METADATA_V6
        || matches!(address.segments(), [0xfd00, 0xec2, 0, 0, ..]) // Amazon's
}

/// Whether `address` is one of this machine's. Sends nothing.
pub(super) fn is_own(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(wrapped) => embedded(wrapped).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    // Reserved, and for what is to be thrown away (RFC 6666): nobody has these.
    let nobody: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::new(240, 0, 0, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into(),
    };
    // Machines with floating addresses may be set to let a socket have any (ip_nonlocal_bind).
    // What we send to ourselves comes from the very address that it goes to.
    (binds(address) && !binds(nobody)) || source_for(address) == Some(address)
}

fn binds(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The address from which a packet to `address` would come.
fn source_for(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The IPv4 address inside one that is IPv4-mapped, IPv4-compatible, NAT64 (RFC 6052) or 6to4
/// (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let mapped = address.to_ipv4_mapped();
    if mapped.is_some() {
        return mapped;
    }
    let (high, low) = match address.segments() {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => (high, low),
        // The unspecified address and loopback are not of that kind.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_addresses_in_every_wrapping() {
        let internal = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:a9fe:a9fe::1",
            "::127.0.0.1",
            "fd00:ec2::23",
            "fd20:ce::254",
        ];
        for address in internal {
            assert!(is_internal(address.parse().unwrap()), "{address}");
        }
        let allowed = [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "203.0.113.7",
            "2001:db8::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
        ];
        for address in allowed {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn our_own_addresses_are_known_as_such() {
        for own in ["127.0.0.1", "127.8.8.8", "::ffff:127.0.0.1"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["198.51.100.7", "2001:db8::1", "64:ff9b::c633:6407"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
        // Whatever the machine is called from outside: the way out says it.
        let outside = source_for(Ipv4Addr::new(198, 51, 100, 1).into());
        if let Some(own) = outside.filter(|address| !address.is_unspecified()) {
            assert!(is_own(own), "{own}");
        }
    }
}
