//! Draws for jitter and early refresh: from the node's seed, its name, the full cache key and the
//! fill's number, so that a load test can be repeated; never from a secret.

use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// Source of the draws of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice {
    seed: u64,
    node: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, node: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(seed, 0);
        hasher.write(node.as_bytes());
        Self { seed, node: hasher.finish() }
    }

    /// A draw in 0..1 for the lifetime of what a fill brings.
    pub(super) fn jitter(&self, key: &[u8], fill: u64) -> f64 {
        unit(self.number(key, fill))
    }

    /// A draw in 0..1 for the early refresh of what a fill brought, at some age. Another one each
    /// millisecond, so that many requests are many draws.
    pub(super) fn early(&self, key_hash: u128, fill: u64, age: Duration) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are as good as any")]
        let moment = age.as_millis() as u64 ^ (key_hash as u64);
        unit(mix(self.seed ^ self.node ^ fill.rotate_left(32) ^ moment))
    }

    fn number(&self, key: &[u8], fill: u64) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed, self.node);
        hasher.write_u64(fill);
        hasher.write(key);
        hasher.finish()
    }
}

/// The finaliser of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A number in 0..1 from the upper 53 bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
fn unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_stored_together_does_not_end_together() {
        let dice = Dice::new(7, "edge");
        let mut ends = [0_u32; 100];
        for number in 0..10_000_u32 {
            let draw = dice.jitter(format!("/page/{number}").as_bytes(), u64::from(number));
            #[expect(clippy::cast_possible_truncation, reason = "below 100")]
            let place = (draw * 100.0) as usize;
            ends[place] += 1;
        }
        assert!(ends.iter().all(|count| *count < 200), "at most twice the mean: {ends:?}");
    }

    proptest! {
        /// F29: a draw follows from seed, node, key and fill, from each of them and nothing else.
        #[test]
        fn a_draw_follows_from_seed_node_key_and_fill(
            seed: u64, node in "[a-z]{1,8}", key: Vec<u8>, fill: u64,
        ) {
            let draw = Dice::new(seed, &node).jitter(&key, fill);
            prop_assert!((0.0..1.0).contains(&draw));
            prop_assert_eq!(draw.to_bits(), Dice::new(seed, &node).jitter(&key, fill).to_bits());
            let longer = [&key[..], b"x"].concat();
            let others = [
                Dice::new(seed ^ 1, &node).jitter(&key, fill),
                Dice::new(seed, &format!("{node}x")).jitter(&key, fill),
                Dice::new(seed, &node).jitter(&longer, fill),
                Dice::new(seed, &node).jitter(&key, fill.wrapping_add(1)),
            ];
            prop_assert!(others.iter().all(|other| other.to_bits() != draw.to_bits()));
        }
    }

    #[test]
    fn draws_are_repeatable_and_spread() {
        let dice = Dice::new(7, "a");
        assert_eq!(dice.jitter(b"k", 1).to_bits(), Dice::new(7, "a").jitter(b"k", 1).to_bits());
        assert_ne!(dice.jitter(b"k", 1).to_bits(), Dice::new(7, "b").jitter(b"k", 1).to_bits());
        let mean: f64 = (0..10_000).map(|fill| dice.jitter(b"k", fill)).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
        let low = (0..10_000).filter(|ms| dice.early(1, 1, Duration::from_millis(*ms)) < 0.1);
        assert!((800..1200).contains(&low.count()));
    }
}
