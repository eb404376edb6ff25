//! How much each client has taken, for any number of clients in fixed memory.
//!
//! Each key has one cell in each of four rows, by a keyed hash that nobody outside can foresee. A
//! cell holds an account as [`Rate`] means it, and stands for all keys that share it: so it is never
//! behind the account of any of them, and the least of a key's four cells is the best guess at its
//! own. An admitted request raises the key's cells to that guess and one request more, no further
//! (the conservative update of Estan and Varghese, 2002).
//!
//! - Nobody gets more than rate and burst: the guess is never too low.
//! - Somebody may get less, who shares all four cells with others that are at their limits at that
//!   time. With as many such clients as [`Sketch::new`] is told there are eight cells in a row for
//!   each: one newcomer in five thousand. A client that leaves is forgotten as its account is paid.
//!
//! No lock: a cell of the first row bears a count of the admissions that went through it beside the
//! time, and such an admission holds only if nobody else's came in between. The other rows are raised
//! before that, so that whoever sees it sees all of it; one that fails there has raised them for
//! nothing, by one request at most.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::semantics::Rate;

const ROWS: usize = 4;

/// Cells in a row for each client of the design.
const ROOM: usize = 8;

/// Bits of a first row's cell that count admissions.
const COUNT_BITS: u32 = 12;

/// Accounts of any number of keys.
pub struct Sketch {
    /// Row by row.
    cells: Box<[AtomicU64]>,
    /// Cells of a row; a power of two.
    width: usize,
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Sketch({ROWS} rows of {})", self.width)
    }
}

impl Sketch {
    /// Room for `clients` that are at their limits at once; 256 bytes for each.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let width = clients.max(1).saturating_mul(ROOM).next_power_of_two();
        let cells = (0..width * ROWS).map(|_| AtomicU64::new(0)).collect();
        Self { cells, width }
    }

    /// Takes one request at `now`, in ticks, from the account of the key with this hash.
    ///
    /// # Errors
    /// The ticks after which one more is possible.
    pub fn take(&self, key: u128, rate: Rate, now: u64) -> Result<(), u64> {
        let Some((home, others)) = self.cells_of(key) else { return Ok(()) };
        loop {
            // First, so that what is read below is no older.
            let seen = home.load(Ordering::Acquire);
            let own = seen >> COUNT_BITS;
            let least = others.iter().map(|cell| cell.load(Ordering::Relaxed)).min();
            let account = rate.take(least.map_or(own, |least| own.min(least)), now)?;
            for cell in others {
                cell.fetch_max(account, Ordering::Relaxed);
            }
            let next = own.max(account) << COUNT_BITS | (seen + 1) & ((1 << COUNT_BITS) - 1);
            let swapped =
                home.compare_exchange_weak(seen, next, Ordering::Release, Ordering::Relaxed);
            if swapped.is_ok() {
                return Ok(());
            }
        }
    }

    /// The cell of the first row, and those of the others.
    fn cells_of(&self, key: u128) -> Option<(&AtomicU64, [&AtomicU64; ROWS - 1])> {
        let cell = |row: usize| {
            // Another 32 bits of the hash for each row.
            let bits = (key >> (32 * row)) & u128::from(u32::MAX);
            let column = usize::try_from(bits).unwrap_or(0) & (self.width - 1);
            self.cells.get(row * self.width + column)
        };
        Some((cell(0)?, [cell(1)?, cell(2)?, cell(3)?]))
    }
}

/// One account, exact.
#[derive(Debug, Default)]
pub struct Account(AtomicU64);

impl Account {
    /// Takes one request at `now`, in ticks.
    ///
    /// # Errors
    /// The ticks after which one more is possible.
    pub fn take(&self, rate: Rate, now: u64) -> Result<(), u64> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let next = rate.take(seen, now)?;
            match self.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::semantics::{KeySecret, ticks};

    fn key(number: u64) -> u128 {
        KeySecret([7, 9]).hash(&[&number.to_le_bytes()])
    }

    fn at(millis: u64) -> u64 {
        ticks(Duration::from_millis(millis))
    }

    #[test]
    fn nearly_nobody_below_the_rate_is_refused_with_as_many_at_their_limit_as_foreseen() {
        let clients = 4096;
        let sketch = Sketch::new(clients);
        let rate = Rate::new(10, Duration::from_secs(1), 10);
        // All of them use up their burst and go on at the rate.
        let others = 1000..1000 + clients as u64;
        for number in others.clone() {
            while sketch.take(key(number), rate, at(1000)).is_ok() {}
        }
        let refused = (1_000_000..1_020_000)
            .filter(|number| sketch.take(key(*number), rate, at(1000)).is_err())
            .count();
        assert!(refused <= 20, "{refused} of 20,000 newcomers");
        // They are forgotten when their accounts are paid.
        let refused =
            others.filter(|number| sketch.take(key(*number), rate, at(2001)).is_err()).count();
        assert_eq!(refused, 0);
    }

    #[test]
    fn memory_does_not_depend_on_who_comes() {
        let sketch = Sketch::new(8);
        let rate = Rate::new(10, Duration::from_secs(1), 10);
        let cells = sketch.cells.len();
        assert_eq!(cells, ROWS * 64);
        for number in 0..100_000 {
            let _ = sketch.take(key(number), rate, at(1000));
        }
        assert_eq!(sketch.cells.len(), cells);
        // Overwhelmed, it has still forgotten all when a burst has been paid.
        for number in 0..20 {
            assert!(sketch.take(key(number), rate, at(2001 + number * 1000)).is_ok());
        }
    }

    #[test]
    fn side_by_side_nobody_gets_more_than_the_burst() {
        let sketch = Sketch::new(1);
        let rate = Rate::new(1, Duration::from_secs(1), 500);
        let passed = AtomicU64::new(0);
        let account = Account::default();
        let exact = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..400 {
                        let one = sketch.take(key(1), rate, at(1000)).is_ok();
                        passed.fetch_add(u64::from(one), Ordering::Relaxed);
                        let one = account.take(rate, at(1000)).is_ok();
                        exact.fetch_add(u64::from(one), Ordering::Relaxed);
                    }
                });
            }
        });
        // Of four workers each may have raised the other rows once for nothing.
        let passed = passed.into_inner();
        assert!((497..=500).contains(&passed), "{passed}");
        assert_eq!(exact.into_inner(), 500);
    }

    proptest! {
        /// However many share its cells, no client passes faster than its own account allows.
        #[test]
        fn nobody_passes_beyond_rate_and_burst(
            asked in proptest::collection::vec((0_u64..40, 0_u64..200), 1..400),
            burst in 1_u64..6,
        ) {
            let sketch = Sketch::new(1);
            let rate = Rate::new(10, Duration::from_secs(1), burst);
            let (mut accounts, mut now) = (HashMap::<u64, u64>::new(), 1000);
            for (number, gap) in asked {
                now += gap / 10;
                let account = accounts.entry(number).or_default();
                if sketch.take(key(number), rate, at(now)).is_ok() {
                    let next = rate.take(*account, at(now));
                    prop_assert!(next.is_ok(), "the exact account would have refused");
                    *account = next.unwrap();
                }
            }
        }
    }
}
