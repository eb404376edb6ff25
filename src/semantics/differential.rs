//! A second opinion: the `http-cache-semantics` crate, asked the same questions as we are.
//!
//! It knows RFC 7234 and nothing of targeted fields, stale windows or purges; where both have an
//! opinion they must agree, or the difference stands in [`KNOWN`] with its reason. A difference
//! that is not listed fails, and so does a listed one that no longer occurs.

mod known;

use std::time::Duration;

use http::header;
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::test_support::{ARRIVAL, date, fields, get, response};
use super::*;
use crate::clock::Now;
use known::KNOWN;

/// What both are asked, each only where those before brought no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// May it be stored?
    Storable,
    /// How old is it?
    Age,
    /// How long is it fresh still?
    TimeToLive,
    /// May it answer the second request as it is?
    Reuse,
    /// What is the origin asked, if it may not?
    Conditions,
    /// Does this 304 confirm it?
    Confirms,
}
use Question::{Age, Conditions, Confirms, Reuse, Storable, TimeToLive};

/// Field lines.
type Rows = Vec<(&'static str, String)>;

/// Two requests for one URL, the response to the first, and a 304.
#[derive(Clone, Debug)]
struct Case {
    first: Rows,
    status: u16,
    response: Rows,
    second: Rows,
    not_modified: Rows,
    seconds: u64,
}

/// A difference that we mean.
struct Known {
    question: Question,
    name: &'static str,
    /// Why we are right to differ.
    reason: &'static str,
    applies: fn(&Case) -> bool,
}

impl Case {
    fn row(&self, name: &str) -> Option<&str> {
        find(&self.response, name)
    }

    fn second_row(&self, name: &str) -> Option<&str> {
        find(&self.second, name)
    }

    fn confirming(&self, name: &str) -> Option<&str> {
        find(&self.not_modified, name)
    }

    /// Whether the response has a directive of that name.
    fn says(&self, name: &str) -> bool {
        self.count(name) > 0
    }

    fn count(&self, name: &str) -> usize {
        let line = self.row("cache-control").unwrap_or_default().to_ascii_lowercase();
        line.split(", ").filter(|own| own.split('=').next() == Some(name)).count()
    }

    /// Whether a directive is there more than once.
    fn repeats(&self) -> bool {
        let line = self.row("cache-control").unwrap_or_default();
        let names = line.split(", ").filter_map(|own| own.split('=').next());
        names.into_iter().any(|name| self.count(&name.to_ascii_lowercase()) > 1)
    }

    /// Whether the response has exactly this directive.
    fn has_directive(&self, directive: &str) -> bool {
        self.row("cache-control").unwrap_or_default().split(", ").any(|own| own == directive)
    }

    /// Whether a directive of the second request begins so.
    fn wants(&self, directive: &str) -> bool {
        self.second_row("cache-control").unwrap_or_default().starts_with(directive)
    }

    fn has_capitals(&self) -> bool {
        self.row("cache-control").unwrap_or_default().contains(char::is_uppercase)
    }

    fn policy() -> Policy {
        Policy {
            heuristic: true,
            honour_request_directives: true,
            store_set_cookie: true,
            vary_on_cookie: true,
            error_lifetime: Duration::from_secs(1 << 40),
            jitter_percent: 0,
            early_refresh: 0.0,
            ..Policy::default()
        }
    }

    fn ours(&self) -> Result<Terms, NotStored> {
        let (asked, head) = (get("http://h/", &rows(&self.first)), self.head());
        let at = Now::at(ARRIVAL);
        storable(&asked, &head, &Self::policy(), at, at, 0.0)
    }

    fn head(&self) -> crate::message::ResponseHead {
        response(self.status, &rows(&self.response))
    }

    fn theirs(&self) -> CachePolicy {
        let options = CacheOptions::default();
        let (first, head) = (request(&self.first), their_response(self.status, &self.response));
        CachePolicy::new_options(&first, &head, Now::at(ARRIVAL).wall, options)
    }

    /// The first question on which the two differ, with both opinions.
    fn difference(&self) -> Option<(Question, String)> {
        let (ours, theirs) = (self.ours(), self.theirs());
        let now = Now::at(ARRIVAL + self.seconds);
        let differ = |question, ours: String, theirs: String| {
            (ours != theirs).then(|| (question, format!("ours {ours}, theirs {theirs}")))
        };
        let stored = differ(Storable, ours.is_ok().to_string(), theirs.is_storable().to_string());
        let Ok(terms) = ours else { return stored };
        let whole = |time: Duration| time.as_secs().to_string();
        let their_age = theirs.age(now.wall);
        let lifetime = if terms.no_cache { Duration::ZERO } else { terms.fresh_for };
        stored
            .or_else(|| differ(Age, whole(terms.age(now)), whole(their_age)))
            .or_else(|| {
                // Vary: * ends its lifetime there; here it is not kept at all.
                let left = lifetime.saturating_sub(their_age);
                let never = self.row("vary") == Some("*");
                let left = if never { Duration::ZERO } else { left };
                differ(TimeToLive, whole(left), whole(theirs.time_to_live(now.wall)))
            })
            .or_else(|| self.difference_in_use(&terms, &theirs, now))
    }

    fn difference_in_use(
        &self,
        terms: &Terms,
        theirs: &CachePolicy,
        now: Now,
    ) -> Option<(Question, String)> {
        let policy = Self::policy();
        let head = self.head();
        let (first, second) =
            (get("http://h/", &rows(&self.first)), get("http://h/", &rows(&self.second)));
        let selects = match VaryFields::of(&head.headers, 8, &policy) {
            Ok(None) => true,
            Ok(Some(names)) => names.secondary(&first.headers) == names.secondary(&second.headers),
            Err(_) => false,
        };
        let found = selects.then_some((terms, Verdict::Alive));
        let decision = decide(&second, found, true, &policy, Trust::Lease, now, 1.0);
        let ours = matches!(decision, Decision::Hit { .. });
        let before = theirs.before_request(&request(&self.second), now.wall);
        if ours != before.satisfies_without_revalidation() {
            return Some((Reuse, format!("ours {decision:?}, theirs {}", !ours)));
        }
        if let BeforeRequest::Stale { request: asks, matches: true } = before {
            let own = conditions(&head.headers, terms);
            for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                if own.get(&name) != asks.headers.get(&name) {
                    return Some((Conditions, format!("ours {own:?}, theirs {:?}", asks.headers)));
                }
            }
        }
        let ours = confirms(&head.headers, &fields(&rows(&self.not_modified)));
        let answer = their_response(304, &self.not_modified);
        let theirs = matches!(
            theirs.after_response(&request(&self.second), &answer, now.wall),
            AfterResponse::NotModified(..)
        );
        (ours != theirs).then(|| (Confirms, format!("ours {ours}, theirs {theirs}")))
    }
}

fn find<'a>(rows: &'a Rows, name: &str) -> Option<&'a str> {
    rows.iter().find(|(own, _)| *own == name).map(|(_, value)| &**value)
}

fn rows(rows: &Rows) -> Vec<(&str, &str)> {
    rows.iter().map(|(name, value)| (*name, &**value)).collect()
}

fn request(all: &Rows) -> http::Request<()> {
    let mut request = http::Request::builder().uri("http://h/").body(()).unwrap();
    *request.headers_mut() = fields(&rows(all));
    request
}

fn their_response(status: u16, all: &Rows) -> http::Response<()> {
    let mut response = http::Response::builder().status(status).body(()).unwrap();
    *response.headers_mut() = fields(&rows(all));
    response
}

/// Nothing, or one of these values of a field.
fn maybe(name: &'static str, values: &[&str]) -> impl Strategy<Value = Rows> + use<> {
    let values: Vec<String> = values.iter().map(|own| (*own).to_owned()).collect();
    let one = prop::sample::select(values).prop_map(move |value| vec![(name, value)]);
    prop_oneof![2 => Just(Vec::new()), 1 => one]
}

fn directives() -> impl Strategy<Value = Rows> {
    let known = prop::sample::select(vec![
        "max-age=60",
        "max-age=60",
        "max-age=60",
        "max-age=0",
        "max-age=\"60\"",
        "max-age",
        "max-age=60, max-age=10",
        "max-age=10, max-age=60",
        "max-age=abc",
        "max-age=99999999999",
        "s-maxage=30",
        "private",
        "private=\"foo\"",
        "no-store",
        "no-cache",
        "no-cache=\"foo\"",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "immutable",
        "Max-Age=60",
        "No-Store",
        "stale-while-revalidate=30",
        "foo=\"bar\"",
    ]);
    prop::collection::vec(known, 0..4).prop_map(|all| match all.as_slice() {
        [] => Vec::new(),
        all => vec![("cache-control", all.join(", "))],
    })
}

prop_compose! {
    fn responses()(
        cache in directives(),
        expires in maybe("expires", &[
            &date(ARRIVAL + 100), &date(ARRIVAL - 100), "0", "Sunday, 09-Sep-01 02:00:00 GMT",
            "Sun Sep  9 02:00:00 2001",
        ]),
        when in maybe("date", &[&date(ARRIVAL), &date(ARRIVAL - 30), "foo"]),
        age in maybe("age", &["10", "10, 20", "foo", "-5"]),
        modified in maybe("last-modified", &[
            &date(ARRIVAL - 1000), &date(ARRIVAL - 10_000_000), "foo",
        ]),
        etag in maybe("etag", &["\"a\"", "W/\"a\"", "a"]),
        vary in maybe("vary", &["Foo", "*", "Foo, Bar"]),
        cookie in maybe("set-cookie", &["a=b"]),
        pragma in maybe("pragma", &["no-cache"]),
    ) -> Rows {
        [cache, expires, when, age, modified, etag, vary, cookie, pragma].concat()
    }
}

prop_compose! {
    fn requests()(
        cache in maybe("cache-control", &[
            "no-cache", "no-store", "max-age=0", "max-age=30", "max-stale", "max-stale=10",
            "min-fresh=20", "foo",
        ]),
        authorization in maybe("authorization", &["Basic ann"]),
        foo in maybe("foo", &["1, 2", "1 ,2", "3"]),
        pragma in maybe("pragma", &["no-cache"]),
    ) -> Rows {
        [cache, authorization, foo, pragma].concat()
    }
}

prop_compose! {
    fn cases()(
        first in requests(), response in responses(), second in requests(),
        status in prop::sample::select(vec![
            200_u16, 200, 200, 203, 204, 299, 301, 302, 307, 404, 410, 414, 500, 501, 503,
        ]),
        etag in maybe("etag", &["\"a\"", "\"b\"", "W/\"a\""]),
        modified in maybe("last-modified", &[&date(ARRIVAL - 1000), &date(ARRIVAL - 2000)]),
        seconds in prop::sample::select(vec![0_u64, 0, 1, 10, 29, 30, 40, 59, 60, 61, 70, 71, 200]),
    ) -> Case {
        Case { first, status, response, second, not_modified: [etag, modified].concat(), seconds }
    }
}

#[test]
fn the_second_opinion_differs_only_where_we_know_why() {
    let mut runner = TestRunner::deterministic();
    let mut met = vec![0_usize; KNOWN.len()];
    let (mut agreed, mut unknown) = (0, Vec::new());
    for _ in 0..20_000 {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let Some((question, opinions)) = case.difference() else {
            agreed += 1;
            continue;
        };
        let known = KNOWN.iter().position(|own| own.question == question && (own.applies)(&case));
        match known {
            Some(at) => met[at] += 1,
            None => unknown.push(format!("{question:?}: {opinions}: {case:?}")),
        }
    }
    assert!(
        unknown.is_empty(),
        "{} unknown:\n{}",
        unknown.len(),
        unknown[..unknown.len().min(9)].join("\n")
    );
    assert!(agreed > 7000, "{agreed}");
    for (known, met) in KNOWN.iter().zip(met) {
        let Known { question, name, reason, .. } = known;
        assert!(met > 0, "{question:?} {name} does not occur any more: {reason}");
    }
}
