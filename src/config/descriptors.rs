//! Keeps a few descriptors back, so that the admin listener, logs and files have some when strangers
//! have taken the rest.
//!
//! The system gives out the lowest number that is free (open(2)). So a new socket's own number
//! tells, without a question and without a count, that at least as many are open: a number within
//! the reserve means that everything below it is taken.

use std::os::fd::{AsRawFd, RawFd};

use super::Limits;

/// Descriptors up to which strangers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    first_kept_back: RawFd,
}

impl Descriptors {
    /// What the process may open, less the reserve; of few no more than a quarter is kept back.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self::within(most, limits.descriptors_reserve)
    }

    fn within(most: Option<u64>, reserve: u32) -> Self {
        let Some(most) = most else { return Self { first_kept_back: RawFd::MAX } };
        let first = most - u64::from(reserve).min(most / 4);
        Self { first_kept_back: RawFd::try_from(first).unwrap_or(RawFd::MAX) }
    }

    /// Whether a socket just opened lies within the reserve and should be given up.
    #[must_use]
    pub fn are_short(self, socket: &impl AsRawFd) -> bool {
        socket.as_raw_fd() >= self.first_kept_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_back_but_for_a_quarter_at_most() {
        let rows = [
            (Some(1024), 32, 992),
            (Some(64), 32, 48),
            (Some(1024), 0, 1024),
            (Some(u64::MAX), 32, RawFd::MAX),
            (None, 32, RawFd::MAX),
        ];
        for (most, reserve, first) in rows {
            let expected = Descriptors { first_kept_back: first };
            assert_eq!(Descriptors::within(most, reserve), expected, "{most:?}");
        }
    }

    #[test]
    fn a_socket_is_judged_by_its_number() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = socket.as_raw_fd();
        assert!(Descriptors { first_kept_back: number }.are_short(&socket));
        assert!(!Descriptors { first_kept_back: number + 1 }.are_short(&socket));
    }
}
