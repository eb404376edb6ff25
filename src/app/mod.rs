//! Builds the rooms, introduces them to each other, runs them and drains them. Decides nothing.
//!
//! ```text
//! worker 0..n   a current-thread runtime each: doors, proxy, its own connections to origins
//! control       one small runtime: admin, DNS, probes, signals
//! upkeep        a thread: evicts what is over budget, measures memory
//! sweep         a thread: gives memory back after purges, and when it runs short
//! watchdog      a thread: notices workers that do not move
//! mesh          where there is one: a runtime for its links, a thread for its protocol, one for its log
//! codings       a thread, where a policy codes: makes coded copies of stored responses
//! ```

mod canary;
mod certificates;
mod control;
mod demo;
mod in_force;
mod mesh;
mod pressure;
mod reload;
mod signals;
mod supervise;
mod systemd;
mod upgrade;
mod upkeep;
mod warm;
mod watchdog;
mod workers;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use in_force::InForce;

use crate::audit::{Audit, Signature};
use crate::canary::Canary;
use crate::clock::{self, Now};
use crate::config::Config;
use crate::listener::{BindError, CertificateError, Context, Drain, TlsAcceptorState, bind_beside};
use crate::mesh::{Mesh, MeshError};
use crate::origin::{OriginConfigError, Origins};
use crate::proxy::{Edge, Proxy};
use crate::purge::Secret;
use crate::replication::{self, Incarnation, TooFewForChange};
use crate::store::{Events, FillLimits, Fills, PurgeLimits, Purges, Store, StoreLimits, What};
use crate::telemetry::{AccessLog, LogError, Metrics, RequestIds};
use crate::tickets::{KeyPaces, Tickets};

pub use demo::{run_with_origin, with_origin};
pub use reload::{Reread, Source};
pub use signals::{Ended, run};
pub use upgrade::Program;

/// Share of the memory budget that the store gets, in percent: a full store alone never looks
/// like overload.
const STORE_PERCENT: u64 = 70;
/// Share of the memory budget that arriving bodies may take, in percent.
const FILLS_PERCENT: u64 = 15;
/// How long the end of the process waits for the access log's reader.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Where a running edge listens, ports as the system chose them.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// Plain HTTP.
    pub plain: Vec<SocketAddr>,
    /// TLS.
    pub tls: Vec<SocketAddr>,
    /// Admin listener.
    pub admin: Option<SocketAddr>,
    /// Listener with only metrics and probes.
    pub watch: Option<SocketAddr>,
    /// Where the other nodes of the mesh connect.
    pub mesh: Option<SocketAddr>,
    /// Where the nodes of the mesh fetch the canary's object.
    pub canary: Option<SocketAddr>,
    /// SHA-256 of the certificate in hexadecimal, where TLS uses one made at start.
    pub self_made: Option<String>,
}

/// Why an edge did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(BindError),
    /// The admin or watch listener cannot listen.
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A certificate cannot be used.
    Certificate(CertificateError),
    /// TLS cannot be set up.
    Tls(String),
    /// An origin's configuration cannot be used.
    Origin(OriginConfigError),
    /// The audit log cannot be opened or written.
    Audit {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The node cannot take its place in the mesh.
    Mesh(MeshError),
    /// Other witnesses are wanted than the mesh can go over to.
    Witnesses(TooFewForChange),
    /// What the process before hands over cannot be taken.
    Handover(std::io::Error),
    /// The process log cannot be started.
    Log(LogError),
    /// The access log cannot be opened or a thread cannot be started.
    System(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(BindError { address, error }) | Self::Admin { address, error } => {
                write!(out, "cannot listen on {address}: {error}")?;
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    out.write_str(" (is another atoll running there? choose another address)")?;
                }
                Ok(())
            }
            Self::Certificate(error) => write!(out, "{error}"),
            Self::Tls(why) => write!(out, "TLS cannot be set up: {why}"),
            Self::Origin(error) => write!(out, "{error}"),
            Self::Audit { path, error } => {
                write!(out, "the audit log {} cannot be used: {error}", path.display())
            }
            Self::Mesh(error) => write!(out, "{error}"),
            Self::Witnesses(too_few) => write!(out, "{too_few}"),
            Self::Handover(error) => write!(out, "the process before hands nothing over: {error}"),
            Self::Log(error) => write!(out, "{error}"),
            Self::System(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What the parts of a running edge share.
pub(crate) struct Shared {
    /// What was in force at the start: for what cannot change in the life of the process.
    config: Arc<Config>,
    /// What a reload replaces; there from the start.
    in_force: ArcSwapOption<InForce>,
    /// The edges that store: one, and while another takes its place both.
    storing: ArcSwap<Vec<Arc<Edge>>>,
    /// Who wants the configuration read anew.
    reloads: mpsc::Sender<reload::Asked>,
    /// Held while something that is in force is being replaced.
    changing: Mutex<()>,
    /// The process before this one, and after it.
    succession: upgrade::Succession,
    /// Whether the thread that codes has been started.
    codes: AtomicBool,
    store: Arc<Store>,
    purges: Arc<Purges>,
    fills: Arc<Fills>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    /// Asks as a client would, with connections of its own; used on the control runtime only.
    own: Proxy,
    log: AccessLog,
    audit: Audit,
    /// The other nodes, where there are any.
    mesh: Option<Arc<Mesh>>,
    /// The prober of the mesh's promise, where there is one.
    canary: Option<Arc<Canary>>,
    addresses: Listening,
    incarnation: String,
    started: Now,
    listening: AtomicBool,
    stop: watch::Sender<bool>,
    drain: watch::Sender<Drain>,
}

/// An edge that is up. Dropping it cuts everything off; [`Running::drain`] and [`Running::wait`]
/// end it in order.
pub struct Running {
    shared: Arc<Shared>,
    control: Option<Runtime>,
    place: Option<mesh::Place>,
    workers: workers::Workers,
}

impl Running {
    /// Binds every socket and starts every thread; when this returns, requests are answered. With a
    /// way to read the configuration anew, it can be changed while the edge runs.
    ///
    /// # Errors
    /// Listening that are taken, files that cannot be used, threads that cannot be started.
    pub fn start(source: impl Into<Source>) -> Result<Self, StartError> {
        Self::take_over(source.into(), upgrade::Handed::default()).map(|(running, _)| running)
    }

    /// The same with sockets that are open already. Whoever hands them over waits to be told that
    /// this process answers.
    fn take_over(
        source: Source,
        handed: upgrade::Handed,
    ) -> Result<(Self, Option<upgrade::Waiting>), StartError> {
        let Source { config, written, reread, program } = source;
        let upgrade::Handed { sockets: mut inherited, predecessor } = handed;
        let config = Arc::new(config);
        let metrics = Metrics::new(&config);
        let limits = Arc::new(config.limits.clone());
        let log = AccessLog::start(&config.log, config.node.workers, Arc::clone(&metrics))
            .map_err(StartError::System)?;
        let events = Events::new(config.admin.events);
        let origins = Origins::new(&config.origins, Arc::clone(&limits), &metrics, &events)
            .map_err(StartError::Origin)?;
        let paces = config.mesh.as_ref().map(|mesh| KeyPaces::new(mesh.ticket_keys));
        let tickets = paces.map(|paces| Tickets::new(paces, Arc::clone(&metrics)));
        let (tls, fingerprint) = tls(&config, tickets.clone())?;
        let (sockets, kept) = bind_beside(&config.listeners, config.node.workers, &mut inherited)
            .map_err(StartError::Bind)?;
        let mut addresses = addresses(&config, sockets.first().map(|s| s.addresses()));
        addresses.self_made = fingerprint;

        let (drain, draining) = watch::channel(Drain::Open);
        let context = Context::new(Arc::clone(&limits), Arc::clone(&metrics), draining);
        let incarnation = incarnation();
        let (store, purges, fills) = state(&config, &incarnation, &events);
        let edge = Arc::new(Edge::new(
            Arc::clone(&config),
            Arc::clone(&store),
            Arc::clone(&purges),
            Arc::clone(&fills),
            Arc::clone(&metrics),
            Arc::clone(&context.pressure),
        ));
        let doors = (&*context, &mut inherited);
        let state = (&purges, &events, &metrics);
        let place = mesh::prepare(&config, doors, &edge, state, tickets)?;
        addresses.mesh = place.as_ref().and_then(mesh::Place::address);
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(StartError::System)?;
        context.keep(kept);
        let doors = control::bind(&config, &context, &mut inherited, &mut addresses)?;
        let canary = canary::open(&config, (&context, &mut inherited), &metrics, &events)?;
        addresses.canary = canary.as_ref().and_then(canary::Caged::address);
        upgrade::leave_over(&inherited);
        drop(inherited);
        let (succession, upgrades) = upgrade::Succession::new(program, &context);
        let audit = audit(&config, &incarnation, &metrics)?;
        let own = Proxy::of_the_house(
            Arc::clone(&edge),
            origins.worker(),
            log.silent_recorder(),
            RequestIds::new(random()),
            Arc::new(warm::NoPurges),
        );
        let (reloads, asked) = mpsc::channel(reload::WAITING);
        let shared = Arc::new(Shared {
            in_force: ArcSwapOption::empty(),
            storing: ArcSwap::from_pointee(vec![Arc::clone(&edge)]),
            reloads,
            changing: Mutex::default(),
            succession,
            codes: AtomicBool::new(edge.codes()),
            incarnation,
            started: clock::now(),
            listening: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            config: Arc::clone(&config),
            store,
            purges,
            fills,
            metrics,
            events,
            own,
            log,
            audit,
            mesh: place.as_ref().map(|place| Arc::clone(&place.mesh)),
            canary: canary.as_ref().map(|caged| Arc::clone(&caged.canary)),
            addresses,
            drain,
        });
        shared.metrics.node.in_force(&written.digest(), shared.started.wall);
        let rooms = (edge, origins);
        let first = InForce::first((config, written), rooms, (control.handle(), &shared.metrics));
        shared.in_force.store(Some(Arc::new(first)));
        let waiting = predecessor.map(|before| before.agree(&shared)).transpose()?;
        if let Some(place) = &place {
            place.take(waiting.is_some())?;
        }
        upkeep::start(&shared, &context).map_err(StartError::System)?;
        let desk = control::desk(&shared);
        let (workers, proxies) =
            workers::start(&shared, sockets, tls.as_ref(), &context, &desk.load_full())
                .map_err(StartError::System)?;
        if let Some(tls) = &tls {
            certificates::measure(&shared, tls.certificates());
            let (state, tls) = (Arc::clone(&shared), Arc::clone(tls));
            supervise::task(control.handle(), "certificates", &shared.metrics, move || {
                certificates::watch(Arc::clone(&state), Arc::clone(&tls))
            });
        }
        let runtime = control.handle().clone();
        shared.listening.store(true, Ordering::Release);
        shared.tell_ready();
        control::open(&shared, &control, &desk, doors)?;
        if let Some(canary) = canary {
            canary.start(&shared, &control)?;
        }
        let told = in_force::Told { proxies, context, tls, desk, runtime };
        control.spawn(reload::run(Arc::clone(&shared), told, reread, asked));
        control.spawn(upgrade::run(Arc::clone(&shared), upgrades));
        Ok((Self { shared, control: Some(control), place, workers }, waiting))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Listening {
        &self.shared.addresses
    }

    /// The purges in force and the lease, for whoever embeds an edge.
    #[must_use]
    pub fn purges(&self) -> &Arc<Purges> {
        &self.shared.purges
    }

    /// Begins to drain: readiness goes false, then accepting ends, then connections as their
    /// requests are done.
    pub fn drain(&self) {
        self.shared.begin_drain();
    }

    /// Cuts off what is still under way.
    pub fn abort(&self) {
        self.shared.drain.send_replace(Drain::Abort);
    }

    /// Waits until draining has ended. `false` if a worker ended by a panic.
    pub fn wait(mut self) -> bool {
        let clean = self.workers.join();
        self.stop();
        clean
    }

    fn stop(&mut self) {
        self.shared.stop.send_replace(true);
        self.shared.succession.close_doors();
        if let Some(control) = self.control.take() {
            self.shared.succession.last_answers(&control);
            control.shutdown_timeout(Duration::from_millis(100));
        }
        if let Some(place) = self.place.take() {
            place.leave();
        }
        self.shared.audit.close(LOG_PATIENCE);
        self.shared.log.close(LOG_PATIENCE);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.control.is_some() {
            self.abort();
            self.workers.join();
            self.stop();
        }
    }
}

impl Shared {
    /// Shows whether the node takes traffic.
    fn tell_ready(&self) {
        self.metrics.node.ready.set(control::readiness(self).ready().into());
    }

    /// What is in force now.
    fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full().expect("something is in force before anybody asks")
    }

    /// Whether draining has begun.
    fn draining(&self) -> bool {
        *self.drain.borrow() != Drain::Open
    }

    fn begin_drain(&self) {
        let since = clock::now();
        let began = self.drain.send_if_modified(|state| {
            let open = *state == Drain::Open;
            if open {
                *state = Drain::Draining { since };
            }
            open
        });
        if began {
            self.metrics.node.ready.set(0);
            self.metrics.node.draining.set(1);
            self.events.publish(What::Drain, since.wall);
            if !self.succession.is_handed_over() {
                systemd::stopping();
            }
            let deadline = self.in_force().config.limits.drain;
            tracing::info!(?deadline, "draining");
        }
    }
}

/// The shared state, within its shares of the memory budget.
fn state(
    config: &Config,
    incarnation: &str,
    events: &Arc<Events>,
) -> (Arc<Store>, Arc<Purges>, Arc<Fills>) {
    let limits = &config.limits;
    let budget = config.memory.budget_bytes;
    let store = Store::new(StoreLimits {
        budget_bytes: budget / 100 * STORE_PERCENT,
        stored_bytes: limits.stored_bytes,
        variants: limits.variants,
        uncacheable_keys: limits.uncacheable_keys,
        uncacheable_memory: limits.uncacheable_memory,
    });
    let fills = Fills::new(FillLimits {
        fills: limits.fills,
        bytes: budget / 100 * FILLS_PERCENT,
        body_bytes: store.largest_body(),
    });
    let [first, second] = store.secret().0;
    let secret = Secret(first.rotate_left(32), second.rotate_left(32));
    let purges = Purges::within(
        secret,
        PurgeLimits {
            rows_per_site: limits.purge_rows,
            globs_per_site: limits.purge_globs,
            history: config.admin.purge_history,
        },
    );
    let purges = purges.telling(Arc::clone(events));
    let purges = match config.mesh {
        Some(_) => purges,
        None => purges.named(source(config, incarnation)),
    };
    (Arc::new(store), Arc::new(purges), Arc::new(fills))
}

/// Under whose name the purges of a node without a mesh are numbered.
fn source(config: &Config, incarnation: &str) -> replication::Source {
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).unwrap_or_default());
    replication::Source { incarnation, node: config.node.name.as_str().into() }
}

/// The audit log of this life of the node.
fn audit(config: &Config, incarnation: &str, metrics: &Arc<Metrics>) -> Result<Audit, StartError> {
    let settings = config.admin.audit.as_ref();
    let signature =
        Signature { node: config.node.name.clone(), incarnation: incarnation.to_owned() };
    Audit::start(settings, signature, Arc::clone(metrics), clock::now()).map_err(|error| {
        let path = settings.map(|settings| settings.path.clone()).unwrap_or_default();
        StartError::Audit { path, error }
    })
}

type Tls = (Option<Arc<TlsAcceptorState>>, Option<String>);

/// What the TLS listeners need: the certificates given, else one made here.
fn tls(config: &Config, tickets: Option<Arc<Tickets>>) -> Result<Tls, StartError> {
    if !config.listeners.iter().any(|listener| listener.tls) {
        return Ok((None, None));
    }
    let (certificates, fingerprint) = certificates::first(config)?;
    let certificates = Arc::new(certificates);
    let acceptor = TlsAcceptorState::new(certificates, tickets)
        .map_err(|error| StartError::Tls(error.to_string()))?;
    Ok((Some(acceptor), fingerprint))
}

fn addresses(config: &Config, bound: Option<Vec<SocketAddr>>) -> Listening {
    let mut addresses = Listening::default();
    for (listener, address) in config.listeners.iter().zip(bound.unwrap_or_default()) {
        if listener.tls {
            addresses.tls.push(address);
        } else {
            addresses.plain.push(address);
        }
    }
    addresses
}

/// A random name for this life of the node; never from a clock.
fn incarnation() -> String {
    hex(&random::<8>())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Random bytes; zeros if the system has none, which it always has once it is up.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("the system gives no random bytes");
    }
    bytes
}
