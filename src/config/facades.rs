//! Which purges in the wire formats of other caches are answered, and what they reach.
//!
//! All are off unless written: a format that nobody uses is only a door more. What a service or a
//! zone reaches is bounded twice, by its sites here and by the sites of the token that comes.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::Problem;
use super::file::{FacadesDraft, ServiceDraft};
use super::reader::Sink;
use super::{Admin, Site};

/// Purges in the wire formats of other caches.
#[derive(Clone, Debug)]
pub struct Facades {
    /// `PURGE` on the listeners for clients.
    pub purge_method: bool,
    /// Networks from which `PURGE` is taken.
    pub purge_networks: Vec<IpNet>,
    /// Services of the Fastly API.
    pub fastly: Vec<Service>,
    /// Zones of the Cloudflare API.
    pub cloudflare: Vec<Service>,
}

/// What another cache's identifier stands for: a Fastly service or a Cloudflare zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The identifier in its paths.
    pub id: String,
    /// Names of the sites that it reaches; at least one.
    pub sites: Vec<String>,
}

impl Default for Facades {
    fn default() -> Self {
        let loopback = |address, bits| IpNet::new(address, bits).ok();
        let networks = [
            loopback(IpAddr::from(Ipv4Addr::new(127, 0, 0, 0)), 8),
            loopback(IpAddr::from(Ipv6Addr::LOCALHOST), 128),
        ];
        Self {
            purge_method: false,
            purge_networks: networks.into_iter().flatten().collect(),
            fastly: Vec::new(),
            cloudflare: Vec::new(),
        }
    }
}

impl Facades {
    /// Whether `PURGE` is taken from this address.
    #[must_use]
    pub fn purges_from(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.purge_method && self.purge_networks.iter().any(|network| holds(network, client))
    }
}

/// Whether a network holds an address. An IPv4 network written in IPv6 is meant as IPv4.
pub(super) fn holds(network: &IpNet, client: IpAddr) -> bool {
    if let (IpNet::V6(network), IpAddr::V4(client)) = (network, client) {
        return mapped(network).is_some_and(|network| network.contains(&client));
    }
    network.contains(&client)
}

fn mapped(network: &Ipv6Net) -> Option<Ipv4Net> {
    let address = network.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()
}

/// The identifier of a service or a zone, as it stands in a path.
pub(super) fn parse_id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("expected up to 64 letters, digits, `-`, `_` and `.`: \"SU1Z0isxPaozGVKXdv0eY\"".to_owned())
}

/// The facades of a draft whose sites have been found to exist.
pub(super) fn check(draft: FacadesDraft, admin: &Admin, sites: &[Site], sink: &Sink) -> Facades {
    let FacadesDraft { place, purge_method, purge_networks, fastly, cloudflare } = draft;
    let warn = |message: &str, help: &str| {
        sink.push(Problem::new(message).warning().at(place.span.clone()).help(help));
    };
    let forwards = |site: &Site| {
        let mut rules = site.rules.iter();
        rules.any(|rule| rule.policy.methods.iter().any(|method| method.as_str() == "PURGE"))
    };
    if purge_method {
        for site in sites.iter().filter(|site| forwards(site)) {
            let message = format!("the site \"{}\" forwards PURGE to its origin", site.name);
            let help = "with `facades.purge_method` it is answered here and never forwarded: \
                        take it out of `methods`";
            sink.push(Problem::new(message).at(place.span.clone()).help(help));
        }
        if purge_networks.is_empty() {
            let help = "name the networks of those who purge in `purge_networks`";
            warn("`facades.purge_method` lets nobody purge", help);
        }
    }
    if admin.address.is_none() && !(fastly.is_empty() && cloudflare.is_empty()) {
        warn(
            "the services and zones of `facades` have no effect",
            "they are answered on the admin listener, and `admin.address` is \"none\"",
        );
    }
    let plain = |all: Vec<ServiceDraft>| {
        let names = |draft: ServiceDraft| Service {
            id: draft.id.value,
            sites: draft.sites.into_iter().map(|site| site.value).collect(),
        };
        all.into_iter().map(names).collect()
    };
    Facades { purge_method, purge_networks, fastly: plain(fastly), cloudflare: plain(cloudflare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_they_say_in_either_notation() {
        let rows = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("2001:db8::/32", "10.1.2.3", false),
            ("::/0", "10.1.2.3", false),
        ];
        for (network, client, expected) in rows {
            let mut facades = Facades {
                purge_method: true,
                purge_networks: vec![network.parse().unwrap()],
                ..Facades::default()
            };
            assert_eq!(
                facades.purges_from(client.parse().unwrap()),
                expected,
                "{network} {client}"
            );
            facades.purge_method = false;
            assert!(!facades.purges_from(client.parse().unwrap()), "it is off");
        }
    }

    #[test]
    fn an_identifier_stands_in_a_path_as_it_is() {
        for fine in ["SU1Z0isxPaozGVKXdv0eY", "023e105f4ecef8ad9ca31a8372d0c353", "a-b_c.d"] {
            assert_eq!(parse_id(fine).as_deref(), Ok(fine));
        }
        for wrong in ["", "a/b", "a b", "a?b", "%61", "ä", &"a".repeat(65)] {
            assert!(parse_id(wrong).is_err(), "{wrong}");
        }
    }
}
