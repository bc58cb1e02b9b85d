//! The listener as its program has it: a share of the supervisor's socket in a worker, a plain one elsewhere.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rclust_core::extension::Here;
use tokio::net::ToSocketAddrs;

use crate::bind::{Key, Terms};
use crate::connection::TcpStream;
use crate::dispatch::Dispatch;
use crate::drain::QUIET;
use crate::kept::Kept;
use crate::open::{self, Manner};
use crate::place::{self, Place};
use crate::share::Share;
use crate::stats::Stats;

/// Connections that the kernel holds for a listener when nothing else is said (it cuts this to `net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// A TCP listener, shaped like tokio's.
///
/// In a worker of a cluster, `bind` asks the supervisor for a share of a socket that it owns: the same address in several
/// workers is one socket, which stays open when workers die. Elsewhere, and with
/// [`exclusive`](TcpListenerBuilder::exclusive), it is bound by this process.
#[derive(Debug)]
pub struct TcpListener(Kind);

#[derive(Debug)]
enum Kind {
    Plain(tokio::net::TcpListener),
    Shared(Arc<Share>),
}

impl TcpListener {
    /// Listens on an address. With several (a name that resolves to them), the first that can be bound.
    ///
    /// The n-th bind to port 0 of each worker is the same port in all of them.
    ///
    /// # Errors
    /// The operating system's, as itself, to the worker that asked; it may try again.
    /// # Cancel safety
    /// Dropped before completion, the supervisor may hold the socket; the next bind of the address gets it.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        TcpListener::builder().bind(address).await
    }

    /// Settings beyond the address.
    pub fn builder() -> TcpListenerBuilder {
        TcpListenerBuilder { terms: terms(), quiet: QUIET, exclusive: false, v6_only: false, name: None }
    }

    /// A listener of this process's own, from the standard library's: no other worker has it.
    ///
    /// # Errors
    /// The operating system's. (The socket becomes non-blocking.)
    /// # Panics
    /// Outside a tokio runtime, as tokio's.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        Ok(TcpListener(Kind::Plain(tokio::net::TcpListener::from_std(listener)?)))
    }

    /// The next connection.
    ///
    /// With a policy by which the supervisor accepts, it is this worker's for good when the program touches the stream, drops it, or accepts once
    /// more: a worker that dies before leaves it to another one, which sees the same client. (See [`Stream`](crate::Stream).)
    ///
    /// # Errors
    /// Of a plain listener, the operating system's. Of a shared one, that the supervisor has closed it (`BrokenPipe`), or that the system
    /// refuses to watch one more descriptor for the runtime: the connection then waits for the next call, or for another worker.
    /// # Cancel safety
    /// Dropped before completion, no connection is lost.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Kind::Plain(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TcpStream::from(stream).adopt(), peer))
            }
            Kind::Shared(share) => {
                let prepare = |socket| tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket));
                let (stream, peer, count) = share.accept(prepare).await?;
                let peer = peer.ok_or_else(|| io::Error::other("a connection without an address"))?;
                Ok((TcpStream::new(stream, Some(count)), peer))
            }
        }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The operating system's, of a plain listener.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Plain(listener) => listener.local_addr(),
            Kind::Shared(share) => share.local.ip(),
        }
    }

    /// What this listener has done so far, in all workers, and how each slot stands; `None` of a plain listener.
    ///
    /// # Errors
    /// The supervisor is gone, or does not have the listener any more.
    /// # Cancel safety
    /// Nothing changes.
    pub async fn stats(&self) -> io::Result<Option<Stats>> {
        match &self.0 {
            Kind::Plain(_) => Ok(None),
            Kind::Shared(share) => share.stats().await.map(Some),
        }
    }

    /// Whether it is a share of a socket that the supervisor owns.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Shared(_))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        if let Kind::Shared(share) = &self.0 {
            share.dropped();
        }
    }
}

/// Settings of a listener, made by [`TcpListener::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct TcpListenerBuilder {
    terms: Terms,
    quiet: Duration,
    exclusive: bool,
    v6_only: bool,
    name: Option<String>,
}

impl TcpListenerBuilder {
    /// Which slot gets a connection; [`Dispatch::Balanced`] unless said otherwise. The first worker's word counts.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.terms.dispatch = dispatch;
        self
    }

    /// How many connections the kernel may hold that nobody has accepted; 1024 unless said otherwise (it cuts this to
    /// `net.core.somaxconn`). The first worker's word counts.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.terms.backlog = backlog;
        self
    }

    /// How many connections it may have in all workers together, open and untaken; others wait in the backlog. No limit unless
    /// said otherwise. The first worker's word counts. Not with [`Dispatch::Shared`] and [`Dispatch::PerSlot`], where the supervisor
    /// does not see connections: `bind` then fails.
    pub fn max_connections(mut self, most: u64) -> Self {
        self.terms.most = Some(most);
        self
    }

    /// How many of its connections this worker wants, open and untaken; others are for other workers, or wait in the backlog. No
    /// limit unless said otherwise. Each worker's own word counts for itself; 0 is a worker that gets none. (With
    /// [`Dispatch::PerSlot`] the kernel does not know of it: what it puts into the queue of a worker at its limit waits there.)
    ///
    /// Whatever is said here, a worker is handed no more than its limit of open descriptors allows (an eighth of it, 24 at least, is
    /// left for the worker's own).
    pub fn max_connections_per_worker(mut self, most: u64) -> Self {
        self.terms.most_each = Some(most);
        self
    }

    /// How long none of this worker's connections may have had traffic before they are closed, once it is to stop
    /// ([`Context::shutdown`](rclust_core::Context::shutdown)); 1 s unless said otherwise. Half the deadline of the stop bounds it. The
    /// longest that a listener of this worker asks for counts.
    pub fn quiet(mut self, window: Duration) -> Self {
        self.quiet = window;
        self
    }

    /// Binds in this process alone: a second worker then gets the system's `AddrInUse`, and with port 0 a port of its own.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Whether an IPv6 socket refuses IPv4; `false` unless said otherwise.
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// A name that tells this socket from others at the same address.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Listens. See [`TcpListener::bind`].
    ///
    /// # Errors
    /// The operating system's, as itself.
    /// # Cancel safety
    /// As [`TcpListener::bind`].
    pub async fn bind(self, address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        open::in_runtime()?;
        for address in tokio::net::lookup_host(address).await? {
            match self.at(Place::Tcp(address)).await {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the address resolves to nothing")))
    }

    /// Listens on a descriptor that the *supervisor* was started with, whose number that is (Node: "the number refers to the
    /// primary's descriptor table"): the same socket in all workers. Outside a cluster it is this process's.
    ///
    /// Backlog, address and options are as its maker set them; the file of a Unix socket is not removed.
    ///
    /// # Errors
    /// `NotFound`: it was no bound socket when the program started. `InvalidInput`: it is no TCP socket that listens.
    /// # Cancel safety
    /// As [`TcpListener::bind`].
    pub async fn descriptor(self, number: RawFd) -> io::Result<TcpListener> {
        self.at(Place::Descriptor(number, place::Kind::Tcp)).await
    }

    /// Listens on the socket that a service manager passed to the supervisor (outside a cluster: to this process) under this name:
    /// systemd's `FileDescriptorName=`, which is the name of the `.socket` unit unless it says otherwise. Of several with one name,
    /// the first.
    ///
    /// # Errors
    /// `NotFound`: none was passed; the text lists the names that were. `InvalidInput`: it is no TCP socket that listens.
    /// # Cancel safety
    /// As [`TcpListener::bind`].
    /// # Source
    /// `sd_listen_fds(3)`: `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`, which are taken out of the environment at boot.
    pub async fn activated(self, name: impl Into<String>) -> io::Result<TcpListener> {
        self.at(Place::Named(name.into(), place::Kind::Tcp)).await
    }

    async fn at(&self, place: Place) -> io::Result<TcpListener> {
        open::in_runtime()?;
        match Here::worker() {
            Some(here) if !self.exclusive => {
                let key = key(&here, place, self.v6_only, self.name.clone());
                let share = Share::bind(here, key, self.terms.clone(), self.quiet).await?;
                Ok(TcpListener(Kind::Shared(share)))
            }
            _ => {
                let opened = open::open(&place, manner(self.v6_only, &self.terms))?;
                TcpListener::from_std(opened.socket.into())
            }
        }
    }
}

/// How a socket is bound in this process alone.
pub(crate) fn manner(v6_only: bool, terms: &Terms) -> Manner {
    Manner { v6_only, backlog: terms.backlog, mode: terms.mode, group: false }
}

/// The key of this worker's next bind.
pub(crate) fn key(here: &Here, place: Place, v6_only: bool, name: Option<String>) -> Key {
    let kept = Kept::of(here);
    let mut binds = kept.binds.lock().unwrap_or_else(PoisonError::into_inner);
    binds.key(place, v6_only, name)
}

/// What a listener's terms are unless said otherwise.
pub(crate) fn terms() -> Terms {
    Terms { backlog: BACKLOG, mode: None, dispatch: Dispatch::default(), most: None, most_each: None }
}
