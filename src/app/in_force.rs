//! What a configuration makes of the rooms, and how another takes its place.
//!
//! ```text
//! read, check --> make: origins, certificates, edge, one worker's part each, admin --> put in force
//!                   any of it fails: nothing has happened                              cannot fail
//! ```
//!
//! What outlives a configuration is in `Shared`: the store, purges, fills, counts, events, logs,
//! sockets. A request holds what was in force when it came; the last one lets it go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::certificates::{self, Watched};
use super::{Shared, StartError, random, supervise};
use crate::admin::{Admin, Desk};
use crate::clock;
use crate::config::{Config, Written};
use crate::listener::{Certificates, Context, Terms, TlsAcceptorState};
use crate::origin::Origins;
use crate::proxy::{Edge, Next, Proxy, PurgeByMethod};
use crate::purge::{Selector, Strength};
use crate::telemetry::{Metrics, RequestIds};

/// Everything that a configuration says and means.
pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    pub(super) edge: Arc<Edge>,
    pub(super) origins: Arc<Origins>,
    /// What was written in the file.
    pub(super) written: Written,
    /// The files of the certificates, as they were read.
    pub(super) certificates: Watched,
    /// Watching of the origins ends with this.
    watching: Arc<watch::Sender<()>>,
}

/// What reloads need, beside what is in force: who has to be told.
pub(super) struct Told {
    pub(super) proxies: Vec<Proxy>,
    pub(super) context: Arc<Context>,
    pub(super) tls: Option<Arc<TlsAcceptorState>>,
    pub(super) desk: Desk,
    pub(super) runtime: Handle,
}

/// A configuration that is ready to be put in force: all that can fail is behind it.
pub(super) struct Ready {
    new: InForce,
    admin: Arc<Admin>,
    workers: Vec<Next>,
    own: Next,
    certificates: Option<Certificates>,
    /// The origins have to be watched anew.
    watch: Option<watch::Receiver<()>>,
}

impl InForce {
    /// What is in force from the start.
    pub(super) fn first(
        (config, written): (Arc<Config>, Written),
        (edge, origins): (Arc<Edge>, Arc<Origins>),
        (runtime, metrics): (&Handle, &Arc<Metrics>),
    ) -> Self {
        let (watching, ended) = watch::channel(());
        keep_watch(&origins, ended, runtime, metrics);
        let certificates = Watched::of(&config.certificates);
        let watching = Arc::new(watching);
        Self { config, edge, origins, written, certificates, watching }
    }
}

impl Shared {
    /// Makes everything that a configuration needs, and changes nothing.
    ///
    /// # Errors
    /// What cannot be made.
    pub(super) fn prepare(
        self: &Arc<Self>,
        told: &Told,
        config: Config,
        written: Written,
    ) -> Result<Ready, StartError> {
        let old = self.in_force();
        let config = Arc::new(config.within(&old.config));
        self.check_witnesses(&config)?;
        let limits = Arc::new(config.limits.clone());
        let files = Watched::of(&config.certificates);
        let certificates = match &told.tls {
            Some(_) => certificates::of(&config, &old.config)?,
            None => None,
        };
        let origins = old
            .origins
            .succeeded(&config.origins, &limits, &self.metrics, &self.events)
            .map_err(StartError::Origin)?;
        let edge = Arc::new(old.edge.succeeded(Arc::clone(&config)));
        let admin = told.desk.load().succeeded(&config);
        let purger = Arc::clone(&admin) as Arc<dyn PurgeByMethod>;
        let next = |proxy: &Proxy| {
            let recorder = self.log.recorder(&config.sites, &old.config.sites);
            let (ids, purger) = (RequestIds::new(random()), Arc::clone(&purger));
            proxy.next(Arc::clone(&edge), &origins, recorder, ids, purger)
        };
        let workers = told.proxies.iter().map(next).collect();
        let ids = RequestIds::new(random());
        let purger = Arc::new(super::warm::NoPurges);
        let own =
            self.own.next(Arc::clone(&edge), &origins, self.log.silent_recorder(), ids, purger);
        let (watching, watch) = match Arc::ptr_eq(&origins, &old.origins) {
            true => (Arc::clone(&old.watching), None),
            false => {
                let (watching, ended) = watch::channel(());
                (Arc::new(watching), Some(ended))
            }
        };
        let new = InForce { config, edge, origins, written, certificates: files, watching };
        Ok(Ready { new, admin, workers, own, certificates, watch })
    }

    /// Puts a configuration in force that was made ready for this.
    pub(super) fn put_in_force(self: &Arc<Self>, told: &Told, ready: Ready) {
        let Ready { new, admin, workers, own, certificates, watch: ended } = ready;
        let old = self.in_force();
        if ended.is_some() {
            // Before the first request, so that none finds an origin that knows nothing.
            new.origins.adopt(&old.origins);
        }
        if let (Some(tls), Some(certificates)) = (&told.tls, &certificates) {
            tls.certificates().replace(certificates);
        }
        let limits = Arc::new(new.config.limits.clone());
        told.context.put_in_force(Terms { limits, listeners: new.config.listeners.clone().into() });
        let origins = Arc::clone(&new.origins);
        let names = |config: &Config| -> Vec<String> {
            config.origins.iter().map(|origin| origin.name.clone()).collect()
        };
        let (before, after) = (names(&old.config), names(&new.config));
        let codes = new.edge.codes();
        let edge = Arc::clone(&new.edge);
        // Both store for a moment, so that purges of other nodes have to mean both.
        self.localise_by(&[&old.edge, &edge]);
        self.distrust_renamed(&old.config, &new.config);
        self.in_force.store(Some(Arc::new(new)));
        workers.into_iter().chain([own]).for_each(Next::put_in_force);
        self.localise_by(&[&edge]);
        self.reconfigure_mesh(&self.in_force().config);
        let before_it = told.desk.swap(Arc::clone(&admin));
        before_it.let_followers_go(&admin);
        if let Some(ended) = ended {
            keep_watch(&origins, ended, &told.runtime, &self.metrics);
        }
        before.iter().filter(|name| !after.contains(name)).for_each(|name| {
            self.metrics.forget_origin(name);
        });
        if codes
            && !self.codes.swap(true, Ordering::Relaxed)
            && let Err(error) = super::upkeep::code(self)
        {
            tracing::error!(%error, "the thread that codes cannot be started");
            self.codes.store(false, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// What is stored in sites that name URLs anew may have been out of reach of purges when they named them
    /// as they do from here on: it is to be checked with its origin.
    fn distrust_renamed(&self, before: &Config, after: &Config) {
        let sites = after.renamed_since(before);
        if sites.is_empty() {
            return;
        }
        tracing::info!(
            ?sites,
            "URLs have other names here: what is stored is checked with its origin"
        );
        let selectors: Vec<Selector> =
            sites.into_iter().map(|site| Selector::Site { site }).collect();
        self.purges.apply(&selectors, Strength::Check, clock::now());
    }
}

/// Watches origins until others take their place.
fn keep_watch(
    origins: &Arc<Origins>,
    ended: watch::Receiver<()>,
    runtime: &Handle,
    metrics: &Arc<Metrics>,
) {
    // The sender is dropped with the last that holds what was in force; at the end of the process
    // that is never, since requests that drain still need their origins watched.
    let origins = Arc::clone(origins);
    supervise::task(runtime, "origins", metrics, move || {
        let mut ended = ended.clone();
        let ended = async move { while ended.changed().await.is_ok() {} };
        Arc::clone(&origins).run_background(ended)
    });
}
