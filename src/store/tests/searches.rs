//! Responses that are looked for under other queries than their own.

use super::*;
use crate::purge::Glob;
use crate::semantics::NoVarySearch;

impl World {
    /// Stores what a URL brought with a rule, and learns where it is.
    fn brought(&self, query: &str, rule: &str, vary: Option<(&str, &str)>, body: &'static str) {
        let name = format!("/s?{query}");
        let mut headers = HeaderMap::new();
        headers.insert("no-vary-search", HeaderValue::from_str(rule).unwrap());
        let head = self.head(&name, &["x"], vary);
        let head = Arc::new(Head::new(NewHead {
            key: head.key.clone(),
            vary: head.vary.clone(),
            secondary: head
                .vary
                .as_ref()
                .map(|fields| fields.secondary(&asks(vary)).into_boxed_slice())
                .unwrap_or_default(),
            status: StatusCode::OK,
            headers: headers.clone(),
            terms: terms(),
            selectors: head.selectors.clone(),
            born: self.purges.epoch(),
            fill: 0,
            lineage: None,
        }));
        if let Some(rule) = NoVarySearch::of(&headers) {
            self.store.learn_search(&self.key("/s"), Some(query), &rule, &head.key);
        }
        assert!(self.keep(&head, body));
    }

    fn elsewhere(&self, query: &str, vary: Option<(&str, &str)>) -> Option<Bytes> {
        let (base, epoch) = (self.key("/s"), self.purges.epoch());
        let body = |stored: Arc<Stored>, _| match stored.body() {
            StoredBody::One(bytes) => Some(bytes.clone()),
            StoredBody::Many(..) | StoredBody::Segmented(_) => None,
        };
        self.store.elsewhere(&base, Some(query), &asks(vary), &self.purges, epoch, body)
    }
}

#[test]
fn what_is_found_has_a_rule_of_its_own_that_says_so() {
    let world = World::new();
    assert!(!world.store.answers_elsewhere());
    world.brought("a=1&u=1", "params=(\"u\")", None, "one");
    assert!(world.store.answers_elsewhere());
    assert_eq!(world.elsewhere("a=1&u=2", None).unwrap(), "one");
    assert!(world.elsewhere("a=2", None).is_none());
    // The same URL comes again and takes its word back.
    world.brought("a=1&u=1", "params=(\"v\")", None, "two");
    assert!(world.elsewhere("a=1&u=2", None).is_none());
    assert_eq!(world.elsewhere("a=1&u=1&v", None).unwrap(), "two");
    world.brought("a=1&u=1", "nothing", None, "three");
    assert!(world.elsewhere("a=1&u=1&v", None).is_none());
    world.store.clear();
    assert!(!world.store.answers_elsewhere());
}

#[test]
fn clients_that_select_different_variants_do_not_take_the_place_from_each_other() {
    let world = World::new();
    world.brought("u=1", "params", Some(("x-c", "br")), "br");
    world.brought("u=2", "params", Some(("x-c", "gzip")), "gzip");
    assert_eq!(world.elsewhere("u=3", Some(("x-c", "br"))).unwrap(), "br");
    assert_eq!(world.elsewhere("u=4", Some(("x-c", "gzip"))).unwrap(), "gzip");
    assert!(world.elsewhere("u=5", Some(("x-c", "zstd"))).is_none());
    world.purge("x", Strength::Hard);
    assert!(world.elsewhere("u=4", Some(("x-c", "gzip"))).is_none());
}

#[test]
fn a_few_rules_and_keys_are_remembered_the_newest() {
    let world = World::new();
    for rule in ["a", "b", "c", "d", "e"] {
        let query = format!("{rule}=1&rule={rule}");
        world.brought(&query, &format!("params=(\"{rule}\")"), None, "x");
    }
    assert!(world.elsewhere("a=2&rule=a", None).is_none(), "the oldest of five rules is forgotten");
    assert!(world.elsewhere("b=2&rule=b", None).is_some());
    for number in 0..7 {
        let vary = number.to_string();
        world.brought(&format!("e={number}"), "params=(\"e\")", Some(("x-c", &vary)), "y");
    }
    assert!(world.elsewhere("e=9", Some(("x-c", "0"))).is_none(), "the oldest of seven keys, too");
    assert!(world.elsewhere("e=9", Some(("x-c", "1"))).is_some());
}

#[test]
fn a_url_is_untouched_until_a_purge_names_it_and_a_pattern_names_any() {
    let purges = Purges::new(SECRET, 6);
    let url = |target: &str| Selector::Url {
        site: "site".into(),
        host: "host".into(),
        target: target.into(),
    };
    let untouched = |target: &str, born| purges.is_untouched("site", "host", target, born);
    for strength in [Strength::Hard, Strength::Check, Strength::Soft] {
        let born = purges.epoch();
        assert!(untouched("/a", born));
        purges.apply(&[url("/a")], strength, Now::at(200));
        assert!(!untouched("/a", born), "{strength:?}");
        assert!(untouched("/b", born) && untouched("/a", purges.epoch()), "{strength:?}");
    }
    // What is only distrusted makes no epoch, and nothing that there is now is used for it.
    let born = purges.epoch();
    purges.distrust(&[url("/c")]);
    assert_eq!(purges.epoch(), born);
    assert!(!untouched("/c", born) && untouched("/d", born));
    // When there is no room for more, all that there is now is distrusted, and what comes is not.
    purges.distrust(&[url("/d"), url("/e")]);
    assert!(!untouched("/f", born));
    assert!(untouched("/c", purges.epoch()));
    let glob = Glob::parse("host/x*").unwrap();
    let born = purges.epoch();
    purges.apply(&[Selector::Glob { site: "site".into(), glob }], Strength::Hard, Now::at(200));
    assert!(!untouched("/y", born) && untouched("/y", purges.epoch()));
}
