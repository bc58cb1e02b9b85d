//! One connection, or one classified error.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};
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
    /// No descriptors or memory, or something unheard of: pause, the clients wait in the backlog.
    Exhausted(io::Error),
}

/// Accepts one connection, close-on-exec and non-blocking.
pub(crate) fn accept(listener: impl AsFd) -> Accepted {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::net::acceptfrom_with(listener, flags) {
        Ok((socket, peer)) => {
            // A Unix socket's client has no address that says anything.
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            Accepted::Connection(Connection { socket, peer, key: 0, deaths: 0 })
        }
        Err(error) => classify(error),
    }
}

/// Whether a connection waits in the backlog. Where the system cannot say, one may.
pub(crate) fn somebody_waits(socket: impl AsFd) -> bool {
    let mut socket = [PollFd::new(&socket, PollFlags::IN)];
    rustix::event::poll(&mut socket, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// Whether a listening socket was shut down. A Unix one says so by nothing else: it still "listens", and nobody ever waits.
pub(crate) fn is_shut_down(socket: impl AsFd) -> bool {
    let mut socket = [PollFd::new(&socket, PollFlags::IN)];
    rustix::event::poll(&mut socket, Some(&Timespec::default())).is_ok() && socket[0].revents().contains(PollFlags::HUP)
}

/// `accept(2)`, ERRORS and NOTES: network errors of the new socket come out of `accept` and are to be treated like EAGAIN (a
/// firewall's EPERM too); of all else nobody knows how long it lasts, and a pause keeps it from becoming a spin.
fn classify(error: Errno) -> Accepted {
    match error {
        Errno::AGAIN => Accepted::Nobody,
        Errno::CONNABORTED
        | Errno::INTR
        | Errno::PERM
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::OPNOTSUPP
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET
        | Errno::CONNRESET
        | Errno::TIMEDOUT => Accepted::ClientGone,
        error => Accepted::Exhausted(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_error_is_skipped_and_the_systems_own_is_a_pause() {
        for error in [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH, Errno::PERM] {
            assert!(matches!(classify(error), Accepted::ClientGone), "{error}");
        }
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL, Errno::BADF] {
            assert!(matches!(classify(error), Accepted::Exhausted(_)), "{error}");
        }
    }
}
