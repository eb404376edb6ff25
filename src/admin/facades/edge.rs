//! `PURGE` on the listeners for clients, as Varnish and the plug-ins written for it have it.
//!
//! The door has judged network and token; here is what its fields mean. Without any of them it is
//! the URL that is purged, all variants of it.
//!
//! ```text
//! xkey-purge, xkey-softpurge   tags, hard or soft, between blanks or commas
//! surrogate-key                tags between blanks
//! Fastly-Soft-Purge: 1         soft
//! X-Purge-Method: soft         soft; "hard", "exact" and "default" change nothing
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::super::problem::Problem;
use super::super::purge::{Wish, carry_out_wish};
use super::super::settle::Done;
use super::super::{Admin, Call};
use super::{listed, strength};
use crate::clock::Now;
use crate::config::Scope;
use crate::purge::Strength;

/// A purge by method whose token its door has judged.
#[derive(Debug)]
pub struct Purging<'a> {
    /// Position of the token in the configuration.
    pub token: usize,
    /// Who asks.
    pub client: IpAddr,
    /// Name of the site that answers for the host.
    pub site: &'a str,
    /// Host of the request as its field would have it, in canonical form.
    pub host: &'a str,
    /// Target of the request in canonical form.
    pub target: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// When it came.
    pub now: Now,
}

impl Admin {
    /// Carries out a purge that came over a listener for clients; the answer is JSON.
    pub async fn purge_by_method(&self, asked: &Purging<'_>) -> Response<Bytes> {
        let settled = match self.by_method(asked) {
            Ok(done) => self.settle(done).await,
            Err(problem) => Err(problem),
        };
        let (status, text, wait) = match settled {
            Ok(receipt) => {
                let body = json!({ "status": "ok", "id": receipt.id });
                (StatusCode::OK, body.to_string(), None)
            }
            Err(problem) => (problem.status(), problem.text(), problem.field_of_answer()),
        };
        let mut answer = Response::new(Bytes::from(text.trim_end().to_owned() + "\n"));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().extend(wait);
        answer
    }

    fn by_method(&self, asked: &Purging<'_>) -> Result<Done, Problem> {
        let token = self.tokens.get(asked.token).ok_or_else(Problem::no_token)?;
        if !token.covers(Scope::Purge) {
            return Err(Problem::scope(Scope::Purge));
        }
        let site = super::one_site(self, token, asked.site)?;
        let (wish, strength) = meant(asked)?;
        let call = Call {
            token,
            position: self.numbers.get(asked.token),
            client: asked.client,
            headers: asked.headers,
            query: None,
            path: "",
            name: "",
            body: b"",
            now: asked.now,
        };
        let sites: Vec<Arc<str>> = vec![site];
        carry_out_wish(self, &call, sites, wish, strength)
    }
}

/// What the fields say.
fn meant(asked: &Purging<'_>) -> Result<(Wish, Strength), Problem> {
    let headers = asked.headers;
    let separator = |c: char| c.is_ascii_whitespace() || c == ',';
    let softly = listed(headers, "xkey-softpurge", separator)?;
    let mut tags = listed(headers, "xkey-purge", separator)?;
    tags.extend(listed(headers, "surrogate-key", |c| c.is_ascii_whitespace())?);
    let soft = strength(headers) == Strength::Soft || said_soft(headers)?;
    if !softly.is_empty() && !tags.is_empty() {
        let detail = "xkey-softpurge stands without other tags: one purge is hard or soft";
        return Err(Problem::bad("conflict", detail));
    }
    let strength = if soft || !softly.is_empty() { Strength::Soft } else { Strength::Hard };
    tags.extend(softly);
    if !tags.is_empty() {
        return Ok((Wish { tags, ..Wish::default() }, strength));
    }
    let urls = vec![format!("http://{}{}", asked.host, asked.target)];
    Ok((Wish { urls, ..Wish::default() }, strength))
}

/// What `X-Purge-Method` says. Some plug-ins ask for expressions with it, which would be taken for
/// a URL that nothing is stored under.
fn said_soft(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut soft = false;
    for line in headers.get_all("x-purge-method") {
        soft |= match line.as_bytes().to_ascii_lowercase().trim_ascii() {
            b"soft" => true,
            b"" | b"hard" | b"exact" | b"default" => false,
            _ => {
                let detail = "X-Purge-Method is \"soft\", \"hard\", \"exact\" or \"default\"";
                return Err(Problem::field("value", "X-Purge-Method", detail));
            }
        };
    }
    Ok(soft)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Option<(Vec<String>, Vec<String>, Strength)> {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let headers: HeaderMap = fields.iter().map(field).collect();
        let asked = Purging {
            token: 0,
            client: IpAddr::from([192, 0, 2, 1]),
            site: "shop",
            host: "shop.example",
            target: "/a?b",
            headers: &headers,
            now: Now::at(1),
        };
        meant(&asked).ok().map(|(wish, strength)| (wish.urls, wish.tags, strength))
    }

    #[test]
    fn fields_say_what_is_purged_and_how() {
        let url = |strength| Some((vec!["http://shop.example/a?b".to_owned()], vec![], strength));
        let tags = |tags: &[&str], strength| {
            Some((vec![], tags.iter().map(ToString::to_string).collect::<Vec<_>>(), strength))
        };
        use Strength::{Hard, Soft};
        let rows: [(&[(&'static str, &str)], _); 15] = [
            (&[], url(Hard)),
            (&[("fastly-soft-purge", "1")], url(Soft)),
            (&[("fastly-soft-purge", "0")], url(Hard)),
            (&[("x-purge-method", "Soft")], url(Soft)),
            (&[("x-purge-method", "exact")], url(Hard)),
            (&[("x-purge-method", "regex")], None),
            (&[("xkey-purge", "a b,c")], tags(&["a", "b", "c"], Hard)),
            (&[("xkey-purge", "a"), ("xkey-purge", "b")], tags(&["a", "b"], Hard)),
            (&[("surrogate-key", "a,b c")], tags(&["a,b", "c"], Hard)),
            (&[("xkey-purge", "a"), ("surrogate-key", "b")], tags(&["a", "b"], Hard)),
            (&[("xkey-softpurge", "a")], tags(&["a"], Soft)),
            (&[("xkey-softpurge", "a"), ("xkey-purge", "b")], None),
            (&[("xkey-purge", "")], None),
            (&[("xkey-purge", " , ")], None),
            (&[("surrogate-key", " ")], None),
        ];
        for (fields, expected) in rows {
            assert_eq!(read(fields), expected, "{fields:?}");
        }
    }
}
