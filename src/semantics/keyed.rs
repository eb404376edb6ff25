//! What of a request makes the cache key, and so what of it reaches the origin.
//!
//! A cache is poisoned through what the origin hears and the key does not: one visitor's tracking
//! parameter, cookie or language is answered, and the answer stored for everybody. So there is one
//! normalised form. A policy does not say what to leave out of the key, it rewrites the request,
//! right after `normalise` and before anything looks at it; the key is then read from the very
//! fields that the origin gets. What is not in the key is not in the request, either:
//!
//! ```text
//! GET /a?utm_source=x&b=2            GET /a?b=2                key: ... /a b=2, currency=EUR, de
//! Cookie: sid=1; currency=EUR   ->   Cookie: currency=EUR
//! Accept-Language: de-AT, en;q=0.5   Accept-Language: de
//! ```
//!
//! It holds for every method, since an answer to POST may be stored, and a change of a URL has to
//! name what is stored under it. Where policy says `pass` there is no key, and the request goes on
//! untouched. The rewriting of the query depends on nothing but the query, so that a purge of a
//! URL as a client writes it finds what is stored for it: [`stored_target`].

mod device;
mod languages;
mod query;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub use query::{Keep, Names, QueryKey};

use crate::semantics::key::push;
use crate::semantics::normalise::{Request, is_unwanted};
use crate::semantics::policy::Policy;
use crate::semantics::vary::{joined, trimmed_list};

/// Field by which the origin learns the class of device.
pub(super) const ATOLL_DEVICE: HeaderName = HeaderName::from_static("atoll-device");

/// What makes the cache key beside site, scheme, host, port and path. The default is the whole
/// query and nothing else, for which a policy has none of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// What of the query.
    pub query: QueryKey,
    /// Fields whose values join the key. See [`judge_key_header`].
    pub headers: Vec<HeaderName>,
    /// Cookies whose values join the key; no others go on. `None`: none joins, all go on.
    pub cookies: Option<Vec<Box<str>>>,
    /// The class of device joins the key.
    pub device: bool,
    /// Language tags of which the one that suits the client best joins the key; where none does,
    /// the first. Empty: none joins.
    pub languages: Vec<HeaderValue>,
}

/// Rewrites a normalised request into the form from which key and origin request derive. To be
/// called once, before the key is made.
pub fn apply_key_policy(request: &mut Request, policy: &Policy) {
    if let Some(key) = policy.key_in_force() {
        key.rewrite(request);
    }
    if let Some(rules) = &policy.rules {
        rules.prepare(request);
    }
}

/// The canonical target under which responses to a canonical target are stored.
#[must_use]
pub fn stored_target(target: String, policy: &Policy) -> String {
    let Some(key) = policy.key_in_force() else { return target };
    let Some((path, query)) = target.split_once('?') else { return target };
    match key.query.apply(Some(query.to_owned())) {
        None => path.to_owned(),
        Some(query) => format!("{path}?{query}"),
    }
}

/// Fields of a rewritten request that are in its key, in the order of the key.
pub fn key_fields<'a>(
    request: &'a Request,
    policy: &'a Policy,
) -> impl Iterator<Item = (HeaderName, Option<&'a HeaderValue>)> {
    let names = policy.key_in_force().into_iter().flat_map(KeyPolicy::fields);
    names.map(|name| {
        let value = request.headers.get(&name);
        (name, value)
    })
}

/// Whether the values of a request field may join the key.
///
/// # Errors
/// What speaks against it.
pub fn judge_key_header(name: &HeaderName) -> Result<(), &'static str> {
    match name.as_str() {
        "authorization" | "proxy-authorization" => Err(
            "it is a secret: an answer to it is shared only where the origin says so, and then with everybody (RFC 9111 section 3.5)",
        ),
        "cookie" | "set-cookie" => Err("name the cookies that matter in `key_cookies`"),
        "accept-encoding" => Err(
            "each browser writes it in its own way: let the origin say `Vary: Accept-Encoding`, which is compared by meaning",
        ),
        "range"
        | "if-range"
        | "if-match"
        | "if-none-match"
        | "if-modified-since"
        | "if-unmodified-since" => Err(
            "conditions and ranges are answered from the whole, which is asked for without them",
        ),
        "via" | "cdn-loop" | "x-request-id" | "traceparent" | "tracestate" => {
            Err("it differs with every request")
        }
        text if text.starts_with("atoll-") => Err("it speaks to atoll alone"),
        text if is_unwanted(text) => {
            Err("it is not the client's to say, or belongs to its connection: it is never sent on")
        }
        _ => Ok(()),
    }
}

impl KeyPolicy {
    fn rewrite(&self, request: &mut Request) {
        request.query = self.query.apply(request.query.take());
        let headers = &mut request.headers;
        for name in &self.headers {
            join_lines(headers, name);
        }
        if let Some(names) = &self.cookies {
            keep_cookies(headers, names);
        }
        if !self.languages.is_empty() {
            let chosen = languages::choose(&self.languages, headers);
            headers.remove(header::ACCEPT_LANGUAGE);
            headers.extend(chosen.map(|chosen| (header::ACCEPT_LANGUAGE, chosen)));
        }
        let class = self.device.then(|| device::class(headers));
        self.remove_replaced(headers);
        headers.extend(class.map(|class| (ATOLL_DEVICE, HeaderValue::from_static(class))));
    }

    /// Removes what the class of device stands for, and what CGI, WSGI and their kind would take
    /// for a field of the key: they read `X_Shop` and `X-Shop` as one variable.
    fn remove_replaced(&self, headers: &mut HeaderMap) {
        let keyed: SmallVec<[HeaderName; 8]> = self.fields().collect();
        let replaced = |name: &&HeaderName| {
            self.device && device::tells(name)
                || !keyed.contains(name) && keyed.iter().any(|own| same_variable(own, name))
        };
        let names: SmallVec<[HeaderName; 8]> = headers.keys().filter(replaced).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }

    /// Names of the fields in the key.
    fn fields(&self) -> impl Iterator<Item = HeaderName> {
        let cookies = self.cookies.as_ref().map(|_| header::COOKIE);
        let device = self.device.then_some(ATOLL_DEVICE);
        let languages = (!self.languages.is_empty()).then_some(header::ACCEPT_LANGUAGE);
        self.headers.iter().cloned().chain(cookies).chain(device).chain(languages)
    }

    /// Whether requests under one key never differ in a field: it is in the key, or never there.
    pub(super) fn settles(&self, name: &HeaderName) -> bool {
        self.device && device::tells(name) || self.fields().any(|own| own == *name)
    }

    /// Part of the key beside the URL: the values of [`Self::fields`] in a rewritten request, each
    /// behind its length, the absent told from the empty.
    pub(super) fn added(&self, headers: &HeaderMap) -> Vec<u8> {
        let mut out = Vec::new();
        for name in self.fields() {
            match headers.get(name) {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    push(&mut out, value.as_bytes());
                }
            }
        }
        out
    }
}

/// Makes one line of all lines of a field, without blanks around commas.
fn join_lines(headers: &mut HeaderMap, name: &HeaderName) {
    let Some(value) = joined(headers, name) else { return };
    headers.remove(name);
    // Parts of field values are one again.
    if let Ok(value) = HeaderValue::from_bytes(&trimmed_list(&value)) {
        headers.insert(name.clone(), value);
    }
}

/// Leaves the cookies of these names, in the order of `names`, and removes the others. Of cookies
/// that stand twice both stay, since it is the origin that chooses.
fn keep_cookies(headers: &mut HeaderMap, names: &[Box<str>]) {
    let Some(line) = headers.remove(header::COOKIE) else { return };
    let mut kept: SmallVec<[(usize, &[u8]); 8]> = SmallVec::new();
    for cookie in line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
        let Some(end) = cookie.iter().position(|byte| *byte == b'=') else { continue };
        let name = cookie.get(..end);
        let place = names.iter().position(|own| name == Some(own.as_bytes()));
        kept.extend(place.map(|place| (place, cookie)));
    }
    kept.sort_by_key(|(place, _)| *place);
    let kept: Vec<&[u8]> = kept.into_iter().map(|(_, cookie)| cookie).collect();
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, value);
    }
}

/// Whether two names differ at most in `-` and `_`.
pub(super) fn same_variable(one: &HeaderName, other: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str().bytes(), other.as_str().bytes());
    one.len() == other.len() && one.map(plain).eq(other.map(plain))
}

#[cfg(test)]
mod tests;
