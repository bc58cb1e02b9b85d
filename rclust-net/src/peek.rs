//! A client's first bytes, looked at and left where they are. Beside the accept path: who sends none holds up nobody.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rclust_core::extension::os;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;

use crate::handoff::queue::Connection;
use crate::house::Shared;
use crate::registry::KeyOf;

/// How many of a client's first bytes are looked at.
const BYTES: usize = 4096;

/// How long a client's first bytes are waited for.
const LIMIT: Duration = Duration::from_secs(1);

/// Clients whose first bytes are waited for, of all listeners: 1024, or a quarter of the descriptors that this process may have open. The others
/// are for its workers.
pub(crate) fn most() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(limit / 4).unwrap_or(u32::MAX).min(1024)
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// The client's key.
    Key(u64),
    /// More may come.
    More,
    /// No key can be had.
    NoKey,
    /// The function panicked.
    Panicked,
}

/// Looks at what is there.
pub(crate) fn look(socket: &OwnedFd, key: &KeyOf) -> Peeked {
    let mut bytes = [0; BYTES];
    match rustix::net::recv(socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Peeked::NoKey,
        Ok((n, _)) => decide(&bytes[..n], key),
        Err(Errno::AGAIN | Errno::INTR) => Peeked::More,
        // The worker will find the error.
        Err(_) => Peeked::NoKey,
    }
}

fn decide(bytes: &[u8], key: &KeyOf) -> Peeked {
    match catch_unwind(AssertUnwindSafe(|| key(bytes))) {
        Ok(Some(key)) => Peeked::Key(key),
        Ok(None) if bytes.len() < BYTES => Peeked::More,
        Ok(None) => Peeked::NoKey,
        Err(_) => Peeked::Panicked,
    }
}

/// Waits for a client's first bytes, and has the connection given to its slot.
pub(crate) async fn wait(house: Shared, number: u32, connection: Connection, key: KeyOf) {
    let Connection { socket, peer, key: by_address, deaths } = connection;
    let hurry = house.borrow().hurry();
    let stopping = hurry.notified();
    tokio::pin!(stopping);
    stopping.as_mut().enable();
    // One that cannot be watched is lost, and counted as refused.
    let (socket, peeked) = match os::register_readable(socket) {
        Ok(socket) if !house.borrow().is_stopping() => {
            let peeked = tokio::select! {
                peeked = tokio::time::timeout(LIMIT, first(&socket, &key)) => peeked.unwrap_or(Peeked::NoKey),
                () = &mut stopping => Peeked::NoKey,
            };
            (socket.into_inner(), peeked)
        }
        Ok(socket) => (socket.into_inner(), Peeked::NoKey),
        Err(_) => return house.borrow_mut().peeked(number, None, false),
    };
    let key = if let Peeked::Key(key) = peeked { key } else { by_address };
    let connection = Connection { socket, peer, key, deaths };
    house.borrow_mut().peeked(number, Some(connection), peeked == Peeked::Panicked);
}

async fn first(socket: &AsyncFd<OwnedFd>, key: &KeyOf) -> Peeked {
    loop {
        let Ok(mut guard) = socket.readable().await else { return Peeked::NoKey };
        // The end of what the client says stays news for ever, and nothing comes after it.
        let closed = guard.ready().is_read_closed();
        // Cleared before the look, which takes nothing away: only what comes later is news.
        guard.clear_ready();
        match look(socket.get_ref(), key) {
            Peeked::More if closed => return Peeked::NoKey,
            Peeked::More => {}
            peeked => return peeked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_function_asks_for_more_until_the_limit() {
        let line: KeyOf = Arc::new(|bytes| bytes.iter().position(|byte| *byte == b'\n').map(|at| at as u64));
        assert_eq!(decide(b"abc", &line), Peeked::More);
        assert_eq!(decide(b"abc\n", &line), Peeked::Key(3));
        assert_eq!(decide(&[b'x'; BYTES], &line), Peeked::NoKey);
        let panics: KeyOf = Arc::new(|_| panic!("a key function's panic: part of the test"));
        assert_eq!(decide(b"abc", &panics), Peeked::Panicked);
    }
}
