//! Selecting among variants: by language, and while an origin changes its mind about `Vary`.

use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn fields(rows: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in rows {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

impl World {
    /// Stores the answer with the fields `response` to the request with the fields `request`.
    fn answered(&self, request: Fields<'_>, response: Fields<'_>, body: &'static str) {
        let headers = fields(response);
        let vary = VaryFields::of(&headers, 8, &Policy::default()).unwrap().map(Arc::new);
        let secondary = vary.as_ref().map(|vary| vary.secondary(&fields(request)));
        let head = Arc::new(Head::new(NewHead {
            key: self.key("/v"),
            vary,
            secondary: secondary.unwrap_or_default().into_boxed_slice(),
            status: StatusCode::OK,
            headers,
            terms: terms(),
            selectors: self.purges.selectors("site", "host", "/v", &[Box::from("x")]),
            born: self.purges.epoch(),
            fill: 0,
            lineage: None,
        }));
        assert!(self.keep(&head, body));
    }

    fn selected(&self, request: Fields<'_>) -> Option<Bytes> {
        self.body("/v", &fields(request))
    }
}

const BY_LANGUAGE: (&str, &str) = ("vary", "accept-language");

#[test]
fn a_variant_in_the_favourite_language_answers_where_none_is_exact() {
    let world = World::new();
    world.answered(
        &[("accept-language", "en, de")],
        &[BY_LANGUAGE, ("content-language", "de")],
        "de",
    );
    let rows = [
        ("en, de", Some("de")),
        ("fr;q=0.5, de", Some("de")),
        ("de", Some("de")),
        ("de-AT", None),
        ("fr, de", None),
        ("fr, de;q=0.9", None),
        ("en", None),
        ("*", None),
        ("de;q=0", None),
    ];
    for (preference, expected) in rows {
        let found = world.selected(&[("accept-language", preference)]);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{preference}");
    }
    assert!(world.selected(&[]).is_none());
    // What was asked for in just these words goes before what is only in the right language.
    world.answered(&[("accept-language", "de")], &[BY_LANGUAGE, ("content-language", "de")], "own");
    world.answered(&[("accept-language", "de, x")], &[BY_LANGUAGE], "none");
    assert_eq!(world.selected(&[("accept-language", "en, de")]).unwrap(), "de");
    assert_eq!(world.selected(&[("accept-language", "de, x")]).unwrap(), "none");
    assert_eq!(world.selected(&[("accept-language", "de, fr;q=0.1")]).unwrap(), "own");
}

#[test]
fn a_language_is_no_way_around_another_field_a_purge_or_the_limit() {
    let world = World::new();
    let german = [("vary", "accept-language, x-user"), ("content-language", "de")];
    world.answered(&[("accept-language", "en, de"), ("x-user", "a")], &german, "a");
    assert_eq!(world.selected(&[("accept-language", "de"), ("x-user", "a")]).unwrap(), "a");
    assert!(world.selected(&[("accept-language", "de"), ("x-user", "b")]).is_none());
    assert!(world.selected(&[("accept-language", "de")]).is_none());
    // Three variants are kept: the oldest is gone under its second name, too.
    for user in ["b", "c", "d"] {
        world.answered(&[("accept-language", "en, de"), ("x-user", user)], &german, "other");
    }
    assert!(world.selected(&[("accept-language", "de"), ("x-user", "a")]).is_none());
    assert!(world.selected(&[("accept-language", "de"), ("x-user", "b")]).is_some());
    world.purge("x", Strength::Hard);
    assert!(world.selected(&[("accept-language", "de"), ("x-user", "b")]).is_none());
    sweep(&world.store, &world.purges, &world.fills);
    for user in ["c", "d"] {
        assert!(world.selected(&[("accept-language", "de"), ("x-user", user)]).is_none());
    }
    world.answered(&[("accept-language", "de, en"), ("x-user", "b")], &german, "new");
    let request = fields(&[("accept-language", "de"), ("x-user", "b")]);
    let Lookup::Found(stored, _) = world.look("/v", &request) else { panic!("not stored") };
    world.store.remove(&stored);
    assert!(matches!(world.look("/v", &request), Lookup::VaryMiss));
}

#[test]
fn the_newest_variant_in_a_language_is_the_one() {
    let world = World::new();
    let german = [BY_LANGUAGE, ("content-language", "de")];
    world.answered(&[("accept-language", "en, de")], &german, "old");
    world.answered(&[("accept-language", "fr, de")], &german, "new");
    assert_eq!(world.selected(&[("accept-language", "de")]).unwrap(), "new");
    world.answered(&[("accept-language", "fr, de")], &[BY_LANGUAGE], "of no language");
    assert_eq!(world.selected(&[("accept-language", "de")]).unwrap(), "old");
}

/// RFC 9111 section 4.1: what is stored answers where the fields match that *its own* `Vary` names.
#[test]
fn an_origin_may_change_its_mind_about_what_selects() {
    let world = World::new();
    let both = |a, b| [("a", a), ("b", b)];
    world.answered(&both("1", "1"), &[], "for all");
    assert_eq!(world.selected(&both("2", "2")).unwrap(), "for all");
    // From nothing to A: the one for all is out of date, the newer says who may have it.
    world.answered(&both("1", "1"), &[("vary", "a")], "a1");
    assert_eq!(world.selected(&both("1", "2")).unwrap(), "a1");
    assert!(world.selected(&both("2", "1")).is_none());
    // From A to A and B: older ones still answer whom their own `Vary` lets them.
    world.answered(&both("2", "1"), &[("vary", "a, b")], "a2b1");
    assert_eq!(world.selected(&both("2", "1")).unwrap(), "a2b1");
    assert!(world.selected(&both("2", "2")).is_none());
    assert_eq!(world.selected(&both("1", "2")).unwrap(), "a1");
    // Where both match, the newer goes first.
    world.answered(&both("1", "2"), &[("vary", "b, a")], "a1b2");
    assert_eq!(world.selected(&both("1", "2")).unwrap(), "a1b2");
    assert_eq!(world.selected(&both("1", "3")).unwrap(), "a1");
    // And back to nothing: again one for all.
    world.answered(&both("3", "3"), &[], "for all again");
    for a in ["1", "2", "4"] {
        assert_eq!(world.selected(&both(a, "1")).unwrap(), "for all again");
    }
}

/// The record may be evicted by itself: what it named must not come back with the next one, as
/// purges of a URL under which nothing seems to be stored are left out.
#[test]
fn a_variant_that_no_record_names_is_not_found() {
    let world = World::new();
    world.answered(&[("a", "1")], &[("vary", "a")], "a1");
    world.answered(&[], &[], "for all");
    let Lookup::Found(stored, _) = world.look("/v", &HeaderMap::new()) else { panic!("no") };
    assert!(world.store.remove(&stored));
    assert!(!world.store.holds(&world.key("/v")));
    world.answered(&[("a", "2")], &[("vary", "a")], "a2");
    assert_eq!(world.selected(&[("a", "2")]).unwrap(), "a2");
    assert!(world.selected(&[("a", "1")]).is_none());
}
