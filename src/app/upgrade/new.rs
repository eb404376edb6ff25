//! The side of the process that takes over.

use std::env;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;

use super::VARIABLE;
use super::channel::{Channel, Said};
use super::twin::Twin;
use crate::app::{Shared, StartError};
use crate::listener::{Inherited, OpenSocket, Purpose};

/// Time within which the process before hands its sockets over: it has them ready.
const SOCKETS: Duration = Duration::from_secs(10);
/// Time between two looks at whether it says that it is our turn; when it ends, that is told at once.
const LOOK: Duration = Duration::from_secs(60);

/// What a process is given at its start.
#[derive(Debug, Default)]
pub(in crate::app) struct Handed {
    pub(in crate::app) sockets: Inherited,
    pub(in crate::app) predecessor: Option<Predecessor>,
}

/// The process before this one.
#[derive(Debug)]
pub(in crate::app) struct Predecessor {
    channel: Channel,
    standard_error: OwnedFd,
}

/// The process before this one, which waits to hear that this one answers.
#[derive(Debug)]
pub(in crate::app) struct Waiting {
    twin: Arc<Twin>,
    standard_error: OwnedFd,
}

impl Handed {
    /// What the process before hands over, else what the service manager has opened.
    pub(in crate::app) fn of_environment() -> Result<Self, StartError> {
        if env::var_os(VARIABLE).is_some() {
            return of_predecessor().map_err(StartError::Handover);
        }
        let mut handed = Self::default();
        let mut opened = ListenFd::from_env();
        for number in 0..opened.len() {
            let taken = opened.take_tcp_listener(number).and_then(|socket| {
                let Some(socket) = socket else { return Ok(()) };
                let configured = socket.local_addr()?;
                handed.sockets.add(OpenSocket { purpose: Purpose::Clients, configured, socket })
            });
            if let Err(error) = taken {
                tracing::warn!(number, %error, "a socket of the service manager cannot be used");
            }
        }
        Ok(handed)
    }
}

fn of_predecessor() -> io::Result<Handed> {
    let channel = Channel::of(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut sockets = Inherited::default();
    loop {
        match channel.hear(SOCKETS)? {
            Some(Said::Sockets(some)) => some.into_iter().try_for_each(|open| sockets.add(open))?,
            Some(Said::Begin(standard_error)) => {
                let predecessor = Some(Predecessor { channel, standard_error });
                return Ok(Handed { sockets, predecessor });
            }
            Some(_) => return Err(io::Error::other("it speaks out of turn")),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Predecessor {
    /// Says that all that can fail is done, and waits for its turn to accept.
    pub(in crate::app) fn agree(self, shared: &Arc<Shared>) -> Result<Waiting, StartError> {
        let Self { channel, standard_error } = self;
        wait(&channel).map_err(StartError::Handover)?;
        let twin = Twin::new(channel);
        shared.succession.meet(&twin);
        let (follower, state) = (Arc::clone(&twin), Arc::clone(shared));
        std::thread::Builder::new()
            .name("predecessor".into())
            .spawn(move || follower.follow(&state))
            .map_err(StartError::System)?;
        Ok(Waiting { twin, standard_error })
    }
}

fn wait(channel: &Channel) -> io::Result<()> {
    channel.say("prepared")?;
    loop {
        match channel.hear(LOOK)? {
            Some(Said::Go) => return Ok(()),
            Some(_) => return Err(io::Error::other("it speaks out of turn")),
            None => {}
        }
    }
}

impl Waiting {
    /// Has what is written to standard error go where the other process's goes, past that process:
    /// it read along to be able to say what went wrong.
    pub(in crate::app) fn speak(&self) {
        if let Err(error) = rustix::stdio::dup2_stderr(&self.standard_error) {
            tracing::warn!(%error, "standard error still goes through the process before");
        }
    }

    /// Says that this process answers.
    pub(in crate::app) fn ready(self) {
        if let Err(error) = self.twin.say("ready") {
            tracing::warn!(%error, "the process before has gone early");
        }
    }
}
