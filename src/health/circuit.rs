//! Whether an origin is asked at all.
//!
//! Ejection chooses between endpoints and never gives up the last one. When none of them answers any
//! more, going on costs every visitor the time that it takes to fail, and the origin a storm in the
//! moment of its return. So the circuit opens, and a request learns at once that there is nothing to
//! be had.
//!
//! ```text
//! Closed -- no endpoint answers --> Open: one request on trial every `retry`
//!   ^                                 |       ^
//!   |                              an answer  | no endpoint answers
//!   |                                 v       |
//!   '-- all places, or `ramp` over -- Recovering: so many at once as answered, and one more
//! ```
//!
//! What counts as silence is a connection that does not come about, breaks before the head of an
//! answer, or brings none in time. An answer of 500 is one, and so is one that breaks the protocol:
//! the origin is there, and a page that is broken is no reason to refuse the others.
//!
//! Recovery doubles with each round of answers, so the origin never gets much more at once than it
//! has just shown to bear; waiting requests stand in the queue before its places as always. A request
//! on trial that hangs does not hold up the next one: trials are bounded by their rate.
//!
//! Worked example: 256 places, answers in 10 ms. After the first trial that is answered 2 requests
//! go at once, then 4, 8 and so on: all places are open 80 ms later.

use std::time::Duration;

/// How a circuit recovers.
#[derive(Clone, Copy, Debug)]
pub struct CircuitRules {
    /// Time between two requests on trial.
    pub retry: Duration,
    /// Requests at once that end the recovery.
    pub places: u32,
    /// Time that ends it, too, where answers are few.
    pub ramp: Duration,
}

/// Where a circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests go.
    Closed,
    /// Requests are refused, but for one on trial now and then.
    Open {
        /// When the next one may go on trial.
        trial: Duration,
    },
    /// Some go at once.
    Recovering {
        /// How many.
        allowed: u32,
        /// Since when.
        since: Duration,
    },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes.
    Free,
    /// It goes, and what becomes of it tells how the others fare.
    Trial,
    /// It goes when it is one of those that may go at once.
    Limited,
    /// It is refused.
    Refused,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Requests are refused from now on.
    Opened,
    /// So many may go at once.
    Recovering(u32),
    /// One more may go at once.
    Wider,
    /// All may go.
    Closed,
}

/// Requests at once after the first answer.
const FIRST: u32 = 2;

/// The circuit of one origin.
#[derive(Clone, Copy, Debug)]
pub struct Circuit {
    state: CircuitState,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: CircuitState::Closed }
    }
}

impl Circuit {
    /// Where it is.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.state
    }

    /// Judges a request that wants to go.
    pub fn admit(&mut self, rules: &CircuitRules, now: Duration) -> Admission {
        match self.state {
            CircuitState::Closed => Admission::Free,
            CircuitState::Open { trial } if now >= trial => {
                self.state = CircuitState::Open { trial: now.saturating_add(rules.retry) };
                Admission::Trial
            }
            CircuitState::Open { .. } => Admission::Refused,
            CircuitState::Recovering { since, .. } if now.saturating_sub(since) >= rules.ramp => {
                self.state = CircuitState::Closed;
                Admission::Free
            }
            CircuitState::Recovering { .. } => Admission::Limited,
        }
    }

    /// An endpoint has answered.
    pub fn answered(&mut self, rules: &CircuitRules, now: Duration) -> Option<Change> {
        match self.state {
            CircuitState::Closed => None,
            CircuitState::Open { .. } => {
                self.state = CircuitState::Recovering { allowed: FIRST, since: now };
                Some(Change::Recovering(FIRST))
            }
            CircuitState::Recovering { allowed, since } => {
                let over = allowed >= rules.places || now.saturating_sub(since) >= rules.ramp;
                self.state = if over {
                    CircuitState::Closed
                } else {
                    CircuitState::Recovering { allowed: allowed + 1, since }
                };
                Some(if over { Change::Closed } else { Change::Wider })
            }
        }
    }

    /// No endpoint answers any more.
    pub fn silent(&mut self, rules: &CircuitRules, now: Duration) -> Option<Change> {
        if matches!(self.state, CircuitState::Open { .. }) {
            return None;
        }
        self.state = CircuitState::Open { trial: now.saturating_add(rules.retry) };
        Some(Change::Opened)
    }

    /// A probe says that an endpoint is back: the next request goes on trial now.
    pub fn hasten(&mut self, now: Duration) {
        if let CircuitState::Open { trial } = self.state {
            self.state = CircuitState::Open { trial: trial.min(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: CircuitRules =
        CircuitRules { retry: Duration::from_secs(1), places: 8, ramp: Duration::from_secs(30) };

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(100_000 + millis)
    }

    #[test]
    fn one_goes_on_trial_each_second_and_an_answer_brings_the_others_back_by_and_by() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.admit(&RULES, at(0)), Admission::Free);
        assert_eq!(circuit.answered(&RULES, at(0)), None);
        assert_eq!(circuit.silent(&RULES, at(0)), Some(Change::Opened));
        assert_eq!(circuit.silent(&RULES, at(1)), None, "it is open already");
        let mut trials = 0;
        for millis in (0..10_000).step_by(5) {
            match circuit.admit(&RULES, at(millis)) {
                Admission::Trial => trials += 1,
                other => assert_eq!(other, Admission::Refused),
            }
        }
        assert_eq!(trials, 9);
        assert_eq!(circuit.answered(&RULES, at(10_000)), Some(Change::Recovering(2)));
        for _ in 2..8 {
            assert_eq!(circuit.admit(&RULES, at(10_001)), Admission::Limited);
            assert_eq!(circuit.answered(&RULES, at(10_001)), Some(Change::Wider));
        }
        assert_eq!(circuit.answered(&RULES, at(10_001)), Some(Change::Closed));
        assert_eq!(circuit.admit(&RULES, at(10_001)), Admission::Free);
    }

    #[test]
    fn a_relapse_opens_it_again_and_time_closes_what_few_answers_leave_half_open() {
        let mut circuit = Circuit::default();
        let _ = circuit.silent(&RULES, at(0));
        let _ = circuit.answered(&RULES, at(1));
        assert_eq!(circuit.silent(&RULES, at(2)), Some(Change::Opened));
        assert_eq!(circuit.admit(&RULES, at(1001)), Admission::Refused);
        assert_eq!(circuit.admit(&RULES, at(1002)), Admission::Trial);
        let _ = circuit.answered(&RULES, at(1003));
        assert_eq!(circuit.admit(&RULES, at(31_002)), Admission::Limited);
        assert_eq!(circuit.admit(&RULES, at(31_003)), Admission::Free);
    }

    #[test]
    fn a_probe_hastens_the_next_trial_and_nothing_else() {
        let mut circuit = Circuit::default();
        circuit.hasten(at(0));
        assert_eq!(circuit.state(), CircuitState::Closed);
        let _ = circuit.silent(&RULES, at(0));
        circuit.hasten(at(10));
        assert_eq!(circuit.admit(&RULES, at(10)), Admission::Trial);
        assert_eq!(circuit.admit(&RULES, at(10)), Admission::Refused);
    }

    proptest! {
        /// Whatever happens, trials begin at least `retry` apart unless a probe has hastened one,
        /// and never more may go at once than have answered since the circuit was open, and two.
        #[test]
        fn trials_are_rare_and_recovery_is_earned(steps in prop::collection::vec((0..4_u8, 0..700_u64), 1..200)) {
            let mut circuit = Circuit::default();
            let (mut millis, mut last, mut answers) = (0, None::<u64>, 0_u32);
            for (act, passed) in steps {
                millis += passed;
                match act {
                    0 => if circuit.admit(&RULES, at(millis)) == Admission::Trial {
                        prop_assert!(last.is_none_or(|last| millis - last >= 1000));
                        last = Some(millis);
                    },
                    1 => {
                        let change = circuit.answered(&RULES, at(millis));
                        answers = if matches!(change, Some(Change::Recovering(_))) { 1 } else { answers + 1 };
                    }
                    _ => if circuit.silent(&RULES, at(millis)).is_some() {
                        // Time before the next trial runs from here.
                        last = Some(millis);
                    },
                }
                if let CircuitState::Recovering { allowed, .. } = circuit.state() {
                    prop_assert!(allowed <= answers + 1);
                }
            }
        }
    }
}
