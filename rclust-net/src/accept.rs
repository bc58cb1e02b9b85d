//! One connection, or one classified error.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::handoff::queue::Connection;

/// What one `accept4` came to.
#[derive(Debug)]
pub(crate) enum Accepted {
    Connection(Connection),
    /// Nobody is waiting.
    Nobody,
    /// This client has gone again; the next one may be fine (`accept(2)`: treat network errors like EAGAIN).
    ClientGone,
    /// No descriptors or memory: pause, the clients wait in the backlog.
    Exhausted(io::Error),
}

/// Accepts one connection, close-on-exec and non-blocking.
pub(crate) fn accept(listener: impl AsFd) -> Accepted {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::net::acceptfrom_with(listener, flags) {
        Ok((socket, peer)) => match peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
            Some(peer) => Accepted::Connection(Connection { socket, peer }),
            None => Accepted::ClientGone,
        },
        Err(Errno::AGAIN) => Accepted::Nobody,
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Accepted::Exhausted(error.into()),
        Err(_) => Accepted::ClientGone,
    }
}

/// Binds and listens.
pub(crate) fn listen(address: SocketAddr, v6_only: bool, backlog: u32) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
