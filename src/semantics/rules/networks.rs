//! Who may ask: networks, looked up by binary search.
//!
//! The most specific network that holds an address decides; where `allow` and `deny` name the same
//! network, it is denied. Where none holds it, the address may ask unless there is a list of those
//! who may. So `deny = ["0.0.0.0/0"]` beside `allow = ["192.0.2.0/24"]` needs no order to be
//! thought about.
//!
//! Networks nest or are apart. Laid out on the line of addresses they cut it into pieces with one
//! verdict each, at most two for a network, and a look-up finds the piece.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// A verdict for every address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// First address of each piece, and its verdict, in order.
    v4: Box<[(u128, bool)]>,
    v6: Box<[(u128, bool)]>,
    otherwise: bool,
}

/// Which addresses may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// `None` where everybody may.
    table: Option<Networks>,
}

impl Access {
    /// Who may ask by these two lists.
    #[must_use]
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let verdicts = allow.iter().map(|net| (*net, true));
        let verdicts = verdicts.chain(deny.iter().map(|net| (*net, false)));
        let open = allow.is_empty() && deny.is_empty();
        let table = (!open).then(|| Networks::new(verdicts, allow.is_empty()));
        Self { allow, deny, table }
    }

    /// The two lists: who may, who may not.
    #[must_use]
    pub fn lists(&self) -> (&[IpNet], &[IpNet]) {
        (&self.allow, &self.deny)
    }

    /// Whether an address may ask.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.table.as_ref().is_none_or(|table| table.verdict(address))
    }
}

impl Networks {
    /// The verdict of the most specific network; of two on the same network `false` wins.
    #[must_use]
    pub fn new(verdicts: impl IntoIterator<Item = (IpNet, bool)>, otherwise: bool) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, verdict) in verdicts {
            match plain(network) {
                IpNet::V4(net) => v4.push(Span {
                    first: u128::from(net.network().to_bits()),
                    last: u128::from(net.broadcast().to_bits()),
                    verdict,
                }),
                IpNet::V6(net) => v6.push(Span {
                    first: net.network().to_bits(),
                    last: net.broadcast().to_bits(),
                    verdict,
                }),
            }
        }
        Self { v4: pieces(v4, otherwise), v6: pieces(v6, otherwise), otherwise }
    }

    /// The networks of one list.
    #[must_use]
    pub fn listed<'a>(networks: impl IntoIterator<Item = &'a IpNet>) -> Self {
        Self::new(networks.into_iter().map(|network| (*network, true)), false)
    }

    /// The verdict on an address.
    #[must_use]
    pub fn verdict(&self, address: IpAddr) -> bool {
        let (row, bits) = match address.to_canonical() {
            IpAddr::V4(address) => (&self.v4, u128::from(address.to_bits())),
            IpAddr::V6(address) => (&self.v6, address.to_bits()),
        };
        let behind = row.partition_point(|(first, _)| *first <= bits);
        let piece = behind.checked_sub(1).and_then(|at| row.get(at));
        piece.map_or(self.otherwise, |(_, verdict)| *verdict)
    }
}

/// An IPv4 network written in IPv6 is meant as IPv4.
fn plain(network: IpNet) -> IpNet {
    let IpNet::V6(net) = network else { return network };
    let mapped: Option<Ipv4Addr> = net.addr().to_ipv4_mapped();
    let bits = net.prefix_len().checked_sub(96);
    let plain = mapped.zip(bits).and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
    plain.map_or(network, |net| IpNet::V4(net.trunc()))
}

struct Span {
    first: u128,
    last: u128,
    verdict: bool,
}

/// Cuts the line of addresses: from outer networks to inner ones, each over what lies below it.
fn pieces(mut spans: Vec<Span>, otherwise: bool) -> Box<[(u128, bool)]> {
    // Outer before inner; on one network the denial last, where it covers the other.
    spans.sort_by(|a, b| {
        let outer_first = a.first.cmp(&b.first).then(b.last.cmp(&a.last));
        outer_first.then(b.verdict.cmp(&a.verdict))
    });
    let mut row: Vec<(u128, bool)> = Vec::with_capacity(spans.len() * 2);
    let mut open: Vec<(u128, bool)> = Vec::new();
    for span in &spans {
        close(&mut open, Some(span.first), otherwise, &mut row);
        open.push((span.last, span.verdict));
        cut(&mut row, span.first, span.verdict);
    }
    close(&mut open, None, otherwise, &mut row);
    row.dedup_by(|next, kept| next.1 == kept.1);
    row.into_boxed_slice()
}

/// Ends the networks that lie before an address: what surrounds them goes on behind them.
fn close(
    open: &mut Vec<(u128, bool)>,
    before: Option<u128>,
    otherwise: bool,
    row: &mut Vec<(u128, bool)>,
) {
    while let Some((last, _)) =
        open.last().copied().filter(|(last, _)| before.is_none_or(|b| *last < b))
    {
        open.pop();
        let around = open.last().map_or(otherwise, |(_, verdict)| *verdict);
        if let Some(next) = last.checked_add(1) {
            cut(row, next, around);
        }
    }
}

fn cut(row: &mut Vec<(u128, bool)>, first: u128, verdict: bool) {
    match row.last_mut().filter(|(last, _)| *last == first) {
        Some(same) => same.1 = verdict,
        None => row.push((first, verdict)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        Access::new(nets(allow), nets(deny))
    }

    #[test]
    fn the_most_specific_network_decides() {
        let rows: [(&[&str], &[&str], &str, bool); 16] = [
            (&[], &[], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "::1", false),
            (&[], &["10.0.0.0/8"], "10.1.2.3", false),
            (&[], &["10.0.0.0/8"], "9.255.255.255", true),
            (&[], &["10.0.0.0/8"], "::1", true),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&["10.1.2.0/24"], &["10.0.0.0/8"], "10.1.2.3", true),
            (&["10.1.2.0/24"], &["10.0.0.0/8"], "10.1.3.3", false),
            (&["10.0.0.0/8"], &["10.0.0.0/8"], "10.0.0.1", false),
            (&["0.0.0.0/0"], &["255.255.255.255/32"], "255.255.255.255", false),
            (&["2001:db8::/32"], &["::/0"], "2001:db8::1", true),
            (&["2001:db8::/32"], &["::/0"], "2001:db9::1", false),
            (&["::ffff:10.0.0.0/104"], &[], "::ffff:10.9.9.9", true),
        ];
        for (allow, deny, address, expected) in rows {
            let found = access(allow, deny).admits(address.parse().unwrap());
            assert_eq!(found, expected, "{allow:?} {deny:?} {address}");
        }
    }

    proptest! {
        #[test]
        fn search_agrees_with_the_definition(
            nets in proptest::collection::vec((0_u32..64, 26_u8..=32, any::<bool>()), 0..20),
            otherwise: bool,
            asked in proptest::collection::vec(0_u32..70, 1..20),
        ) {
            let nets: Vec<(IpNet, bool)> = nets
                .into_iter()
                .map(|(bits, length, verdict)| {
                    let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap();
                    (IpNet::V4(net.trunc()), verdict)
                })
                .collect();
            let table = Networks::new(nets.clone(), otherwise);
            for bits in asked {
                let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
                let holding = nets.iter().filter(|(net, _)| net.contains(&address));
                let best = holding.max_by_key(|(net, verdict)| (net.prefix_len(), !verdict));
                prop_assert_eq!(table.verdict(address), best.map_or(otherwise, |(_, verdict)| *verdict));
            }
            prop_assert_eq!(table.verdict(IpAddr::V6(Ipv6Addr::LOCALHOST)), otherwise);
        }
    }
}
