//! What two processes say to each other while one takes over from the other: records over a pair of
//! connected sockets, some with descriptors.
//!
//! ```text
//! old                                   new
//! sockets NAME... (descriptors)  -->
//! begin (its standard error)     -->    reads files, makes everything that can fail
//!                                <--    prepared
//! go                             -->    accepts
//!                                <--    ready
//! forget N  <------------------------>  forget N         a purge came: the other's cache goes
//! forgot N  <------------------------>  forgot N
//! ```
//!
//! The new one has its end as standard input: that is how a descriptor reaches a program without
//! anything unsafe. Whoever ends closes the channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::listener::{OpenSocket, Purpose};

/// Descriptors in one record; the system takes 253.
const TOGETHER: usize = 64;
/// Longest record in bytes: as many names.
const RECORD: usize = 8 * 1024;
/// Time that a record may wait until the other side has read others.
const SEND: Duration = Duration::from_secs(5);

/// One side of the channel.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What is said.
#[derive(Debug)]
pub(super) enum Said {
    /// Listening sockets.
    Sockets(Vec<OpenSocket>),
    /// That were all; with the standard error to write to once all went well.
    Begin(OwnedFd),
    /// All that can fail is done.
    Prepared,
    /// Clients may be accepted.
    Go,
    /// They are.
    Ready,
    /// The cache is to be emptied.
    Forget(u64),
    /// It is.
    Forgot(u64),
}

impl Channel {
    /// Two ends.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::of(ours)?, theirs))
    }

    /// The end that another process made.
    pub(super) fn of(end: OwnedFd) -> io::Result<Self> {
        set_socket_timeout(&end, Timeout::Send, Some(SEND))?;
        Ok(Self(end))
    }

    /// Hands listening sockets over.
    pub(super) fn give(&self, sockets: &[OpenSocket]) -> io::Result<()> {
        for some in sockets.chunks(TOGETHER) {
            let names =
                some.iter().map(|open| format!("\n{} {}", open.purpose.label(), open.configured));
            let text = names.fold("sockets".to_owned(), |text, name| text + &name);
            let descriptors: Vec<BorrowedFd<'_>> =
                some.iter().map(|open| open.socket.as_fd()).collect();
            self.send(&text, &descriptors)?;
        }
        Ok(())
    }

    /// Says that all has been handed over.
    pub(super) fn begin(&self, standard_error: BorrowedFd<'_>) -> io::Result<()> {
        self.send("begin", &[standard_error])
    }

    /// Says one word, with a number where it has one.
    pub(super) fn say(&self, word: &str) -> io::Result<()> {
        self.send(word, &[])
    }

    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors in one record"));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// What the other side says within a time: nothing yet, something, or an error when it is gone.
    pub(super) fn hear(&self, within: Duration) -> io::Result<Option<Said>> {
        let time = Timespec {
            tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        let mut heard = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut heard, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut record = vec![0; RECORD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut record)];
        let got = recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        record.truncate(got.bytes);
        let text = String::from_utf8(record).map_err(|_bytes| unknown())?;
        read(&text, descriptors).map(Some)
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it says what is not known here")
}

/// What a record says.
fn read(text: &str, descriptors: Vec<OwnedFd>) -> io::Result<Said> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (word, number) = first.split_once(' ').unwrap_or((first, "0"));
    let number: u64 = number.parse().map_err(|_letters| unknown())?;
    let mut descriptors = descriptors.into_iter();
    Ok(match word {
        "sockets" => {
            let sockets = rest.lines().map(|name| {
                let socket = descriptors.next().map(TcpListener::from);
                named(name).zip(socket).map(|((purpose, configured), socket)| OpenSocket {
                    purpose,
                    configured,
                    socket,
                })
            });
            Said::Sockets(sockets.collect::<Option<_>>().ok_or_else(unknown)?)
        }
        "begin" => Said::Begin(descriptors.next().ok_or_else(unknown)?),
        "prepared" => Said::Prepared,
        "go" => Said::Go,
        "ready" => Said::Ready,
        "forget" => Said::Forget(number),
        "forgot" => Said::Forgot(number),
        _ => return Err(unknown()),
    })
}

/// `clients 127.0.0.1:8080`
fn named(name: &str) -> Option<(Purpose, SocketAddr)> {
    let (purpose, address) = name.split_once(' ')?;
    let purpose = Purpose::ALL.into_iter().find(|known| known.label() == purpose)?;
    Some((purpose, address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn ends() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::of(theirs).unwrap())
    }

    #[test]
    fn many_sockets_arrive_with_their_names() {
        let (ours, theirs) = ends();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let configured: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open: Vec<OpenSocket> = (0..150)
            .map(|number| {
                OpenSocket::of(Purpose::ALL[number % Purpose::ALL.len()], configured, &listener)
                    .unwrap()
            })
            .collect();
        ours.give(&open).unwrap();
        ours.begin(listener.as_fd()).unwrap();
        let mut came = Vec::new();
        loop {
            match theirs.hear(SOON).unwrap().unwrap() {
                Said::Sockets(sockets) => came.extend(sockets),
                Said::Begin(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(came.len(), 150);
        for (sent, came) in open.iter().zip(&came) {
            assert_eq!((came.purpose, came.configured), (sent.purpose, configured));
            assert_eq!(came.socket.local_addr().unwrap(), address);
        }
    }

    #[test]
    fn words_arrive_in_order_and_an_end_is_an_error() {
        let (ours, theirs) = ends();
        assert!(theirs.hear(Duration::from_millis(1)).unwrap().is_none());
        ours.say("prepared").unwrap();
        ours.say("forget 7").unwrap();
        assert!(matches!(theirs.hear(SOON).unwrap(), Some(Said::Prepared)));
        assert!(matches!(theirs.hear(SOON).unwrap(), Some(Said::Forget(7))));
        ours.say("nonsense").unwrap();
        assert!(theirs.hear(SOON).is_err());
        drop(ours);
        assert!(theirs.hear(SOON).is_err());
    }

    #[test]
    fn records_that_no_atoll_writes_are_refused() {
        for text in ["", "sockets\nclients 127.0.0.1:80", "begin", "forget x", "sockets\nnobody 1"]
        {
            assert!(read(text, Vec::new()).is_err(), "{text:?}");
        }
    }
}
