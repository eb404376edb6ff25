//! Asks DNS about one name. What an answer means for the endpoints stands in `kept`, `resolve` and
//! `services`.
//!
//! Only records count that answer the question, over at most [`LINKS`] aliases: whatever else a
//! reply carries, or whichever reply bears another number, port or question, is nobody's answer.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::Instant;

use super::SendError;

/// Longest chain of aliases (CNAME).
const LINKS: usize = 8;

/// Time that the second address family gets once the first has answered. Some name servers never
/// answer about IPv6, and a site must not wait for that.
const SECOND_FAMILY: Duration = Duration::from_millis(500);

/// What DNS says about one address family of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// These, for so long.
    Addresses(Vec<IpAddr>, Duration),
    /// There are none: [`DnsFailure::NoName`] or [`DnsFailure::NoRecords`].
    Nothing(DnsFailure),
    /// No answer.
    Failed(DnsFailure),
}

/// What DNS says about a name: IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// In lower case, without the last dot.
    pub(super) host: String,
}

/// SRV records, and for how long they are good.
pub(super) type Services = Result<(Vec<Service>, Duration), DnsFailure>;

/// Why a lookup gave nothing to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DnsFailure {
    /// No name server answered in time.
    Timeout,
    /// The name does not exist.
    NoName,
    /// The name has no such records.
    NoRecords,
    /// A name server says that it cannot or will not answer.
    Refused(String),
    /// Every address is one that a name must not point to.
    Forbidden,
    /// More aliases than are followed.
    Aliases,
    /// Anything else; says what.
    Other(String),
}

impl DnsFailure {
    /// The kind in metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoName => "no_name",
            Self::NoRecords => "no_records",
            Self::Refused(_) => "refused",
            Self::Forbidden => "forbidden",
            Self::Aliases => "aliases",
            Self::Other(_) => "other",
        }
    }

    /// As the error of a request that has no address to go to.
    pub(super) fn as_send_error(&self) -> SendError {
        match self {
            Self::Timeout => SendError::DnsTimeout,
            other => SendError::DnsError(other.to_string()),
        }
    }

    fn of(error: &NetError) -> Self {
        match error {
            NetError::Timeout => Self::Timeout,
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Self::NoName,
                _ => Self::NoRecords,
            },
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Refused(code.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => out.write_str("no answer in time"),
            Self::NoName => out.write_str("the name does not exist"),
            Self::NoRecords => out.write_str("the name has no such record"),
            Self::Refused(why) => write!(out, "the name server answers: {why}"),
            Self::Forbidden => out.write_str(
                "answers only with addresses of this machine, the link or metadata services \
                 (allow_internal_addresses)",
            ),
            Self::Aliases => write!(out, "more than {LINKS} aliases in a row"),
            Self::Other(why) => out.write_str(why),
        }
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
    pub(super) async fn addresses(&mut self, host: &str) -> Reply {
        let timeout = self.timeout;
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => {
                let failed = Family::Failed(DnsFailure::of(&error));
                return Reply { v4: failed.clone(), v6: failed };
            }
        };
        let v4 = family(resolver, host, RecordType::A);
        let v6 = family(resolver, host, RecordType::AAAA);
        let (v4, v6) = both(v4, v6, timeout).await;
        // Under a search list the two may have found two names: one of them counts.
        match (v4.name, v6.name) {
            (Some(one), Some(other)) if !alike(&one, &other) => {
                Reply { v4: v4.family, v6: Family::Nothing(DnsFailure::NoRecords) }
            }
            _ => Reply { v4: v4.family, v6: v6.family },
        }
    }

    /// Asks for the SRV records under `name`.
    pub(super) async fn services(&mut self, name: &str) -> Services {
        let timeout = self.timeout;
        let resolver = self.resolver().map_err(|error| DnsFailure::of(&error))?;
        tokio::time::timeout(timeout, services(resolver, name))
            .await
            .unwrap_or(Err(DnsFailure::Timeout))
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
    options.preserve_intermediates = true;
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

/// What is said of a family, and under which name.
struct Said {
    family: Family,
    name: Option<Name>,
}

impl Said {
    const fn failed(why: DnsFailure) -> Self {
        Self { family: Family::Failed(why), name: None }
    }
}

async fn family(resolver: &TokioResolver, host: &str, kind: RecordType) -> Said {
    let lookup = match resolver.lookup(host, kind).await {
        Ok(lookup) => lookup,
        Err(error) => {
            let why = DnsFailure::of(&error);
            let nothing = matches!(why, DnsFailure::NoName | DnsFailure::NoRecords);
            let family = if nothing { Family::Nothing(why) } else { Family::Failed(why) };
            return Said { family, name: None };
        }
    };
    let Some(first) = begin(lookup.answers(), host) else {
        return Said { family: Family::Nothing(DnsFailure::NoRecords), name: None };
    };
    let answer = match follow(lookup.answers(), first) {
        Ok(answer) => answer,
        Err(why) => return Said::failed(why),
    };
    let fits = |address: &IpAddr| address.is_ipv4() == (kind == RecordType::A);
    let addresses: Vec<_> =
        answer.records().filter_map(|record| record.data.ip_addr()).filter(fits).collect();
    let family = if addresses.is_empty() {
        Family::Nothing(DnsFailure::NoRecords)
    } else {
        Family::Addresses(addresses, answer.time_to_live())
    };
    Said { family, name: Some(first.clone()) }
}

/// Waits for both families, but not long for one once the other is there.
async fn both(
    v4: impl Future<Output = Said>,
    v6: impl Future<Output = Said>,
    timeout: Duration,
) -> (Said, Said) {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    let (mut first, mut second) = (None, None);
    let mut deadline = Instant::now() + timeout;
    while first.is_none() || second.is_none() {
        tokio::select! {
            said = &mut v4, if first.is_none() => first = Some(said),
            said = &mut v6, if second.is_none() => second = Some(said),
            () = tokio::time::sleep_until(deadline) => break,
        }
        let usable = |said: &Option<Said>| {
            said.as_ref().is_some_and(|said| matches!(said.family, Family::Addresses(..)))
        };
        if usable(&first) || usable(&second) {
            deadline = deadline.min(Instant::now() + SECOND_FAMILY);
        }
    }
    let late = || Said::failed(DnsFailure::Timeout);
    (first.unwrap_or_else(late), second.unwrap_or_else(late))
}

/// SRV records are searched for behind aliases one by one: the resolver takes the target of a
/// record for an alias of the question.
async fn services(resolver: &TokioResolver, name: &str) -> Services {
    let mut host = name.to_owned();
    let mut limit = Duration::MAX;
    for _ in 0..=LINKS {
        let why = match resolver.lookup(&*host, RecordType::SRV).await {
            Ok(lookup) => match begin(lookup.answers(), &host) {
                Some(first) => {
                    let (found, time) = listed(&follow(lookup.answers(), first)?);
                    if !found.is_empty() {
                        return Ok((found, time.min(limit)));
                    }
                    DnsFailure::NoRecords
                }
                None => DnsFailure::NoRecords,
            },
            Err(error) => DnsFailure::of(&error),
        };
        let alias = match (&why, resolver.lookup(&*host, RecordType::CNAME).await) {
            (DnsFailure::NoRecords | DnsFailure::NoName, Ok(lookup)) => alias(lookup.answers()),
            _ => None,
        };
        let Some((target, time)) = alias else { return Err(why) };
        host = target;
        limit = limit.min(time);
    }
    Err(DnsFailure::Aliases)
}

fn alias(answers: &[Record]) -> Option<(String, Duration)> {
    answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some((target.0.to_ascii(), seconds(record.ttl))),
        _ => None,
    })
}

/// The services of an answer. The root as a target says that there is none (RFC 2782).
fn listed(answer: &Answer<'_>) -> (Vec<Service>, Duration) {
    let service = |record: &Record| match &record.data {
        RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
            let host = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            Some(Service { priority, weight, port, host })
        }
        _ => None,
    };
    (answer.records().filter_map(service).collect(), answer.time_to_live())
}

/// The end of a chain of aliases.
struct Answer<'a> {
    all: &'a [Record],
    name: &'a Name,
    /// The shortest time to live of the aliases: an answer is only as good as each of them.
    seconds: u32,
}

impl<'a> Answer<'a> {
    fn records(&self) -> impl Iterator<Item = &'a Record> {
        let name = self.name;
        self.all.iter().filter(move |record| alike(&record.name, name))
    }

    fn time_to_live(&self) -> Duration {
        seconds(self.records().map(|record| record.ttl).fold(self.seconds, u32::min))
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

/// The name in the answers that was asked for: `host`, or `host` under a search domain.
fn begin<'a>(answers: &'a [Record], host: &str) -> Option<&'a Name> {
    let begins = |name: &&Name| {
        let labels = host.trim_end_matches('.').split('.');
        let mut own = name.iter();
        labels
            .into_iter()
            .all(|label| own.next().is_some_and(|mine| mine.eq_ignore_ascii_case(label.as_bytes())))
    };
    answers.iter().map(|record| &record.name).find(begins)
}

fn follow<'a>(answers: &'a [Record], first: &'a Name) -> Result<Answer<'a>, DnsFailure> {
    let mut answer = Answer { all: answers, name: first, seconds: u32::MAX };
    for _ in 0..=LINKS {
        let alias = answer.records().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else { return Ok(answer) };
        answer.name = target;
        answer.seconds = answer.seconds.min(ttl);
    }
    Err(DnsFailure::Aliases)
}

/// Whether two names are one, whatever their case and whether a last dot was written.
fn alike(one: &Name, other: &Name) -> bool {
    one.iter().len() == other.iter().len()
        && one.iter().zip(other.iter()).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(from: &str, to: &str, ttl: u32) -> Record {
        Record::from_rdata(name(from), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn address(of: &str, last: u8, ttl: u32) -> Record {
        Record::from_rdata(name(of), ttl, RData::A(A::new(192, 0, 2, last)))
    }

    fn found(answers: &[Record], host: &str) -> Option<Result<(Vec<String>, u64), DnsFailure>> {
        let answer = match follow(answers, begin(answers, host)?) {
            Ok(answer) => answer,
            Err(why) => return Some(Err(why)),
        };
        let addresses = answer.records().filter_map(|record| record.data.ip_addr());
        let addresses = addresses.map(|address| address.to_string()).collect();
        Some(Ok((addresses, answer.time_to_live().as_secs())))
    }

    fn chain(links: usize) -> Vec<Record> {
        let link =
            |index: usize| alias(&format!("n{index}.test."), &format!("n{}.test.", index + 1), 60);
        let mut all: Vec<_> = (0..links).map(link).collect();
        all.push(address(&format!("n{links}.test."), 1, 60));
        all
    }

    #[test]
    fn aliases_are_followed_and_count_for_the_time_to_live() {
        let answers = [
            alias("A.test.", "b.test.", 30),
            alias("b.test.", "c.test.", 7),
            address("C.TEST.", 1, 60),
        ];
        assert_eq!(found(&answers, "a.test"), Some(Ok((vec!["192.0.2.1".to_owned()], 7))));
    }

    #[test]
    fn a_chain_has_eight_links_and_no_more() {
        assert!(
            matches!(found(&chain(8), "n0.test"), Some(Ok((addresses, 60))) if addresses.len() == 1)
        );
        assert_eq!(found(&chain(9), "n0.test"), Some(Err(DnsFailure::Aliases)));
        assert_eq!(found(&chain(50), "n0.test"), Some(Err(DnsFailure::Aliases)));
        let round = [alias("a.test.", "b.test.", 1), alias("b.test.", "a.test.", 1)];
        assert_eq!(found(&round, "a.test"), Some(Err(DnsFailure::Aliases)));
    }

    #[test]
    fn what_was_not_asked_for_does_not_count() {
        let other = address("other.test.", 66, 60);
        assert_eq!(found(std::slice::from_ref(&other), "a.test"), None);
        let mixed = [other, address("a.test.", 1, 60), address("x.a.test.", 67, 1)];
        assert_eq!(found(&mixed, "a.test"), Some(Ok((vec!["192.0.2.1".to_owned()], 60))));
    }

    #[test]
    fn a_search_domain_may_have_been_added() {
        let answers = [address("app.prod.test.", 1, 60)];
        assert_eq!(found(&answers, "app"), Some(Ok((vec!["192.0.2.1".to_owned()], 60))));
        assert_eq!(found(&answers, "ap"), None);
    }
}
