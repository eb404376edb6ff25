//! The side of the process that is taken over from.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::channel::{Channel, Said};
use super::twin::Twin;
use super::{Outcome, Program, VARIABLE};
use crate::admin::{NotUpgraded, Upgraded};
use crate::app::{Shared, systemd};
use crate::clock;

/// Time between two looks at whether the new process lives and this one stays.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of the new process that are told where it fails, and bytes of one.
const LINES: usize = 20;
const LINE: u64 = 2048;
/// Time for the last lines of a process that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Variables that are about this process alone.
const OWN: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Why the new process did not take over.
enum Failed {
    /// It ended, as it said itself.
    Ended(Option<ExitStatus>),
    /// It did not say in time that it answers.
    Silent(Duration),
    /// This process was told to stop meanwhile.
    Draining,
    /// They do not understand each other.
    Channel(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Some(status)) => write!(out, "the new process ended with {status}"),
            Self::Ended(None) => out.write_str("the new process ended"),
            Self::Silent(limit) => {
                write!(out, "the new process did not answer within {limit:?} (limits.upgrade)")
            }
            Self::Draining => out.write_str("the node was told to stop meanwhile"),
            Self::Channel(error) => write!(out, "the sockets cannot be handed over: {error}"),
        }
    }
}

impl Failed {
    fn code(&self) -> &'static str {
        match self {
            Self::Ended(_) => "ended",
            Self::Silent(_) => "silent",
            Self::Draining => "draining",
            Self::Channel(_) => "internal",
        }
    }
}

/// Starts the program anew and hands over to it. When this returns without an error the new process
/// accepts, and this one still does.
pub(super) fn hand_over(shared: &Arc<Shared>) -> Outcome {
    let refuse = |code, why: &str| Err(NotUpgraded::new(code, why));
    if shared.draining() {
        return refuse("draining", "the node drains");
    }
    if std::process::id() == 1 {
        let why = "this is the first process of a container, which ends with it: start another one";
        return refuse("first-process", why);
    }
    let Some(program) = &shared.succession.program else {
        return refuse("no-program", "the node runs within another program");
    };
    let began = clock::now();
    let path = program.path.display();
    let successor = Successor::start(program);
    let mut successor = successor.map_err(|error| {
        NotUpgraded::new("ended", &format!("{path} cannot be started: {error}"))
    })?;
    match successor.take_over(shared) {
        Ok(()) => {
            let pid = successor.child.id();
            let twin = successor.twin;
            let state = Arc::clone(shared);
            let follow = move || twin.follow(&state);
            if let Err(error) = std::thread::Builder::new().name("successor".into()).spawn(follow) {
                tracing::error!(%error, "no thread hears of purges that the new process gets");
            }
            systemd::main_process(pid);
            let took_ms = clock::now().since(began).as_secs_f64() * 1e3;
            Ok(Upgraded { pid, program: path.to_string(), took_ms })
        }
        Err(why) => {
            shared.succession.forget_twin(&successor.twin);
            let why = successor.end(why);
            if successor.has_mesh {
                shared.return_to_mesh();
            }
            successor.twin.part();
            let detail = format!("{why}; this one goes on");
            Err(NotUpgraded { said: successor.said(), ..NotUpgraded::new(why.code(), &detail) })
        }
    }
}

/// Leaves everything to the new process.
pub(super) fn leave(shared: &Shared) {
    shared.succession.context.hand_over();
    shared.succession.close_doors();
    shared.begin_drain();
}

/// The new process, until it has taken over.
struct Successor {
    child: Child,
    twin: Arc<Twin>,
    /// Its standard error, handed on.
    lines: Arc<Mutex<VecDeque<String>>>,
    all_said: Receiver<()>,
    /// It was left the place in the mesh.
    has_mesh: bool,
}

impl Successor {
    fn start(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).envs(program.environment.iter().cloned());
        for name in OWN {
            command.env_remove(name);
        }
        command.env(VARIABLE, "stdin").stdin(Stdio::from(theirs)).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = Arc::new(Mutex::default());
        let (all, all_said) = sync_channel(1);
        if let Some(output) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            let relay = move || {
                hand_on(output, &lines);
                drop(all);
            };
            let relay = std::thread::Builder::new().name("successor-log".into()).spawn(relay);
            if let Err(error) = relay {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        }
        Ok(Self { child, twin: Twin::new(ours), lines, all_said, has_mesh: false })
    }

    /// Hands over, step by step, until it says that it answers.
    fn take_over(&mut self, shared: &Arc<Shared>) -> Result<(), Failed> {
        let limit = shared.in_force().config.limits.upgrade;
        let until = clock::now().boot + limit;
        let sockets = shared.succession.context.sockets().map_err(Failed::Channel)?;
        let standard_error: OwnedFd =
            io::stderr().as_fd().try_clone_to_owned().map_err(Failed::Channel)?;
        let given = self.twin.give(&sockets, standard_error.as_fd());
        drop(sockets);
        given.map_err(|error| self.gone(error))?;
        let look = |this: &mut Self| {
            if let Ok(Some(status)) = this.child.try_wait() {
                return Err(Failed::Ended(Some(status)));
            }
            if shared.draining() {
                return Err(Failed::Draining);
            }
            let left = until.saturating_sub(clock::now().boot);
            if left.is_zero() { Err(Failed::Silent(limit)) } else { Ok(left.min(LOOK)) }
        };
        loop {
            let within = look(self)?;
            match self.twin.hear(within) {
                Ok(None) => {}
                Ok(Some(Said::Prepared)) => break,
                Ok(Some(_)) => return Err(Failed::Channel(io::Error::other("out of turn"))),
                Err(error) => return Err(self.gone(error)),
            }
        }
        self.has_mesh = true;
        shared.leave_mesh();
        // From here on both may answer clients, so purges have to reach both.
        shared.succession.meet(&self.twin);
        self.twin.say("go").map_err(|error| self.gone(error))?;
        loop {
            let within = look(self)?;
            match self.twin.listen(shared, within) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(self.gone(error)),
            }
        }
    }

    /// Why nobody is at the other end: the process has ended, or is about to.
    fn gone(&mut self, error: io::Error) -> Failed {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => Failed::Ended(None),
            _ => Failed::Channel(error),
        }
    }

    /// Makes sure that it has ended, and says how, where it did so by itself.
    fn end(&mut self, why: Failed) -> Failed {
        let by_itself = matches!(why, Failed::Ended(_));
        // It closes everything before its end can be seen.
        let until = clock::now().boot + LAST_LINES;
        while by_itself && matches!(self.child.try_wait(), Ok(None)) && clock::now().boot < until {
            std::thread::sleep(LOOK / 10);
        }
        let _ = self.child.kill();
        let status = self.child.wait().ok();
        if by_itself { Failed::Ended(status) } else { why }
    }

    /// The last lines of its standard error.
    fn said(&self) -> Vec<String> {
        let _ = self.all_said.recv_timeout(LAST_LINES);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Hands on what the new process says, and remembers the last of it.
fn hand_on(output: ChildStderr, lines: &Mutex<VecDeque<String>>) {
    let mut output = BufReader::new(output);
    let mut raw = Vec::new();
    while output.by_ref().take(LINE).read_until(b'\n', &mut raw).is_ok_and(|bytes| bytes > 0) {
        let _ = io::stderr().write_all(&raw);
        let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        raw.clear();
    }
}
