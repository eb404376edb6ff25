//! The canary: a promise of the mesh, tried from outside and for ever.
//!
//! It is the origin of one object (`source`), which a site of every node answers for. Round by round it
//! has every node keep a version (`way`), makes the next one the newest, purges the former the way that
//! anybody's purge goes, and looks at what the nodes show from the acknowledgement on. What a reading
//! proves is decided in `round`; here is what asks and tells.
//!
//! It costs each node a few requests a round, and nothing to a request of anybody else.

mod ended;
mod round;
mod source;
mod way;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock::{self, Now};
use crate::config;
use crate::mesh::CanaryView;
use crate::origin::authorities;
use crate::replication::{Identity, PROMISE};
use crate::store::{Events, What};
use crate::telemetry::{CanaryOutcome, Metrics};

use ended::Ended;
use round::{Round, Seen, State};
use source::Source;
use way::Way;

/// Pause between two readings of a node that shows the old version.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long a node is read that shows the old version beyond its time.
const FOLLOW: Duration = Duration::from_secs(5);
/// Readings at once.
const READINGS: usize = 64;
/// How much later than T a node is read: a reading in the very moment proves nothing.
const BEYOND: Duration = Duration::from_millis(10);

/// What came of a purge: its name once it is acknowledged, or why it is not.
pub type Purged = Result<Identity, &'static str>;

/// Purges the object as an operator does, and waits until that is acknowledged.
pub type Purging = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Purged> + Send>> + Send + Sync>;

/// The prober.
pub struct Canary {
    source: Arc<Source>,
    nodes: Vec<(Arc<str>, Way)>,
    run: u64,
    interval: Duration,
    timeout: Duration,
    places: Semaphore,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    last: Mutex<Option<Ended>>,
}

impl Canary {
    /// As configured; `run` is drawn for this process.
    ///
    /// # Errors
    /// When the nodes' certificates can never be judged, in words.
    pub fn new(
        config: &config::Canary,
        run: u64,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
    ) -> Result<Arc<Self>, String> {
        let tls = client(config)?;
        let object = (config.host.as_str(), config.path.as_str());
        let node = |node: &config::CanaryNode| -> Result<_, String> {
            let way = Way::new(&node.server, object, tls.as_ref())?;
            Ok((Arc::from(node.name.as_str()), way))
        };
        Ok(Arc::new(Self {
            source: Arc::new(Source::new(run)),
            nodes: config.nodes.iter().map(node).collect::<Result<_, _>>()?,
            run,
            interval: config.interval,
            timeout: config.timeout,
            places: Semaphore::new(READINGS),
            metrics,
            events,
            last: Mutex::new(None),
        }))
    }

    /// Answers the nodes' requests for the object until `stop` turns true.
    pub async fn serve(self: Arc<Self>, listener: Arc<TcpListener>, stop: watch::Receiver<bool>) {
        source::serve(Arc::clone(&self.source), listener, stop).await;
    }

    /// Goes through its rounds for ever.
    pub async fn probe(self: Arc<Self>, purging: Purging) {
        let mut rounds = interval(self.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // This one is over at once; the node has hardly begun.
        rounds.tick().await;
        loop {
            rounds.tick().await;
            self.round(&purging).await;
        }
    }

    /// The last round, as it looks now; `None` before the first is over.
    #[must_use]
    pub fn last(&self, now: Now) -> Option<CanaryView> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|ended| ended.view(now))
    }

    async fn round(self: &Arc<Self>, purging: &Purging) {
        let round = Round { run: self.run, newest: self.source.newest() + 1 };
        let before = (0..self.nodes.len()).map(|at| Arc::clone(self).before(at, round));
        let before = side_by_side(before).await;
        self.source.renew();
        let purge = match purging().await {
            Err(why) => return self.ended(Err(why), before),
            Ok(identity) => Arc::new(Purge { identity, acknowledged: clock::now() }),
        };
        let follow = |(at, seen)| Arc::clone(self).follow(at, seen, Arc::clone(&purge));
        let after = side_by_side(before.into_iter().enumerate().map(follow)).await;
        self.ended(Ok(purge.identity.clone()), after);
    }

    /// Has a node keep the version that is the newest, and sees whether it does.
    async fn before(self: Arc<Self>, at: usize, round: Round) -> Seen {
        let (_, first) = self.read(at).await;
        // Who does not answer once need not be waited for twice.
        let second = if first.is_ok() { self.read(at).await.1 } else { first };
        Seen::before(round, first, second)
    }

    /// Reads a node until it shows the new version, and once more when nobody may show the former.
    async fn follow(self: Arc<Self>, at: usize, mut seen: Seen, purge: Arc<Purge>) -> Seen {
        loop {
            let (sent, reading) = self.read(at).await;
            let after = sent.since(purge.acknowledged);
            if let Some(breach) = seen.read(after, reading) {
                self.broken(at, &purge.identity, breach);
            }
            let old = seen.is_old_at(after);
            if after > PROMISE && (!old || after > PROMISE + FOLLOW) {
                return seen;
            }
            let due = if old { after + AGAIN } else { PROMISE + BEYOND };
            sleep(due.saturating_sub(clock::now().since(purge.acknowledged))).await;
        }
    }

    async fn read(&self, at: usize) -> (Now, round::Reading) {
        let _place = self.places.acquire().await;
        match self.nodes.get(at) {
            Some((_, way)) => way.read(self.timeout).await,
            None => (clock::now(), Err(round::Unread::Connection)),
        }
    }

    /// Tells of a broken promise at once.
    fn broken(&self, at: usize, purge: &Identity, breach: round::Breach) {
        let node = self.nodes.get(at).map(|(name, _)| Arc::clone(name)).unwrap_or_default();
        let round::Breach { version, after } = breach;
        tracing::error!(
            %node, %purge, version, ?after,
            "a promise is broken: the node shows what was purged"
        );
        self.metrics.canary.broken.inc();
        let what = What::BrokenPromise { node, purge: purge.clone(), after };
        self.events.publish(what, clock::now().wall);
    }

    fn ended(&self, purge: Result<Identity, &'static str>, seen: Vec<Seen>) {
        let names = self.nodes.iter().map(|(name, _)| Arc::clone(name));
        let nodes: Vec<_> = names.zip(seen).collect();
        let outcome = outcome(&purge, &nodes);
        self.metrics.canary.round(outcome, clock::now().wall);
        match purge {
            Ok(_) => nodes.iter().for_each(|(name, seen)| self.count(name, seen)),
            Err(why) => tracing::warn!(why, "the canary's purge was not acknowledged"),
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (rounds, broken) = last.as_ref().map_or((0, 0), |last| (last.rounds, last.broken));
        let broken_now = nodes.iter().filter(|(_, seen)| seen.state() == State::Broken).count();
        *last = Some(Ended {
            at: clock::now(),
            rounds: rounds + 1,
            broken: broken + broken_now as u64,
            outcome,
            purge,
            nodes,
        });
    }

    fn count(&self, name: &str, seen: &Seen) {
        let state = seen.state();
        self.metrics.canary.node(name, state.label());
        match (state, seen.old_until()) {
            (_, Some(old)) => self.metrics.canary.old(name, old),
            (State::Kept | State::Broken, None) => self.metrics.canary.old(name, Duration::ZERO),
            (State::Unknown(_), None) => {}
        }
        if let State::Unknown(why) = state {
            tracing::warn!(node = name, why, "the canary proved nothing of a node");
        }
    }
}

/// A purge of the former version.
struct Purge {
    identity: Identity,
    acknowledged: Now,
}

fn outcome(purge: &Result<Identity, &'static str>, nodes: &[(Arc<str>, Seen)]) -> CanaryOutcome {
    let mut states = nodes.iter().map(|(_, seen)| seen.state());
    match purge {
        Err(_) => CanaryOutcome::NotAcknowledged,
        Ok(_) if states.clone().any(|state| state == State::Broken) => CanaryOutcome::Broken,
        Ok(_) if states.any(|state| state != State::Kept) => CanaryOutcome::Unknown,
        Ok(_) => CanaryOutcome::Kept,
    }
}

/// Waits for all of them, and gives what they saw in their order.
async fn side_by_side(
    all: impl Iterator<Item = impl Future<Output = Seen> + Send + 'static>,
) -> Vec<Seen> {
    let mut tasks = JoinSet::new();
    for (at, one) in all.enumerate() {
        tasks.spawn(async move { (at, one.await) });
    }
    let mut seen = tasks.join_all().await;
    seen.sort_unstable_by_key(|(at, _)| *at);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

/// TLS towards the nodes, where one of them is read over it.
fn client(config: &config::Canary) -> Result<Option<Arc<ClientConfig>>, String> {
    if !config.nodes.iter().any(|node| node.server.tls) {
        return Ok(None);
    }
    let roots = authorities(config.ca.as_deref())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(client)))
}
