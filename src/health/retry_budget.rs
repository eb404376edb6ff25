//! How many requests may be repeated: a share of the requests there are, so that an origin that is
//! half broken is not asked twice by everyone.

/// A token bucket that each request fills by a share of a token and each retry empties by one.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    tokens: f64,
    share: f64,
}

/// Tokens at the start, so that the first failures of a quiet site are not final.
const START: f64 = 5.0;

/// Tokens that may be saved up. A calm day must not pay for a storm.
const MOST: f64 = 20.0;

impl RetryBudget {
    /// One that allows `percent` of the requests to be repeated.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        let tokens = if percent == 0 { 0.0 } else { START };
        Self { tokens, share: f64::from(percent.min(100)) / 100.0 }
    }

    /// Counts a request.
    pub fn deposit(&mut self) {
        self.tokens = (self.tokens + self.share).min(MOST);
    }

    /// Takes the right to repeat one request, if there is one.
    pub fn withdraw(&mut self) -> bool {
        // Ten shares of a tenth are a little less than one in binary.
        if self.tokens + 1e-6 < 1.0 {
            return false;
        }
        self.tokens = (self.tokens - 1.0).max(0.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_within_the_share_however_many_fail() {
        let mut budget = RetryBudget::new(10);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            retries += u32::from(budget.withdraw());
        }
        assert_eq!(retries, 1005);
    }

    #[test]
    fn a_calm_time_saves_up_little() {
        let mut budget = RetryBudget::new(10);
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 20);
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let mut budget = RetryBudget::new(0);
        for _ in 0..100 {
            budget.deposit();
            assert!(!budget.withdraw());
        }
    }
}
