use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::purge::Strength;
use crate::semantics::{Grid, Policy, Segments};
use crate::store::tests::World;
use crate::store::{Lookup, sweep};

const SEGMENT: PieceName = PieceName::Segment(3);

fn body(text: &'static str) -> StoredBody {
    StoredBody::One(Bytes::from_static(text.as_bytes()))
}

fn put(world: &World, head: &Arc<Head>, name: PieceName, text: &'static str) -> bool {
    world.store.put_piece(head, name, body(text), &world.purges)
}

fn bytes(world: &World, head: &Head, name: PieceName) -> Option<Bytes> {
    match world.store.piece(head, name)? {
        StoredBody::One(bytes) => Some(bytes),
        StoredBody::Many(..) | StoredBody::Segmented(_) => None,
    }
}

/// Waits until so many entries are in all classes.
fn entries(world: &World, expected: u64) {
    world.settles(|store| (0..CLASSES).map(|index| store.class(index).0).sum::<u64>() == expected);
}

#[test]
fn a_piece_is_found_by_its_name_through_its_own_head_alone() {
    let world = World::new();
    let (one, other) = (world.head("/a", &[], None), world.head("/b", &[], None));
    assert!(world.keep(&one, "whole") && world.keep(&other, "whole"));
    assert!(put(&world, &one, SEGMENT, "third"));
    assert!(put(&world, &one, PieceName::Coding(3), "coded"));
    assert_eq!(bytes(&world, &one, SEGMENT).unwrap(), "third");
    assert_eq!(bytes(&world, &one, PieceName::Coding(3)).unwrap(), "coded");
    assert_eq!(bytes(&world, &one, PieceName::Segment(4)), None);
    assert_eq!(bytes(&world, &other, SEGMENT), None);
    assert!(put(&world, &one, SEGMENT, "again"));
    assert_eq!(bytes(&world, &one, SEGMENT).unwrap(), "again");
}

#[test]
fn a_variant_has_pieces_of_its_own() {
    let world = World::new();
    let one = world.head("/v", &[], Some(("x-lang", "a")));
    let other = world.head("/v", &[], Some(("x-lang", "b")));
    assert!(world.keep(&one, "a") && world.keep(&other, "b"));
    assert!(put(&world, &one, SEGMENT, "a's") && put(&world, &other, SEGMENT, "b's"));
    assert_eq!(bytes(&world, &one, SEGMENT).unwrap(), "a's");
    assert_eq!(bytes(&world, &other, SEGMENT).unwrap(), "b's");
}

#[test]
fn no_piece_is_stored_for_a_head_that_is_dead_replaced_or_absent() {
    let world = World::new();
    let head = world.head("/a", &["x"], None);
    assert!(!put(&world, &head, SEGMENT, "too early"), "its head is not stored yet");
    assert!(world.keep(&head, "old"));
    world.purge("x", Strength::Hard);
    assert!(!put(&world, &head, SEGMENT, "too late"), "a purge has killed the head");
    let new = world.head("/a", &["x"], None);
    assert!(world.keep(&new, "new"));
    assert!(!put(&world, &head, SEGMENT, "too late"), "another has taken its place");
    assert!(put(&world, &new, SEGMENT, "right"));
    assert_eq!(bytes(&world, &head, SEGMENT), None);
    world.store.clear();
    assert!(!put(&world, &new, SEGMENT, "too late"), "the head has been evicted");
}

#[test]
fn a_purge_makes_pieces_unreachable_and_the_sweep_frees_them_alone() {
    let world = World::new();
    let (dead, alive) = (world.head("/a", &["x"], None), world.head("/b", &["y"], None));
    assert!(world.keep(&dead, "dead") && world.keep(&alive, "alive"));
    for number in 0..3 {
        assert!(put(&world, &dead, PieceName::Segment(number), "dead"));
    }
    assert!(put(&world, &alive, SEGMENT, "alive"));
    world.purge("x", Strength::Hard);
    assert!(matches!(world.look("/a", &HeaderMap::new()), Lookup::Miss));
    entries(&world, 5);
    drop(dead);
    let seen = sweep(&world.store, &world.purges, &world.fills);
    assert_eq!((seen.walked, seen.removed), (1, 0));
    assert!(seen.freed_bytes > 0);
    entries(&world, 2);
    assert_eq!(bytes(&world, &alive, SEGMENT).unwrap(), "alive");
    assert_eq!(world.store.evictions(), 0, "what is swept is not evicted");
}

#[test]
fn a_confirmed_head_keeps_the_pieces_and_the_sweep_spares_them() {
    let world = World::new();
    let old = world.head("/a", &[], None);
    assert!(world.keep(&old, "body"));
    assert!(put(&world, &old, SEGMENT, "third"));
    let confirmed = world.confirmed("/a", &old);
    assert!(world.keep(&confirmed, "body"));
    assert_eq!(bytes(&world, &confirmed, SEGMENT).unwrap(), "third");
    // Asked for while the old head was in force: the bytes are the same.
    assert!(put(&world, &old, PieceName::Segment(4), "fourth"));
    sweep(&world.store, &world.purges, &world.fills);
    assert_eq!(bytes(&world, &confirmed, SEGMENT).unwrap(), "third");
    assert_eq!(bytes(&world, &confirmed, PieceName::Segment(4)).unwrap(), "fourth");
}

/// A walk goes through what is there in the order it came: a head that takes the place of another
/// may be behind it already.
#[test]
fn pieces_of_a_head_that_is_replaced_while_the_sweep_walks_stay() {
    let world = World::new();
    let old = world.head("/a", &[], None);
    assert!(world.keep(&old, "body"));
    assert!(put(&world, &old, SEGMENT, "third"));
    let mut orphans = Orphans::new(&world.store);
    world.store.gauge.pieces().for_each(|piece| orphans.met_piece(&piece));
    assert!(world.keep(&world.confirmed("/a", &old), "body"));
    assert_eq!(orphans.remove(&world.store), 0, "neither head was met");
    assert_eq!(bytes(&world, &old, SEGMENT).unwrap(), "third");
}

#[test]
fn a_piece_that_came_after_the_sweep_began_is_spared() {
    let world = World::new();
    let orphans = Orphans::new(&world.store);
    let head = world.head("/a", &[], None);
    assert!(world.keep(&head, "body"));
    assert!(put(&world, &head, SEGMENT, "third"));
    assert_eq!(orphans.remove(&world.store), 0);
    let mut orphans = Orphans::new(&world.store);
    world.store.gauge.pieces().for_each(|piece| orphans.met_piece(&piece));
    assert!(orphans.remove(&world.store) > 0, "nobody met its head");
    assert_eq!(bytes(&world, &head, SEGMENT), None);
}

#[test]
fn pieces_weigh_their_bytes_are_evicted_by_themselves_and_given_back() {
    let world = World::with(1 << 20);
    let head = world.head("/a", &[], None);
    assert!(world.keep(&head, "head"));
    let before = world.store.bytes();
    let block = || StoredBody::One(Bytes::from(vec![7; 16 * 1024]));
    assert!(world.store.put_piece(&head, PieceName::Segment(0), block(), &world.purges));
    let one = world.store.bytes() - before;
    assert!((16 * 1024..17 * 1024).contains(&one), "{one}");
    for number in 1..100 {
        assert!(world.store.put_piece(&head, PieceName::Segment(number), block(), &world.purges));
        world.store.upkeep();
    }
    world.settles(|store| store.bytes() <= 1 << 20);
    assert!(world.store.evictions() > 0);
    assert!(world.store.piece(&head, PieceName::Segment(99)).is_some(), "the newest stays");
    assert!(world.store.piece(&head, PieceName::Segment(0)).is_none(), "the oldest goes");
    assert!(matches!(world.look("/a", &HeaderMap::new()), Lookup::Found(..)), "the head stays");
    let kept = || {
        let names = (0..100).map(PieceName::Segment);
        names.filter(|name| world.store.piece(&head, *name).is_some()).count()
    };
    let before = kept();
    world.store.give_back(20 * 1024);
    assert_eq!(kept(), before - 2);
    world.store.clear();
    drop(head);
    world.settles(|store| store.bytes() == 0);
}

#[test]
fn a_piece_larger_than_what_is_stored_is_refused() {
    let world = World::with(1 << 20);
    let head = world.head("/a", &[], None);
    assert!(world.keep(&head, "head"));
    let large = StoredBody::One(Bytes::from(vec![0; (1 << 16) + 1]));
    assert!(!world.store.put_piece(&head, SEGMENT, large, &world.purges));
}

#[test]
fn a_head_that_is_forgotten_goes_with_its_lineage_alone_and_leaves_work_for_the_sweep() {
    let world = World::new();
    let (old, new) = (world.head("/a", &[], None), world.head("/a", &[], None));
    assert!(world.keep(&old, "old"));
    assert!(!world.store.has_orphans());
    assert!(put(&world, &old, SEGMENT, "third"));
    assert!(world.keep(&new, "new"));
    assert!(world.store.has_orphans(), "the old one had pieces");
    assert!(!world.store.has_orphans(), "said once");
    world.store.forget(&old);
    assert!(
        matches!(world.look("/a", &HeaderMap::new()), Lookup::Found(..)),
        "it is the new one's"
    );
    let confirmed = world.confirmed("/a", &new);
    assert!(world.keep(&confirmed, "new"));
    world.store.forget(&new);
    assert!(matches!(world.look("/a", &HeaderMap::new()), Lookup::Miss), "its bytes are the same");
    sweep(&world.store, &world.purges, &world.fills);
    assert_eq!(bytes(&world, &old, SEGMENT), None);
}

#[test]
fn a_body_in_segments_weighs_its_head_and_breaks_off_where_it_is_read_as_one() {
    let world = World::new();
    let policy = Policy { segment: Some(1 << 20), ..Policy::default() };
    let grid = Grid::of(&policy, 1 << 20).unwrap();
    let body = StoredBody::Segmented(Segments::new(grid, 1 << 40).unwrap());
    assert_eq!((body.len(), body.held_bytes()), (1 << 40, 0));
    for broken in [body.whole(), body.range(5, 10)] {
        let mut broken = std::pin::pin!(broken);
        let mut context = Context::from_waker(Waker::noop());
        let frame = http_body::Body::poll_frame(broken.as_mut(), &mut context);
        assert!(matches!(frame, Poll::Ready(Some(Err(_)))));
    }
    let stored = world.store.stored(world.head("/a", &[], None), body);
    assert!(stored.weight() < 4096, "{}", stored.weight());
    assert!(world.store.insert(&stored, &world.purges));
    assert_eq!(world.store.class(0).0, 1, "it is a small entry");
}
