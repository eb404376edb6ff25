//! A second attempt at a request whose first takes unusually long.
//!
//! ```text
//! first   |----------------------------------- ... dropped
//! delay   |---- p95 ----|
//! second                |----- answer
//! ```
//!
//! The delay is the time within which 95 of 100 of the origin's last answers to such requests came,
//! so about one in twenty is asked for twice, and the retry budget bounds it when all turn slow at
//! once (Dean and Barroso, The Tail at Scale, 2013). Only idempotent requests without a body, only
//! where policy says so, never more than one more, only to another endpoint, and only if the origin
//! has a free place.
//!
//! The first final head wins; but 500, 502, 503 and 504 only if the other attempt gives nothing
//! better, lest an endpoint that fails fast beats one that works. The other attempt is dropped, its
//! connection with it, and that is no failure of its endpoint; but it was at least as slow as this,
//! which goes into its latency. Both were sent after the request arrived, so nothing that a purge
//! has to know of changes.

use std::pin::pin;
use std::time::Duration;

use http::StatusCode;

use crate::clock;
use crate::message::Body;

use super::Answer;
use super::attempts::Attempts;
use super::endpoint::Endpoint;
use super::set::Origin;
use super::transport::{Attempt, Failure, Interim, Transport};

/// Share of answers that come within the delay.
const SHARE: f64 = 0.95;

/// Below that nothing is gained by asking twice.
const LEAST: Duration = Duration::from_millis(5);

type Outcome = Result<Answer, Failure>;

/// Sends a request without a body, and a second time if the first takes unusually long.
pub(super) async fn hedged(
    transport: &Transport,
    attempts: &mut Attempts<'_>,
    first: &Attempt<'_>,
    interim: &mut Interim<'_>,
) -> Outcome {
    let origin = first.origin;
    let began = clock::now().boot;
    let mut running = pin!(transport.attempt(first, Body::Empty, interim));
    let delay = origin.latencies.lock().quantile(SHARE).map(|delay| delay.max(LEAST));
    let early = match delay {
        None => Some(running.as_mut().await),
        Some(delay) => tokio::time::timeout(delay, running.as_mut()).await.ok(),
    };
    if let Some(outcome) = early {
        return noted(origin, outcome, began);
    }
    let Some((endpoint, place)) = attempts.hedge(first) else {
        return noted(origin, running.await, began);
    };
    // Interim responses of one attempt are enough; two may not agree.
    let mut unheard = |_| {};
    let second = Attempt { endpoint: &endpoint, place: &place, fresh: false, ..*first };
    let hedged = clock::now().boot;
    let mut hedge = pin!(transport.attempt(&second, Body::Empty, &mut unheard));
    tokio::select! {
        biased;
        outcome = running.as_mut() => match outcome {
            outcome if is_good(&outcome) => {
                origin.observe_slow(&endpoint, hedged);
                noted(origin, outcome, began)
            }
            outcome => won(origin, better(outcome, hedge.await), (began, hedged)),
        },
        outcome = hedge.as_mut() => match outcome {
            outcome if is_good(&outcome) => {
                let least = origin.observe_slow(first.endpoint, began);
                origin.latencies.lock().observe(least);
                won(origin, (outcome, true), (began, hedged))
            }
            outcome => won(origin, better(running.await, outcome), (began, hedged)),
        },
    }
}

/// Whether no other answer can be better.
fn is_good(outcome: &Outcome) -> bool {
    outcome.as_ref().is_ok_and(|answer| {
        !matches!(
            answer.head.status,
            StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    })
}

/// The one of two outcomes that is worth more, and whether it is the second.
fn better(first: Outcome, second: Outcome) -> (Outcome, bool) {
    let second_wins = is_good(&second) || (first.is_err() && second.is_ok());
    if second_wins && !is_good(&first) { (second, true) } else { (first, false) }
}

/// Counts the second attempt's success, where it had some; with the times at which the two began.
fn won(
    origin: &Origin,
    (outcome, second): (Outcome, bool),
    (began, hedged): (Duration, Duration),
) -> Outcome {
    if second {
        origin.measure(|metrics| metrics.hedges_won.inc());
    }
    noted(origin, outcome, if second { hedged } else { began })
}

/// Notes how long an answer took that was asked for at `began`.
fn noted(origin: &Origin, outcome: Outcome, began: Duration) -> Outcome {
    if outcome.is_ok() {
        origin.latencies.lock().observe(clock::now().boot.saturating_sub(began));
    }
    outcome
}

impl Origin {
    /// An attempt at `endpoint` that was begun at `began` has had no answer until now and is given
    /// up: it is at least as slow as that, which is given back.
    fn observe_slow(&self, endpoint: &Endpoint, began: Duration) -> Duration {
        let now = clock::now().boot;
        let least = now.saturating_sub(began);
        let mut view = endpoint.view.lock();
        if view.latency.seconds(now).is_none_or(|known| known < least.as_secs_f64()) {
            view.latency.observe(least, now);
        }
        least
    }
}
