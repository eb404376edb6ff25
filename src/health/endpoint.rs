//! Health of one endpoint, from what traffic shows (passive) and what probes show (active).
//!
//! The two are judged apart, and an endpoint is up only when both say so: a health page that
//! answers while real requests fail brings nothing back.
//!
//! ```text
//! traffic:  Up -- failures --> Ejected -- back-off over --> Probation
//!           ^                     ^------ one failure ------'   |
//!           '------------ successes in a row -------------------'
//! probes:   well -- `fall` failures in a row --> down -- `rise` successes in a row --> well
//! ```
//!
//! Traffic ejects in two ways. Failures in a row are failures of the connection: refused, timed
//! out, reset before the head, or something that is no answer. The share of failures in ten seconds counts answers of 500, 502,
//! 503 and 504 as well: those may be one broken page, so a few in a row say nothing.
//!
//! In probation an endpoint takes one request at a time. Back in full, by either way, it ramps up
//! over `slow_start`. The time out doubles with each ejection that follows close on the last.

use std::time::Duration;

use super::backoff;

/// Thresholds of passive health.
#[derive(Clone, Copy, Debug)]
pub struct HealthRules {
    /// Failures in a row that eject.
    pub eject_failures: u32,
    /// Share of failures in the window that ejects.
    pub eject_share_percent: u32,
    /// First time out.
    pub eject_time: Duration,
    /// Time over which a returning endpoint takes up its load.
    pub slow_start: Duration,
}

/// Thresholds of active health.
#[derive(Clone, Copy, Debug)]
pub struct ProbeRules {
    /// Successes in a row that bring an endpoint back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
}

/// How a request went, as far as health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A final head came whose status is not one of the next.
    Success,
    /// A final head with 500, 502, 503 or 504 came.
    BadStatus,
    /// Something came that is no HTTP: it is at fault, but it is there.
    Broken,
    /// No final head: the connection or the time failed.
    Failure,
}

/// What traffic has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes traffic.
    Up,
    /// Takes none until the time has come.
    Ejected {
        /// When probation begins.
        until: Duration,
    },
    /// Takes one request at a time.
    Probation {
        /// Successes in a row so far.
        successes: u32,
    },
}

/// Longest time out.
const EJECT_MOST: Duration = Duration::from_secs(300);
/// Successes in a row that end probation.
const PROBATION_SUCCESSES: u32 = 2;
/// Smallest part of its share that a returning endpoint takes.
const RAMP_LEAST: f64 = 0.1;
/// Requests within the window below which the share of failures says nothing.
const WINDOW_LEAST: u32 = 20;

/// Health of one endpoint. Takes traffic while up, and a little in probation.
#[derive(Clone, Debug)]
pub struct EndpointHealth {
    state: State,
    failures_in_row: u32,
    /// The same without broken answers, and not forgotten by ejection.
    unanswered: u32,
    window: Window,
    ejections: u32,
    returned: Option<Duration>,
    probes_well: bool,
    probes_in_row: u32,
}

impl EndpointHealth {
    /// An endpoint that is believed to be well. `returned` is when its slow start began; `None`
    /// takes its full share at once.
    #[must_use]
    pub fn new(returned: Option<Duration>) -> Self {
        Self {
            state: State::Up,
            failures_in_row: 0,
            unanswered: 0,
            window: Window::default(),
            ejections: 0,
            returned,
            probes_well: true,
            probes_in_row: 0,
        }
    }

    /// What traffic has shown as of `now`.
    pub fn state(&mut self, now: Duration) -> State {
        if let State::Ejected { until } = self.state
            && now >= until
        {
            self.state = State::Probation { successes: 0 };
        }
        self.state
    }

    /// Whether its probes succeed; true where there are none.
    #[must_use]
    pub fn probes_well(&self) -> bool {
        self.probes_well
    }

    /// Whether it is believed to be well, or well enough to be tried.
    pub fn is_up(&mut self, now: Duration) -> bool {
        self.probes_well && !matches!(self.state(now), State::Ejected { .. })
    }

    /// Whether it may take one more request with `in_flight` under way.
    pub fn takes(&mut self, in_flight: u32, now: Duration) -> bool {
        self.is_up(now) && !(matches!(self.state, State::Probation { .. }) && in_flight > 0)
    }

    /// Whether it has ceased to answer: so many `failures` in a row, or fewer where they were enough
    /// to eject it.
    #[must_use]
    pub fn is_silent(&self, failures: u32) -> bool {
        self.unanswered >= failures.max(1) || (self.state != State::Up && self.unanswered > 0)
    }

    /// Its address was away and is there again: it takes up its load slowly.
    pub fn returns(&mut self, now: Duration) {
        self.returned = Some(now);
    }

    /// Part of its share that it takes now: 0.1 to 1.
    #[must_use]
    pub fn ramp(&self, rules: &HealthRules, now: Duration) -> f64 {
        if matches!(self.state, State::Probation { .. }) {
            return RAMP_LEAST;
        }
        match self.returned {
            Some(returned) if !rules.slow_start.is_zero() => {
                let passed = now.saturating_sub(returned).as_secs_f64();
                (passed / rules.slow_start.as_secs_f64()).clamp(RAMP_LEAST, 1.0)
            }
            _ => 1.0,
        }
    }

    /// Takes in how a request went. True: it has earned ejection; whether it may be ejected is a
    /// question about the whole set, see [`super::may_eject`].
    #[must_use]
    pub fn observe(&mut self, observed: Observed, rules: &HealthRules, now: Duration) -> bool {
        self.window.count(observed != Observed::Success, now);
        self.failures_in_row = match observed {
            Observed::Failure | Observed::Broken => self.failures_in_row.saturating_add(1),
            Observed::BadStatus | Observed::Success => 0,
        };
        self.unanswered = match observed {
            Observed::Failure => self.unanswered.saturating_add(1),
            Observed::Broken | Observed::BadStatus | Observed::Success => 0,
        };
        match self.state(now) {
            State::Up => {
                self.failures_in_row >= rules.eject_failures.max(1)
                    || self.window.is_over(rules.eject_share_percent, now)
            }
            State::Ejected { .. } => false,
            State::Probation { successes } => self.observe_probation(observed, successes, now),
        }
    }

    fn observe_probation(&mut self, observed: Observed, successes: u32, now: Duration) -> bool {
        if observed != Observed::Success {
            return true;
        }
        if successes + 1 >= PROBATION_SUCCESSES {
            self.state = State::Up;
            self.window = Window::default();
            self.returned = Some(now);
        } else {
            self.state = State::Probation { successes: successes + 1 };
        }
        false
    }

    /// Takes it out of use for a time that grows with each ejection.
    pub fn eject(&mut self, rules: &HealthRules, now: Duration) {
        let last = backoff(rules.eject_time, EJECT_MOST, self.ejections);
        let calm = self.returned.is_some_and(|returned| now.saturating_sub(returned) > last * 2);
        let probation = matches!(self.state, State::Probation { .. });
        self.ejections = if calm && !probation { 1 } else { self.ejections.saturating_add(1) };
        let time = backoff(rules.eject_time, EJECT_MOST, self.ejections);
        self.state = State::Ejected { until: now.saturating_add(time) };
        self.failures_in_row = 0;
        self.window = Window::default();
    }

    /// Takes in how a probe went. `Some(well)` when that changed what probes say.
    pub fn observe_probe(&mut self, well: bool, rules: ProbeRules, now: Duration) -> Option<bool> {
        if well == self.probes_well {
            self.probes_in_row = 0;
            return None;
        }
        self.probes_in_row = self.probes_in_row.saturating_add(1);
        let needed = if well { rules.rise } else { rules.fall };
        if self.probes_in_row < needed.max(1) {
            return None;
        }
        self.probes_in_row = 0;
        self.probes_well = well;
        if well {
            self.returned = Some(now);
            self.failures_in_row = 0;
            self.unanswered = 0;
            self.window = Window::default();
        }
        Some(well)
    }
}

/// Requests and failures of the last ten seconds, in slots of one second.
#[derive(Clone, Debug, Default)]
struct Window {
    slots: [Slot; 10],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    requests: u32,
    failures: u32,
}

impl Window {
    fn count(&mut self, failed: bool, now: Duration) {
        let second = now.as_secs();
        let index = usize::try_from(second % 10).unwrap_or(0);
        if let Some(slot) = self.slots.get_mut(index) {
            if slot.second != second {
                *slot = Slot { second, ..Slot::default() };
            }
            slot.requests = slot.requests.saturating_add(1);
            slot.failures = slot.failures.saturating_add(u32::from(failed));
        }
    }

    fn is_over(&self, share_percent: u32, now: Duration) -> bool {
        let second = now.as_secs();
        let recent = self.slots.iter().filter(|slot| slot.second + 10 > second);
        let (requests, failures) = recent.fold((0_u32, 0_u32), |(requests, failures), slot| {
            (requests.saturating_add(slot.requests), failures.saturating_add(slot.failures))
        });
        requests >= WINDOW_LEAST
            && u64::from(failures) * 100 > u64::from(requests) * u64::from(share_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HealthRules = HealthRules {
        eject_failures: 5,
        eject_share_percent: 50,
        eject_time: Duration::from_secs(10),
        slow_start: Duration::from_secs(30),
    };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn observe(health: &mut EndpointHealth, what: &[Observed], now: Duration) -> Vec<bool> {
        what.iter().map(|&observed| health.observe(observed, &RULES, now)).collect()
    }

    use Observed::{BadStatus, Broken, Failure, Success};

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let mut health = EndpointHealth::new(None);
        let got = observe(&mut health, &[Failure; 5], at(0));
        assert_eq!(got, [false, false, false, false, true]);

        let mut health = EndpointHealth::new(None);
        let mixed = [Failure, Failure, Failure, Failure, Success, Failure, Failure, Failure];
        assert!(!observe(&mut health, &mixed, at(0)).contains(&true));
    }

    #[test]
    fn bad_statuses_count_only_towards_the_share() {
        let mut health = EndpointHealth::new(None);
        assert!(!observe(&mut health, &[BadStatus; 19], at(0)).contains(&true));
        assert_eq!(observe(&mut health, &[BadStatus], at(1)), [true], "twenty, all bad");

        let mut health = EndpointHealth::new(None);
        for second in 0..60 {
            let got = observe(&mut health, &[Success, BadStatus, Success, BadStatus], at(second));
            assert!(!got.contains(&true), "half is not more than half");
        }
        let got = observe(&mut health, &[BadStatus, BadStatus], at(60));
        assert!(got.contains(&true));
    }

    #[test]
    fn silence_is_failures_without_any_answer_between_them() {
        for (case, what, silent) in [
            ("new", &[][..], false),
            ("two of three", &[Failure; 2], false),
            ("three", &[Failure; 3], true),
            ("an answer between", &[Failure, Failure, BadStatus, Failure, Failure], false),
            ("something is there", &[Broken; 9], false),
            ("it has answered since", &[Failure, Failure, Failure, Success], false),
        ] {
            let mut health = EndpointHealth::new(None);
            observe(&mut health, what, at(0));
            assert_eq!(health.is_silent(3), silent, "{case}");
        }
        let mut health = EndpointHealth::new(None);
        observe(&mut health, &[Failure], at(0));
        health.eject(&RULES, at(0));
        assert!(health.is_silent(3), "what was enough to eject is enough");
        let mut health = EndpointHealth::new(None);
        observe(&mut health, &[BadStatus; 20], at(0));
        health.eject(&RULES, at(0));
        assert!(!health.is_silent(3), "it was ejected for what it said");
    }

    #[test]
    fn what_breaks_the_protocol_ejects_like_silence() {
        let mut health = EndpointHealth::new(None);
        assert_eq!(observe(&mut health, &[Broken; 5], at(0)).last(), Some(&true));
    }

    #[test]
    fn old_requests_leave_the_window() {
        let mut health = EndpointHealth::new(None);
        observe(&mut health, &[BadStatus; 19], at(0));
        assert_eq!(observe(&mut health, &[BadStatus], at(10)), [false]);
    }

    #[test]
    fn back_off_grows_and_probation_decides() {
        let mut health = EndpointHealth::new(None);
        health.eject(&RULES, at(0));
        assert!(!health.is_up(at(9)));
        assert!(health.takes(0, at(10)), "probation takes one");
        assert!(!health.takes(1, at(10)), "but not two at once");
        assert_eq!(observe(&mut health, &[Failure], at(10)), [true], "one failure is enough");
        health.eject(&RULES, at(10));
        assert!(!health.is_up(at(29)));
        assert!(health.is_up(at(30)), "twice as long");
        assert_eq!(observe(&mut health, &[Success, Success], at(30)), [false, false]);
        assert_eq!(health.state(at(30)), State::Up);
        health.eject(&RULES, at(31));
        assert!(!health.is_up(at(70)), "still growing: it had hardly returned");
        assert!(health.is_up(at(71)));
        observe(&mut health, &[Success, Success], at(71));
        health.eject(&RULES, at(1000));
        assert!(health.is_up(at(1010)), "after a calm time it starts anew");
    }

    #[test]
    fn a_returning_endpoint_ramps_up() {
        let mut health = EndpointHealth::new(None);
        assert!((health.ramp(&RULES, at(0)) - 1.0).abs() < 1e-9);
        health.eject(&RULES, at(0));
        assert!(health.is_up(at(10)));
        assert!((health.ramp(&RULES, at(10)) - 0.1).abs() < 1e-9);
        observe(&mut health, &[Success, Success], at(10));
        for (seconds, expected) in [(10, 0.1), (25, 0.5), (40, 1.0), (400, 1.0)] {
            let ramp = health.ramp(&RULES, at(seconds));
            assert!((ramp - expected).abs() < 1e-9, "{seconds}: {ramp}");
        }
    }

    #[test]
    fn probes_fall_and_rise_without_undoing_an_ejection() {
        let rules = ProbeRules { rise: 2, fall: 3 };
        let mut health = EndpointHealth::new(None);
        let results = [false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> =
            results.iter().map(|&well| health.observe_probe(well, rules, at(0))).collect();
        let expected = [None, None, None, None, None, Some(false), None, None, None, Some(true)];
        assert_eq!(changes, expected);
        assert!(health.is_up(at(0)));
        health.eject(&RULES, at(0));
        for _ in 0..5 {
            let _ = health.observe_probe(true, rules, at(1));
        }
        assert!(!health.is_up(at(2)), "a health page that answers brings nothing back");
    }
}
