//! Which endpoint of an origin takes the next request. Pure: loads, health, turns and draws are
//! arguments.
//!
//! A policy sees [`Candidate`]s and answers with a position. Which of them are usable is decided
//! before: by health, by their tier, by what has been tried already, and by [`near`](Nearness). What
//! holds for every policy stands in `laws`: never an unusable candidate while a usable one is there,
//! shares as weighted, less for one that has just returned. How they do beside each other when one
//! endpoint is slow is shown by `tests::simulation`, whose table stands in docs/balancing.md.

mod bounded_hash;
#[cfg(test)]
mod laws;
mod least_requests;
mod near;
mod p2c;
mod peak_ewma;
mod quantile;
mod round_robin;
#[cfg(test)]
mod tests;

pub use near::Nearness;
pub use p2c::Draws;
pub use peak_ewma::PeakEwma;
pub use quantile::Latencies;
pub use round_robin::Turn;

/// How the endpoint of a request is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Balance {
    /// The cheaper of two by latency and requests in flight.
    Latency,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastRequests,
    /// Always the same one for the same affinity, while it has no more than its part.
    Hash {
        /// What an endpoint may have under way, as a multiple of its share of all that is.
        bound: f64,
    },
}

/// What a policy knows of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// May take requests.
    pub usable: bool,
    /// Latency in seconds; `None` before the first answer.
    pub latency: Option<f64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Configured share beside its fellows; 0 takes nothing while another is usable.
    pub weight: u32,
    /// Part of its share that it takes now, 0 to 1.
    pub ramp: f64,
    /// Its turn, see [`Turn`].
    pub turn: u64,
    /// Where it stands in consistent hashing: a hash of what it is.
    pub ring: u64,
}

/// What a policy knows of one request.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Random numbers.
    pub draws: Draws,
    /// The turn of the set, see [`Turn`].
    pub turn: u64,
    /// Hash of what requests for the same endpoint have in common.
    pub affinity: u64,
}

impl Balance {
    /// Position of the candidate that takes the request; `None` where none is usable.
    #[must_use]
    pub fn pick(self, candidates: &[Candidate], call: &Call) -> Option<usize> {
        match self {
            Self::Latency => p2c::pick(candidates, call.draws),
            Self::RoundRobin => round_robin::pick(candidates, call.turn),
            Self::LeastRequests => least_requests::pick(candidates, call.draws.first),
            Self::Hash { bound } => bounded_hash::pick(candidates, call.affinity, bound),
        }
    }
}

/// Least part of its weight that counts, lest anything is divided by nothing.
const LEAST: f64 = 0.001;

/// The usable candidates with their positions and their weights as they count now: less while they
/// ramp up. Those that weigh nothing are in it only where all do, and then all alike.
fn weighed(candidates: &[Candidate]) -> impl Iterator<Item = (usize, &Candidate, f64)> + Clone {
    let usable = candidates.iter().enumerate().filter(|(_, candidate)| candidate.usable);
    let weightless = usable.clone().all(|(_, candidate)| candidate.weight == 0);
    usable.filter(move |(_, candidate)| weightless || candidate.weight > 0).map(
        move |(index, candidate)| {
            let weight = if weightless { 1.0 } else { f64::from(candidate.weight) };
            (index, candidate, weight * candidate.ramp.clamp(LEAST, 1.0))
        },
    )
}
