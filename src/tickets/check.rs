//! Properties that hold for every input. The property tests and the fuzz target call this; it panics when
//! one does not hold.

use std::time::Duration;

use super::set::{KeyPaces, MOST, Set};
use super::wire::{decode, encode};

/// What a node tells of keys: refused, or keys that are written the same way again. Who takes them holds no
/// more than it may, takes nothing new from hearing them twice, and tells what makes another hold the same.
pub fn told(bytes: &[u8]) {
    let Ok(keys) = decode(bytes) else { return };
    assert!(keys.len() <= MOST, "more keys than are held");
    assert_eq!(encode(&keys), bytes, "written again");
    let (paces, now) = (KeyPaces::new(Duration::from_secs(1_000)), Duration::from_secs(10_000));
    let (mut one, mut other) = (Set::new(paces, now), Set::new(paces, now));
    let taken = one.take(keys.clone(), now);
    assert!(taken.new + taken.refused <= keys.len(), "more came of them than they were");
    assert_eq!(one.take(keys, now).new, 0, "heard again");
    let told = one.told(now);
    assert!(told.iter().all(|key| key.age < paces.forgotten()), "too old to be used");
    assert_eq!(other.take(told.clone(), now).new, told.len(), "told on");
    assert_eq!((other.told(now), other.issuing(now)), (told, one.issuing(now)), "heard of another");
}
