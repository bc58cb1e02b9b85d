//! A worker's porter: the socket on which it hands over, and gets, what is beside records.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use crate::mailbox::beside::{NotAttached, Tag};
use crate::mailbox::depot::{NOTE, note, read_note};
use crate::sys::{descriptors, readiness};

/// A pause where the kernel says that too many descriptors are on their way (its limit is for all of a user's processes; nobody
/// tells when there is room again).
const PAUSE: Duration = Duration::from_millis(5);

/// A worker at its limit of descriptors waits so long for some to become free.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the supervisor may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Porter {
    socket: AsyncFd<Arc<OwnedFd>>,
    /// One question at a time.
    asking: Mutex<()>,
}

impl Porter {
    /// Must be called in a runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Porter> {
        Ok(Porter { socket: readiness::register(Arc::new(socket))?, asking: Mutex::new(()) })
    }

    /// Hands over what goes beside a record. Never waits.
    pub(crate) fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached> {
        let crowded = |error: &io::Error| {
            error.kind() == io::ErrorKind::WouldBlock
                || error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
                || error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
        };
        match descriptors::send_with(self.socket.get_ref().as_fd(), &note(tag, large, fds.len()), fds) {
            Ok(_) => Ok(()),
            Err(error) if crowded(&error) => Err(NotAttached::Crowded),
            Err(error) => Err(NotAttached::Os(error)),
        }
    }

    /// Waits until there may be room again. Never for long: of the kernel's own limit no readiness tells.
    pub(crate) async fn room(&self) {
        if let Ok(Ok(mut guard)) = tokio::time::timeout(PAUSE, self.socket.writable()).await {
            guard.clear_ready();
        }
    }

    /// Gets what is beside a record: `ask` asks the supervisor for it.
    pub(crate) async fn fetch(&self, tag: Tag, descriptors: usize, ask: impl FnOnce()) -> io::Result<Vec<OwnedFd>> {
        let _one = self.asking.lock().await;
        // Held until the answer comes, and given up for it: the kernel drops descriptors that have no room.
        let spares = self.spares(descriptors).await?;
        ask();
        tokio::time::timeout(ANSWER_LIMIT, self.answer(tag, spares))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the supervisor did not answer"))?
    }

    async fn spares(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut spares = Vec::with_capacity(count);
        let mut waited = Duration::ZERO;
        while spares.len() < count {
            match rustix::io::fcntl_dupfd_cloexec(self.socket.get_ref(), 3) {
                Ok(spare) => spares.push(spare),
                Err(Errno::MFILE) if waited < PATIENCE => {
                    // Whoever holds descriptors here needs those that we have meanwhile.
                    spares.clear();
                    tokio::time::sleep(PAUSE * 4).await;
                    waited += PAUSE * 4;
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("no descriptors for what came with it ({error}): raise the limit of open files"),
                    ));
                }
            }
        }
        Ok(spares)
    }

    async fn answer(&self, tag: Tag, spares: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        let mut spares = Some(spares);
        loop {
            let mut guard = self.socket.readable().await?;
            spares.take();
            let mut bytes = [0; NOTE];
            let mut fds = Vec::new();
            match descriptors::receive_with(self.socket.get_ref().as_fd(), &mut bytes, &mut fds, RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Err(error),
                Ok(received) if received.bytes != NOTE => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => match read_note(&bytes) {
                    // An answer to a question that was given up.
                    Some((other, ..)) if other != tag => {}
                    _ if received.truncated => {
                        return Err(io::Error::other("the kernel dropped descriptors: raise the limit of open files"));
                    }
                    Some((_, _, count)) if count > 0 && count == fds.len() => return Ok(fds),
                    _ => return Err(io::Error::other("it went with an earlier incarnation of this worker")),
                },
            }
        }
    }
}
