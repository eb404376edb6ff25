//! A second opinion: the `http-cache-semantics` crate, asked the same questions as we are.
//!
//! It knows RFC 7234 and nothing of targeted fields, stale windows or purges; where both have an
//! opinion they must agree, or the difference stands in [`KNOWN`] with its reason. A difference
//! that is not listed fails, and so does a listed one that no longer occurs.

use std::time::Duration;

use http::header;
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::test_support::{ARRIVAL, date, fields, get, response};
use super::*;
use crate::clock::Now;

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

const KNOWN: &[Known] = &[
    Known {
        question: Storable,
        name: "other statuses",
        reason: "RFC 9111 section 3 demands to understand a status only where must-understand \
                 stands; with explicit freshness any final status may be stored",
        applies: |case| {
            ![200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501]
                .contains(&case.status)
        },
    },
    Known {
        question: Storable,
        name: "of no use",
        reason: "what can never answer anybody, being neither fresh nor confirmable, is not stored",
        applies: |case| {
            matches!(
                case.ours().err(),
                Some(NotStored::NoFreshness | NotStored::Expired | NotStored::NoValidator)
            )
        },
    },
    Known {
        question: Storable,
        name: "must-understand",
        reason: "no-store beside must-understand is for caches that do not know the latter (RFC \
                 9111 section 5.2.2.3)",
        applies: |case| case.says("must-understand") && case.says("no-store"),
    },
    Known {
        question: Storable,
        name: "private fields",
        reason: "private with field names speaks of those fields only (RFC 9111 section 5.2.2.7)",
        applies: |case| case.has_directive("private=\"foo\""),
    },
    Known {
        question: Storable,
        name: "case of names",
        reason: "directives are compared without case (RFC 9111 section 5.2)",
        applies: Case::has_capitals,
    },
    Known {
        question: Storable,
        name: "repeated directives",
        reason: "contradictory directives are no leave to share what Authorization brought (RFC \
                 9111 section 3.5)",
        applies: |case| find(&case.first, "authorization").is_some() && case.repeats(),
    },
    Known {
        question: Age,
        name: "Date",
        reason: "a response is at least as old as its Date says (RFC 9111 section 4.2.3)",
        applies: |case| case.row("date").is_some_and(|own| own == date(ARRIVAL - 30)),
    },
    Known {
        question: Age,
        name: "Age as a list",
        reason: "the first member counts (RFC 9111 section 5.1)",
        applies: |case| case.row("age").is_some_and(|own| own.contains(',')),
    },
    Known {
        question: TimeToLive,
        name: "Set-Cookie",
        reason: "with store_set_cookie the operator has decided; without it nothing is stored",
        applies: |case| case.row("set-cookie").is_some(),
    },
    Known {
        question: TimeToLive,
        name: "proxy-revalidate",
        reason: "it forbids stale answers, not fresh ones (RFC 9111 section 5.2.2.8)",
        applies: |case| case.says("proxy-revalidate"),
    },
    Known {
        question: TimeToLive,
        name: "immutable",
        reason: "it lends no lifetime to what names none or a shorter one (RFC 8246 section 2)",
        applies: |case| case.says("immutable"),
    },
    Known {
        question: TimeToLive,
        name: "heuristic beyond a day",
        reason: "an estimate stays for a day at most",
        applies: |case| {
            case.row("last-modified").is_some_and(|own| own == date(ARRIVAL - 10_000_000))
        },
    },
    Known {
        question: TimeToLive,
        name: "no-cache fields",
        reason: "no-cache with field names speaks of those fields only (RFC 9111 section 5.2.2.4)",
        applies: |case| case.has_directive("no-cache=\"foo\""),
    },
    Known {
        question: TimeToLive,
        name: "Pragma in responses",
        reason: "it means nothing there (RFC 9111 section 5.4)",
        applies: |case| case.row("pragma").is_some(),
    },
    Known {
        question: TimeToLive,
        name: "old dates",
        reason: "all three forms of dates are read (RFC 9110 section 5.6.7)",
        applies: |case| {
            let is_old = |own: &str| own.starts_with("Sunday") || own.starts_with("Sun Sep");
            case.row("expires").is_some_and(is_old)
        },
    },
    Known {
        question: TimeToLive,
        name: "repeated directives",
        reason: "of two values the lesser counts, not the first (RFC 9111 section 4.2.1)",
        applies: Case::repeats,
    },
    Known {
        question: TimeToLive,
        name: "max-age without a value",
        reason: "a lifetime that cannot be read is none (RFC 9111 section 4.2.1)",
        applies: |case| case.has_directive("max-age"),
    },
    Known {
        question: TimeToLive,
        name: "endless",
        reason: "numbers end at 2^31 (RFC 9111 section 1.2.2)",
        applies: |case| case.has_directive("max-age=99999999999"),
    },
    Known {
        question: TimeToLive,
        name: "case of names",
        reason: "directives are compared without case (RFC 9111 section 5.2)",
        applies: Case::has_capitals,
    },
    Known {
        question: Reuse,
        name: "Authorization",
        reason: "what strangers were shown is not shown to a user without the origin's leave",
        applies: |case| {
            case.second_row("authorization").is_some() && case.row("authorization").is_none()
        },
    },
    Known {
        question: Reuse,
        name: "max-stale against the origin",
        reason: "no-cache, proxy-revalidate and s-maxage forbid stale answers, whatever the client \
                 accepts (RFC 9111 section 4.2.4)",
        applies: |case| {
            case.wants("max-stale")
                && ["no-cache", "proxy-revalidate", "s-maxage"].iter().any(|own| case.says(own))
        },
    },
    Known {
        question: Reuse,
        name: "max-stale to the second",
        reason: "exceeded by no more than that many seconds (RFC 9111 section 5.2.1.2)",
        applies: |case| case.wants("max-stale=10"),
    },
    Known {
        question: Reuse,
        name: "max-age=0",
        reason: "who asks for it wants the origin's word, also within the first second",
        applies: |case| case.wants("max-age=0") && case.seconds == 0,
    },
    Known {
        question: Reuse,
        name: "reload of what is immutable",
        reason: "it would bring the same (RFC 8246 section 2)",
        applies: |case| case.says("immutable") && case.wants("max-age"),
    },
    Known {
        question: Reuse,
        name: "blanks in selecting fields",
        reason: "they mean nothing in lists (RFC 9111 section 4.1)",
        applies: |case| {
            let spaced = [&case.first, &case.second].map(|rows| find(rows, "foo") == Some("1 ,2"));
            case.row("vary").is_some() && spaced.contains(&true)
        },
    },
    Known {
        question: Reuse,
        name: "Pragma beside Cache-Control",
        reason: "Cache-Control counts alone where it is there (RFC 9111 section 5.4)",
        applies: |case| {
            case.second_row("pragma").is_some() && case.second_row("cache-control").is_some()
        },
    },
    Known {
        question: Reuse,
        name: "repeated directives",
        reason: "they are read for the least, not made must-revalidate",
        applies: |case| case.repeats() && case.wants("max-stale"),
    },
    Known {
        question: Conditions,
        name: "Last-Modified that is no date",
        reason: "a recipient ignores If-Modified-Since without one (RFC 9110 section 13.1.3)",
        applies: |case| case.row("last-modified") == Some("foo"),
    },
    Known {
        question: Confirms,
        name: "nothing to compare",
        reason: "a 304 that shares no kind of validator with what was asked about confirms that: \
                 there is nothing else that it could mean",
        applies: |case| {
            let both = |name| case.row(name).is_some() && case.confirming(name).is_some();
            !both("etag") && !both("last-modified")
        },
    },
    Known {
        question: Confirms,
        name: "a date beside a new strong tag",
        reason: "one validator that both have and that is equal suffices (RFC 9111 section 4.3.4)",
        applies: |case| {
            case.row("etag").is_none()
                && case.confirming("last-modified") == case.row("last-modified")
        },
    },
];

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
        let decision = decide(&second, found, true, &policy, true, now, 1.0);
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
