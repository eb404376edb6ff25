//! What holds for every request, response, policy and moment.

use std::time::Duration;

use proptest::prelude::*;

use super::test_support::{ARRIVAL, Fields, fields, get, head, request, response};
use super::*;
use crate::clock::Now;

/// Directives of responses, as origins write them.
fn response_directives() -> impl Strategy<Value = String> {
    let number = 0_u64..120;
    let directive = prop_oneof![
        5 => number.clone().prop_map(|seconds| format!("max-age={seconds}")),
        1 => number.clone().prop_map(|seconds| format!("s-maxage={seconds}")),
        2 => number.clone().prop_map(|seconds| format!("stale-while-revalidate={seconds}")),
        2 => number.prop_map(|seconds| format!("stale-if-error={seconds}")),
        3 => prop::sample::select(vec![
            "public", "must-revalidate", "proxy-revalidate", "no-cache", "immutable", "foo",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(directive, 1..5).prop_map(|all| all.join(", "))
}

/// Directives of requests.
fn request_directives() -> impl Strategy<Value = String> {
    let number = 0_u64..120;
    let directive = prop_oneof![
        number.clone().prop_map(|seconds| format!("max-age={seconds}")),
        number.clone().prop_map(|seconds| format!("max-stale={seconds}")),
        number.prop_map(|seconds| format!("min-fresh={seconds}")),
        prop::sample::select(vec!["max-stale", "no-cache", "only-if-cached"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(directive, 0..3).prop_map(|all| all.join(", "))
}

prop_compose! {
    fn policies()(
        lifetime in prop::option::of(0_u64..120),
        default_lifetime in prop::option::of(0_u64..120),
        windows in (prop::option::of(0_u64..120), prop::option::of(0_u64..120)),
        heuristic: bool, honour: bool, serve: bool, jitter_percent in 0_u32..100,
        early_refresh in 0.0..100.0,
    ) -> Policy {
        let seconds = |value: Option<u64>| value.map(Duration::from_secs);
        Policy {
            lifetime: seconds(lifetime),
            default_lifetime: seconds(default_lifetime),
            stale_while_revalidate: seconds(windows.0),
            stale_if_error: seconds(windows.1),
            heuristic,
            honour_request_directives: honour,
            without_lease: if serve { WithoutLease::Serve } else { WithoutLease::Revalidate },
            jitter_percent,
            early_refresh,
            ..Policy::default()
        }
    }
}

prop_compose! {
    fn responses()(
        status in prop::sample::select(vec![200_u16, 203, 204, 301, 302, 404, 410, 500, 503, 599]),
        line in response_directives(),
        age in prop::option::of(0_u64..120),
        etag: bool, modified: bool, targeted in prop::option::of(response_directives()),
    ) -> crate::message::ResponseHead {
        let mut head = response(status, &[("cache-control", line.as_str())]);
        let mut add = |name: &'static str, value: &str| {
            head.headers.insert(name, value.parse().unwrap());
        };
        if let Some(age) = age {
            add("age", &age.to_string());
        }
        if etag {
            add("etag", "\"a\"");
        }
        if modified {
            add("last-modified", "Sun, 09 Sep 2001 01:40:00 GMT");
        }
        if let Some(line) = targeted {
            add("cdn-cache-control", &line);
        }
        head
    }
}

/// Terms of a response that took `delay` seconds; `None` where it is not stored.
fn terms_of(
    head: &crate::message::ResponseHead,
    policy: &Policy,
    delay: u64,
    draw: f64,
) -> Option<Terms> {
    let (requested, received) = (Now::at(ARRIVAL - delay), Now::at(ARRIVAL));
    storable(&get("http://h/", &[]), head, policy, requested, received, draw).ok()
}

/// How good an answer from memory is: 2 fresh or asked for as it is, 1 stale, 0 none.
fn rank(decision: Decision) -> u8 {
    match decision {
        Decision::Hit { .. } => 2,
        Decision::HitStale => 1,
        Decision::Revalidate(_)
        | Decision::Fill(_)
        | Decision::Pass(_)
        | Decision::OnlyIfCached => 0,
    }
}

/// What the purge table says at a moment, if purges came at these.
fn verdict_at(soft: Option<u64>, check: Option<u64>, seconds: u64) -> Verdict {
    match (soft, check) {
        (_, Some(moment)) if moment <= seconds => Verdict::Check,
        (Some(moment), _) if moment <= seconds => {
            Verdict::Soft { since: Now::at(ARRIVAL + moment) }
        }
        _ => Verdict::Alive,
    }
}

proptest! {
    /// Whatever origin, client, policy and purges say: time never makes a stored response better.
    #[test]
    fn as_now_grows_nothing_stale_turns_fresh(
        head in responses(), policy in policies(), line in request_directives(),
        soft in prop::option::of(0_u64..250), check in prop::option::of(0_u64..250),
        lease: bool, head_request: bool, delay in 0_u64..5,
        mut moments in prop::collection::vec(0_u64..400, 2..6), draw in 0.0..1.0, dice in 0.0..1.0,
    ) {
        let Some(terms) = terms_of(&head, &policy, delay, draw) else { return Ok(()) };
        let method = if head_request { "HEAD" } else { "GET" };
        let asked = request(method, "http://h/", &[("cache-control", line.as_str())]);
        moments.sort_unstable();
        let mut before = (2, true, i64::MAX);
        for seconds in moments {
            let (verdict, now) = (verdict_at(soft, check, seconds), Now::at(ARRIVAL + seconds));
            let found = Some((&terms, verdict));
            let decision = decide(&asked, found, true, &policy, Trust::of(lease, &policy), now, dice);
            let after = (
                rank(decision),
                may_serve_on_error(&asked, &terms, verdict, &policy, Trust::of(lease, &policy), now),
                terms.ttl(now),
            );
            prop_assert!(after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2,
                "{before:?} {after:?} at {seconds}: {terms:?}");
            before = after;
        }
    }

    /// Without trust nothing that was there before answers: not fresh, not stale, not for an error,
    /// not with a 304 of ours, which is a hit like any other.
    #[test]
    fn without_trust_memory_answers_nobody(
        head in responses(), policy in policies(), line in request_directives(),
        soft in prop::option::of(0_u64..250), check in prop::option::of(0_u64..250),
        behind: bool, head_request: bool, delay in 0_u64..5, seconds in 0_u64..400,
        known in prop::option::of(Just("\"a\"")), draw in 0.0..1.0, dice in 0.0..1.0,
    ) {
        let Some(terms) = terms_of(&head, &policy, delay, draw) else { return Ok(()) };
        let trust = if behind { Trust::Behind } else { Trust::NoLease };
        let method = if head_request { "HEAD" } else { "GET" };
        let mut lines = vec![("cache-control", line.as_str())];
        lines.extend(known.map(|tag| ("if-none-match", tag)));
        let asked = request(method, "http://h/", &lines);
        let (verdict, now) = (verdict_at(soft, check, seconds), Now::at(ARRIVAL + seconds));
        let found = Some((&terms, verdict));
        let decision = decide(&asked, found, true, &policy, trust, now, dice);
        prop_assert!(!matches!(decision, Decision::Hit { .. } | Decision::HitStale), "{decision:?}");
        prop_assert!(!may_serve_on_error(&asked, &terms, verdict, &policy, trust, now));
    }

    /// F29: jitter shortens by its share at most and never lengthens, and what it gives follows from
    /// the draw alone.
    #[test]
    fn jitter_shortens_what_is_stored_and_nothing_else(
        head in responses(), policy in policies(), delay in 0_u64..5, draw in 0.0..1.0,
        seconds in 0_u64..400,
    ) {
        let exact = Policy { jitter_percent: 0, ..policy.clone() };
        let Some(terms) = terms_of(&head, &policy, delay, draw) else { return Ok(()) };
        let again = terms_of(&head, &policy, delay, draw);
        prop_assert_eq!(Some(&terms), again.as_ref());
        let plain = terms_of(&head, &exact, delay, draw).unwrap();
        prop_assert!(terms.fresh_for <= plain.fresh_for);
        let share = f64::from(policy.jitter_percent) / 100.0;
        let least = plain.fresh_for.mul_f64(1.0 - share).saturating_sub(Duration::from_millis(1));
        prop_assert!(terms.fresh_for >= least);
        prop_assert_eq!(Terms { fresh_for: plain.fresh_for, ..terms.clone() }, plain.clone());
        // Never longer than what the origin gave, unless the operator says otherwise.
        if policy.lifetime.is_none() && policy.default_lifetime.is_none() && !policy.heuristic {
            let text = |name| {
                head.headers.get(name).map_or("", |line: &http::HeaderValue| line.to_str().unwrap())
            };
            let line = format!("{}, {}", text("cache-control"), text("cdn-cache-control"));
            let given = line.split(", ").filter_map(|own| own.split_once("age="));
            let most = given.filter_map(|(_, value)| value.parse().ok()).max().unwrap_or(0);
            prop_assert!(terms.fresh_for <= Duration::from_secs(most), "{line}");
        }
        let now = Now::at(ARRIVAL + seconds);
        prop_assert!(plain.is_fresh(now) || !terms.is_fresh(now));
    }

    /// F02, F04: a response that may not be shared is not stored, whatever else it says and whatever
    /// the operator wishes.
    #[test]
    fn what_forbids_sharing_wins_over_all_that_allows_it(
        mut head in responses(), policy in policies(), which in 0_usize..7, noise in "[a-z=, ]{0,12}",
    ) {
        let line = |text: &str| format!("{noise}, {text}, public, max-age=60").parse().unwrap();
        let mut asked = get("http://h/", &[]);
        head.headers.remove("cdn-cache-control");
        match which {
            0 => drop(head.headers.insert("cache-control", line("private"))),
            1 => drop(head.headers.insert("cache-control", line("no-store"))),
            2 => drop(head.headers.append("cache-control", line("PRIVATE"))),
            3 => drop(head.headers.insert("cdn-cache-control", "max-age=9, private".parse().unwrap())),
            4 => drop(head.headers.insert("atoll-cache-control", "no-store".parse().unwrap())),
            5 => drop(head.headers.append("set-cookie", "a=b".parse().unwrap())),
            _ => {
                asked = get("http://h/", &[("authorization", "Basic ann")]);
                head.headers.insert("cache-control", "max-age=60".parse().unwrap());
            }
        }
        let at = Now::at(ARRIVAL);
        prop_assert!(storable(&asked, &head, &policy, at, at, 0.0).is_err());
    }

    /// F10, F15: the request that the origin gets means the same to whoever reads it by our rules:
    /// same key, same fields.
    #[test]
    fn what_goes_on_to_the_origin_has_the_key_that_it_was_stored_under(
        host in "[A-Za-z0-9.-]{1,12}(:[0-9]{1,5})?",
        target in "/([a-zA-Z.%/;]|%2[eEfF5]){0,20}(\\?[!-~]{0,12})?",
        names in prop::collection::vec("(x-[a-z]{1,4}|cookie|accept|x_forwarded_for|te)", 0..5),
        values in prop::collection::vec("[!-~]{0,10}", 5),
    ) {
        let rows: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
        let mut first = head("GET", &format!("http://{host}/"), &rows);
        first.target = target;
        let Ok(once) = normalise(first) else { return Ok(()) };
        let mut written = head("GET", &format!("http://{}/", once.host_field()), &[]);
        written.target = once.target();
        written.headers.extend(once.headers.clone());
        let twice = normalise(written).unwrap();
        let key = |request: &Request| {
            CacheKey::of(KeySecret([1, 2]), "s", request, &Policy::default())
        };
        prop_assert_eq!(key(&once), key(&twice));
        prop_assert_eq!(&once.headers, &twice.headers);
        prop_assert_eq!(once.directives, twice.directives);
        prop_assert_eq!(once.ambiguous, twice.ambiguous);
    }

    /// F42: nothing of the way, of the connection or of the user stays in what is stored; all else
    /// does.
    #[test]
    fn what_is_stored_holds_nothing_of_the_way(
        nominated in "x-[a-z]{1,3}", withheld in "y-[a-z]{1,3}", kept in "z-[a-z]{1,3}",
    ) {
        const GONE: [&str; 20] = [
            "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
            "upgrade", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
            "content-length", "age", "via", "cache-status", "x-cache", "x-cache-hits",
            "x-cache-lookup", "x-served-by", "x-request-id", "cdn-loop",
        ];
        let mut rows = vec![("content-type", "a/b"), ("etag", "\"a\""), ("warning", "110 - x")];
        rows.extend(GONE.map(|name| (name, "1")));
        let mut headers = fields(&rows);
        headers.append("connection", nominated.parse().unwrap());
        headers.append("cache-control", format!("max-age=1, no-cache=\"{withheld}\"").parse().unwrap());
        for name in [&nominated, &withheld, &kept] {
            headers.insert(http::HeaderName::try_from(name.as_str()).unwrap(), "1".parse().unwrap());
        }
        let stored = stored_fields(&headers, &Policy::default());
        for name in GONE.iter().copied().chain([nominated.as_str(), withheld.as_str()]) {
            prop_assert!(!stored.contains_key(name), "{}", name);
        }
        prop_assert_eq!(stored.len(), 5, "{:?}", stored);
        prop_assert!(stored.contains_key(&kept));
    }
}

/// F04, by status: what is stored with explicit freshness, what only with it, and what never.
#[test]
fn every_status_is_stored_as_the_rfcs_say() {
    const NEVER: [u16; 7] = [304, 412, 428, 429, 431, 511, 416];
    const GUESSED: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
    let policy = Policy { heuristic: true, ..Policy::default() };
    let modified = super::test_support::date(ARRIVAL - 100_000);
    let at = Now::at(ARRIVAL);
    fn judge(status: u16, rows: Fields<'_>, policy: &Policy, at: Now) -> Result<Terms, NotStored> {
        storable(&get("http://h/", &[]), &response(status, rows), policy, at, at, 0.0)
    }
    let judge = |status, rows: Fields<'_>| judge(status, rows, &policy, at);
    for status in (200..600).filter(|status| *status != 206) {
        let fresh = judge(status, &[("cache-control", "max-age=60")]);
        assert_eq!(fresh.is_ok(), !NEVER.contains(&status), "{status}: {fresh:?}");
        let guessed = judge(status, &[("last-modified", modified.as_str())]);
        assert_eq!(guessed.is_ok(), GUESSED.contains(&status), "{status}: {guessed:?}");
        let public =
            judge(status, &[("last-modified", modified.as_str()), ("cache-control", "public")]);
        assert_eq!(public.is_ok(), !NEVER.contains(&status), "{status}: {public:?}");
        let understood =
            judge(status, &[("cache-control", "no-store, must-understand, max-age=60")]);
        assert_eq!(understood.is_ok(), is_registered(status), "{status}: {understood:?}");
    }
    let post = request("POST", "http://h/", &[]);
    let fresh = response(200, &[("cache-control", "max-age=60")]);
    assert_eq!(storable(&post, &fresh, &policy, at, at, 0.0), Err(NotStored::Method));
}

/// Whether a status is registered and may be stored.
fn is_registered(status: u16) -> bool {
    matches!(
        status,
        200..=205 | 207 | 208 | 226 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417
            | 421..=426 | 451 | 500..=508 | 510
    )
}
