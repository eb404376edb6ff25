//! Who asks, by the word of proxies in front of us, and how the origin is told.
//!
//! A client may write anything into `X-Forwarded-For` and `Forwarded` (RFC 7239). Only what a
//! trusted proxy has added is worth something, and it adds at the end. So the list is read from its
//! end: each address that is itself a trusted proxy's vouches for the one before it, and the first
//! that is not is the client. Everything before that is the client's own invention and goes.
//!
//! ```text
//! X-Forwarded-For: 10.0.0.1, 203.0.113.9, 192.0.2.7      from a trusted 192.0.2.8, of 192.0.2.0/24
//!                  invented  the client   trusted        origin: 203.0.113.9, 192.0.2.7, 192.0.2.8
//! ```
//!
//! Which of the two fields the proxies write is said in the configuration; the other may come from
//! the client through the proxy, and is not read. Where the end of the list cannot be read, nothing
//! can be known, and the request is refused: taken for the proxy's it would get past every list of
//! addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::message::Scheme;
use crate::semantics::rules::networks::Networks;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Most trusted proxies in a row.
const MOST: usize = 16;

/// The fields by which trusted proxies tell who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToldBy {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// The fields by which the origin is told who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
    /// All of them.
    Both,
    /// None.
    None,
}

/// What trusted proxies say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The client; its port is 0 where nobody names it.
    pub client: SocketAddr,
    /// Scheme by which the client asked, where that is told.
    pub scheme: Option<Scheme>,
    /// The way up to us.
    pub hops: Hops,
}

/// Addresses from the client to the proxy that speaks to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hops(Box<[IpAddr]>);

/// A trusted proxy says something that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misled;

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    At(SocketAddr),
    /// `unknown`, or a name that only its writer understands.
    Hidden,
}

/// Reads what the trusted proxy at `peer` says. `None`: nothing, so it asks for itself.
///
/// # Errors
/// It says something that cannot be read.
pub fn believe(
    headers: &HeaderMap,
    told: ToldBy,
    peer: IpAddr,
    trusted: &Networks,
) -> Result<Option<Believed>, Misled> {
    match told {
        ToldBy::XForwarded => {
            let hops = from_the_end(headers, X_FORWARDED_FOR, |_| true);
            let found = walk(hops.map(|item| Ok((x_hop(item?)?, None))), peer, trusted)?;
            let scheme = lone_scheme(headers);
            Ok(found.map(|found| Believed { scheme, ..found }).or_else(|| of_itself(peer, scheme)))
        }
        ToldBy::Forwarded => {
            let balanced = |item: &str| item.bytes().filter(|byte| *byte == b'"').count() % 2 == 0;
            let hops = from_the_end(headers, FORWARDED, balanced);
            walk(hops.map(|item| element(item?)), peer, trusted)
        }
    }
}

/// A proxy that names no client but a scheme.
fn of_itself(peer: IpAddr, scheme: Option<Scheme>) -> Option<Believed> {
    let hops = Hops([peer.to_canonical()].into());
    scheme.map(|_| Believed { client: SocketAddr::new(peer, 0), scheme, hops })
}

/// Follows the hops from the last one on, up to the first that is no trusted proxy.
fn walk(
    hops: impl Iterator<Item = Result<(Hop, Option<Scheme>), Misled>>,
    peer: IpAddr,
    trusted: &Networks,
) -> Result<Option<Believed>, Misled> {
    let mut way = vec![peer.to_canonical()];
    let mut client = None;
    for hop in hops {
        // Who is hidden has a proxy that stands for it.
        let (Hop::At(address), scheme) = hop? else { break };
        if way.len() > MOST {
            return Err(Misled);
        }
        way.push(address.ip());
        client = Some((address, scheme));
        if !trusted.verdict(address.ip()) {
            break;
        }
    }
    way.reverse();
    Ok(client.map(|(client, scheme)| Believed { client, scheme, hops: Hops(way.into()) }))
}

/// The items of a list, the last one first. An item is whole where `whole` says so; what lies
/// before it cannot change what it is.
fn from_the_end<'a>(
    headers: &'a HeaderMap,
    name: HeaderName,
    whole: impl Fn(&str) -> bool + Copy + 'a,
) -> impl Iterator<Item = Result<&'a str, Misled>> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(move |line| {
        let mut rest = Some(line.to_str());
        std::iter::from_fn(move || {
            let text = match rest.take()? {
                Ok(text) => text,
                Err(_not_ascii) => return Some(Err(Misled)),
            };
            let mut at = text.len();
            while let Some(comma) = text.get(..at).and_then(|before| before.rfind(',')) {
                let item = text.get(comma + 1..).unwrap_or_default();
                if whole(item) {
                    rest = text.get(..comma).map(Ok);
                    return Some(Ok(item.trim_matches([' ', '\t'])));
                }
                at = comma;
            }
            Some(Ok(text.trim_matches([' ', '\t'])))
        })
    })
}

/// An entry of `X-Forwarded-For`: an address, IPv6 with brackets or without, maybe with a port.
fn x_hop(text: &str) -> Result<Hop, Misled> {
    if text.eq_ignore_ascii_case("unknown") {
        return Ok(Hop::Hidden);
    }
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(at(address.into(), 0)),
        Err(_) => node(text),
    }
}

/// A node of RFC 7239 section 6.
fn node(text: &str) -> Result<Hop, Misled> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(Misled)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let obscure = |text: &str| {
        text.strip_prefix('_').is_some_and(|rest| {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !rest.is_empty() && rest.bytes().all(fine)
        })
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 0,
        Some(hidden) if obscure(hidden) => 0,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_too_large| Misled)?
        }
        _ => return Err(Misled),
    };
    if text.starts_with('[') {
        let address: Ipv6Addr = name.parse().map_err(|_no_address| Misled)?;
        return Ok(at(address.into(), port));
    }
    if name.eq_ignore_ascii_case("unknown") || obscure(name) {
        return Ok(Hop::Hidden);
    }
    let address: Ipv4Addr = name.parse().map_err(|_no_address| Misled)?;
    Ok(at(address.into(), port))
}

fn at(address: IpAddr, port: u16) -> Hop {
    Hop::At(SocketAddr::new(address.to_canonical(), port))
}

/// An element of `Forwarded`: its `for`, and the scheme by which that one asked.
fn element(text: &str) -> Result<(Hop, Option<Scheme>), Misled> {
    let (mut hop, mut scheme, mut seen) = (None, None, Vec::new());
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=').ok_or(Misled)?;
        let name = name.trim_matches([' ', '\t']).to_ascii_lowercase();
        let (value, after) = value(after)?;
        if !is_token(&name) || seen.contains(&name) {
            return Err(Misled);
        }
        match &*name {
            "for" => hop = Some(node(&value)?),
            "proto" if value.eq_ignore_ascii_case("https") => scheme = Some(Scheme::Https),
            "proto" if value.eq_ignore_ascii_case("http") => scheme = Some(Scheme::Http),
            _ => {}
        }
        seen.push(name);
        match after.trim_start_matches([' ', '\t']).strip_prefix(';') {
            Some(more) => rest = more,
            None if after.trim_matches([' ', '\t']).is_empty() => break,
            None => return Err(Misled),
        }
    }
    Ok((hop.unwrap_or(Hop::Hidden), scheme))
}

/// A token or a quoted string without escapes, which nodes do not need; and what follows.
fn value(text: &str) -> Result<(String, &str), Misled> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (inner, after) = quoted.split_once('"').ok_or(Misled)?;
        return match inner.contains('\\') {
            true => Err(Misled),
            false => Ok((inner.to_owned(), after)),
        };
    }
    let (token, after) = text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len()));
    if is_token(token) { Ok((token.to_owned(), after)) } else { Err(Misled) }
}

fn is_token(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fine)
}

/// The scheme that all values of `X-Forwarded-Proto` name; `None` where they disagree.
fn lone_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let lines = headers.get_all(&X_FORWARDED_PROTO).iter().map(HeaderValue::as_bytes);
    let mut values =
        lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let first = values.next()?;
    if !values.all(|other| other.eq_ignore_ascii_case(first)) {
        return None;
    }
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|scheme| first.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
}

/// Tells the origin who asks: the way that `hops` say, else `client` alone. The host and the scheme
/// told are those of the cache key.
pub fn write_forwarded(
    headers: &mut HeaderMap,
    fields: ForwardedFields,
    hops: Option<&Hops>,
    client: IpAddr,
    scheme: Scheme,
    host: &str,
) {
    let alone = [client.to_canonical()];
    let way = hops.map_or(&alone[..], |hops| &hops.0);
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    if matches!(fields, ForwardedFields::XForwarded | ForwardedFields::Both) {
        set(X_FORWARDED_HOST, host.to_owned());
        set(X_FORWARDED_FOR, listed(way, IpAddr::to_string));
        set(X_FORWARDED_PROTO, scheme.as_str().to_owned());
    }
    if matches!(fields, ForwardedFields::Forwarded | ForwardedFields::Both) {
        let node = |address: &IpAddr| match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let hops = listed(way, node);
        set(FORWARDED, format!("{hops};host=\"{host}\";proto={}", scheme.as_str()));
    }
}

fn listed(way: &[IpAddr], text: impl Fn(&IpAddr) -> String) -> String {
    way.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
