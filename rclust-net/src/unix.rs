//! Unix sockets: the listener as its program has it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{os::fd::RawFd, os::unix::net as std_net};

use rclust_core::extension::Here;

use crate::bind::Terms;
use crate::connection::UnixStream;
use crate::dispatch::Dispatch;
use crate::drain::QUIET;
use crate::listener::{key, manner, terms};
use crate::open::{self, SocketFile};
use crate::place::{self, Place};
use crate::share::Share;
use crate::stats::Stats;

/// A listener on a Unix socket, shaped like tokio's.
///
/// In a worker of a cluster, `bind` asks the supervisor for a share of a socket that it owns, as [`TcpListener`](crate::TcpListener)
/// does. The file is removed when the listener is closed (dropped by all workers, or at the cluster's end) and not when workers
/// die. A supervisor that was killed leaves its file behind: `AddrInUse` on a path that nobody listens on means that it can be removed.
#[derive(Debug)]
pub struct UnixListener(Kind);

#[derive(Debug)]
enum Kind {
    /// With the file that it made, which is held for its drop and never read.
    Plain(tokio::net::UnixListener, #[allow(dead_code)] Option<SocketFile>),
    Shared(Arc<Share>),
}

impl UnixListener {
    /// Listens on a path, which may be relative: to this process's directory.
    ///
    /// # Errors
    /// The operating system's, as itself, to the worker that asked; it may try again. A path of more than 107 bytes is used
    /// relative to the supervisor's directory if it is in there, and is an error that says so if not.
    /// # Cancel safety
    /// Dropped before completion, the supervisor may hold the socket; the next bind of the path gets it.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::builder().bind(path).await
    }

    /// Settings beyond the path.
    pub fn builder() -> UnixListenerBuilder {
        UnixListenerBuilder { terms: terms(), quiet: QUIET, exclusive: false, name: None }
    }

    /// A listener of this process's own, from the standard library's: no other worker has it, and its file stays.
    ///
    /// # Errors
    /// The operating system's. (The socket becomes non-blocking.)
    /// # Panics
    /// Outside a tokio runtime, as tokio's.
    pub fn from_std(listener: std_net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        Ok(UnixListener(Kind::Plain(tokio::net::UnixListener::from_std(listener)?, None)))
    }

    /// The next connection, as [`TcpListener::accept`](crate::TcpListener::accept). Its peer's address is mostly unnamed.
    ///
    /// # Errors
    /// Of a plain listener, the operating system's; of a shared one, that the supervisor has closed it.
    /// # Cancel safety
    /// Dropped before completion, no connection is lost.
    pub async fn accept(&self) -> io::Result<(UnixStream, tokio::net::unix::SocketAddr)> {
        match &self.0 {
            Kind::Plain(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                Ok((UnixStream::from(stream).adopt(), peer))
            }
            Kind::Shared(share) => {
                let prepare = |socket| {
                    let stream = tokio::net::UnixStream::from_std(std_net::UnixStream::from(socket))?;
                    let peer = stream.peer_addr()?;
                    Ok((stream, peer))
                };
                let ((stream, peer), _, count) = share.accept(prepare).await?;
                Ok((UnixStream::new(stream, Some(count)), peer))
            }
        }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<tokio::net::unix::SocketAddr> {
        match &self.0 {
            Kind::Plain(listener, _) => listener.local_addr(),
            Kind::Shared(share) => Ok(std_net::SocketAddr::from_pathname(share.local.path())?.into()),
        }
    }

    /// Whether it is a share of a socket that the supervisor owns.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Shared(_))
    }

    /// As [`TcpListener::stats`](crate::TcpListener::stats).
    ///
    /// # Errors
    /// The supervisor is gone, or does not have the listener any more.
    /// # Cancel safety
    /// Nothing changes.
    pub async fn stats(&self) -> io::Result<Option<Stats>> {
        match &self.0 {
            Kind::Plain(..) => Ok(None),
            Kind::Shared(share) => share.stats().await.map(Some),
        }
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        if let Kind::Shared(share) = &self.0 {
            share.dropped();
        }
    }
}

/// Settings of a listener, made by [`UnixListener::builder`]. What they mean, [`TcpListenerBuilder`](crate::TcpListenerBuilder)
/// says.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct UnixListenerBuilder {
    terms: Terms,
    quiet: Duration,
    exclusive: bool,
    name: Option<String>,
}

impl UnixListenerBuilder {
    /// Which slot gets a connection. Not [`Dispatch::PerSlot`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.terms.dispatch = dispatch;
        self
    }

    /// How many connections the kernel may hold that nobody has accepted; 1024 unless said otherwise.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.terms.backlog = backlog;
        self
    }

    /// The permission bits of its file, such as `0o660`, set before it listens; what the umask leaves unless said otherwise. The
    /// first worker's word counts.
    pub fn mode(mut self, mode: u32) -> Self {
        self.terms.mode = Some(mode);
        self
    }

    /// How many connections it may have in all workers together.
    pub fn max_connections(mut self, most: u64) -> Self {
        self.terms.most = Some(most);
        self
    }

    /// How many of its connections this worker wants.
    pub fn max_connections_per_worker(mut self, most: u64) -> Self {
        self.terms.most_each = Some(most);
        self
    }

    /// As [`TcpListenerBuilder::quiet`](crate::TcpListenerBuilder::quiet).
    pub fn quiet(mut self, window: Duration) -> Self {
        self.quiet = window;
        self
    }

    /// Binds in this process alone; its file is removed when the listener is dropped.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// A name that tells this socket from others at the same path.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Listens. See [`UnixListener::bind`].
    ///
    /// # Errors
    /// As [`UnixListener::bind`].
    /// # Cancel safety
    /// As [`UnixListener::bind`].
    pub async fn bind(self, path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let place = Place::unix(path.as_ref(), &std::env::current_dir()?)?;
        self.at(place).await
    }

    /// As [`TcpListenerBuilder::descriptor`](crate::TcpListenerBuilder::descriptor).
    ///
    /// # Errors
    /// It was no Unix socket that listens when the program started.
    /// # Cancel safety
    /// As [`UnixListener::bind`].
    pub async fn descriptor(self, number: RawFd) -> io::Result<UnixListener> {
        self.at(Place::Descriptor(number, place::Kind::Unix)).await
    }

    /// As [`TcpListenerBuilder::activated`](crate::TcpListenerBuilder::activated).
    ///
    /// # Errors
    /// None was passed, or it is no Unix socket that listens.
    /// # Cancel safety
    /// As [`UnixListener::bind`].
    pub async fn activated(self, name: impl Into<String>) -> io::Result<UnixListener> {
        self.at(Place::Named(name.into(), place::Kind::Unix)).await
    }

    async fn at(&self, place: Place) -> io::Result<UnixListener> {
        open::in_runtime()?;
        match Here::worker() {
            Some(here) if !self.exclusive => {
                let key = key(&here, place, false, self.name.clone());
                let share = Share::bind(here, key, self.terms.clone(), self.quiet).await?;
                Ok(UnixListener(Kind::Shared(share)))
            }
            _ => {
                let opened = open::open(&place, manner(false, &self.terms))?;
                let listener = tokio::net::UnixListener::from_std(opened.socket.into())?;
                Ok(UnixListener(Kind::Plain(listener, opened.file)))
            }
        }
    }
}
