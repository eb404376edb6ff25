//! Strangers who ask for what nobody asks for twice, and who choose their keys with care.

use super::*;

/// Names of what many ask for.
fn hot() -> Vec<String> {
    (0..100).map(|number| format!("/hot/{number}")).collect()
}

/// Asks for it as a request does, which fills what is not there. Whether it was a hit.
fn ask(world: &World, name: &str) -> bool {
    let hit = matches!(world.look(name, &HeaderMap::new()), Lookup::Found(..));
    if !hit {
        world.keep(&world.head(name, &[], None), "some body");
    }
    hit
}

#[test]
fn a_flood_of_distinct_urls_leaves_the_hot_ones_in_place() {
    let world = World::with(1 << 20);
    let hot = hot();
    for name in hot.iter().cycle().take(1000) {
        ask(&world, name);
        world.store.upkeep();
    }
    let before = hot.iter().filter(|name| ask(&world, name)).count();
    assert_eq!(before, hot.len(), "they fit in");
    let (mut asked, mut hits) = (0, 0);
    for (number, name) in (0..40_000).zip(hot.iter().cycle()) {
        ask(&world, &format!("/bust/{number}"));
        if number % 10 == 0 {
            asked += 1;
            hits += usize::from(ask(&world, name));
        }
    }
    assert!(world.store.evictions() > 10_000, "the flood was many times what there is room for");
    assert!(hits * 100 >= asked * 95, "{hits} of {asked}");
}

#[test]
fn no_two_stores_share_a_secret() {
    let (one, other) = (World::new(), World::new());
    assert_ne!(one.store.secret().0, other.store.secret().0);
    assert_ne!(one.key("/a").hash, other.key("/a").hash);
}
