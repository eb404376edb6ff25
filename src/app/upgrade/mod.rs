//! Another process takes over: the program that is at this one's path by now, with the same arguments
//! and environment, on the same listening sockets.
//!
//! ```text
//! old   accepts ------------------------------------------- drains, leaves
//! new       starts, reads, makes ready -- accepts, says so -------------->
//!                          fails, ends or is silent: killed; the old one goes on untouched
//! ```
//!
//! The sockets are the same, queues included, so no connection is lost; what is stored and counted is
//! not handed over. `channel` says what they say to each other, `twin` how a purge reaches both.

mod channel;
mod new;
mod old;
mod twin;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Shared;
use crate::admin::{NotUpgraded, Upgraded, Upgrading};
use crate::audit::Act;
use crate::clock;
use crate::listener::{Context, Inherited};
use crate::store::{UpgradeTold, What};
use twin::Twin;

pub(super) use new::{Handed, Waiting};

/// In the environment of a program that takes over.
const VARIABLE: &str = "ATOLL_UPGRADE";

/// Time that answers of the admin listeners have once another process has taken over.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How this process was started: what is started to take over from it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// Added to the environment of this process.
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// The program of this process under the name that it was started by, so that a link may lead
    /// to another version by the time of an upgrade. To be asked at the start. `None` where the
    /// system does not tell.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let own = env::current_exe().ok()?;
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let path = named(&name).filter(|path| same(path, &own)).unwrap_or(own);
        Some(Self { path, arguments: arguments.collect(), environment: Vec::new() })
    }

    /// The same with another variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// Where the program lies that was started by this name.
fn named(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).ok();
    }
    let folders = env::var_os("PATH")?;
    let mut paths = env::split_paths(&folders).map(|folder| folder.join(name));
    paths.find(|path| path.is_file()).and_then(|path| std::path::absolute(path).ok())
}

/// Whether two paths lead to one file.
fn same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// What came of it.
type Outcome = Result<Upgraded, NotUpgraded>;

/// Somebody who asks for it.
pub(super) struct Asked {
    by: String,
    answer: oneshot::Sender<Outcome>,
}

/// What a process knows of the one before it or after it.
pub(super) struct Succession {
    program: Option<Program>,
    context: Arc<Context>,
    asks: mpsc::Sender<Asked>,
    under_way: AtomicBool,
    twin: ArcSwapOption<Twin>,
    /// Turns true when the admin and watch listeners are another process's.
    doors: watch::Sender<bool>,
    serving: Mutex<Vec<JoinHandle<()>>>,
}

impl Succession {
    /// With who asks for an upgrade, for [`run`].
    pub(super) fn new(
        program: Option<Program>,
        context: &Arc<Context>,
    ) -> (Self, mpsc::Receiver<Asked>) {
        let (asks, asked) = mpsc::channel(1);
        let new = Self {
            program,
            context: Arc::clone(context),
            asks,
            under_way: AtomicBool::new(false),
            twin: ArcSwapOption::empty(),
            doors: watch::Sender::new(false),
            serving: Mutex::default(),
        };
        (new, asked)
    }

    /// Whether another process has taken over.
    pub(super) fn is_handed_over(&self) -> bool {
        self.context.is_handed_over()
    }

    /// Has the other process empty its cache, where there is one.
    pub(super) fn forget_elsewhere(&self) {
        if let Some(twin) = self.twin.load_full() {
            twin.forget();
        }
    }

    fn meet(&self, twin: &Arc<Twin>) {
        self.twin.store(Some(Arc::clone(twin)));
    }

    fn forget_twin(&self, twin: &Arc<Twin>) {
        let met = self.twin.load_full();
        if met.is_some_and(|met| Arc::ptr_eq(&met, twin)) {
            self.twin.store(None);
        }
    }

    /// Tells when the admin and watch listeners are closed here.
    pub(super) fn doors(&self) -> watch::Receiver<bool> {
        self.doors.subscribe()
    }

    pub(super) fn served_by(&self, task: JoinHandle<()>) {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Closes the admin and watch listeners.
    pub(super) fn close_doors(&self) {
        self.doors.send_replace(true);
    }

    /// Waits for the last answers of the admin listeners, the one about the upgrade among them.
    pub(super) fn last_answers(&self, control: &tokio::runtime::Runtime) {
        if !self.is_handed_over() {
            return;
        }
        let serving: Vec<_> =
            self.serving.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let all = async {
            for task in serving {
                let _ = task.await;
            }
        };
        let _ = control.block_on(async { tokio::time::timeout(LAST_ANSWERS, all).await });
    }
}

impl Shared {
    /// Asks for it on behalf of `by`, and waits for what comes of it.
    pub(super) fn ask_to_upgrade(&self, by: &str) -> Upgrading {
        let (answer, outcome) = oneshot::channel();
        let asked = Asked { by: by.to_owned(), answer };
        let busy = self.succession.under_way.swap(true, Ordering::AcqRel);
        let sent = !busy && self.succession.asks.try_send(asked).is_ok();
        Box::pin(async move {
            if !sent {
                return Err(NotUpgraded::new("busy", "an upgrade is under way"));
            }
            let gone = |_ended| Err(NotUpgraded::new("draining", "the node is about to end"));
            outcome.await.unwrap_or_else(gone)
        })
    }

    /// Asks on behalf of a signal; what comes of it is in the logs.
    pub(super) fn upgrade_by_signal(&self, name: &'static str) {
        let upgrading = self.ask_to_upgrade(name);
        let audit = self.audit.clone();
        tokio::spawn(async move {
            let here = IpAddr::from(Ipv4Addr::LOCALHOST);
            let act = Act::new("upgrade", name, here, clock::now());
            let act = match upgrading.await {
                Ok(done) => act.with("pid", done.pid),
                Err(why) => act.outcome("refused").with("why", why.code),
            };
            audit.note(act).await;
        });
    }
}

/// Carries out what is asked for, for as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>, mut asked: mpsc::Receiver<Asked>) {
    while let Some(Asked { by, answer }) = asked.recv().await {
        let state = Arc::clone(&shared);
        let work = move || old::hand_over(&state);
        let outcome = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the upgrade ended by a panic");
            Err(NotUpgraded::new("internal", "it ended by a fault of the node"))
        });
        tell(&shared, &outcome, &by);
        if outcome.is_ok() {
            old::leave(&shared);
        }
        shared.succession.under_way.store(outcome.is_ok(), Ordering::Release);
        // Who does not wait any more needs no answer.
        let _ = answer.send(outcome);
    }
}

fn tell(shared: &Shared, outcome: &Outcome, by: &str) {
    let (outcome, why) = match outcome {
        Ok(done) => {
            tracing::info!(
                by,
                pid = done.pid,
                took_ms = done.took_ms,
                "another process has taken over"
            );
            ("handed-over", None)
        }
        Err(why) => {
            tracing::error!(by, why = why.code, "no upgrade, this process goes on: {}", why.text());
            ("refused", Some(why.detail.clone()))
        }
    };
    let told = UpgradeTold { outcome, by: by.to_owned(), why };
    shared.events.publish(What::Upgrade(Box::new(told)), clock::now().wall);
}

/// Says which open sockets no listener wanted; they are closed here.
pub(super) fn leave_over(inherited: &Inherited) {
    for address in inherited.addresses() {
        tracing::warn!(%address, "a socket was handed over that the configuration has no listener for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_name_that_it_was_started_by() {
        let path = named(Path::new("./some/atoll")).unwrap();
        assert!(path.is_absolute() && path.ends_with("some/atoll"));
        let shell = named(Path::new("sh")).unwrap();
        assert!(same(&shell, &fs::canonicalize(&shell).unwrap()));
        assert_eq!(named(Path::new("no-such-program-anywhere")), None);
        let own = Program::of_this_process().unwrap();
        assert!(same(&own.path, &env::current_exe().unwrap()));
    }
}
