//! Worker side: one `recvmsg` per `accept`, never a prefetch.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rclust_core::extension::{Here, os};
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::handoff::note;
use crate::kept::{Kept, Taking};

/// How long a worker at its descriptor limit waits for one of its descriptors that is no connection of ours.
const AT_THE_LIMIT: Duration = Duration::from_millis(100);

/// The reading end of a slot's queue.
#[derive(Debug)]
pub(crate) struct Taker {
    queue: AsyncFd<OwnedFd>,
    /// One was taken since the kernel last said that there is something: there may be no more.
    drawn: AtomicBool,
    /// Closed for the moment of taking, so that there is room for the descriptor that comes.
    spare: Mutex<Option<OwnedFd>>,
    /// A connection of this worker was closed.
    pub(crate) closed: Notify,
}

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A connection.
    Connection(OwnedFd, Option<SocketAddr>),
    /// The supervisor asks whether somebody is there.
    Question,
    /// The kernel had to drop it: the process is at its descriptor limit in spite of everything.
    Lost,
}

impl Taker {
    pub(crate) fn new(queue: OwnedFd) -> io::Result<Taker> {
        let spare = Mutex::new(spare(&queue).ok());
        Ok(Taker { queue: os::register_readable(queue)?, drawn: AtomicBool::new(false), spare, closed: Notify::new() })
    }

    /// Takes the next connection; calls `asked` where it finds a question instead.
    ///
    /// Cancel safe: the one act of taking is not divided by an await.
    pub(crate) async fn take(&self, here: &Here, kept: &Arc<Kept>, asked: impl Fn()) -> io::Result<(Taken, Taking)> {
        loop {
            self.have_spare().await;
            let mut guard = self.queue.readable().await?;
            let Some(taking) = kept.taking() else {
                // What comes is for others.
                return std::future::pending().await;
            };
            match here.while_alive(|| self.take_now()) {
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.drawn.store(false, Ordering::Relaxed);
                    guard.clear_ready();
                }
                Some(Ok(Taken::Question)) => asked(),
                Some(other) => return Ok((other?, taking)),
                // What is in the queue is its successor's.
                None => return std::future::pending().await,
            }
        }
    }

    fn take_now(&self) -> io::Result<Taken> {
        // Asking costs less than to let go of the spare descriptor and to get another one.
        if self.drawn.swap(true, Ordering::Relaxed)
            && rustix::io::ioctl_fionread(&self.queue).is_ok_and(|bytes| bytes == 0)
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut held = self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *held = None;
        let mut bytes = [0; note::LEN];
        let mut fds = Vec::new();
        let received = os::receive_with(self.queue.get_ref(), &mut bytes, &mut fds, RecvFlags::DONTWAIT);
        *held = spare(self.queue.get_ref()).ok();
        let received = received?;
        if received.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the supervisor has closed this listener"));
        }
        match (fds.pop(), note::decode(&bytes[..received.bytes])) {
            (Some(socket), Some((peer, _))) => Ok(Taken::Connection(socket, peer)),
            _ if bytes[..received.bytes] == note::QUESTION => Ok(Taken::Question),
            _ => Ok(Taken::Lost),
        }
    }

    /// Waits until a spare descriptor can be had: without one, taking could lose the connection.
    async fn have_spare(&self) {
        loop {
            let closed = self.closed.notified();
            {
                let mut held = self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if held.is_none() {
                    *held = spare(self.queue.get_ref()).ok();
                }
                if held.is_some() {
                    return;
                }
            }
            // Ours are noticed at once, the program's other descriptors cannot be.
            let _ = tokio::time::timeout(AT_THE_LIMIT, closed).await;
        }
    }
}

/// A descriptor that stands for nothing but its number.
fn spare(of: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(of, 3)?)
}
