//! Addresses, servers, hosts, paths and names, read from text. Each error says what would be right.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::error::shown;
use super::{Seed, Server};

/// Reads an address with its port, such as `127.0.0.1:8080` or `[::1]:8080`.
///
/// # Errors
/// Says what would be right.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    Err(match text.rsplit_once(':') {
        _ if text.parse::<IpAddr>().is_ok() => {
            let bracketed = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
            format!("the port is missing: \"{bracketed}:8080\"")
        }
        _ if text.parse::<u16>().is_ok() => {
            format!("the address is missing: \"127.0.0.1:{text}\" or \"0.0.0.0:{text}\"")
        }
        Some(("", port)) => {
            format!("the address is missing: \"0.0.0.0:{port}\" or \"[::]:{port}\"")
        }
        Some(("localhost", port)) => {
            format!("names are not resolved here: write \"127.0.0.1:{port}\"")
        }
        Some(("*", port)) => {
            format!("for every address write \"[::]:{port}\" or \"0.0.0.0:{port}\"")
        }
        _ => "expected an address with a port: \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
    })
}

/// Reads the server of an origin, such as `https://a.example:443`.
///
/// # Errors
/// Says what would be right.
pub fn parse_server(text: &str) -> Result<Server, String> {
    let (srv, tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, false, rest),
        Some(("https", rest)) => (false, true, rest),
        Some(("srv+http", rest)) => (true, false, rest),
        Some(("srv+https", rest)) => (true, true, rest),
        Some(_) => {
            return Err(
                "a server is spoken to over http:// or https://, or srv+ before them".to_owned()
            );
        }
        None => {
            return Err(format!("the scheme is missing: \"http://{text}\" or \"https://{text}\""));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("a server has no path: atoll asks it for the client's".to_owned());
    }
    if authority.contains('@') {
        return Err("a server has no user name: atoll sends no credentials".to_owned());
    }
    let (host, port) = split_port(authority)?;
    if srv {
        return parse_srv(host, port, tls);
    }
    let port = match port {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(0) => return Err("port 0 cannot be connected to".to_owned()),
        Some(port) => port,
    };
    Ok(Server { tls, srv, host: parse_host(host)?, port, ..Server::default() })
}

/// A name of SRV records: `_service._tcp.` and a domain.
fn parse_srv(host: &str, port: Option<u16>, tls: bool) -> Result<Server, String> {
    const EXAMPLE: &str = "srv+http://_http._tcp.example.org";
    if port.is_some() {
        return Err(format!("SRV records bring the port: \"{EXAMPLE}\""));
    }
    let host = parse_host(host)?;
    let server = Server { tls, srv: true, host, port: 0, ..Server::default() };
    let labels = server.host.split('.').take_while(|label| label.starts_with('_')).count();
    if labels != 2 || server.domain().is_empty() || server.domain().starts_with('_') {
        return Err(format!("a name of SRV records has a service and a protocol: \"{EXAMPLE}\""));
    }
    Ok(server)
}

/// Reads a host pattern of a site: `example.org`, `*.example.org`, `*` or a literal address.
///
/// # Errors
/// Says what would be right.
pub(super) fn parse_pattern(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    if text.contains("://") {
        return Err("a host has no scheme: write \"example.org\"".to_owned());
    }
    if text.contains('/') {
        return Err("a host has no path: paths are for [[site.rule]]".to_owned());
    }
    if let Some(rest) = text.strip_prefix("*.") {
        if rest.contains('*') {
            return Err("one \"*.\" at the beginning, no more".to_owned());
        }
        if literal(rest).is_some() {
            return Err("an address has no names below it".to_owned());
        }
        return parse_host(rest).map(|host| format!("*.{host}"));
    }
    if text.contains('*') {
        return Err("\"*\" stands alone or as the whole first label: \"*.example.org\"".to_owned());
    }
    if let Ok((host, Some(_))) = split_port(text) {
        return Err(format!("a host matches on every port: write \"{}\"", host.escape_debug()));
    }
    parse_host(text)
}

/// Reads a host name or literal address into its canonical form: lower case, no trailing dot, no
/// brackets.
///
/// # Errors
/// Says what would be right.
pub fn parse_host(text: &str) -> Result<String, String> {
    if let Some(address) = literal(text) {
        return Ok(address.to_string());
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !host.is_ascii() {
        return Err("write an international name in its ASCII form (xn--...)".to_owned());
    }
    let fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.is_empty() || host.len() > 253 || !host.split('.').all(fine) {
        return Err("expected a host name such as \"www.example.org\"".to_owned());
    }
    if host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("expected a host name, or an address such as \"192.0.2.1\"".to_owned());
    }
    Ok(host)
}

/// Reads a `Host` field as an origin is to see it: a host, with a port where it is not the default.
///
/// # Errors
/// Says what would be right.
pub fn parse_host_field(text: &str) -> Result<String, String> {
    let (host, port) = split_port(text)?;
    let host = parse_host(host)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(port.map_or(host.clone(), |port| format!("{host}:{port}")))
}

/// Reads the path prefix of a rule, percent-encoding in capitals as requests are normalised.
///
/// # Errors
/// Says what would be right.
pub(super) fn parse_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path begins with \"/\": \"/{}\"", text.escape_debug()));
    }
    if let Some(prefix) = text.strip_suffix('*') {
        let prefix = prefix.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(prefix);
        return Err(format!(
            "a path is a prefix already and has no \"*\": write \"{}\"",
            prefix.escape_debug()
        ));
    }
    if text.contains('?') {
        return Err("rules look at the path, not at the query after \"?\"".to_owned());
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("a path with \".\" or \"..\" in it is never asked for".to_owned());
    }
    if text.contains("//") {
        return Err("expected one \"/\" between the segments of a path".to_owned());
    }
    encoded(text).ok_or_else(|| {
        "other than letters, digits and -._~!$&'()*+,;=:@ is percent-encoded: \"/a%20b\"".to_owned()
    })
}

/// Reads the name of a node, origin, site or token: it stands in logs, metrics and purges.
///
/// # Errors
/// Says what would be right.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fine = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if text.is_empty() || text.len() > 64 || !fine {
        return Err("a name has 1 to 64 letters, digits, '-', '_' and '.'".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a node of the mesh to be asked for the others: a name or an address, with its port.
///
/// # Errors
/// Says what would be right.
pub(super) fn parse_seed(text: &str) -> Result<Seed, String> {
    let (host, port) = split_port(text)?;
    let host = parse_host(host)?;
    match port {
        Some(0) => Err("port 0 cannot be connected to".to_owned()),
        Some(port) => Ok(Seed { host, port }),
        None => Err(format!("the port is missing: \"{text}:7946\"")),
    }
}

/// Separates `host:port`, where the host may be in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let colon = match authority.rfind(']') {
        Some(end) => authority.get(end..).and_then(|rest| rest.find(':')).map(|at| end + at),
        None if authority.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address stands in brackets: \"[{authority}]\""));
        }
        None => authority.rfind(':'),
    };
    let Some((host, port)) = colon.map(|at| authority.split_at(at)) else {
        return Ok((authority, None));
    };
    let port = port.trim_start_matches(':');
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits => Ok((host, Some(port))),
        _ => Err(format!("{} is not a port: 1 to 65535", shown(port))),
    }
}

/// A literal address, with brackets or without.
fn literal(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.map_or_else(|| text.parse().ok(), |inner| inner.parse().ok().map(IpAddr::V6))
}

/// The path with its escapes in capitals; `None` where it has a byte that must be escaped.
fn encoded(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next()?, bytes.next()?];
                if !pair.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                out.push('%');
                out.extend(pair.iter().map(|b| char::from(b.to_ascii_uppercase())));
            }
            _ if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) => {
                out.push(char::from(byte));
            }
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("[::1]:80"), Ok(SocketAddr::from((Ipv6Addr::LOCALHOST, 80))));
        for (text, expected) in [
            ("8080", "\"127.0.0.1:8080\""),
            (":8080", "\"0.0.0.0:8080\""),
            ("*:8080", "\"[::]:8080\""),
            ("localhost:80", "\"127.0.0.1:80\""),
            ("127.0.0.1", "\"127.0.0.1:8080\""),
            ("::1", "\"[::1]:8080\""),
            ("127.0.0.1:99999", "expected an address"),
            ("", "expected an address"),
        ] {
            let error = parse_address(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn servers() {
        for (text, tls, host, port) in [
            ("http://A.Example", false, "a.example", 80),
            ("https://a.example/", true, "a.example", 443),
            ("http://127.0.0.1:3000", false, "127.0.0.1", 3000),
            ("http://[::1]:3000", false, "::1", 3000),
            ("http://localhost:3000", false, "localhost", 3000),
        ] {
            let server = parse_server(text).expect(text);
            assert_eq!(
                (server.tls, server.host.as_str(), server.port),
                (tls, host, port),
                "{text}"
            );
        }
        for (text, expected) in [
            ("a.example:80", "the scheme is missing"),
            ("ftp://a", "http:// or https://"),
            ("http://a/b", "no path"),
            ("http://a?b", "no path"),
            ("http://u:p@a", "no credentials"),
            ("http://a:0", "port 0"),
            ("http://a:x", "not a port"),
            ("http://a:+1", "not a port"),
            ("http://a:", "not a port"),
            ("http://::1", "in brackets"),
            ("http://", "expected a host name"),
            ("http://a b", "expected a host name"),
            ("http://münchen.example", "xn--"),
            ("http://256.1.1.1", "an address such as"),
            ("srv+http://_http._tcp.a:80", "bring the port"),
            ("srv+http://a.example", "a service and a protocol"),
            ("srv+http://_http._tcp", "a service and a protocol"),
            ("srv+http://_a._b._c.example", "a service and a protocol"),
            ("srv+http://192.0.2.1", "a service and a protocol"),
            ("srv+ftp://_ftp._tcp.a", "http:// or https://"),
        ] {
            let error = parse_server(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn names_of_srv_records() {
        let server = parse_server("srv+https://_HTTPS._tcp.Example.org").expect("an SRV name");
        assert_eq!((server.srv, server.tls, server.port), (true, true, 0));
        assert_eq!(server.host, "_https._tcp.example.org");
        assert_eq!(server.domain(), "example.org");
        assert_eq!(server.url(), "srv+https://_https._tcp.example.org");
        let plain = parse_server("http://_odd.example.org").expect("a host");
        assert_eq!(plain.domain(), "_odd.example.org", "only SRV records have such labels");
        assert_eq!(parse_server("http://[::1]").expect("an address").url(), "http://[::1]:80");
    }

    #[test]
    fn host_patterns() {
        for (text, expected) in [
            ("*", "*"),
            ("Example.ORG.", "example.org"),
            ("*.Example.org", "*.example.org"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("a_b.example", "a_b.example"),
        ] {
            assert_eq!(parse_pattern(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("", "expected a host name"),
            ("a..b", "expected a host name"),
            ("-a.b", "expected a host name"),
            ("https://a", "no scheme"),
            ("a/b", "no path"),
            ("a:80", "every port"),
            ("*.*.a", "no more"),
            ("a*.b", "first label"),
            ("*.192.0.2.1", "no names below"),
            ("*.", "expected a host name"),
            ("1.2.3", "an address such as"),
        ] {
            let error = parse_pattern(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(parse_path("/").as_deref(), Ok("/"));
        assert_eq!(parse_path("/a%2fb/").as_deref(), Ok("/a%2Fb/"));
        for (text, expected) in [
            ("a", "\"/a\""),
            ("/a/*", "write \"/a\""),
            ("/*", "write \"/\""),
            ("/a?b", "the query"),
            ("/a/../b", "never asked for"),
            ("/a//b", "one \"/\""),
            ("/ä", "percent-encoded"),
            ("/a b", "percent-encoded"),
            ("/a%2", "percent-encoded"),
            ("/a#b", "percent-encoded"),
        ] {
            let error = parse_path(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn host_fields() {
        for (text, expected) in [
            ("A.example", "a.example"),
            ("a:8080", "a:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(parse_host_field(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(parse_host_field("a/b").is_err());
    }
}
