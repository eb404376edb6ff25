use super::*;
use crate::semantics::shape::stored_fields;
use crate::semantics::status_lifetime::StatusLifetimes;
use crate::semantics::test_support::{
    ARRIVAL, Fields, date, fields, get, judged, lifetime, request, response,
};

fn heuristic() -> Policy {
    Policy { heuristic: true, ..Policy::default() }
}

#[test]
fn lifetime_comes_from_the_first_source_that_speaks() {
    let at = |offset: i64| date(ARRIVAL.checked_add_signed(offset).unwrap());
    let (now, future, past, changed) = (at(0), at(100), at(-100), at(-10_000));
    let plain = Policy::default();
    let forced = Policy { lifetime: Some(Duration::from_secs(7)), ..Policy::default() };
    let lent = Policy { default_lifetime: Some(Duration::from_secs(8)), ..Policy::default() };
    let guess = heuristic();
    use FreshnessSource as From;
    type Row<'a> = (&'a Policy, u16, Fields<'a>, Result<(u64, From), NotStored>);
    let rows: [Row<'_>; 36] = [
        (&plain, 200, &[], Err(NotStored::NoFreshness)),
        (&plain, 200, &[("etag", "\"a\"")], Err(NotStored::NoFreshness)),
        (&plain, 200, &[("cache-control", "max-age=60")], Ok((60, From::MaxAge))),
        (&plain, 200, &[("cache-control", "max-age=60, s-maxage=9")], Ok((9, From::SMaxAge))),
        (&plain, 200, &[("cache-control", "max-age=60"), ("expires", "0")], Ok((60, From::MaxAge))),
        (
            &plain,
            200,
            &[("cdn-cache-control", "max-age=9"), ("cache-control", "max-age=60")],
            Ok((9, From::CdnCacheControl)),
        ),
        (&plain, 200, &[("atoll-cache-control", "s-maxage=9")], Ok((9, From::AtollCacheControl))),
        (&plain, 200, &[("expires", &future), ("date", &now)], Ok((100, From::Expires))),
        (&plain, 200, &[("expires", &future)], Ok((100, From::Expires))),
        (&plain, 200, &[("expires", &future), ("date", "foo")], Ok((100, From::Expires))),
        (&plain, 200, &[("expires", &past), ("date", &now)], Err(NotStored::Expired)),
        (&plain, 200, &[("expires", &now), ("date", &now)], Err(NotStored::Expired)),
        (&plain, 200, &[("expires", "0"), ("date", &now)], Err(NotStored::Expired)),
        (&plain, 200, &[("expires", &future), ("expires", &future)], Err(NotStored::Expired)),
        (&plain, 200, &[("expires", &past), ("etag", "\"a\"")], Ok((0, From::Expires))),
        (
            &plain,
            200,
            &[("cdn-cache-control", "foo"), ("expires", &future)],
            Err(NotStored::NoFreshness),
        ),
        (
            &plain,
            200,
            &[("cache-control", "max-age=0, no-cache"), ("etag", "\"a\"")],
            Ok((0, From::MaxAge)),
        ),
        (&plain, 200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], Ok((0, From::None))),
        (&plain, 200, &[("cache-control", "no-cache")], Err(NotStored::NoValidator)),
        (
            &plain,
            302,
            &[("cache-control", "no-cache"), ("etag", "\"a\"")],
            Err(NotStored::NoFreshness),
        ),
        (
            &plain,
            302,
            &[("cache-control", "no-cache, public"), ("etag", "\"a\"")],
            Ok((0, From::None)),
        ),
        (&plain, 200, &[("cache-control", "no-cache"), ("etag", "")], Err(NotStored::NoValidator)),
        (&plain, 200, &[("cache-control", "max-age=60, no-cache")], Err(NotStored::NoValidator)),
        (&forced, 200, &[("cache-control", "max-age=60")], Ok((7, From::Policy))),
        (&forced, 200, &[], Ok((7, From::Policy))),
        (&forced, 302, &[], Err(NotStored::NoFreshness)),
        (&forced, 404, &[], Err(NotStored::NoFreshness)),
        (&forced, 200, &[("cache-control", "private")], Err(NotStored::Private)),
        (&lent, 200, &[], Ok((8, From::Default))),
        (&lent, 200, &[("cache-control", "max-age=60")], Ok((60, From::MaxAge))),
        (&lent, 302, &[], Err(NotStored::NoFreshness)),
        (&lent, 503, &[], Err(NotStored::NoFreshness)),
        (&guess, 200, &[("last-modified", &changed)], Ok((1000, From::Heuristic))),
        (&guess, 201, &[("last-modified", &changed)], Err(NotStored::NoFreshness)),
        (&guess, 200, &[("etag", "\"a\"")], Ok((0, From::None))),
        (&guess, 200, &[], Err(NotStored::NoFreshness)),
    ];
    for (policy, status, headers, expected) in rows {
        assert_eq!(lifetime(status, headers, policy), expected, "{status} {headers:?}");
    }
}

#[test]
fn errors_stay_briefly_and_only_if_the_origin_says_so() {
    use FreshnessSource::{Heuristic, MaxAge};
    let changed = date(ARRIVAL - 10_000);
    let fresh: Fields<'_> = &[("cache-control", "max-age=60")];
    let guessed: Fields<'_> = &[("last-modified", &changed)];
    let public: Fields<'_> = &[("last-modified", &changed), ("cache-control", "public")];
    let rows = [
        (400, fresh, Ok((10, MaxAge))),
        (404, fresh, Ok((60, MaxAge))),
        (410, fresh, Ok((60, MaxAge))),
        (451, fresh, Ok((10, MaxAge))),
        (500, fresh, Ok((10, MaxAge))),
        (503, fresh, Ok((10, MaxAge))),
        (599, fresh, Ok((10, MaxAge))),
        (404, guessed, Ok((1000, Heuristic))),
        (405, guessed, Ok((10, Heuristic))),
        (502, guessed, Err(NotStored::NoFreshness)),
        (599, public, Ok((10, Heuristic))),
        (428, fresh, Err(NotStored::Status)),
        (429, fresh, Err(NotStored::Status)),
        (431, fresh, Err(NotStored::Status)),
        (511, fresh, Err(NotStored::Status)),
    ];
    for (status, headers, expected) in rows {
        assert_eq!(lifetime(status, headers, &heuristic()), expected, "{status} {headers:?}");
    }
    let windows = Policy { stale_if_error: Some(Duration::from_secs(9)), ..Policy::default() };
    assert_eq!(judged(503, fresh, &windows).unwrap().stale_if_error, Duration::ZERO);
    assert_eq!(judged(404, fresh, &windows).unwrap().stale_if_error, Duration::from_secs(9));
}

#[test]
fn a_lifetime_by_status_is_lent_to_silence_and_bounds_what_the_origin_says() {
    use FreshnessSource::{MaxAge, Status};
    let mut lifetimes = StatusLifetimes::default();
    lifetimes.set_class(5, Duration::from_secs(5));
    lifetimes.set_class(3, Duration::from_secs(30));
    lifetimes.set_status(404, Duration::from_secs(20));
    lifetimes.set_status(403, Duration::ZERO);
    lifetimes.set_status(500, Duration::from_secs(15));
    let policy = Policy {
        status_lifetime: lifetimes,
        lifetime: Some(Duration::from_secs(3600)),
        heuristic: true,
        ..Policy::default()
    };
    let minute: Fields<'_> = &[("cache-control", "max-age=60")];
    let second: Fields<'_> = &[("cache-control", "max-age=1")];
    let public: Fields<'_> = &[("cache-control", "public"), ("last-modified", "x")];
    type Row<'a> = (u16, Fields<'a>, Result<(u64, FreshnessSource), NotStored>);
    let rows: [Row<'_>; 15] = [
        (404, &[], Ok((20, Status))),
        (404, minute, Ok((20, MaxAge))),
        (404, second, Ok((1, MaxAge))),
        (404, public, Ok((20, Status))),
        (404, &[("cache-control", "no-store")], Err(NotStored::NoStore)),
        (404, &[("cache-control", "private")], Err(NotStored::Private)),
        (404, &[("set-cookie", "a=b")], Err(NotStored::SetCookie)),
        (403, minute, Err(NotStored::Policy)),
        (403, &[], Err(NotStored::Policy)),
        (500, minute, Ok((15, MaxAge))),
        (503, &[], Ok((5, Status))),
        (302, &[], Ok((30, Status))),
        (410, minute, Ok((60, MaxAge))),
        (401, minute, Ok((10, MaxAge))),
        (429, minute, Err(NotStored::Status)),
    ];
    for (status, headers, expected) in rows {
        assert_eq!(lifetime(status, headers, &policy), expected, "{status} {headers:?}");
    }
    let windows = Policy { stale_if_error: Some(Duration::from_secs(9)), ..policy };
    assert_eq!(judged(503, &[], &windows).unwrap().stale_if_error, Duration::ZERO);
    let at = Now::at(ARRIVAL);
    let asked = get("http://h/", &[("authorization", "Basic x")]);
    let found = storable(&asked, &response(404, &[]), &windows, at, at, 0.0);
    assert_eq!(found.err(), Some(NotStored::Authorization));
}

#[test]
fn cookies_are_stripped_from_what_could_be_stored_without_them() {
    let strip = Policy { strip_set_cookie: true, ..Policy::default() };
    let rows: [(Fields<'_>, Option<NotStored>); 4] = [
        (&[("cache-control", "max-age=60"), ("set-cookie", "a=b")], None),
        (&[("set-cookie", "a=b")], Some(NotStored::NoFreshness)),
        (&[("cache-control", "private"), ("set-cookie", "a=b")], Some(NotStored::Private)),
        (&[("cache-control", "max-age=60"), ("set-cookie2", "a=b")], None),
    ];
    for (headers, expected) in rows {
        assert_eq!(judged(200, headers, &strip).err(), expected, "{headers:?}");
        let mut headers = fields(headers);
        assert!(
            !stored_fields(&headers, &strip).keys().any(|name| name.as_str().contains("cookie"))
        );
        strip_set_cookie(&mut headers, &Policy::default());
        assert!(headers.keys().any(|name| name.as_str().contains("cookie")), "{headers:?}");
    }
}

#[test]
fn sharing_is_judged() {
    let rows: [(u16, Fields<'_>, Option<NotStored>); 15] = [
        (200, &[("cache-control", "max-age=60")], None),
        (299, &[("cache-control", "max-age=60")], None),
        (302, &[("cache-control", "max-age=60")], None),
        (200, &[("cache-control", "max-age=60, no-store")], Some(NotStored::NoStore)),
        (200, &[("cache-control", "max-age=60, private")], Some(NotStored::Private)),
        (200, &[("cache-control", "max-age=60, private=\"a\"")], None),
        (200, &[("cache-control", "max-age=60, no-store, must-understand")], None),
        (
            599,
            &[("cache-control", "max-age=60, no-store, must-understand")],
            Some(NotStored::Status),
        ),
        (299, &[("cache-control", "max-age=60, must-understand")], Some(NotStored::Status)),
        (206, &[("cache-control", "max-age=60")], Some(NotStored::Partial)),
        (304, &[("cache-control", "max-age=60")], Some(NotStored::Status)),
        (999, &[("cache-control", "max-age=60")], Some(NotStored::Status)),
        (
            200,
            &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
            Some(NotStored::SetCookie),
        ),
        (
            200,
            &[("cdn-cache-control", "private"), ("cache-control", "max-age=60")],
            Some(NotStored::Private),
        ),
        (200, &[("cdn-cache-control", "max-age=1"), ("cache-control", "private")], None),
    ];
    for (status, headers, expected) in rows {
        assert_eq!(
            judged(status, headers, &Policy::default()).err(),
            expected,
            "{status} {headers:?}"
        );
    }
    let cookies = Policy { store_set_cookie: true, ..Policy::default() };
    let row: Fields<'_> = &[("cache-control", "max-age=60"), ("set-cookie", "a=b")];
    assert!(judged(200, row, &cookies).is_ok());
}

#[test]
fn authorization_needs_the_origins_leave() {
    let at = Now::at(ARRIVAL);
    let asked = get("http://h/", &[("authorization", "Basic x")]);
    let rows = [
        ("max-age=60", Some(NotStored::Authorization)),
        ("max-age=60, no-cache", Some(NotStored::Authorization)),
        ("max-age=60, proxy-revalidate", Some(NotStored::Authorization)),
        ("max-age=60, public", None),
        ("max-age=60, must-revalidate", None),
        ("s-maxage=60", None),
    ];
    for (line, expected) in rows {
        let head = response(200, &[("cache-control", line)]);
        let found = storable(&asked, &head, &Policy::default(), at, at, 0.0);
        assert_eq!(found.as_ref().err().copied(), expected, "{line}");
        assert!(found.map_or(true, |terms| terms.authorized), "{line}");
    }
}

#[test]
fn request_and_policy_have_a_say() {
    let at = Now::at(ARRIVAL);
    let head = response(200, &[("cache-control", "max-age=60")]);
    let plain = Policy::default();
    let honour = Policy { honour_request_directives: true, ..Policy::default() };
    let pass = Policy { pass: true, ..Policy::default() };
    let get_it = get("http://h/", &[("cache-control", "no-store")]);
    let rows = [
        (request("POST", "http://h/", &[]), &plain, Some(NotStored::Method)),
        (request("HEAD", "http://h/", &[]), &plain, Some(NotStored::Method)),
        (get("http://h/..%2fa", &[]), &plain, Some(NotStored::Policy)),
        (get_it.clone(), &plain, None),
        (get_it.clone(), &honour, Some(NotStored::Request)),
        (get_it, &pass, Some(NotStored::Policy)),
    ];
    for (request, policy, expected) in rows {
        let found = storable(&request, &head, policy, at, at, 0.0).err();
        assert_eq!(found, expected, "{} {}", request.method, request.path);
    }
}

#[test]
fn age_on_arrival_is_the_greatest_that_can_be_argued() {
    let at = |offset: i64| date(ARRIVAL.checked_add_signed(offset).unwrap());
    let (now, before, ahead) = (at(0), at(-50), at(50));
    let rows: [(Fields<'_>, u64); 17] = [
        (&[], 2),
        (&[("date", &now)], 2),
        (&[("date", &before)], 50),
        (&[("date", &ahead)], 2),
        (&[("age", "100")], 102),
        (&[("age", "100"), ("date", &before)], 102),
        (&[("age", "10"), ("date", &before)], 50),
        (&[("age", "7200.0")], 2),
        (&[("age", "-7200")], 2),
        (&[("age", "7200;foo=bar")], 2),
        (&[("age", "abc")], 2),
        (&[("age", "")], 2),
        (&[("age", "0, 7200")], 2),
        (&[("age", "7200, 0")], 7202),
        (&[("age", "7200"), ("age", "0")], 7202),
        (&[("age", "2147483648")], (1 << 31) + 2),
        (&[("age", "99999999999999999999")], (1 << 31) + 2),
    ];
    for (headers, expected) in rows {
        let mut head = response(200, headers);
        head.headers.extend(fields(&[("cache-control", "max-age=1"), ("etag", "\"a\"")]));
        let terms = storable(
            &get("http://h/", &[]),
            &head,
            &Policy::default(),
            Now::at(ARRIVAL - 2),
            Now::at(ARRIVAL),
            0.0,
        )
        .unwrap();
        assert_eq!(terms.initial_age.as_secs(), expected, "{headers:?}");
        assert_eq!(terms.fetch_time, Duration::from_secs(2));
    }
}

#[test]
fn stale_windows_obey_the_origin_first() {
    let lent = Policy {
        stale_while_revalidate: Some(Duration::from_secs(5)),
        stale_if_error: Some(Duration::from_secs(6)),
        ..Policy::default()
    };
    let rows = [
        ("max-age=60", (5, 6, false)),
        ("max-age=60, stale-while-revalidate=1, stale-if-error=2", (1, 2, false)),
        ("max-age=60, stale-while-revalidate=0", (0, 6, false)),
        ("max-age=60, stale-if-error=x", (5, 0, false)),
        ("max-age=60, must-revalidate, stale-if-error=9", (0, 0, true)),
        ("max-age=60, proxy-revalidate", (0, 0, true)),
        ("s-maxage=60", (0, 0, true)),
        ("s-maxage=60, stale-while-revalidate=9", (9, 0, true)),
    ];
    for (line, expected) in rows {
        let terms = judged(200, &[("cache-control", line)], &lent).unwrap();
        let found = (
            terms.stale_while_revalidate.as_secs(),
            terms.stale_if_error.as_secs(),
            terms.must_revalidate,
        );
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn what_is_stale_on_arrival_is_kept_for_its_window_only() {
    let plain = Policy::default();
    let old: Fields<'_> = &[("cache-control", "max-age=60"), ("age", "100")];
    assert_eq!(judged(200, old, &plain).err(), Some(NotStored::Expired));
    let lent = Policy { stale_if_error: Some(Duration::from_secs(100)), ..Policy::default() };
    assert!(judged(200, old, &lent).is_ok());
    let short = Policy { stale_if_error: Some(Duration::from_secs(10)), ..Policy::default() };
    assert_eq!(judged(200, old, &short).err(), Some(NotStored::Expired));
}

#[test]
fn jitter_shortens_what_is_stored() {
    let at = Now::at(ARRIVAL);
    let head = response(200, &[("cache-control", "max-age=1000")]);
    let fresh_for = |draw| {
        let terms = storable(&get("http://h/", &[]), &head, &Policy::default(), at, at, draw);
        terms.unwrap().fresh_for.as_secs()
    };
    assert_eq!(fresh_for(0.0), 1000);
    assert_eq!(fresh_for(0.5), 950);
    assert_eq!(fresh_for(1.0), 900);
}

#[test]
fn reasons_have_words_of_their_own() {
    let labels: std::collections::BTreeSet<_> =
        NotStored::ALL.iter().map(|it| it.label()).collect();
    assert_eq!(labels.len(), NotStored::ALL.len());
}
