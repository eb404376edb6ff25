//! Asks DNS for the addresses of one name. What an answer means for the endpoints stands in
//! `resolve`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::SendError;

/// What DNS says about one address family of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// These, for so long.
    Addresses(Vec<IpAddr>, Duration),
    /// There are none.
    Nothing,
    /// No answer.
    Failed(SendError),
}

/// What DNS says about a name: IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

impl Reply {
    fn failed(error: &SendError) -> Self {
        Self { v4: Family::Failed(error.clone()), v6: Family::Failed(error.clone()) }
    }
}

/// Asks the configured name servers, or the system's.
#[derive(Debug)]
pub(super) struct Asker {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    resolver: Option<TokioResolver>,
}

impl Asker {
    pub(super) fn new(servers: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { servers, timeout, resolver: None }
    }

    /// Asks for both families of `host`. Never fails as a whole: an error is a reply, too.
    pub(super) async fn ask(&mut self, host: &str) -> Reply {
        let timeout = self.timeout;
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => return Reply::failed(&SendError::DnsError(error.to_string())),
        };
        tokio::time::timeout(timeout, ask(resolver, host))
            .await
            .unwrap_or_else(|_elapsed| Reply::failed(&SendError::DnsTimeout))
    }

    /// The system may be without name servers when we start and have some later.
    fn resolver(&mut self) -> Result<&TokioResolver, NetError> {
        let resolver = match self.resolver.take() {
            Some(resolver) => resolver,
            None => build(&self.servers, self.timeout)?,
        };
        Ok(self.resolver.insert(resolver))
    }
}

fn build(servers: &[SocketAddr], timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|&server| name_server(server)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    tune(builder.options_mut(), timeout);
    builder.build()
}

/// Answers are kept by us, by their own time to live and beyond, so the resolver keeps none.
fn tune(options: &mut ResolverOpts, timeout: Duration) {
    options.cache_size = 0;
    options.timeout = timeout / 2;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

async fn ask(resolver: &TokioResolver, host: &str) -> Reply {
    let lookup = match resolver.lookup_ip(host).await {
        Ok(lookup) => lookup,
        Err(error) => return refused(&error),
    };
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut seconds = u32::MAX;
    for record in lookup.as_lookup().answers() {
        // The links of a chain of aliases count: it is only as good as the shortest of them.
        seconds = seconds.min(record.ttl);
        match record.data.ip_addr() {
            Some(address @ IpAddr::V4(_)) => v4.push(address),
            Some(address @ IpAddr::V6(_)) => v6.push(address),
            None => {}
        }
    }
    let ttl = Duration::from_secs(u64::from(seconds));
    let name = lookup.query().name().clone();
    Reply {
        v4: family(resolver, v4, ttl, &name, RecordType::A).await,
        v6: family(resolver, v6, ttl, &name, RecordType::AAAA).await,
    }
}

/// A lookup of both families succeeds with one of them, whether the other is empty or failed:
/// those two mean opposite things, so the missing one is asked for by itself.
async fn family(
    resolver: &TokioResolver,
    addresses: Vec<IpAddr>,
    ttl: Duration,
    name: &Name,
    kind: RecordType,
) -> Family {
    if !addresses.is_empty() {
        return Family::Addresses(addresses, ttl);
    }
    let mut name = name.clone();
    name.set_fqdn(true);
    match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            let answers = lookup.answers();
            let addresses: Vec<_> =
                answers.iter().filter_map(|record| record.data.ip_addr()).collect();
            if addresses.is_empty() { Family::Nothing } else { Family::Addresses(addresses, ttl) }
        }
        Err(error) if is_empty(&error) => Family::Nothing,
        Err(error) => Family::Failed(send_error(&error)),
    }
}

/// A name that does not exist or has no address is a failure as a whole: whoever deletes a name by
/// mistake must not take a site down with it.
fn refused(error: &NetError) -> Reply {
    if is_empty(error) {
        return Reply { v4: Family::Nothing, v6: Family::Nothing };
    }
    Reply::failed(&send_error(error))
}

fn is_empty(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(_)))
}

fn send_error(error: &NetError) -> SendError {
    match error {
        NetError::Timeout => SendError::DnsTimeout,
        other => SendError::DnsError(other.to_string()),
    }
}
