use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::clock::Now;
use crate::purge::{Selector, Strength};
use crate::semantics::{ContentRange, StrongValidator};
use crate::store::tests::World;
use crate::store::{NewHead, sweep};

fn body(text: &'static str) -> StoredBody {
    StoredBody::One(Bytes::from_static(text.as_bytes()))
}

fn range(first: u64, last: u64) -> ContentRange {
    ContentRange { first, last, total: Some(10) }
}

fn validator() -> StrongValidator {
    StrongValidator::Tag(http::HeaderValue::from_static("\"a\""))
}

/// The head of `like`, under another key.
fn under(key: CacheKey, like: &Head) -> Arc<Head> {
    Arc::new(Head::new(NewHead {
        key,
        vary: None,
        secondary: Box::default(),
        status: http::StatusCode::PARTIAL_CONTENT,
        headers: HeaderMap::new(),
        terms: like.terms.clone(),
        selectors: like.selectors.clone(),
        born: like.born,
        fill: like.fill,
        lineage: None,
    }))
}

fn keep_part(world: &World, name: &str, tags: &[&str]) -> Arc<Head> {
    let like = world.head(name, tags, None);
    let head = under(world.store.part_key(&like.key), &like);
    let extent = Extent::part(&range(0, 4), validator());
    assert!(world.store.insert_part(Arc::clone(&head), body("01234"), extent, &world.purges));
    like
}

fn part(world: &World, key: &CacheKey) -> Option<Part> {
    let epoch = world.purges.epoch();
    let found = world.store.lookup_part(key, &HeaderMap::new(), &world.purges, epoch);
    found.map(|(part, _)| part)
}

fn lookup(world: &World, key: &CacheKey) -> Lookup {
    world.store.lookup(key, &HeaderMap::new(), &world.purges, world.purges.epoch())
}

#[test]
fn no_request_comes_upon_a_part_and_no_part_upon_a_whole() {
    let world = World::new();
    let like = keep_part(&world, "/a", &[]);
    assert!(matches!(lookup(&world, &like.key), Lookup::Miss));
    assert!(part(&world, &like.key).is_some());
    let whole = world.head("/b", &[], None);
    assert!(world.keep(&whole, "whole"));
    assert!(part(&world, &whole.key).is_none());
    assert!(world.keep(&like, "whole"));
    assert!(part(&world, &like.key).is_some(), "one does not take the other's place");
    assert!(
        matches!(lookup(&world, &like.key), Lookup::Found(stored, _) if stored.body().len() == 5)
    );
}

#[test]
fn what_a_purge_kills_is_no_part_any_more() {
    let selectors = |site: &str| {
        [
            Selector::Tag { site: site.into(), tag: "t".into() },
            Selector::Url { site: site.into(), host: "host".into(), target: "/a".into() },
            Selector::Site { site: site.into() },
            Selector::All,
        ]
    };
    for selector in selectors("site") {
        let world = World::new();
        let like = keep_part(&world, "/a", &["t"]);
        world.purges.apply(std::slice::from_ref(&selector), Strength::Hard, Now::at(1));
        assert!(part(&world, &like.key).is_none(), "{selector:?}");
        assert!(!world.store.holds(&like.key));
    }
    let world = World::new();
    keep_part(&world, "/a", &["t"]);
    world.purges.apply(&[Selector::All], Strength::Hard, Now::at(1));
    assert_eq!(sweep(&world.store, &world.purges, &world.fills).removed, 1);
}

#[test]
fn excerpts_hang_on_what_lies_under_the_parts_key() {
    let world = World::new();
    let like = keep_part(&world, "/a", &[]);
    let there = part(&world, &like.key).unwrap();
    let key =
        |range: &[u8]| world.store.excerpt_key(&there.head().key, there.head().lineage, range);
    let head = under(key(b"bytes=-5"), &like);
    let stored = world.store.stored(head, body("56789"));
    assert!(world.store.insert(&stored, &world.purges));
    let find = |part: &Part, range: &[u8]| {
        let fields = HeaderMap::new();
        world.store.lookup_excerpt(part, &fields, range, &world.purges, world.purges.epoch())
    };
    assert!(find(&there, b"bytes=-5").is_some());
    assert!(find(&there, b"bytes=-05").is_none(), "only the very same field");
    world.store.remove_part(&there);
    assert!(part(&world, &like.key).is_none());
    keep_part(&world, "/a", &[]);
    let new = part(&world, &like.key).unwrap();
    assert!(find(&new, b"bytes=-5").is_none(), "another lineage has other excerpts");
}

#[test]
fn bytes_are_given_and_joined_by_their_place_in_the_whole() {
    let world = World::new();
    let like = keep_part(&world, "/a", &[]);
    let there = part(&world, &like.key).unwrap();
    assert!(matches!(there.range(1, 3), Some(Body::Full(bytes)) if bytes == "123"));
    assert!(there.range(1, 5).is_none());
    let combined = there.extent().combined(&range(3, 9), &validator(), 100).unwrap();
    let joined = there.joined(&combined, &body("3456789"));
    assert!(combined.extent.is_complete());
    assert!(matches!(joined, StoredBody::One(bytes) if bytes == "0123456789"));
}

#[test]
fn a_cut_keeps_nothing_else_alive() {
    let blocks: Vec<Bytes> = (0..4_u8).map(|n| Bytes::from(vec![n; 20_000])).collect();
    let whole = StoredBody::of(&blocks);
    let all: Vec<u8> = blocks.concat();
    for (start, length) in
        [(0, 80_000), (0, 20_000), (19_999, 2), (5, 70_000), (79_999, 9), (80_000, 1)]
    {
        let cut = whole.cut(start, length).concat();
        let from = usize::try_from(start).unwrap();
        let to = (from + usize::try_from(length).unwrap()).min(all.len());
        assert_eq!(cut, all[from..to], "{start} {length}");
    }
    let [first, second] = whole.cut(10_000, 30_000).try_into().unwrap();
    assert!(!blocks[0].as_ptr_range().contains(&first.as_ptr()));
    assert_eq!(blocks[1].as_ptr(), second.as_ptr());
}

#[test]
fn room_is_taken_and_given_back() {
    let world = World::new();
    // A quarter of what all arriving bodies may take.
    let all = world.fills.room(1 << 18).unwrap();
    assert!(world.fills.room(1).is_none());
    assert_eq!(world.fills.bytes(), 1 << 18);
    drop(all);
    assert_eq!(world.fills.bytes(), 0);
    assert!(world.fills.room(1 << 18).is_some());
}

#[test]
fn memory_of_a_part_is_accounted_until_its_last_reader_lets_go() {
    let world = World::new();
    let like = world.head("/a", &[], None);
    let head = under(world.store.part_key(&like.key), &like);
    let blocks: std::sync::Arc<[Bytes]> =
        [Bytes::from_static(b"01"), Bytes::from_static(b"234")].into();
    let extent = Extent::part(&range(0, 4), validator());
    let body = StoredBody::Many(blocks, 5);
    assert!(world.store.insert_part(head, body, extent, &world.purges));
    let reader = part(&world, &like.key).unwrap().range(0, 5).unwrap();
    let before = world.store.bytes();
    world.store.clear();
    assert_eq!(world.store.bytes(), before);
    drop(reader);
    world.settles(|store| store.bytes() == 0);
}
