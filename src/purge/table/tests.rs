use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Selector, Selectors};
use super::*;

const SECRET: Secret = Secret(3, 5);

fn site() -> Arc<str> {
    Arc::from("s")
}

fn tag(tag: &str) -> Selector {
    Selector::Tag { site: site(), tag: tag.to_owned() }
}

fn prefix(host: &str, path: &str) -> Selector {
    Selector::Prefix { site: site(), host: host.into(), path: path.into() }
}

fn glob(pattern: &str) -> Selector {
    Selector::Glob { site: site(), glob: Glob::parse(pattern).unwrap() }
}

fn url(host: &str, target: &str) -> Selector {
    Selector::Url { site: site(), host: host.into(), target: target.into() }
}

fn response(url: &str, tags: &[&str]) -> Selectors {
    let tags: Vec<Box<str>> = tags.iter().map(|tag| Box::from(*tag)).collect();
    let (host, target) = url.split_at(url.find('/').unwrap());
    Selectors::new(SECRET, "s", host, target, &tags)
}

fn write(table: &mut Table, selector: &Selector, strength: Strength, epoch: u64) {
    let row = Row::of(strength, epoch, Duration::from_secs(epoch));
    table.write(selector.place(SECRET), row);
}

fn find(table: &Table, selectors: &Selectors, born: u64) -> Found {
    table.find(SECRET, &selectors.bearer(None), born)
}

fn one(selector: &Selector) -> Table {
    let mut table = Table::new(10, 10);
    write(&mut table, selector, Strength::Hard, 1);
    table
}

#[test]
fn what_is_named_again_and_again_in_one_epoch_has_one_place() {
    let mut table = Table::new(100, 10);
    for epoch in [1, 1, 2] {
        for number in 0..20_000 {
            let strength = if number % 3 == 0 { Strength::Check } else { Strength::Hard };
            write(&mut table, &tag(&format!("{}", number % 10)), strength, epoch);
        }
    }
    let places: usize = table.sites.values().map(|site| site.order.len()).sum();
    assert_eq!((table.len(), places), (10, 20), "one for each epoch");
    assert!(find(&table, &response("h/", &["7"]), 1).hard);
}

#[test]
fn a_row_counts_only_against_what_was_born_before_it() {
    let mut table = Table::new(10, 10);
    write(&mut table, &tag("a"), Strength::Hard, 5);
    assert!(find(&table, &response("h/", &["a"]), 4).hard);
    assert!(!find(&table, &response("h/", &["a"]), 5).hard);
    assert!(!find(&table, &response("h/", &["b"]), 4).hard);
}

#[test]
fn a_soft_purge_does_not_hide_an_older_hard_one() {
    let mut table = Table::new(10, 10);
    write(&mut table, &tag("a"), Strength::Hard, 5);
    write(&mut table, &tag("a"), Strength::Soft, 6);
    assert!(find(&table, &response("h/", &["a"]), 4).hard);
    let found = find(&table, &response("h/", &["a"]), 5);
    assert_eq!((found.hard, found.check), (false, false));
    assert_eq!(found.soft_at, Some(Duration::from_secs(6)));
}

#[test]
fn each_selector_reaches_what_it_names_and_nothing_else() {
    let rows: [(Selector, &[&str], &[&str]); 12] = [
        (url("h", "/"), &["h/"], &["h/?", "h/a", "i/"]),
        (url("h", "/a?b"), &["h/a?b"], &["h/a", "h/a?b&c"]),
        (prefix("h", "/"), &["h/", "h/a", "h/?q", "h//"], &["i/", "i/h/"]),
        (prefix("h", "/a/"), &["h/a/", "h/a/b", "h/a/?q", "h/a//b/c"], &["h/a", "h/ab/", "i/a/"]),
        (prefix("h", "/a//"), &["h/a//", "h/a//b"], &["h/a/", "h/a/b/"]),
        (prefix("[::1]", "/a/"), &["[::1]/a/x"], &["h/a/x"]),
        (Selector::Host { site: site(), host: "h".into() }, &["h/", "h/a?q"], &["i/", "hh/"]),
        (glob("*.jpg"), &["h/a.jpg", "i/x/b.JPG"], &["h/a.jpg?q", "h/a.jpgs"]),
        (glob("h/*/b?c=*"), &["h/a/b?c=1", "h/a/x/b?c="], &["h/a/b", "i/a/b?c=1"]),
        (tag("none"), &[], &["h/", "h/a"]),
        (Selector::Site { site: site() }, &["h/", "i/a"], &[]),
        (Selector::All, &["h/", "i/a"], &[]),
    ];
    for (selector, hit, missed) in rows {
        let table = one(&selector);
        assert_eq!(table.len(), 1);
        for (targets, expected) in [(hit, true), (missed, false)] {
            for target in targets {
                let found = find(&table, &response(target, &["t"]), 0);
                assert_eq!(found.hard, expected, "{selector:?} {target}");
                assert!(!find(&table, &response(target, &["t"]), 1).hard);
            }
        }
    }
}

#[test]
fn selectors_by_name_are_those_that_reach() {
    let tags: Vec<Box<str>> = vec!["a".into(), "b".into()];
    let (host, target) = ("h", "/a//b/c?d/e");
    let reaching = Selector::reaching(&site(), host, target, &tags);
    assert_eq!(reaching.len(), 2 + 1 + 4 + 3);
    let bearer = Selectors::new(SECRET, "s", host, target, &tags);
    for selector in reaching.iter().chain([&glob("h/a*")]) {
        let table = one(selector);
        assert!(find(&table, &bearer, 0).hard, "{selector:?}");
        assert_eq!(table.row(&selector.place(SECRET)).map(|row| row.hard), Some(1));
        assert!(bearer.answers_to(&selector.place(SECRET)));
    }
    let table = one(&glob("h/a*"));
    let globs = |target: &str| table.globs(RowKey::site(SECRET, "s"), host, target).count();
    assert_eq!((globs("/A"), globs("/b")), (1, 0));
}

#[test]
fn sites_are_apart() {
    let other: Arc<str> = Arc::from("other");
    for selector in [
        Selector::Url { site: other.clone(), host: "h".into(), target: "/".into() },
        Selector::Tag { site: other.clone(), tag: "t".into() },
        Selector::Prefix { site: other.clone(), host: "h".into(), path: "/".into() },
        Selector::Host { site: other.clone(), host: "h".into() },
        Selector::Glob { site: other.clone(), glob: Glob::parse("h/*").unwrap() },
        Selector::Site { site: other },
    ] {
        assert!(!find(&one(&selector), &response("h/", &["t"]), 0).hard, "{selector:?}");
    }
}

#[test]
fn what_does_not_tell_its_url_answers_to_whatever_could_match() {
    let key = crate::semantics::CacheKey { hash: 0, parts: Box::default() };
    let whole = response("h/a", &[]);
    assert_eq!(whole.clone().beside(&key).sizes(), whole.sizes(), "the key tells nothing");
    let table = one(&prefix("elsewhere", "/"));
    assert!(!find(&table, &whole, 0).hard);
    let silent = whole.bearer(None).without_url();
    assert!(table.find(SECRET, &silent, 0).hard);
    assert!(!one(&tag("x")).find(SECRET, &silent, 0).hard);
}

#[test]
fn dropping_keeps_what_is_newer_than_the_floor() {
    let mut table = Table::new(10, 10);
    write(&mut table, &tag("a"), Strength::Hard, 5);
    write(&mut table, &prefix("h", "/a/"), Strength::Hard, 5);
    write(&mut table, &glob("h/b*"), Strength::Hard, 5);
    write(&mut table, &tag("b"), Strength::Hard, 6);
    write(&mut table, &tag("a"), Strength::Soft, 7);
    assert_eq!(table.len(), 4);
    assert!(!table.drop_up_to(6, 100));
    assert_eq!(table.len(), 1);
    assert!(find(&table, &response("h/", &["a"]), 4).hard, "its newest strength keeps the row");
    assert!(!find(&table, &response("h/a/", &[]), 4).hard);
    assert!(!table.drop_up_to(7, 100));
    assert!(table.is_empty() && table.sites.is_empty() && table.rows.is_empty());
}

#[test]
fn rows_are_dropped_a_few_at_a_time() {
    let mut table = Table::new(1000, 10);
    for number in 1..=100 {
        write(&mut table, &tag(&number.to_string()), Strength::Hard, number);
    }
    let mut rounds = 0;
    while table.drop_up_to(90, 20) {
        rounds += 1;
        assert!(table.len() <= 100 - 20 * rounds.min(4));
    }
    assert_eq!((rounds, table.len()), (4, 10));
}

#[test]
fn the_oldest_rows_fold_into_the_site_and_the_newest_stay_apart() {
    let mut table = Table::new(4, 2);
    for number in 1..=10 {
        write(&mut table, &tag(&number.to_string()), Strength::Hard, number);
    }
    assert_eq!(table.len(), 5);
    let other = response("h/", &["other"]);
    assert!(find(&table, &other, 5).hard, "folded at 6");
    assert!(!find(&table, &other, 6).hard, "what is younger than what folded is not hit");
    assert!(find(&table, &response("h/", &["10"]), 9).hard);
    for (epoch, pattern) in (11..).zip(["h/a*", "h/b*", "h/a*", "h/c*"]) {
        write(&mut table, &glob(pattern), Strength::Soft, epoch);
    }
    assert_eq!(table.len(), 7);
    let found = find(&table, &other, 6);
    assert_eq!(found.soft_at, Some(Duration::from_secs(12)), "h/b* is the oldest: {found:?}");
}

#[test]
fn one_row_written_again_and_again_takes_no_more_memory() {
    let mut table = Table::new(100, 10);
    for epoch in 1..10_000 {
        write(&mut table, &tag("a"), Strength::Hard, epoch);
        write(&mut table, &glob("h/a*"), Strength::Hard, epoch);
    }
    assert_eq!(table.len(), 2);
    let site = table.sites.values().next().unwrap();
    assert!(site.order.len() <= 2 * 100, "{}", site.order.len());
}

fn strength() -> impl Strategy<Value = Strength> {
    prop_oneof![Just(Strength::Hard), Just(Strength::Check), Just(Strength::Soft)]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let host = || prop_oneof![Just("h"), Just("i")];
    prop_oneof![
        "[a-d]".prop_map(|name| tag(&name)),
        (host(), "(/[ab]?){1,3}").prop_map(|(host, target)| url(host, &target)),
        (host(), "/([ab]?/){0,3}").prop_map(|(host, path)| prefix(host, &path)),
        host().prop_map(|host| Selector::Host { site: site(), host: host.into() }),
        "(h|i|\\*)/[ab/]{0,2}\\*[ab]?".prop_filter_map("everything", |pattern| {
            Some(Selector::Glob { site: site(), glob: Glob::parse(&pattern).ok()? })
        }),
        Just(Selector::Site { site: site() }),
    ]
}

proptest! {
    #[test]
    fn folding_never_lets_go(
        writes in prop::collection::vec((selectors(), strength()), 1..60),
        target in "(h|i)(/[ab]?){1,4}",
        asked in "[a-d]",
        born in 0_u64..60,
    ) {
        let mut folded = Table::new(5, 2);
        let mut whole = Table::new(1000, 1000);
        for (epoch, (selector, strength)) in (1_u64..).zip(&writes) {
            for table in [&mut folded, &mut whole] {
                write(table, selector, *strength, epoch);
            }
        }
        prop_assert!(folded.len() <= 5 + 2 + 1);
        let bearer = response(&target, &[&asked]);
        let (narrow, wide) = (find(&whole, &bearer, born), find(&folded, &bearer, born));
        prop_assert!(wide.hard || !narrow.hard);
        prop_assert!(wide.check || !narrow.check);
        prop_assert!(wide.soft_at >= narrow.soft_at);
        prop_assert!(narrow.met.newest() <= wide.met.newest());
    }
}
