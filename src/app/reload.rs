//! Reading the configuration anew: who asks, one at a time, what came of it.
//!
//! SIGHUP and the admin API ask; a task carries it out, off the runtime's threads, since files and
//! certificates are read. Whoever asks while one is under way shares the next one, which begins after
//! all of them asked: so nobody is answered for a file that was read before it was written.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::in_force::{Ready, Told};
use super::upgrade::Program;
use super::{Shared, certificates, systemd};
use crate::admin::{NotReloaded, Reloaded, Reloading};
use crate::audit::Act;
use crate::clock;
use crate::config::{Change, Config, Loaded, Problems, ToldProblem, Written};
use crate::store::{ReloadTold, What};

/// Those who may wait for the next one.
pub(super) const WAITING: usize = 64;

/// Reads the configuration from where it came at the start.
pub type Reread = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// A configuration, and where it came from.
#[derive(Clone)]
pub struct Source {
    /// What is meant.
    pub config: Config,
    /// What was written.
    pub written: Written,
    /// The way to read it anew; `None` where there is none.
    pub reread: Option<Reread>,
    /// What is started to take over; `None` where nothing can.
    pub program: Option<Program>,
}

impl From<Config> for Source {
    fn from(config: Config) -> Self {
        Self { config, written: Written::default(), reread: None, program: None }
    }
}

/// What came of it.
type Outcome = Result<Reloaded, NotReloaded>;

/// Somebody who asks for it.
pub(super) struct Asked {
    by: String,
    answer: oneshot::Sender<Outcome>,
}

impl Shared {
    /// Asks for it on behalf of `by`, and waits for what comes of it.
    pub(super) fn ask_to_reload(&self, by: &str) -> Reloading {
        let (answer, outcome) = oneshot::channel();
        let asked = Asked { by: by.to_owned(), answer };
        let sender = self.reloads.clone();
        let draining = self.draining();
        Box::pin(async move {
            if draining {
                return Err(refused("draining", "the node drains: it takes up nothing new"));
            }
            let gone = || refused("draining", "the node is about to end");
            sender.send(asked).await.map_err(|_ended| gone())?;
            outcome.await.unwrap_or_else(|_ended| Err(gone()))
        })
    }

    /// Asks on behalf of a signal; what comes of it is in the logs.
    pub(super) fn reload_by_signal(&self, name: &'static str) {
        let reloading = self.ask_to_reload(name);
        let audit = self.audit.clone();
        tokio::spawn(async move {
            let here = IpAddr::from(Ipv4Addr::LOCALHOST);
            let act = Act::new("reload", name, here, clock::now());
            let act = match reloading.await {
                Ok(done) => act.with("config", done.config),
                Err(why) => act.outcome("refused").with("why", why.code),
            };
            audit.note(act).await;
        });
    }
}

/// Carries out what is asked for, for as long as the process lives.
pub(super) async fn run(
    shared: Arc<Shared>,
    told: Told,
    reread: Option<Reread>,
    mut asked: mpsc::Receiver<Asked>,
) {
    let told = Arc::new(told);
    while let Some(first) = asked.recv().await {
        let mut all = vec![first];
        while let Ok(more) = asked.try_recv() {
            all.push(more);
        }
        let by = all.first().map(|asked| asked.by.clone()).unwrap_or_default();
        let (state, told, reread) = (Arc::clone(&shared), Arc::clone(&told), reread.clone());
        systemd::reloading();
        let work = move || reload(&state, &told, reread.as_ref(), &by);
        let outcome = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "reading the configuration anew ended by a panic");
            Err(refused("internal", "reading it ended by a fault of the node"))
        });
        systemd::ready();
        for asked in all {
            // Who does not wait any more needs no answer.
            let _ = asked.answer.send(outcome.clone());
        }
    }
}

fn refused(code: &'static str, why: &str) -> NotReloaded {
    NotReloaded { code, problems: vec![ToldProblem::error(why)], text: why.to_owned() }
}

/// Reads, makes ready, puts in force, and tells.
fn reload(shared: &Arc<Shared>, told: &Told, reread: Option<&Reread>, by: &str) -> Outcome {
    let _alone = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let began = clock::now();
    let outcome = match reread {
        None => Err(refused("no-file", "the node runs without a file that could be read anew")),
        Some(reread) => read(shared, told, reread),
    };
    match outcome {
        Ok((ready, changes, warnings)) => {
            shared.put_in_force(told, ready);
            if let Some(tls) = &told.tls {
                certificates::measure(shared, tls.certificates());
            }
            let took_ms = clock::now().since(began).as_secs_f64() * 1e3;
            let config = shared.in_force().written.digest();
            let done = Reloaded { config, changes, warnings, took_ms };
            tell(shared, &done, by);
            Ok(done)
        }
        Err(why) => {
            tell_refused(shared, &why, by);
            Err(why)
        }
    }
}

/// Everything that can fail.
fn read(
    shared: &Arc<Shared>,
    told: &Told,
    reread: &Reread,
) -> Result<(Ready, Vec<Change>, Vec<ToldProblem>), NotReloaded> {
    let loaded = reread().map_err(|problems| NotReloaded {
        code: "configuration",
        problems: problems.told(),
        text: problems.render(false),
    })?;
    let changes = shared.in_force().written.changes(&loaded.written);
    let ready = shared
        .prepare(told, loaded.config, loaded.written)
        .map_err(|error| refused("configuration", &error.to_string()))?;
    Ok((ready, changes, loaded.warnings.told()))
}

fn tell(shared: &Shared, done: &Reloaded, by: &str) {
    let now = clock::now();
    for Change { key, old, new, waits_for_restart } in &done.changes {
        let (old, new) = (old.as_deref().unwrap_or("-"), new.as_deref().unwrap_or("-"));
        if *waits_for_restart {
            tracing::warn!(key, old, new, "changed in the configuration, and waits for a restart");
        } else {
            tracing::info!(key, old, new, "changed in the configuration");
        }
    }
    let waiting = done.changes.iter().filter(|change| change.waits_for_restart).count();
    let changes = done.changes.len();
    tracing::info!(by, changes, waiting, config = done.config, "a configuration is in force");
    shared.metrics.node.reloads_applied.inc();
    shared.metrics.node.in_force(&done.config, now.wall);
    let (by, config) = (by.to_owned(), done.config.clone());
    let told = ReloadTold { outcome: "applied", by, config, changes, waiting, why: None };
    shared.events.publish(What::Reload(Box::new(told)), now.wall);
}

fn tell_refused(shared: &Shared, why: &NotReloaded, by: &str) {
    tracing::error!(by, "the configuration before stays in force:\n{}", why.text);
    shared.metrics.node.reloads_refused.inc();
    let (by, config) = (by.to_owned(), shared.in_force().written.digest());
    let first = why.problems.first().map(|problem| problem.message.clone());
    let told = ReloadTold { outcome: "refused", by, config, changes: 0, waiting: 0, why: first };
    shared.events.publish(What::Reload(Box::new(told)), clock::now().wall);
}
