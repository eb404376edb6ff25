//! What a node says of itself once it listens: one short block that a person can act on.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::app::Listening;
use crate::config::{Config, Server, format_size};

/// Origins that are listed; of more, the number is said.
const LISTED: usize = 5;

/// Where the token of the admin listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenFrom {
    /// There is no admin listener.
    Nowhere,
    /// `ATOLL_ADMIN_TOKEN`.
    Environment,
    /// The configuration file.
    File,
    /// Made for this run.
    Made(String),
}

/// What is known before the node listens.
#[derive(Debug)]
pub(super) struct Greeting {
    node: String,
    origins: Vec<String>,
    token: TokenFrom,
    /// Whether requests for any host are answered, so that an address can be asked.
    any_host: bool,
    host: Option<String>,
}

impl Greeting {
    pub(super) fn of(config: &Config, token: TokenFrom) -> Self {
        let node = &config.node;
        let hosts = || config.sites.iter().flat_map(|site| &site.hosts);
        Self {
            node: format!(
                "node {}, pop {}, {}, {} of memory, seed {}",
                node.name,
                node.pop,
                super::counted(node.workers, "worker"),
                format_size(config.memory.budget_bytes >> 20 << 20),
                node.seed,
            ),
            origins: config
                .origins
                .iter()
                .map(|origin| format!("{}: {}", origin.name, servers(&origin.servers)))
                .collect(),
            token,
            any_host: hosts().any(|host| host == "*"),
            host: hosts().find(|host| !host.starts_with('*')).cloned(),
        }
    }

    /// The block, with the addresses as they turned out.
    pub(super) fn text(&self, listening: &Listening) -> String {
        let mut out = format!("atoll {}: {}\n\n", env!("CARGO_PKG_VERSION"), self.node);
        for address in &listening.plain {
            line(&mut out, "plain", &format!("http://{}", at(*address)));
        }
        let note =
            if listening.self_made.is_some() { "   (self-made certificate: curl -k)" } else { "" };
        for address in &listening.tls {
            line(&mut out, "TLS", &format!("https://{}{note}", at(*address)));
        }
        if let Some(address) = listening.admin {
            let note = "   (/metrics, /healthz, /readyz; /v1/ with a token)";
            line(&mut out, "admin", &format!("http://{}{note}", at(address)));
        }
        if let Some(address) = listening.watch {
            line(&mut out, "watch", &format!("http://{}", at(address)));
        }
        match &self.token {
            TokenFrom::Nowhere => {}
            TokenFrom::Environment => line(&mut out, "token", "from ATOLL_ADMIN_TOKEN"),
            TokenFrom::File => line(&mut out, "token", "as configured"),
            TokenFrom::Made(token) => {
                line(&mut out, "token", &format!("export ATOLL_ADMIN_TOKEN={token}"));
            }
        }
        for origin in self.origins.iter().take(LISTED) {
            line(&mut out, "origin", origin);
        }
        if self.origins.len() > LISTED {
            line(&mut out, "", &format!("and {} more", self.origins.len() - LISTED));
        }
        if let Some(command) = self.example(listening) {
            line(&mut out, "try", &command);
        }
        out.push('\n');
        out
    }

    /// A command that is answered by a site.
    fn example(&self, listening: &Listening) -> Option<String> {
        let (scheme, flag, address) = match (listening.plain.first(), listening.tls.first()) {
            (Some(address), _) => ("http", "", reachable(*address)),
            (None, Some(address)) if listening.self_made.is_some() => {
                ("https", "k", reachable(*address))
            }
            (None, Some(address)) => ("https", "", reachable(*address)),
            (None, None) => return None,
        };
        match &self.host {
            _ if self.any_host => Some(format!("curl -i{flag} {scheme}://{address}/")),
            Some(host) if host.parse::<IpAddr>().is_err() => Some(format!(
                "curl -i{flag} --connect-to ::{address} {scheme}://{host}:{}/",
                address.port()
            )),
            _ => None,
        }
    }
}

/// The servers of an origin as one writes them.
pub(super) fn servers(servers: &[Server]) -> String {
    let one = |server: &Server| {
        let backup = if server.tier() > 0 { " (backup)" } else { "" };
        format!("{}{backup}", server.url())
    };
    servers.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn line(out: &mut String, what: &str, text: &str) {
    let _ = writeln!(out, "  {what:<8}{text}");
}

/// An address as a person may ask it, the unspecified one said as such.
fn at(address: SocketAddr) -> String {
    let reachable = reachable(address);
    if reachable == address {
        address.to_string()
    } else {
        format!("{reachable}   (every address of this machine)")
    }
}

/// The loopback address in place of the unspecified one.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, parse_server};

    #[test]
    fn the_block_says_where_and_what_to_try() {
        let flags = Flags {
            origin: vec![parse_server("http://127.0.0.1:3000").expect("a server")],
            seed: Some(7),
            workers: Some(1),
            memory: Some(64 << 20),
            ..Flags::default()
        };
        let mut config = Config::built_in(&flags).expect("fine").config;
        config.node.name = "n1".to_owned();
        let greeting = Greeting::of(&config, TokenFrom::Made("atoll_x".to_owned()));
        let listening = Listening {
            plain: vec!["0.0.0.0:8080".parse().expect("an address")],
            tls: vec!["127.0.0.1:8443".parse().expect("an address")],
            admin: Some("127.0.0.1:9080".parse().expect("an address")),
            watch: None,
            mesh: None,
            canary: None,
            self_made: Some("ab".repeat(32)),
        };
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "\
atoll {version}: node n1, pop local, 1 worker, 64MiB of memory, seed 7

  plain   http://127.0.0.1:8080   (every address of this machine)
  TLS     https://127.0.0.1:8443   (self-made certificate: curl -k)
  admin   http://127.0.0.1:9080   (/metrics, /healthz, /readyz; /v1/ with a token)
  token   export ATOLL_ADMIN_TOKEN=atoll_x
  origin  origin: http://127.0.0.1:3000
  try     curl -i http://127.0.0.1:8080/

"
        );
        assert_eq!(greeting.text(&listening), expected);
    }
}
