//! How the system is to treat the sockets of the mesh.
//!
//! A purge is one small segment on a quiet connection, the worst case for TCP when a segment is lost: no
//! others follow from which the loss could be seen, so the sender waits for a timer. Its shortest
//! time is 200 ms unless told otherwise, and it doubles. Hence: no delay for small writes, a timer that
//! begins at 20 ms and does not double while little is under way, and little that waits in the
//! system, so that what is urgent does not stand behind a batch.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that the system may hold ready.
const BACKLOG: i32 = 1024;

/// Bytes not yet sent that the system may hold of one link.
const UNSENT_BYTES: u32 = 128 << 10;

/// Shortest time after which a lost segment is sent again.
const RESEND: Duration = Duration::from_millis(20);

/// Listens for peers.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prepares a connection. Where the system knows an option not, the link is slower after a loss, and
/// that is all.
pub(super) fn prepare(stream: &TcpStream, dead_after: Duration) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(dead_after));
    let probe = (dead_after / 3).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(probe).with_interval(probe).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    lower_resend_timer(stream);
}

/// Sets `TCP_RTO_MIN_US`, which Linux has since 6.15 and no crate in use here has a name for.
#[expect(unsafe_code, reason = "a socket option that is too new for the crates that set others")]
fn lower_resend_timer(stream: &TcpStream) {
    const IPPROTO_TCP: i32 = 6;
    const TCP_RTO_MIN_US: i32 = 45;
    // SAFETY: this is setsockopt(2) of the C library that std is linked with, by its POSIX signature.
    unsafe extern "C" {
        fn setsockopt(fd: i32, level: i32, name: i32, value: *const i32, bytes: u32) -> i32;
    }
    let Ok(micros) = i32::try_from(RESEND.as_micros()) else { return };
    // SAFETY: the descriptor is open as long as `stream` is borrowed; the value lives across the call,
    // and its size is that of the type pointed to. The kernel only reads it.
    unsafe {
        let _ = setsockopt(stream.as_raw_fd(), IPPROTO_TCP, TCP_RTO_MIN_US, &raw const micros, 4);
    }
}
