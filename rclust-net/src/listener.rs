//! The listener as its program has it: a share of the supervisor's socket in a worker, a plain one elsewhere.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rclust_core::extension::Here;
use tokio::net::ToSocketAddrs;

use crate::accept;
use crate::bind::{Ask, Counter, Key, Told};
use crate::connection::{Count, TcpStream};
use crate::dispatch::Dispatch;
use crate::handoff::take::{Taken, Taker};
use crate::load::Page;
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

/// A worker's share of a listener.
#[derive(Debug)]
pub(crate) struct Share {
    number: u32,
    local: SocketAddr,
    taker: Taker,
    page: Page,
    here: Here,
}

impl Share {
    /// A connection of this share was closed or moved away.
    pub(crate) fn closed(&self) {
        self.count(Page::closed);
        self.taker.closed.notify_waiters();
    }

    /// A connection of this share was read from for the first time.
    pub(crate) fn begun(&self) {
        self.count(Page::begun);
    }

    /// Counts something. The page is the slot's: after this worker's death its successor counts.
    fn count(&self, what: fn(&Page, u32) -> bool) {
        if self.here.while_alive(|| what(&self.page, self.number)) == Some(true) {
            self.here.room();
        }
    }

    /// This worker came to its queue, where the supervisor had asked whether it does.
    fn looked(&self) {
        self.count(Page::looked);
    }

    async fn accept(self: &Arc<Self>) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let taken = self.taker.take(&self.here, || self.looked()).await?;
            self.count(Page::taken);
            let count = Count::new(self.clone());
            match taken {
                Taken::Connection(socket, peer) => {
                    let peer = peer.ok_or_else(|| {
                        io::Error::other("the supervisor handed over a connection without an address")
                    })?;
                    let stream = tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket))?;
                    return Ok((TcpStream::new(stream, Some(count)), peer));
                }
                Taken::Question => {}
                Taken::Lost => {
                    tracing::error!(target: "rclust::net", "a connection was lost: this process is at its descriptor limit");
                }
            }
        }
    }
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
        TcpListenerBuilder {
            dispatch: Dispatch::default(),
            backlog: BACKLOG,
            exclusive: false,
            v6_only: false,
            name: None,
        }
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// Of a plain listener, the operating system's; of a shared one, that the supervisor has closed it.
    /// # Cancel safety
    /// Dropped before completion, no connection is lost.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Kind::Plain(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((stream.into(), peer))
            }
            Kind::Shared(share) => share.accept().await,
        }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The operating system's, of a plain listener.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Plain(listener) => listener.local_addr(),
            Kind::Shared(share) => Ok(share.local),
        }
    }

    /// What this listener has done so far, in all workers, and how each slot stands; `None` of a plain listener.
    ///
    /// # Errors
    /// The supervisor is gone, or does not have the listener any more.
    /// # Cancel safety
    /// Nothing changes.
    pub async fn stats(&self) -> io::Result<Option<Stats>> {
        let Kind::Shared(share) = &self.0 else { return Ok(None) };
        let ask = postcard::to_allocvec(&Ask::Stats { listener: share.number }).map_err(io::Error::other)?;
        let (body, _) = share.here.ask(ask).await?;
        match postcard::from_bytes(&body).map_err(io::Error::other)? {
            Told::Stats(stats) => Ok(Some(stats)),
            Told::Failed { text, .. } => Err(io::Error::other(text)),
            _ => Err(io::Error::other("the supervisor's answer makes no sense")),
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
        let Kind::Shared(share) = &self.0 else { return };
        let Ok(body) = postcard::to_allocvec(&Ask::Close { listener: share.number }) else { return };
        // Without a runtime the process is ending, and the supervisor will see that.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let here = share.here.clone();
            runtime.spawn(async move {
                // A supervisor that is gone needs no telling.
                let _ = here.ask(body).await;
            });
        }
    }
}

/// Settings of a listener, made by [`TcpListener::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct TcpListenerBuilder {
    dispatch: Dispatch,
    backlog: u32,
    exclusive: bool,
    v6_only: bool,
    name: Option<String>,
}

impl TcpListenerBuilder {
    /// Which slot gets a connection; [`Dispatch::Balanced`] unless said otherwise. The first worker's word counts.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// How many connections the kernel may hold that nobody has accepted; 1024 unless said otherwise (it cuts this to
    /// `net.core.somaxconn`). The first worker's word counts.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
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
        for address in tokio::net::lookup_host(address).await? {
            match self.bind_one(address).await {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the address resolves to nothing")))
    }

    async fn bind_one(&self, address: SocketAddr) -> io::Result<TcpListener> {
        match Here::worker() {
            Some(here) if !self.exclusive => self.share(here, address).await,
            _ => {
                let socket = accept::listen(address, self.v6_only, self.backlog)?;
                let listener = tokio::net::TcpListener::from_std(std::net::TcpListener::from(socket))?;
                Ok(TcpListener(Kind::Plain(listener)))
            }
        }
    }

    async fn share(&self, here: Here, address: SocketAddr) -> io::Result<TcpListener> {
        let key = self.key(&here, address);
        let ask = Ask::Bind {
            key,
            backlog: self.backlog,
            dispatch: self.dispatch.clone(),
            descriptors: here.descriptor_limit(),
        };
        let (body, fds) = here.ask(postcard::to_allocvec(&ask).map_err(io::Error::other)?).await?;
        match postcard::from_bytes(&body).map_err(io::Error::other)? {
            Told::Bound { listener, local } => {
                let [queue, memory]: [OwnedFd; 2] = fds
                    .try_into()
                    .map_err(|_| io::Error::other("the supervisor's answer came without its descriptors"))?;
                let share =
                    Share { number: listener, local, taker: Taker::new(queue)?, page: Page::open(memory)?, here };
                share.here.listens();
                Ok(TcpListener(Kind::Shared(Arc::new(share))))
            }
            Told::Failed { errno: Some(errno), .. } => Err(io::Error::from_raw_os_error(errno)),
            Told::Failed { text, .. } => Err(io::Error::other(text)),
            Told::Closed | Told::Stats(_) => Err(io::Error::other("the supervisor's answer makes no sense")),
        }
    }

    fn key(&self, here: &Here, address: SocketAddr) -> Key {
        // This worker's binds so far.
        let binds = here.kept::<Mutex<Counter>>();
        let mut binds = binds.lock().unwrap_or_else(PoisonError::into_inner);
        binds.key(address, self.v6_only, self.name.clone())
    }
}
