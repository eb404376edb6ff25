//! Token buckets by key, as many as were foreseen and no more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Now;

/// Buckets that all refill at one rate.
#[derive(Debug)]
pub struct Buckets<K> {
    per_second: f64,
    capacity: f64,
    most: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    /// Boot clock at which `level` was right.
    at: Duration,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// At most `most` buckets of `capacity` each.
    #[must_use]
    pub fn new(per_second: f64, capacity: f64, most: usize) -> Self {
        Self { per_second, capacity, most, buckets: Mutex::default() }
    }

    /// Whether there are so many at this rate.
    #[must_use]
    pub fn is(&self, per_second: f64, most: usize) -> bool {
        self.per_second.to_bits() == per_second.to_bits() && self.most == most
    }

    /// Takes `amount`; else says how long to wait for it. A bucket that is full gives any amount,
    /// and then has to earn what it owes: so a large request is possible and the rate holds.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&self, key: K, amount: f64, now: Now) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level = buckets.get(&key).map_or(self.capacity, |bucket| self.level(*bucket, now));
        let needed = amount.min(self.capacity);
        if level < needed {
            return Err(Duration::from_secs_f64((needed - level) / self.per_second));
        }
        if buckets.len() >= self.most && !buckets.contains_key(&key) {
            self.make_room(&mut buckets, now);
        }
        buckets.insert(key, Bucket { level: level - amount, at: now.boot });
        Ok(())
    }

    /// Whether one more could be taken; else how long to wait.
    ///
    /// # Errors
    /// The time to wait.
    pub fn check(&self, key: K, now: Now) -> Result<(), Duration> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level = buckets.get(&key).map_or(self.capacity, |bucket| self.level(*bucket, now));
        if level >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - level) / self.per_second))
    }

    fn level(&self, bucket: Bucket, now: Now) -> f64 {
        let earned = now.boot.saturating_sub(bucket.at).as_secs_f64() * self.per_second;
        (bucket.level + earned).min(self.capacity)
    }

    /// Forgets the buckets that are full again, or else the one that is nearest to it.
    fn make_room(&self, buckets: &mut HashMap<K, Bucket>, now: Now) {
        buckets.retain(|_, bucket| self.level(*bucket, now) < self.capacity);
        if buckets.len() < self.most {
            return;
        }
        let fullest = buckets
            .iter()
            .max_by(|(_, a), (_, b)| self.level(**a, now).total_cmp(&self.level(**b, now)))
            .map(|(key, _)| *key);
        if let Some(key) = fullest {
            buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_holds_over_time_and_a_full_bucket_gives_any_amount() {
        let buckets = Buckets::new(2.0, 4.0, 8);
        assert_eq!(buckets.take(1, 10.0, Now::at(100)), Ok(()));
        assert_eq!(buckets.take(1, 1.0, Now::at(100)), Err(Duration::from_secs_f64(3.5)));
        assert_eq!(buckets.take(2, 4.0, Now::at(100)), Ok(()));
        assert_eq!(buckets.check(1, Now::at(103)), Err(Duration::from_secs_f64(0.5)));
        assert_eq!(buckets.check(1, Now::at(104)), Ok(()));
        assert_eq!(buckets.take(1, 1.0, Now::at(104)), Ok(()));
        assert_eq!(buckets.take(1, 5.0, Now::at(1000)), Ok(()));
    }

    #[test]
    fn number_of_buckets_is_bounded() {
        let buckets = Buckets::new(1.0, 10.0, 3);
        for key in 0..100 {
            assert_eq!(buckets.take(key, 5.0, Now::at(1)), Ok(()));
        }
        assert!(buckets.buckets.lock().unwrap().len() <= 3);
    }
}
