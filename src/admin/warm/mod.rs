//! Warm-up: fetching URLs before clients ask for them.
//!
//! What is fetched goes the way of a client's request through the proxy of this node: the same
//! canonical form, key, collapse and limits of the origin. So nothing but the origins of the
//! configured sites can be reached, a sitemap included, and what is stored is what a client would
//! have caused to be stored. A warm-up knows the sites of the token that asked for it: a URL that
//! was sent and is not of them refuses the request, one in a sitemap is left out and counted.
//!
//! Warm-ups are few, paced, and remembered for a while after their end. They end when the node
//! drains.

mod job;
mod sitemap;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::explain::{Lines, Place, fields, place};
use super::problem::Problem;
use super::{Admin, Call, Reply, json};
use crate::config::Token;
use crate::message::RequestHead;
use crate::telemetry::rfc3339;
use job::{Job, Order, Progress, Source};

/// Requests per second, unless the request says otherwise.
const RATE: f64 = 10.0;
/// Slowest and fastest that may be asked for.
const RATES: std::ops::RangeInclusive<f64> = 0.1..=1000.0;
/// Sets of fields in one warm-up.
const VARIANTS: usize = 16;
/// Warm-ups that are remembered after their end.
const REMEMBERED: usize = 100;

/// Fields that a warm-up does not send: they would make an answer somebody's own, incomplete or
/// conditional, speak of the connection, or claim where the request comes from.
const REFUSED: [&str; 28] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-type",
    "content-encoding",
    "expect",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "cache-control",
    "pragma",
    "forwarded",
    "via",
    "cdn-loop",
    "atoll-explain",
    "early-data",
];

/// The warm-ups of a node.
#[derive(Debug)]
pub(super) struct Warm {
    /// At once.
    most_jobs: usize,
    /// Requests of one.
    most_urls: usize,
    jobs: Arc<Mutex<Jobs>>,
}

#[derive(Debug, Default)]
struct Jobs {
    last: u64,
    /// The newest in front.
    row: VecDeque<Arc<Job>>,
}

impl Warm {
    pub(super) fn new(most_jobs: usize, most_urls: usize) -> Self {
        Self { most_jobs, most_urls, jobs: Arc::default() }
    }

    /// The same warm-ups under other bounds.
    pub(super) fn within(&self, most_jobs: usize, most_urls: usize) -> Self {
        Self { most_jobs, most_urls, jobs: Arc::clone(&self.jobs) }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The warm-up of this id, where the token may see it.
    fn find(&self, id: &str, token: &Token) -> Result<Arc<Job>, Problem> {
        let found = self.jobs().row.iter().find(|job| job.id == id && may_see(token, job)).cloned();
        found.ok_or_else(|| {
            let detail = "no warm-up of this id is remembered here";
            Problem::new(StatusCode::NOT_FOUND, "unknown-warm-up", detail)
        })
    }

    /// Gives a new warm-up its place among the others.
    fn enter(&self, admin: &Admin, order: &Order, call: &Call<'_>) -> Result<Arc<Job>, Problem> {
        if self.most_jobs == 0 {
            let detail = "warm-ups are switched off by `admin.warm_jobs`";
            return Err(Problem::forbidden("switched-off", detail));
        }
        let mut jobs = self.jobs();
        if jobs.row.iter().filter(|job| job.is_running()).count() >= self.most_jobs {
            let detail = format!("{} warm-ups are under way: wait or stop one", self.most_jobs);
            return Err(Problem::wait("busy", detail, Duration::from_secs(5)));
        }
        jobs.last += 1;
        let id = format!("{}.{}.w{}", admin.identity.name, admin.identity.incarnation, jobs.last);
        let job = Arc::new(Job::new(id, order, call.now.wall));
        jobs.row.push_front(Arc::clone(&job));
        let mut over = 0;
        jobs.row.retain(|job| {
            over += usize::from(!job.is_running());
            job.is_running() || over <= REMEMBERED
        });
        Ok(job)
    }
}

/// Its own, and those of everybody where the token is bound to no site: the URLs of other sites
/// are nobody else's business.
fn may_see(token: &Token, job: &Job) -> bool {
    token.sites.is_empty() || token.name == job.token
}

/// What is asked for.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    urls: Option<Vec<String>>,
    sitemap: Option<String>,
    rate: Option<f64>,
    #[serde(default)]
    headers: Vec<Lines>,
}

/// A warm-up as it is told.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    token: &'a str,
    /// Id of the purge that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    purge: Option<&'a str>,
    began: String,
    rate: f64,
    #[serde(flatten)]
    progress: Progress,
}

fn told(job: &Job) -> Told<'_> {
    Told {
        id: &job.id,
        token: &job.token,
        purge: job.purge.as_deref(),
        began: rfc3339(job.began),
        rate: job.rate,
        progress: job.progress(),
    }
}

/// `POST /v1/warm`
pub(super) fn start(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let order = order(admin, call)?;
    if admin.control.readiness().draining {
        let detail = "the node drains, and fetches nothing ahead";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail));
    }
    let job = begin(admin, order, call)?;
    let mut reply = json(StatusCode::ACCEPTED, &told(&job));
    if let Ok(place) = HeaderValue::try_from(format!("/v1/warm/{}", job.id)) {
        reply.headers_mut().insert(header::LOCATION, place);
    }
    Ok(reply)
}

fn begin(admin: &Admin, order: Order, call: &Call<'_>) -> Result<Arc<Job>, Problem> {
    let job = admin.warm.enter(admin, &order, call)?;
    let control = Arc::clone(&admin.control);
    let at_work = Arc::clone(&job);
    tokio::spawn(async move { at_work.run(order, control).await });
    Ok(job)
}

/// Fetches again what a purge took. Gives the id of the warm-up that does it; `None` where there is
/// nothing to fetch or none may begin: the purge is in force all the same.
pub(super) fn refetch(
    admin: &Admin,
    call: &Call<'_>,
    purge: &str,
    hottest: Vec<RequestHead>,
) -> Option<String> {
    if hottest.is_empty() || admin.control.readiness().draining {
        return None;
    }
    let (most, rate) = admin.refetch;
    let order = Order {
        token: call.token.clone(),
        source: Source::Purged(hottest),
        variants: Vec::new(),
        rate,
        most,
        purge: Some(purge.to_owned()),
    };
    begin(admin, order, call).ok().map(|job| job.id.clone())
}

/// How far what was fetched again after a purge has come.
#[derive(Serialize)]
pub(super) struct Refetched {
    warm_up: String,
    #[serde(flatten)]
    progress: Progress,
}

/// What is fetched again after the purge of this id, where that is remembered.
pub(super) fn refetched(admin: &Admin, purge: &str) -> Option<Refetched> {
    let jobs = admin.warm.jobs();
    let job = jobs.row.iter().find(|job| job.purge.as_deref() == Some(purge))?;
    Some(Refetched { warm_up: job.id.clone(), progress: job.progress() })
}

/// `GET /v1/warm`
pub(super) fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct List<'a> {
        warm_ups: Vec<Told<'a>>,
    }
    let jobs: Vec<Arc<Job>> = admin.warm.jobs().row.iter().cloned().collect();
    let seen = jobs.iter().filter(|job| may_see(call.token, job)).map(|job| told(job));
    Ok(json(StatusCode::OK, &List { warm_ups: seen.collect() }))
}

/// `GET /v1/warm/{id}`
pub(super) fn one(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    Ok(json(StatusCode::OK, &told(&*admin.warm.find(call.name, call.token)?)))
}

/// `DELETE /v1/warm/{id}`
pub(super) fn stop(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let job = admin.warm.find(call.name, call.token)?;
    job.stop();
    Ok(json(StatusCode::OK, &told(&job)))
}

fn order(admin: &Admin, call: &Call<'_>) -> Result<Order, Problem> {
    let written = written(call.body)?;
    let rate = written.rate.unwrap_or(RATE);
    let variants = variants(&written.headers, admin.fields)?;
    let most = admin.warm.most_urls;
    let source = match (written.urls, written.sitemap) {
        (Some(urls), None) => Source::Urls(places(admin, call.token, &urls, &variants, most)?),
        (None, Some(url)) => Source::Sitemap(own(admin, call.token, "sitemap", &url)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::bad("source", "name either `urls` or a `sitemap`"));
        }
    };
    Ok(Order { token: call.token.clone(), source, variants, rate, most, purge: None })
}

fn written(body: &[u8]) -> Result<Written, Problem> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("body", "the body must be a JSON object"));
    }
    let written: Written = serde_json::from_slice(body)
        .map_err(|error| Problem::bad("body", format!("the body cannot be read: {error}")))?;
    if written.rate.is_some_and(|rate| !RATES.contains(&rate)) {
        let detail = format!("`rate` is from {} to {}", RATES.start(), RATES.end());
        return Err(Problem::field("value", "rate", detail));
    }
    Ok(written)
}

/// What holds of all bodies: the pace and the fields of what is asked for keep within their bounds.
pub(super) fn is_read(body: &[u8]) {
    const MOST: usize = 20;
    let Ok(written) = written(body) else { return };
    assert!(written.rate.is_none_or(|rate| RATES.contains(&rate)), "{:?}", written.rate);
    let Ok(variants) = variants(&written.headers, MOST) else { return };
    assert!((1..=VARIANTS).contains(&variants.len()), "{} variants", variants.len());
    for fields in &variants {
        assert!(fields.len() <= MOST, "{} fields", fields.len());
        assert!(!REFUSED.iter().any(|name| fields.contains_key(*name)), "{fields:?}");
    }
}

/// What holds of all sitemaps: no more is read than was asked for.
pub(super) fn sitemap_is_read(bytes: &[u8]) {
    const MOST: usize = 10;
    if let Ok(read) = sitemap::parse(bytes, MOST) {
        assert!((1..=MOST).contains(&read.urls.len()), "{} URLs", read.urls.len());
        assert!(!read.more || read.urls.len() == MOST, "more than {}", read.urls.len());
    }
}

fn places(
    admin: &Admin,
    token: &Token,
    urls: &[String],
    variants: &[HeaderMap],
    most: usize,
) -> Result<Vec<Place>, Problem> {
    if urls.is_empty() {
        return Err(Problem::field("empty", "urls", "`urls` names nothing"));
    }
    if urls.len().saturating_mul(variants.len()) > most {
        let detail = format!("more than {most} requests, which are URLs times sets of `headers`");
        return Err(Problem::field("too-many", "urls", detail));
    }
    urls.iter().map(|url| own(admin, token, "urls", url)).collect()
}

/// A URL of a site that the token covers.
fn own(admin: &Admin, token: &Token, named: &'static str, url: &str) -> Result<Place, Problem> {
    let place = place(&*admin.control, token, named, url)?;
    match place.site {
        Some(_) => Ok(place),
        None => {
            let detail = format!("no site answers for the host of {}", place.url());
            Err(Problem::field("foreign-host", named, detail))
        }
    }
}

/// The fields of each variant; one without any, where none are named.
fn variants(written: &[Lines], most_fields: usize) -> Result<Vec<HeaderMap>, Problem> {
    if written.len() > VARIANTS {
        let detail = format!("more than {VARIANTS} sets of fields");
        return Err(Problem::field("too-many", "headers", detail));
    }
    if written.is_empty() {
        return Ok(vec![HeaderMap::new()]);
    }
    let set = |lines: &Lines| {
        let fields = fields(lines, most_fields)?;
        match fields.keys().find(|name| is_refused(name)) {
            None => Ok(fields),
            Some(name) => {
                let detail = format!("{name} is not sent by a warm-up");
                Err(Problem::field("field", "headers", detail))
            }
        }
    };
    written.iter().map(set).collect()
}

fn is_refused(name: &HeaderName) -> bool {
    // Programs behind an origin read `X_Name` and `X-Name` as one.
    let name = name.as_str().replace('_', "-");
    REFUSED.contains(&name.as_str()) || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests;
