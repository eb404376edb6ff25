//! From texts to selectors: the one place where what somebody wrote gets the form that requests
//! have.
//!
//! URLs and beginnings of paths go through the functions that make a request canonical, so that a
//! purge and a request for the same thing can't come to different names. A text whose host no site
//! answers for, or another site than the one named, is refused: it would purge nothing, and its
//! sender would believe otherwise.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::Admin;
use super::problem::Problem;
use crate::config::Token;
use crate::message::{RequestHead, Scheme};
use crate::purge::{Glob, PREFIX_DEPTH, Selector};
use crate::semantics::{canonical_authority, canonical_target, normalise};

/// Where the texts of one request are meant.
pub(super) struct Scope<'a> {
    pub(super) admin: &'a Admin,
    pub(super) token: &'a Token,
    /// The sites that the request names, where it names any.
    pub(super) named: Option<Vec<Arc<str>>>,
}

impl Scope<'_> {
    /// The sites named, or every site that the token covers.
    pub(super) fn sites(&self) -> Vec<Arc<str>> {
        match &self.named {
            Some(sites) => sites.clone(),
            None => {
                let names = self.admin.sites.iter().map(|site| &site.name);
                names.filter(|name| self.token.covers_site(name)).map(Arc::clone).collect()
            }
        }
    }

    /// A URL as a request for it would be understood. What of it counts for the key is for each node
    /// to say, and may be another thing after a reload.
    pub(super) fn url(&self, text: &str) -> Result<Selector, Problem> {
        let (host, target) = canonical(text).map_err(|why| wrong("url", "urls", text, why))?;
        let site = self.owner(&host, "urls", text)?;
        Ok(Selector::Url { site, host, target })
    }

    /// A host with the beginning of a path, up to a `/`.
    pub(super) fn prefix(&self, text: &str) -> Result<Selector, Problem> {
        let refuse = |why: &str| wrong("prefix", "prefixes", text, why);
        let bare = without_scheme(text);
        let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
        let host = host_of(host).map_err(refuse)?;
        if path.contains(['?', '*']) {
            return Err(refuse(
                "reaches into the query or has a `*`: name it in `globs`, which match both",
            ));
        }
        if !path.ends_with('/') {
            return Err(refuse(
                "does not end at a `/`: add one for what lies below, or name it in `globs`, with \
                 a `*` behind, for whatever begins so",
            ));
        }
        if path.matches('/').count() > usize::from(PREFIX_DEPTH) {
            return Err(refuse(
                "is deeper than 32 segments: name a shorter one, or name it in `globs` with a `*` \
                 behind",
            ));
        }
        let target = canonical_target(path.to_owned())
            .map_err(|_refusal| refuse("would be refused as a request: check its path"))?;
        let site = self.owner(&host, "prefixes", text)?;
        Ok(Selector::Prefix { site, host, path: target.path })
    }

    /// A host; a port does not matter.
    pub(super) fn host(&self, text: &str) -> Result<Selector, Problem> {
        let host =
            host_of(without_scheme(text)).map_err(|why| wrong("host", "hosts", text, why))?;
        let site = self.owner(&host, "hosts", text)?;
        Ok(Selector::Host { site, host })
    }

    /// A pattern: in the site of its host where it says which, else in all that are meant.
    pub(super) fn glob(&self, text: &str) -> Result<Vec<Selector>, Problem> {
        let refuse = |why: &str| wrong("glob", "globs", text, why);
        let glob = Glob::parse(text).map_err(|error| refuse(error.detail()))?;
        let sites = match glob.host() {
            None => self.sites(),
            Some(host) => {
                if host_of(host).map_err(refuse)? != host {
                    return Err(refuse("writes its host in another form than requests have"));
                }
                vec![self.owner(host, "globs", text)?]
            }
        };
        let glob = |site| Selector::Glob { site, glob: glob.clone() };
        Ok(sites.into_iter().map(glob).collect())
    }

    /// A tag, in every site that is meant.
    pub(super) fn tag(&self, tag: &str) -> Result<Vec<Selector>, Problem> {
        let refuse = |detail: String| Err(Problem::field("value", "tags", detail));
        if tag.is_empty() || tag == "*" {
            return refuse("a tag is empty or `*`; to purge everything say `\"all\": true`".into());
        }
        if tag.len() > self.admin.tag_bytes {
            return refuse(format!("a tag is longer than {} bytes", self.admin.tag_bytes));
        }
        if tag.trim() != tag || tag.chars().any(char::is_control) {
            return refuse("a tag has blanks around it or control characters in it".into());
        }
        let tag = tag.to_ascii_lowercase();
        let tag = |site| Selector::Tag { site, tag: tag.clone() };
        Ok(self.sites().into_iter().map(tag).collect())
    }

    /// The site that answers for a host, where the request may and does mean it.
    fn owner(&self, host: &str, field: &'static str, text: &str) -> Result<Arc<str>, Problem> {
        let Some(owner) = self.admin.control.site_of(host) else {
            let detail = format!("no site answers for the host of {text:?}");
            return Err(Problem::field("foreign-host", field, detail));
        };
        if self.named.as_ref().is_some_and(|sites| !sites.contains(&owner)) {
            let detail = format!("the host of {text:?} belongs to another site");
            return Err(Problem::field("foreign-host", field, detail));
        }
        if !self.token.covers_site(&owner) {
            return Err(not_covered());
        }
        Ok(owner)
    }
}

pub(super) fn not_covered() -> Problem {
    Problem::forbidden("site", "the token does not cover this site")
}

fn wrong(code: &'static str, field: &'static str, text: &str, why: &str) -> Problem {
    Problem::field(code, field, format!("{text:?} {why}"))
}

fn without_scheme(text: &str) -> &str {
    let scheme = |scheme: &str| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    scheme("http://").or_else(|| scheme("https://")).unwrap_or(text)
}

/// A host in canonical form, its port aside.
fn host_of(text: &str) -> Result<String, &'static str> {
    let (host, _port) = canonical_authority(text, Scheme::Http).map_err(
        |_refusal| "names no host such as www.example.com; for several hosts use `globs`",
    )?;
    Ok(host)
}

/// Host and target of a URL as a request for it would have them.
pub(super) fn canonical(url: &str) -> Result<(String, String), &'static str> {
    const FORM: &str = "is not an absolute URL such as https://www.example.com/path?query";
    if url.contains('#') {
        return Err("has a fragment, which is never sent to a server");
    }
    let uri: Uri = url.parse().map_err(|_invalid| FORM)?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(FORM),
    };
    let authority = uri.authority().ok_or(FORM)?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_invalid| FORM)?;
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let request = normalise(RequestHead {
        method: Method::GET,
        scheme,
        authority: None,
        target,
        version: Version::HTTP_11,
        headers: HeaderMap::from_iter([(header::HOST, host)]),
    })
    .map_err(|_refusal| "would be refused as a request: check its host and its path")?;
    let target = request.target();
    Ok((request.host, target))
}
