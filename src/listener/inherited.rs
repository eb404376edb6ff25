//! Listening sockets that are open already: from the process before this one, or from the service
//! manager. They are taken up rather than bound anew, since each socket has a queue of connections
//! of its own: whatever waits in the queue of a socket that is closed is lost.
//!
//! A socket of a group (SO_REUSEPORT) must not be left without anybody who accepts, or it loses its
//! share of the connections. So all of a listener's sockets are served, whatever the number of workers:
//!
//! ```text
//! 4 sockets, 2 workers     each worker serves two
//! 2 sockets, 4 workers     two are bound beside them; where the group cannot grow, all serve the same
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::SockRef;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Clients of the sites.
    Clients,
    /// The admin API.
    Admin,
    /// Metrics and probes only.
    Watch,
    /// The other nodes of the mesh.
    Mesh,
    /// Nodes that fetch the canary's object.
    Canary,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 5] = [Self::Clients, Self::Admin, Self::Watch, Self::Mesh, Self::Canary];

    /// Its word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
            Self::Watch => "watch",
            Self::Mesh => "mesh",
            Self::Canary => "canary",
        }
    }
}

/// An open listening socket.
#[derive(Debug)]
pub struct OpenSocket {
    /// What it is for.
    pub purpose: Purpose,
    /// The address that the configuration says, which may leave the port to the system.
    pub configured: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

impl OpenSocket {
    /// The same socket under another descriptor.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(purpose: Purpose, configured: SocketAddr, socket: &TcpListener) -> io::Result<Self> {
        Ok(Self { purpose, configured, socket: socket.try_clone()? })
    }

    fn is_at(&self, address: SocketAddr) -> bool {
        self.socket.local_addr().is_ok_and(|local| local == address)
    }
}

/// The sockets that are there and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<OpenSocket>);

impl Inherited {
    /// Adds a socket.
    ///
    /// # Errors
    /// It does not listen, or is none of TCP.
    pub fn add(&mut self, open: OpenSocket) -> io::Result<()> {
        open.socket.local_addr()?;
        if !SockRef::from(&open.socket).is_listener()? {
            return Err(io::Error::other("it does not listen"));
        }
        open.socket.set_nonblocking(true)?;
        self.0.push(open);
        Ok(())
    }

    /// Where they listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|open| open.socket.local_addr().ok()).collect()
    }

    /// The sockets at an address. Where the address leaves the port to the system: those of the first
    /// listener with the same purpose and address.
    pub fn take(&mut self, purpose: Purpose, address: SocketAddr) -> Vec<TcpListener> {
        let at = match address.port() {
            0 => {
                let mut alike = self.0.iter();
                let first =
                    alike.find(|open| open.purpose == purpose && open.configured == address);
                first.and_then(|open| open.socket.local_addr().ok())
            }
            _ => Some(address),
        };
        let Some(at) = at else { return Vec::new() };
        let (taken, left) =
            std::mem::take(&mut self.0).into_iter().partition(|open| open.is_at(at));
        self.0 = left;
        let taken: Vec<OpenSocket> = taken;
        taken.into_iter().map(|open| open.socket).collect()
    }
}

/// A listener's sockets, each with the number of the worker that serves it. `bind` makes another one
/// beside the first.
///
/// # Errors
/// The first socket cannot be bound, or no descriptor is left.
pub(super) fn spread(
    given: Vec<TcpListener>,
    workers: usize,
    bind: impl Fn(Option<SocketAddr>) -> io::Result<TcpListener>,
) -> io::Result<Vec<(usize, TcpListener)>> {
    let mut sockets = given;
    let inherited = !sockets.is_empty();
    // A socket outside of a group can have none beside it.
    let grows = sockets.first().is_none_or(in_a_group);
    while grows && sockets.len() < workers {
        let beside = sockets.first().map(TcpListener::local_addr).transpose()?;
        match bind(beside) {
            Ok(socket) => sockets.push(socket),
            // The group may belong to another user. What there is, all can serve.
            Err(_) if inherited => break,
            Err(error) => return Err(error),
        }
    }
    let mut spread = Vec::with_capacity(workers.max(sockets.len()));
    for number in sockets.len()..workers {
        if let Some(socket) = sockets.get(number % sockets.len().max(1)) {
            spread.push((number, socket.try_clone()?));
        }
    }
    let placed = sockets.into_iter().enumerate();
    spread.extend(placed.map(|(number, socket)| (number % workers.max(1), socket)));
    Ok(spread)
}

fn in_a_group(socket: &TcpListener) -> bool {
    SockRef::from(socket).reuse_port().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::listener::accept::bind_one;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn open(purpose: Purpose, configured: SocketAddr, socket: &TcpListener) -> OpenSocket {
        OpenSocket::of(purpose, configured, socket).unwrap()
    }

    #[test]
    fn sockets_are_taken_by_address_and_those_of_any_port_in_their_order() {
        let [one, two, admin] = [(); 3].map(|()| bind_one(ANY).unwrap());
        let beside = bind_one(one.local_addr().unwrap()).unwrap();
        let mut inherited = Inherited::default();
        for (purpose, socket) in [
            (Purpose::Admin, &admin),
            (Purpose::Clients, &one),
            (Purpose::Clients, &two),
            (Purpose::Clients, &beside),
        ] {
            inherited.add(open(purpose, ANY, socket)).unwrap();
        }
        let ports = |taken: Vec<TcpListener>| -> Vec<u16> {
            taken.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
        };
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        assert_eq!(ports(inherited.take(Purpose::Clients, ANY)), [port(&one), port(&one)]);
        assert!(inherited.take(Purpose::Watch, ANY).is_empty());
        assert_eq!(ports(inherited.take(Purpose::Clients, ANY)), [port(&two)]);
        assert!(inherited.take(Purpose::Clients, ANY).is_empty());
        // An address with its port is the same whatever it was for.
        let address = admin.local_addr().unwrap();
        assert_eq!(ports(inherited.take(Purpose::Watch, address)), [address.port()]);
        assert!(inherited.addresses().is_empty());
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let address = bind_one(ANY).unwrap();
        let client = std::net::TcpStream::connect(address.local_addr().unwrap()).unwrap();
        let socket = TcpListener::from(std::os::fd::OwnedFd::from(client));
        let mut inherited = Inherited::default();
        assert!(
            inherited
                .add(OpenSocket { purpose: Purpose::Clients, configured: ANY, socket })
                .is_err()
        );
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        for (given, workers) in [(0, 1), (0, 3), (1, 1), (1, 3), (4, 2), (5, 3), (3, 3)] {
            let first = bind_one(ANY).unwrap();
            let address = first.local_addr().unwrap();
            let more = (1..given).map(|_| bind_one(address).unwrap());
            let sockets: Vec<TcpListener> = match given {
                0 => Vec::new(),
                _ => std::iter::once(first).chain(more).collect(),
            };
            let bind = |beside: Option<SocketAddr>| bind_one(beside.unwrap_or(ANY));
            let spread = spread(sockets, workers, bind).unwrap();
            assert_eq!(spread.len(), workers.max(given), "{given} {workers}");
            for worker in 0..workers {
                assert!(spread.iter().any(|(number, _)| *number == worker), "{given} {workers}");
            }
            assert!(spread.iter().all(|(number, _)| *number < workers));
        }
    }

    #[test]
    fn a_socket_that_no_other_may_stand_beside_is_shared() {
        let alone = TcpListener::bind(ANY).unwrap();
        let address = alone.local_addr().unwrap();
        let bind = |_| panic!("nothing is bound beside it");
        let spread = spread(vec![alone], 3, bind).unwrap();
        let workers: Vec<usize> = spread.iter().map(|(number, _)| *number).collect();
        assert_eq!(workers, [1, 2, 0]);
        assert!(spread.iter().all(|(_, socket)| socket.local_addr().unwrap() == address));
    }
}
