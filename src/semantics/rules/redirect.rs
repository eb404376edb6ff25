//! Answers that send the client elsewhere, before anything is looked up.
//!
//! A `Location` made here is always a whole URL. A path of a client's choice never stands at its
//! beginning, so that `//evil.example` stays a path; what the operator writes as a host ends before
//! anything of the client's begins; and whoever is there already is not sent there again, so that
//! `https://example.org{path}{query}` on a whole site means "only under this name".

use http::StatusCode;
use http::header::HeaderValue;

use crate::message::Scheme;
use crate::semantics::normalise::{Request, canonical_authority, canonical_target};

/// Below it authorities ask in plain HTTP whether a host is ours (RFC 8555 section 8.3).
const ACME: &str = "/.well-known/acme-challenge/";

/// Which requests are sent elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// From plain HTTP to HTTPS, but for what certificate authorities ask.
    pub https: bool,
    /// Port of the HTTPS URLs that `https` makes.
    pub https_port: u16,
    /// The only host, with its port where it has one, under which requests are answered.
    pub canonical_host: Option<(Box<str>, Option<u16>)>,
    /// Everything, by its path.
    pub to: Option<Redirect>,
    /// `Cache-Control` of these answers; `None`: clients do not keep them.
    pub cache_control: Option<HeaderValue>,
}

impl Default for Redirects {
    fn default() -> Self {
        Self { https: false, https_port: 443, canonical_host: None, to: None, cache_control: None }
    }
}

/// A redirect to a URL made of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `None`: the scheme under which the request should have come.
    scheme: Option<Scheme>,
    /// `None`: the host under which the request should have come.
    authority: Option<Box<str>>,
    rest: Vec<Piece>,
    /// Path prefix behind which `{rest}` begins, without a slash at its end.
    prefix: Box<str>,
    status: StatusCode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Path,
    Rest,
    Query,
}

impl Redirect {
    /// Reads the form of a URL. `prefix` is the path of the rule where it stands.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str, prefix: &str, status: StatusCode) -> Result<Self, String> {
        const FORM: &str = "expected a URL such as \"https://example.org{path}{query}\", or a path \
                            such as \"/new{rest}{query}\"";
        let (scheme, authority, rest) = if text.starts_with('/') && !text.starts_with("//") {
            (None, None, text)
        } else {
            let (scheme, after) = text.split_once("://").ok_or(FORM)?;
            let scheme = match scheme {
                "http" => Some(Scheme::Http),
                "https" => Some(Scheme::Https),
                "{scheme}" => None,
                _ => return Err(FORM.to_owned()),
            };
            let host = if after.starts_with("{host}") { "{host}".len() } else { 0 };
            let end = after.get(host..).and_then(|rest| rest.find(['/', '{', '?']));
            let (authority, rest) =
                after.split_at_checked(end.map_or(after.len(), |at| at + host)).ok_or(FORM)?;
            (scheme, named_host(authority, scheme)?, rest)
        };
        let rest = pieces(rest)?;
        let itself = scheme.is_none() && authority.is_none();
        if itself && matches!(rest[..], [Piece::Path] | [Piece::Path, Piece::Query]) {
            return Err("it leads back to where the request came from".to_owned());
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix).into();
        Ok(Self { scheme, authority, rest, prefix, status })
    }
}

/// A host as it stands in a URL; `None` for the request's own.
fn named_host(text: &str, scheme: Option<Scheme>) -> Result<Option<Box<str>>, String> {
    if text == "{host}" {
        return Ok(None);
    }
    let assumed = scheme.unwrap_or(Scheme::Https);
    let (host, port) = canonical_authority(text, assumed).map_err(|_no_host| {
        "the host is a name with or without a port, or \"{host}\"; behind it comes \"/\", \
         \"{path}\", \"{rest}\" or \"{query}\""
            .to_owned()
    })?;
    let named = text.ends_with(&format!(":{port}"));
    let port = if named { format!(":{port}") } else { String::new() };
    Ok(Some(format!("{host}{port}").into()))
}

fn pieces(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('{') {
            let (name, after) = rest.split_once('}').ok_or("a \"{\" without its \"}\"")?;
            pieces.push(match name {
                "path" => Piece::Path,
                "rest" => Piece::Rest,
                "query" => Piece::Query,
                _ => {
                    return Err("known are {scheme}, {host}, {path}, {rest} and {query}".to_owned());
                }
            });
            text = after;
            continue;
        }
        let (plain, after) = text.split_at(text.find('{').unwrap_or(text.len()));
        let sound = canonical_target(format!("/{plain}")).is_ok();
        if !sound || plain.contains(['}', '|', '^', '`']) {
            return Err(format!("\"{}\" does not belong in a URL", plain.escape_debug()));
        }
        pieces.push(Piece::Text(plain.into()));
        text = after;
    }
    Ok(pieces)
}

impl Redirects {
    /// Where a request is sent; `None` where it may stay.
    #[must_use]
    pub fn of(&self, request: &Request) -> Option<(StatusCode, HeaderValue)> {
        if request.path == "*" {
            return None;
        }
        let moves = self.https && request.scheme == Scheme::Http && !request.path.starts_with(ACME);
        let scheme = if moves { Scheme::Https } else { request.scheme };
        let misnamed = self.canonical_host.as_ref().is_some_and(|(host, port)| {
            **host != *request.host || port.is_some_and(|port| port != request.port && !moves)
        });
        if let Some(to) = &self.to {
            let found = self.made_of(to, request, scheme);
            let own = [request.scheme.as_str(), "://", &request.host_field(), &request.target()];
            if found != own.concat() {
                return Some((to.status, HeaderValue::try_from(found).ok()?));
            }
        }
        if !moves && !misnamed {
            return None;
        }
        let status = match request.method {
            http::Method::GET | http::Method::HEAD => StatusCode::MOVED_PERMANENTLY,
            _ => StatusCode::PERMANENT_REDIRECT,
        };
        let authority = self.authority(request, scheme);
        let url = [scheme.as_str(), "://", &authority, &request.target()].concat();
        HeaderValue::try_from(url).ok().map(|location| (status, location))
    }

    fn made_of(&self, to: &Redirect, request: &Request, scheme: Scheme) -> String {
        let scheme = to.scheme.unwrap_or(scheme);
        let authority = match &to.authority {
            Some(authority) => authority.to_string(),
            None => self.authority(request, scheme),
        };
        let mut url = [scheme.as_str(), "://", &authority].concat();
        for piece in &to.rest {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Path => url.push_str(&request.path),
                // It begins with a slash or is empty: rules end at segments.
                Piece::Rest => {
                    let rest = request.path.strip_prefix(&*to.prefix);
                    url.push_str(rest.filter(|rest| rest.starts_with('/')).unwrap_or_default());
                }
                Piece::Query => {
                    if let Some(query) = &request.query {
                        url.push('?');
                        url.push_str(query);
                    }
                }
            }
        }
        url
    }

    /// Host and port under which a request should have come, by this scheme.
    fn authority(&self, request: &Request, scheme: Scheme) -> String {
        let (host, own) = match &self.canonical_host {
            Some((host, port)) => (&**host, *port),
            None => (&*request.host, None),
        };
        let port = own.unwrap_or(match scheme {
            _ if scheme == request.scheme => request.port,
            Scheme::Https => self.https_port,
            Scheme::Http => scheme.default_port(),
        });
        match port == scheme.default_port() {
            true => host.to_owned(),
            false => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::test_support::request;

    fn sent(redirects: &Redirects, method: &str, url: &str) -> Option<(u16, String)> {
        let (status, location) = redirects.of(&request(method, url, &[]))?;
        Some((status.as_u16(), location.to_str().unwrap().to_owned()))
    }

    fn to(text: &str, prefix: &str) -> Redirects {
        let to = Some(Redirect::parse(text, prefix, StatusCode::FOUND).unwrap());
        Redirects { to, ..Redirects::default() }
    }

    #[test]
    fn https_and_the_one_host_are_reached_in_one_step() {
        let plain = Redirects { https: true, ..Redirects::default() };
        let named = Redirects { canonical_host: Some(("h".into(), None)), ..plain.clone() };
        let odd = Redirects { https_port: 8443, ..plain.clone() };
        let rows = [
            (&plain, "GET", "http://h/a?b", Some((301, "https://h/a?b"))),
            (&plain, "POST", "http://h/a", Some((308, "https://h/a"))),
            (&plain, "GET", "http://h:8080/a", Some((301, "https://h/a"))),
            (&plain, "GET", "https://h/a", None),
            (&plain, "GET", "http://h/.well-known/acme-challenge/x", None),
            (
                &plain,
                "GET",
                "http://h//evil.example/%2F",
                Some((301, "https://h//evil.example/%2F")),
            ),
            (&odd, "GET", "http://h:8080/a", Some((301, "https://h:8443/a"))),
            (&named, "GET", "http://www.h/a", Some((301, "https://h/a"))),
            (&named, "GET", "https://www.h:444/a", Some((301, "https://h:444/a"))),
            (&named, "GET", "https://h/a", None),
        ];
        for (redirects, method, url, expected) in rows {
            let expected = expected.map(|(status, url)| (status, url.to_owned()));
            assert_eq!(sent(redirects, method, url), expected, "{method} {url}");
        }
    }

    #[test]
    fn urls_are_made_of_pieces() {
        let rows = [
            ("https://o.example{path}{query}", "/", "http://h/a?b=1", "https://o.example/a?b=1"),
            ("https://o.example:444{path}", "/", "http://h/a?b=1", "https://o.example:444/a"),
            ("/new{rest}{query}", "/old", "http://h:81/old/x?y", "http://h:81/new/x?y"),
            ("/new{rest}", "/old/", "https://h/old/x", "https://h/new/x"),
            ("/new{rest}", "/old", "https://h/old", "https://h/new"),
            ("{scheme}://{host}/x", "/", "https://h:9/a", "https://h:9/x"),
            ("https://{host}/x", "/", "http://h:9/a", "https://h/x"),
            ("https://o.example{rest}", "/a", "http://h/a//evil", "https://o.example//evil"),
            ("{path}/more", "/", "http://h//evil", "http://h//evil/more"),
        ];
        for (form, prefix, url, expected) in rows {
            let form = form
                .strip_prefix("{path}")
                .map_or(form.to_owned(), |rest| format!("{{scheme}}://{{host}}{{path}}{rest}"));
            let found = sent(&to(&form, prefix), "GET", url);
            assert_eq!(found, Some((302, expected.to_owned())), "{form} {url}");
        }
    }

    #[test]
    fn nobody_is_sent_to_where_they_are() {
        let only = to("https://o.example{path}{query}", "/");
        assert_eq!(sent(&only, "GET", "https://o.example/a?b"), None);
        assert!(sent(&only, "GET", "http://o.example/a?b").is_some());
        for form in ["{scheme}://{host}{path}", "{scheme}://{host}{path}{query}"] {
            assert!(Redirect::parse(form, "/", StatusCode::FOUND).is_err(), "{form}");
        }
    }

    #[test]
    fn what_a_client_writes_never_joins_the_host() {
        for form in [
            "//evil.example/",
            "https://o.example.{host}/",
            "https://{path}",
            "https://u@o.example/",
            "https://{host}.evil{path}",
            "https://{host}:444/",
            "ftp://o.example/",
            "https://",
            "https://o.example/{nothing}",
            "https://o.example/a b",
            "https://o.example/#x",
            "/../x",
            "/{path",
        ] {
            let parsed = Redirect::parse(form, "/", StatusCode::FOUND);
            assert!(parsed.is_err(), "{form} {parsed:?}");
        }
    }

    proptest! {
        #[test]
        fn a_location_leads_to_the_host_that_was_meant(path in "/[/a-z.@:\\-]{0,12}", query in "[a-z/:@]{0,6}") {
            let url = format!("http://h{path}?{query}");
            let Ok(_) = canonical_target(format!("{path}?{query}")) else { return Ok(()) };
            for (form, host) in [
                ("https://o.example{path}{query}", "https://o.example/"),
                ("https://o.example{rest}{query}", "https://o.example"),
                ("/x{path}", "http://h/x/"),
            ] {
                let (_, location) = sent(&to(form, "/"), "GET", &url).unwrap();
                prop_assert!(location.starts_with(host), "{location}");
                let rest = &location[host.len()..];
                prop_assert!(host.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']));
            }
        }
    }
}
