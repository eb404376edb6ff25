//! The origin of `atoll demo`: a small site with everything that a cache can show off.
//!
//! Pages, pictures, an API whose answers bear tags and a number that counts the origin's work, a
//! slow page, a page that fails when told to, a page in three languages. All of it is a table of
//! routes (`site`); this file answers from it the way an ordinary web server would, with
//! validators, dates and lifetimes, and knows nothing of the edge before it.

mod nodes;
mod pops;
mod site;
mod tour;

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, DATE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LINK, SERVER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::clock::Now;
use crate::listener::{Client, Handler, Interim, Request, Response};
use crate::message::{Body, Refusal, RequestHead, ResponseHead};

pub(super) use pops::run as pops;
use site::{Answer, ROUTES, Route};
pub(super) use tour::tour;

/// Time that the slow page takes.
const SLOW: Duration = Duration::from_secs(1);

/// When the files of the site were last edited.
const EDITED: &str = "Thu, 01 Jan 2026 09:00:00 GMT";

/// Field that numbers the answers of each route, so that one can see which came from the origin.
const ORIGIN_ANSWER: HeaderName = HeaderName::from_static("x-origin-answer");

/// The demo site, ready to answer.
#[derive(Debug)]
pub(super) struct Demo {
    /// Answers given, by the position of their route.
    answers: Box<[AtomicU64]>,
    /// Whether the page that can fail does so.
    failing: AtomicBool,
    /// Time that the slow page takes.
    slow: Duration,
}

impl Default for Demo {
    fn default() -> Self {
        Self::new()
    }
}

impl Demo {
    /// The site with all counters at zero, failing nowhere.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            answers: ROUTES.iter().map(|_| AtomicU64::new(0)).collect(),
            failing: AtomicBool::new(false),
            slow: SLOW,
        }
    }

    /// Counts one more answer of the route at `position`; 1 for the first.
    fn count(&self, position: usize) -> u64 {
        self.answers.get(position).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// What each route was asked, as JSON.
    fn hits(&self) -> Vec<u8> {
        let asked: serde_json::Map<String, serde_json::Value> = ROUTES
            .iter()
            .zip(&self.answers)
            .map(|(route, count)| (route.path.to_owned(), count.load(Ordering::Relaxed).into()))
            .collect();
        json(&serde_json::Value::Object(asked))
    }

    /// Content for one request to `route`, its `number`th.
    fn content(&self, route: &Route, number: u64, headers: &HeaderMap) -> Content {
        match route.answer {
            Answer::File(bytes) => Content::of(Bytes::from_static(bytes)),
            Answer::Story(article) => Content::of(article.page().into()),
            Answer::Article(article) => Content::of(json(&article.json(number)).into()),
            Answer::Articles => Content::of(json(&site::articles(number)).into()),
            Answer::Languages(pages) => {
                let (language, bytes) = site::choose(pages, headers.get(ACCEPT_LANGUAGE));
                Content { language: Some(language), ..Content::of(Bytes::from_static(bytes)) }
            }
            Answer::Account => Content::of(json(&site::account(number)).into()),
            Answer::Slow => Content::of(json(&site::slow(number)).into()),
            Answer::Fail if self.failing.load(Ordering::Relaxed) => Content {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Content::of(json(&site::failed(number)).into())
            },
            Answer::Fail => Content::of(json(&site::well(number)).into()),
            Answer::Hits => Content::of(self.hits().into()),
        }
    }

    /// `POST /demo/fail?on` and `?off`.
    fn switch(&self, query: Option<&str>) -> Response {
        let on = match query {
            Some("on") => true,
            Some("off") => false,
            _ => return plain(StatusCode::BAD_REQUEST, "say ?on or ?off\n"),
        };
        self.failing.store(on, Ordering::Relaxed);
        plain(StatusCode::OK, if on { "/fail fails now\n" } else { "/fail is well again\n" })
    }

    async fn answer(&self, head: &RequestHead, interim: &Interim) -> Response {
        let (path, query) = split(&head.target);
        if path == "/demo/fail" {
            return match head.method {
                Method::POST => self.switch(query),
                _ => not_allowed("POST"),
            };
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        let Some((position, route)) =
            ROUTES.iter().enumerate().find(|(_, route)| route.path == path)
        else {
            return lost();
        };
        if let Some(hint) = route.hint {
            let mut early = ResponseHead::new(StatusCode::EARLY_HINTS);
            early.headers.insert(LINK, HeaderValue::from_static(hint));
            interim.send(early);
        }
        if matches!(route.answer, Answer::Slow) {
            tokio::time::sleep(self.slow).await;
        }
        let number = self.count(position);
        let content = self.content(route, number, &head.headers);
        respond(route, number, content, &head.headers)
    }
}

impl Handler for Demo {
    async fn serve(&self, request: Request) -> Response {
        let mut response = self.answer(&request.head, &request.interim).await;
        sign(&mut response.headers, request.arrived);
        response
    }

    fn refuse(
        &self,
        refusal: Refusal,
        _head: Option<&RequestHead>,
        _client: &Client,
        now: Now,
    ) -> Response {
        let mut response = plain(refusal.status(), "that is not a request\n");
        response.close = true;
        sign(&mut response.headers, now);
        response
    }
}

/// What a route has to say to one request.
struct Content {
    status: StatusCode,
    language: Option<&'static str>,
    bytes: Bytes,
}

impl Content {
    fn of(bytes: Bytes) -> Self {
        Self { status: StatusCode::OK, language: None, bytes }
    }

    /// Strong validator: a hash of the bytes, alike in every process.
    fn etag(&self) -> String {
        let mut hasher = siphasher::sip::SipHasher13::new();
        hasher.write(&self.bytes);
        format!("\"{:016x}\"", hasher.finish())
    }
}

fn respond(route: &Route, number: u64, content: Content, asked: &HeaderMap) -> Response {
    let etag = content.etag();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(route.media));
    headers.insert(ORIGIN_ANSWER, HeaderValue::from(number));
    if content.status.is_success() {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(route.caching));
        if let Some((name, tags)) = route.tags {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(tags));
        }
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(ETAG, etag);
        }
        if route.answer.is_file() {
            headers.insert(LAST_MODIFIED, HeaderValue::from_static(EDITED));
        }
        if let Some(language) = content.language {
            headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language));
            headers.insert(VARY, HeaderValue::from_static("accept-language"));
        }
    } else {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let unchanged = content.status.is_success() && unchanged(asked, &etag, route);
    let mut response = if unchanged {
        headers.remove(CONTENT_TYPE);
        Response::new(StatusCode::NOT_MODIFIED, Body::Empty)
    } else {
        let length = content.bytes.len() as u64;
        let mut response = Response::new(content.status, Body::from(content.bytes));
        response.head_length = Some(length);
        response
    };
    response.headers = headers;
    response
}

/// Whether the asker has what we would send (RFC 9110 section 13.2.2).
fn unchanged(asked: &HeaderMap, etag: &str, route: &Route) -> bool {
    let mut lines = asked.get_all(IF_NONE_MATCH).iter().peekable();
    if lines.peek().is_some() {
        return lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(
            |one| {
                let one = one.trim();
                one == "*" || one.trim_start_matches("W/") == etag
            },
        );
    }
    let since = asked.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|date| httpdate::parse_http_date(date).ok());
    route.answer.is_file() && since >= httpdate::parse_http_date(EDITED).ok() && since.is_some()
}

/// Path and query of an origin-form target.
fn split(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

fn json(value: &serde_json::Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(status, Body::from(Bytes::from_static(text.as_bytes())));
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "that is not done here\n");
    response.headers.insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// The page for what is not there; kept for a moment, so that a wrong link costs the origin little.
fn lost() -> Response {
    let mut response = Response::new(StatusCode::NOT_FOUND, Body::from(site::lost()));
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(site::HTML));
    response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=10"));
    response
}

fn sign(headers: &mut HeaderMap, now: Now) {
    headers.insert(SERVER, HeaderValue::from_static("atoll-demo"));
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(now.wall)) {
        headers.insert(DATE, date);
    }
}

#[cfg(test)]
mod tests;
