use proptest::prelude::*;

use super::*;
use crate::semantics::policy::WithoutLease;
use crate::semantics::test_support::{ARRIVAL, Fields, get, judged, request};

fn after(seconds: u64) -> Now {
    Now::at(ARRIVAL + seconds)
}

fn terms(line: &str, headers: Fields<'_>) -> Terms {
    let mut all = vec![("cache-control", line)];
    all.extend_from_slice(headers);
    judged(200, &all, &Policy::default()).unwrap()
}

/// Decision on a plain GET, `seconds` after arrival, under the default policy.
fn plain(terms: &Terms, verdict: Verdict, seconds: u64) -> Decision {
    decided(&get("http://h/", &[]), terms, verdict, &Policy::default(), seconds)
}

fn decided(
    request: &Request,
    terms: &Terms,
    verdict: Verdict,
    policy: &Policy,
    seconds: u64,
) -> Decision {
    decide(request, Some((terms, verdict)), true, policy, Trust::Lease, after(seconds), 1.0)
}

const HIT: Decision = Decision::Hit { refresh_early: false };
const ASK: Decision = Decision::Revalidate(Forward::Stale);
const FILL: Decision = Decision::Fill(Forward::Stale);

#[test]
fn age_and_windows_decide() {
    let bare = terms("max-age=60, stale-while-revalidate=10", &[]);
    let tagged = terms("max-age=60", &[("etag", "\"a\"")]);
    let checked = terms("max-age=60, no-cache", &[("etag", "\"a\"")]);
    let aged = terms("max-age=60", &[("age", "50")]);
    let rows = [
        (&bare, 0, HIT),
        (&bare, 59, HIT),
        (&bare, 60, Decision::HitStale),
        (&bare, 69, Decision::HitStale),
        (&bare, 70, FILL),
        (&tagged, 59, HIT),
        (&tagged, 60, ASK),
        (&checked, 0, ASK),
        (&aged, 9, HIT),
        (&aged, 10, FILL),
    ];
    for (terms, seconds, expected) in rows {
        assert_eq!(plain(terms, Verdict::Alive, seconds), expected, "{seconds} {terms:?}");
    }
}

#[test]
fn purges_make_stale_from_their_moment_or_demand_the_origins_word() {
    let bare = terms("max-age=60, stale-while-revalidate=10", &[]);
    let tagged = terms("max-age=60, stale-while-revalidate=10", &[("etag", "\"a\"")]);
    let soft = Verdict::Soft { since: after(20) };
    let rows = [
        (&tagged, soft, 20, Decision::HitStale),
        (&tagged, soft, 29, Decision::HitStale),
        (&tagged, soft, 30, ASK),
        (&bare, soft, 30, FILL),
        (&bare, Verdict::Soft { since: after(62) }, 69, Decision::HitStale),
        (&bare, Verdict::Soft { since: after(62) }, 71, FILL),
        (&tagged, Verdict::Check, 0, ASK),
        (&bare, Verdict::Check, 0, FILL),
    ];
    for (terms, verdict, seconds, expected) in rows {
        assert_eq!(plain(terms, verdict, seconds), expected, "{verdict:?} {seconds}");
    }
}

#[test]
fn nothing_found_goes_forward_as_it_must() {
    let policy = Policy::default();
    let rows = [
        (get("http://h/", &[]), false, Decision::Fill(Forward::UriMiss)),
        (get("http://h/", &[]), true, Decision::Fill(Forward::VaryMiss)),
        (request("HEAD", "http://h/", &[]), false, Decision::Pass(Forward::UriMiss)),
        (get("http://h/", &[("range", "bytes=0-1")]), false, Decision::Pass(Forward::UriMiss)),
        (get("http://h/", &[("cache-control", "only-if-cached")]), false, Decision::OnlyIfCached),
        (get("http://h/", &[("authorization", "x")]), false, Decision::Fill(Forward::UriMiss)),
    ];
    for (request, variants, expected) in rows {
        let found = decide(&request, None, variants, &policy, Trust::Lease, after(0), 1.0);
        assert_eq!(found, expected, "{request:?}");
    }
}

#[test]
fn stale_goes_forward_as_the_request_allows() {
    let policy = Policy::default();
    let bare = terms("max-age=60", &[]);
    let tagged = terms("max-age=60", &[("etag", "\"a\"")]);
    let range = [("range", "bytes=0-1")];
    let rows = [
        (request("HEAD", "http://h/", &[]), &tagged, Decision::Pass(Forward::Stale)),
        (get("http://h/", &range), &tagged, ASK),
        (get("http://h/", &range), &bare, Decision::Pass(Forward::Stale)),
        (get("http://h/", &[("cache-control", "only-if-cached")]), &tagged, Decision::OnlyIfCached),
    ];
    for (request, terms, expected) in rows {
        assert_eq!(decided(&request, terms, Verdict::Alive, &policy, 99), expected, "{request:?}");
    }
}

#[test]
fn without_a_lease_the_origin_is_asked_unless_policy_serves_on() {
    let tagged = terms("max-age=60, stale-while-revalidate=10", &[("etag", "\"a\"")]);
    let serve = Policy { without_lease: WithoutLease::Serve, ..Policy::default() };
    let rows = [
        (Policy::default(), 0, ASK),
        (Policy::default(), 60, ASK),
        (serve.clone(), 0, HIT),
        (serve, 60, Decision::HitStale),
    ];
    for (policy, seconds, expected) in rows {
        let found = Some((&tagged, Verdict::Alive));
        let request = get("http://h/", &[]);
        let decision =
            decide(&request, found, true, &policy, Trust::of(false, &policy), after(seconds), 1.0);
        assert_eq!(decision, expected, "{seconds}");
    }
}

#[test]
fn who_names_a_purge_that_is_not_in_force_is_answered_by_the_origin() {
    let tagged = terms("max-age=60, stale-if-error=60", &[("etag", "\"a\"")]);
    let plain = terms("max-age=60, stale-if-error=60", &[]);
    let serve = Policy { without_lease: WithoutLease::Serve, ..Policy::default() };
    let asked = get("http://h/", &[]);
    for (terms, expected) in [(&tagged, ASK), (&plain, FILL)] {
        let found = Some((terms, Verdict::Alive));
        let (decision, why) = decide_why(&asked, found, true, &serve, Trust::Behind, after(0), 1.0);
        assert_eq!((decision, why), (expected, Reason::Behind));
        assert!(!may_serve_on_error(
            &asked,
            terms,
            Verdict::Alive,
            &serve,
            Trust::Behind,
            after(0)
        ));
    }
    let cached = get("http://h/", &[("cache-control", "only-if-cached")]);
    let found = Some((&tagged, Verdict::Alive));
    let decision = decide(&cached, found, true, &serve, Trust::Behind, after(0), 1.0);
    assert_eq!(decision, Decision::OnlyIfCached);
}

#[test]
fn a_range_is_worth_a_fill_where_bodies_come_in_segments() {
    let policy = Policy { segment: Some(1 << 20), ..Policy::default() };
    let ask = get("http://h/", &[("range", "bytes=0-1")]);
    let cold = decide(&ask, None, false, &policy, Trust::Lease, after(0), 1.0);
    assert_eq!(cold, Decision::Fill(Forward::UriMiss));
    let bare = terms("max-age=60", &[]);
    assert_eq!(decided(&ask, &bare, Verdict::Alive, &policy, 60), FILL);
    let head = request("HEAD", "http://h/", &[]);
    let cold = decide(&head, None, false, &policy, Trust::Lease, after(0), 1.0);
    assert_eq!(cold, Decision::Pass(Forward::UriMiss));
}

#[test]
fn strangers_answers_are_not_for_users_with_authorization() {
    let asked = get("http://h/", &[("authorization", "x")]);
    let policy = Policy::default();
    let rows = [
        ("max-age=60", Decision::Pass(Forward::Miss)),
        ("max-age=60, public", HIT),
        ("s-maxage=60", HIT),
    ];
    for (line, expected) in rows {
        let found = decided(&asked, &terms(line, &[]), Verdict::Alive, &policy, 0);
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn request_directives_count_only_where_policy_honours_them() {
    let honour = Policy { honour_request_directives: true, ..Policy::default() };
    let fresh = terms("max-age=60", &[("etag", "\"a\"")]);
    let strict = terms("max-age=60, must-revalidate", &[("etag", "\"a\"")]);
    let ask = Decision::Revalidate(Forward::Request);
    let rows = [
        ("no-cache", &fresh, 10, ask),
        ("max-age=0", &fresh, 0, ask),
        ("max-age=9", &fresh, 10, ask),
        ("max-age=10", &fresh, 10, HIT),
        ("min-fresh=50", &fresh, 10, HIT),
        ("min-fresh=51", &fresh, 10, ask),
        ("max-stale=5", &fresh, 65, HIT),
        ("max-stale=5", &fresh, 66, ASK),
        ("max-stale", &fresh, 9999, HIT),
        ("max-stale", &strict, 65, ASK),
        ("max-stale, max-age=10", &fresh, 65, ask),
    ];
    for (line, terms, seconds, expected) in rows {
        let request = get("http://h/", &[("cache-control", line)]);
        let found = decided(&request, terms, Verdict::Alive, &honour, seconds);
        assert_eq!(found, expected, "{line} {seconds}");
        let ignored = decided(&request, terms, Verdict::Alive, &Policy::default(), seconds);
        assert_eq!(ignored, plain(terms, Verdict::Alive, seconds), "{line} {seconds}");
    }
    let window = terms("max-age=60, stale-while-revalidate=100", &[("etag", "\"a\"")]);
    let soon = get("http://h/", &[("cache-control", "min-fresh=5")]);
    let soft = Verdict::Soft { since: after(5) };
    assert_eq!(decided(&soon, &window, Verdict::Alive, &honour, 70), ask, "stale is not fresh");
    assert_eq!(decided(&soon, &window, soft, &honour, 10), ask, "by a purge neither");
    let pragma = get("http://h/", &[("pragma", "no-cache")]);
    assert_eq!(decided(&pragma, &fresh, Verdict::Alive, &honour, 0), ask);
}

#[test]
fn what_is_immutable_is_asked_about_only_when_stale_or_insisted_on() {
    let honour = Policy { honour_request_directives: true, ..Policy::default() };
    let lasting = terms("max-age=60, immutable", &[("etag", "\"a\"")]);
    let ask = Decision::Revalidate(Forward::Request);
    let soft = Verdict::Soft { since: after(5) };
    let rows = [
        ("max-age=0", Verdict::Alive, 10, HIT),
        ("max-age=9", Verdict::Alive, 10, HIT),
        ("no-cache", Verdict::Alive, 10, ask),
        ("max-age=0", Verdict::Alive, 60, ask),
        ("max-age=0", soft, 10, ask),
        ("foo", Verdict::Alive, 60, ASK),
        ("foo", Verdict::Check, 10, ASK),
    ];
    for (line, verdict, seconds, expected) in rows {
        let request = get("http://h/", &[("cache-control", line)]);
        let found = decided(&request, &lasting, verdict, &honour, seconds);
        assert_eq!(found, expected, "{line} {verdict:?} {seconds}");
    }
    let mut costly = lasting;
    costly.fetch_time = Duration::from_secs(10);
    let found = Some((&costly, Verdict::Alive));
    let policy = Policy::default();
    let early = decide(&get("http://h/", &[]), found, true, &policy, Trust::Lease, after(59), 0.0);
    assert_eq!(early, HIT, "nor is it refreshed early");
}

#[test]
fn some_requests_never_look() {
    let plain = Policy::default();
    let pass = Policy { pass: true, ..Policy::default() };
    let honour = Policy { honour_request_directives: true, ..Policy::default() };
    let no_store = [("cache-control", "no-store")];
    let rows = [
        (get("http://h/", &[]), &plain, Ok(())),
        (request("HEAD", "http://h/", &[]), &plain, Ok(())),
        (request("POST", "http://h/", &[]), &plain, Err(Forward::Method)),
        (get("http://h/", &[]), &pass, Err(Forward::Bypass)),
        (get("http://h/..%2fa", &[]), &plain, Err(Forward::Bypass)),
        (get("http://h/", &[("if-match", "\"a\"")]), &plain, Err(Forward::Bypass)),
        (get("http://h/", &no_store), &plain, Ok(())),
        (get("http://h/", &no_store), &honour, Err(Forward::Request)),
    ];
    for (request, policy, expected) in rows {
        assert_eq!(lookup_allowed(&request, policy), expected, "{request:?}");
    }
}

#[test]
fn early_refresh_grows_likely_towards_the_end() {
    let mut entry = terms("max-age=60", &[]);
    entry.fetch_time = Duration::from_secs(1);
    let early = |seconds, draw, policy: &Policy| {
        let found = Some((&entry, Verdict::Alive));
        let decision =
            decide(&get("http://h/", &[]), found, true, policy, Trust::Lease, after(seconds), draw);
        decision == Decision::Hit { refresh_early: true }
    };
    let policy = Policy::default();
    let off = Policy { early_refresh: 0.0, ..Policy::default() };
    // -ln(0.1) is 2.3, -ln(0.01) is 4.6.
    let rows = [(58, 0.1, true), (57, 0.1, false), (56, 0.01, true), (55, 0.01, false)];
    for (seconds, draw, expected) in rows {
        assert_eq!(early(seconds, draw, &policy), expected, "{seconds} {draw}");
        assert!(!early(seconds, draw, &off));
    }
    assert!(!early(0, 0.0, &policy));
    assert!(early(59, 0.0, &policy));
    for seconds in [10, 55, 57, 59] {
        let chance = early_refresh_chance(&entry, &policy, after(seconds));
        assert!(early(seconds, chance * 0.99, &policy) || chance <= 0.0, "{seconds}: {chance}");
        assert!(!early(seconds, chance * 1.01 + 1e-30, &policy), "{seconds}: {chance}");
        assert!(early_refresh_chance(&entry, &off, after(seconds)) <= 0.0);
    }
}

#[test]
fn the_rule_behind_a_decision_is_told() {
    let entry = terms("max-age=60, stale-while-revalidate=30", &[]);
    let soft = Verdict::Soft { since: after(1) };
    let rows = [
        (Verdict::Alive, 10, true, Reason::Fresh),
        (Verdict::Alive, 70, true, Reason::StaleWindow),
        (Verdict::Alive, 99, true, Reason::Stale),
        (soft, 20, true, Reason::StaleWindow),
        (soft, 40, true, Reason::SoftPurged),
        (Verdict::Check, 10, true, Reason::CheckPurged),
        (Verdict::Alive, 10, false, Reason::NoLease),
    ];
    let (request, policy) = (get("http://h/", &[]), Policy::default());
    for (verdict, seconds, lease, expected) in rows {
        let found = Some((&entry, verdict));
        let (decision, why) = decide_why(
            &request,
            found,
            true,
            &policy,
            Trust::of(lease, &policy),
            after(seconds),
            1.0,
        );
        assert_eq!(why, expected, "{verdict:?} {seconds}");
        if let Some(forward) = decision.forward() {
            assert_eq!(forward, why.forward());
        }
    }
}

#[test]
fn errors_are_bridged_within_the_window() {
    let bridged = terms("max-age=60, stale-if-error=100", &[]);
    let bare = terms("max-age=60", &[]);
    let shown = terms("max-age=60, stale-while-revalidate=50", &[]);
    let soft = Verdict::Soft { since: after(20) };
    let rows = [
        (&shown, Verdict::Alive, true, 109, true),
        (&shown, Verdict::Alive, true, 110, false),
        (&shown, Verdict::Check, true, 61, false),
        (&bridged, Verdict::Alive, true, 0, true),
        (&bridged, Verdict::Alive, true, 159, true),
        (&bridged, Verdict::Alive, true, 160, false),
        (&bridged, Verdict::Alive, false, 0, false),
        (&bridged, Verdict::Check, true, 0, false),
        (&bridged, soft, true, 119, true),
        (&bridged, soft, true, 120, false),
        (&bare, Verdict::Alive, true, 60, false),
    ];
    for (terms, verdict, lease, seconds, expected) in rows {
        let found = |fields: Fields<'_>| {
            let (request, policy) = (get("http://h/", fields), Policy::default());
            let trust = Trust::of(lease, &policy);
            may_serve_on_error(&request, terms, verdict, &policy, trust, after(seconds))
        };
        assert_eq!(found(&[]), expected, "{verdict:?} {lease} {seconds}");
        let shared = expected && terms.authorized;
        assert_eq!(found(&[("authorization", "x")]), shared, "{verdict:?} {lease} {seconds}");
    }
}

/// How good a decision is for an answer from memory: 2 fresh, 1 stale, 0 not.
fn rank(decision: Decision) -> u8 {
    match decision {
        Decision::Hit { .. } => 2,
        Decision::HitStale => 1,
        _ => 0,
    }
}

proptest! {
    #[test]
    fn as_now_grows_nothing_stale_turns_fresh(
        lifetime in 0_u64..100, age in 0_u64..100, window in 0_u64..100,
        purged in proptest::option::of(0_u64..200),
        earlier in 0_u64..300, later in 0_u64..300, draw in 0.0..1.0,
    ) {
        let line = format!("max-age={lifetime}, stale-while-revalidate={window}");
        let age = age.to_string();
        let entry = terms(&line, &[("age", age.as_str()), ("etag", "\"a\"")]);
        let (first, second) = (earlier.min(later), earlier.max(later));
        let at = |seconds: u64| {
            // A purge counts from its moment on.
            let verdict = match purged {
                Some(moment) if moment <= seconds => Verdict::Soft { since: after(moment) },
                _ => Verdict::Alive,
            };
            let found = Some((&entry, verdict));
            let policy = Policy::default();
            decide(&get("http://h/", &[]), found, true, &policy, Trust::Lease, after(seconds), draw)
        };
        prop_assert!(rank(at(second)) <= rank(at(first)));
    }

    #[test]
    fn a_response_that_must_be_checked_is_never_a_hit(
        seconds in 0_u64..200, draw in 0.0..1.0, lease: bool,
    ) {
        let entry = terms("max-age=60, stale-while-revalidate=60, stale-if-error=60", &[]);
        let found = Some((&entry, Verdict::Check));
        let policy = Policy::default();
        let (now, trust) = (after(seconds), Trust::of(lease, &policy));
        let decision = decide(&get("http://h/", &[]), found, true, &policy, trust, now, draw);
        prop_assert_eq!(rank(decision), 0);
        prop_assert!(!may_serve_on_error(&get("http://h/", &[]), &entry, Verdict::Check, &policy, trust, now));
    }
}
