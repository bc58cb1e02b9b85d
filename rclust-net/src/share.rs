//! A worker's share of a listener that the supervisor owns.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rclust_core::extension::{Here, os};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::accept::{self, Accepted};
use crate::bind::{Ask, Key, Terms, Told};
use crate::connection::Count;
use crate::handoff::take::{Reader, Taken, Taker};
use crate::kept::{Kept, Taking};
use crate::load::Page;
use crate::place::Local;
use crate::stats::Stats;

/// See the module.
#[derive(Debug)]
pub(crate) struct Share {
    number: u32,
    pub(crate) local: Local,
    /// Connections that the supervisor accepted.
    taker: Taker,
    /// Where this worker accepts itself: the socket, and how many connections it wants.
    own: Option<Own>,
    page: Arc<Page>,
    here: Here,
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Own {
    socket: Mutex<Arc<AsyncFd<OwnedFd>>>,
    most: u64,
    /// One was accepted since the kernel last said that somebody waits: there may be no more.
    drawn: AtomicBool,
    /// The tree stops: nothing comes but what the supervisor has accepted.
    quiet: AtomicBool,
}

/// The pause before the supervisor is asked once more for a socket that could not be bound again.
const PAUSE: Duration = Duration::from_millis(500);

fn nonsense() -> io::Error {
    io::Error::other("the supervisor's answer makes no sense")
}

async fn ask(here: &Here, ask: &Ask) -> io::Result<(Told, Vec<OwnedFd>)> {
    let (body, fds) = here.ask(postcard::to_allocvec(ask).map_err(io::Error::other)?).await?;
    match postcard::from_bytes(&body).map_err(io::Error::other)? {
        Told::Failed { errno: Some(errno), .. } => Err(io::Error::from_raw_os_error(errno)),
        Told::Failed { kind, text, .. } => Err(io::Error::new(kind.into(), text)),
        told => Ok((told, fds)),
    }
}

impl Share {
    /// Asks the supervisor for a share of a socket, whose connections want so long a quiet window.
    pub(crate) async fn bind(here: Here, key: Key, terms: Terms, quiet: Duration) -> io::Result<Arc<Share>> {
        let most = terms.most_each.unwrap_or(u64::MAX);
        let (number, local, fds) = ask_bind(&here, key, terms).await?;
        let mut fds = fds.into_iter();
        let (Some(queue), Some(memory)) = (fds.next(), fds.next()) else { return Err(nonsense()) };
        let own = match fds.next() {
            Some(socket) => Some(Own {
                socket: Mutex::new(Arc::new(os::register_readable(socket)?)),
                most,
                drawn: AtomicBool::new(false),
                quiet: AtomicBool::new(false),
            }),
            None => None,
        };
        let (page, kept) = (Arc::new(Page::open(memory)?), Kept::of(&here));
        kept.has_page(&here, &page);
        kept.wants_quiet(quiet);
        let queue = Arc::new(queue);
        let reader = match own {
            // Others read that queue too.
            Some(_) => Arc::new(Reader::new(queue.clone(), None)),
            None => kept.reader(&queue, &page, number),
        };
        let share = Share { number, local, taker: Taker::new(queue, reader)?, own, page, here, kept };
        share.here.listens();
        Ok(Arc::new(share))
    }

    /// A connection of this share was closed or moved away.
    pub(crate) fn closed(&self) {
        self.count(Page::closed);
        self.taker.tell_closed();
    }

    /// A connection of this share was read from for the first time.
    pub(crate) fn begun(&self) {
        self.count(Page::begun);
    }

    /// The program touches a connection that it has in hand; `false`: its worker is dead, and the connection is another's.
    pub(crate) fn claim(&self, number: u32) -> bool {
        self.here.while_alive(|| self.taker.claim(number)).is_some()
    }

    /// Counts something. The page is the slot's: after this worker's death its successor counts.
    fn count(&self, what: fn(&Page, u32) -> bool) {
        if self.here.while_alive(|| what(&self.page, self.number)) == Some(true) {
            self.here.room();
        }
    }

    /// This worker came to its queue, where the supervisor had asked whether it does.
    fn looked(&self) {
        self.count(|page, _| page.looked());
    }

    /// The next connection, which `prepare` makes a stream of. Cancel safe: nothing is awaited between taking it and returning it.
    pub(crate) async fn accept<S>(
        self: &Arc<Self>,
        prepare: impl Fn(OwnedFd) -> io::Result<S>,
    ) -> io::Result<(S, Option<SocketAddr>, Count)> {
        loop {
            if self.kept.is_draining() && !self.taker.has_found() {
                // What comes is for others.
                self.taker.came().await;
                continue;
            }
            let (taken, _taking) = match &self.own {
                None => self.taker.take(&self.here, &self.kept, &prepare, || self.looked()).await?,
                Some(own) => self.accept_own(own, &prepare).await?,
            };
            if let Taken::Question = taken {
                continue;
            }
            self.count(Page::taken);
            self.here.took_connection();
            let mut count = Count::new(self.clone(), self.kept.clone());
            match taken {
                Taken::Connection(stream, peer, in_hand) => {
                    count.is_in_hand(in_hand);
                    return Ok((stream, peer, count));
                }
                Taken::Question => {}
                Taken::Lost(error) => tracing::error!(target: "rclust::net", "a connection was lost: {error}"),
            }
        }
    }

    /// From the kernel's queue, or from what the supervisor accepted for whoever is there.
    async fn accept_own<S>(
        &self,
        own: &Own,
        prepare: &impl Fn(OwnedFd) -> io::Result<S>,
    ) -> io::Result<(Taken<S>, Option<Taking>)> {
        loop {
            if own.quiet.load(Ordering::Relaxed) {
                return self.taker.take(&self.here, &self.kept, prepare, || self.looked()).await;
            }
            let closed = self.taker.closed();
            let draining = self.kept.draining.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.kept.is_draining() {
                // The supervisor has taken back what waits in its queue; the socket is still this worker's, its clients are not.
                return std::future::pending().await;
            }
            let said = self.page.read(self.number);
            if said.taken.saturating_sub(said.closed) >= own.most {
                closed.await;
                continue;
            }
            let socket = own.socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut guard = tokio::select! {
                taken = self.taker.take(&self.here, &self.kept, prepare, || self.looked()) => return taken,
                () = draining => continue,
                guard = socket.readable() => guard?,
            };
            let Some(taking) = self.kept.taking() else { continue };
            // What waits is for those who live.
            let accept = || match own.drawn.swap(true, Ordering::Relaxed) && !accept::somebody_waits(&*socket) {
                true => Accepted::Nobody,
                false => accept::accept(socket.get_ref()),
            };
            let Some(accepted) = self.here.while_alive(accept) else {
                drop(guard);
                return std::future::pending().await;
            };
            match accepted {
                Accepted::Connection(connection) => {
                    let taken = match prepare(connection.socket) {
                        Ok(stream) => Taken::Connection(stream, connection.peer, None),
                        Err(error) => Taken::Lost(error),
                    };
                    return Ok((taken, Some(taking)));
                }
                Accepted::ClientGone => {}
                // A Unix socket that was shut down tells it by this alone, and would be ready for ever.
                Accepted::Nobody if guard.ready().is_read_closed() => {
                    drop(guard);
                    self.again(own).await?;
                }
                Accepted::Nobody => {
                    own.drawn.store(false, Ordering::Relaxed);
                    guard.clear_ready();
                }
                // `accept(2)`: it does not listen. Another worker has shut it down, or the tree stops.
                Accepted::Exhausted(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    drop(guard);
                    self.again(own).await?;
                }
                Accepted::Exhausted(error) => return Err(error),
            }
        }
    }

    async fn again(&self, own: &Own) -> io::Result<()> {
        let told = match ask(&self.here, &Ask::Again { listener: self.number }).await {
            // The address is somebody else's for the moment. It is the supervisor's to say so, and no error of this program's.
            Err(error) if error.raw_os_error().is_some() => {
                tokio::time::sleep(PAUSE).await;
                return Ok(());
            }
            told => told?,
        };
        match told {
            (Told::Again, fds) => {
                let socket = os::register_readable(fds.into_iter().next().ok_or_else(nonsense)?)?;
                *own.socket.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(socket);
                Ok(())
            }
            (Told::Quiet, _) => {
                own.quiet.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(nonsense()),
        }
    }

    /// What the listener has done.
    pub(crate) async fn stats(&self) -> io::Result<Stats> {
        match ask(&self.here, &Ask::Stats { listener: self.number }).await? {
            (Told::Stats(stats), _) => Ok(stats),
            _ => Err(nonsense()),
        }
    }

    /// The program has dropped it.
    pub(crate) fn dropped(&self) {
        close(&self.here, self.number);
    }
}

async fn ask_bind(here: &Here, key: Key, terms: Terms) -> io::Result<(u32, Local, Vec<OwnedFd>)> {
    match ask(here, &Ask::Bind { key, terms, descriptors: here.descriptor_limit() }).await? {
        (Told::Bound { listener, local }, fds) => Ok((listener, local, fds)),
        _ => Err(nonsense()),
    }
}

fn close(here: &Here, number: u32) {
    let Ok(body) = postcard::to_allocvec(&Ask::Close { listener: number }) else { return };
    // Without a runtime the process is ending, and the supervisor will see that.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let here = here.clone();
        runtime.spawn(async move {
            // A supervisor that is gone needs no telling.
            let _ = here.ask(body).await;
        });
    }
}

/// A worker's share of a socket of datagrams: its word that it has it.
#[derive(Debug)]
pub(crate) struct DatagramShare {
    number: u32,
    here: Here,
}

impl DatagramShare {
    /// Asks the supervisor for the socket.
    pub(crate) async fn bind(here: Here, key: Key, terms: Terms) -> io::Result<(DatagramShare, OwnedFd)> {
        let (number, _, fds) = ask_bind(&here, key, terms).await?;
        let share = DatagramShare { number, here };
        let socket = fds.into_iter().next().ok_or_else(nonsense)?;
        share.here.listens();
        Ok((share, socket))
    }
}

impl Drop for DatagramShare {
    fn drop(&mut self) {
        close(&self.here, self.number);
    }
}
