//! UDP sockets as their program has them.

use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;

use rclust_core::extension::Here;
use tokio::net::ToSocketAddrs;

use crate::listener::{key, manner, terms};
use crate::open;
use crate::place::{self, Place};
use crate::share::DatagramShare;

/// A UDP socket: tokio's, which it dereferences to.
///
/// In a worker of a cluster, `bind` asks the supervisor for the socket of that address: one socket for all workers, each of which
/// receives from it; the kernel chooses who gets a datagram, and datagrams wait in the socket while workers are down. Elsewhere it
/// is bound by this process. The workers are trusted: `connect` and options are the socket's, and so everybody's.
#[derive(Debug)]
pub struct UdpSocket {
    socket: tokio::net::UdpSocket,
    share: Option<DatagramShare>,
}

impl UdpSocket {
    /// Binds an address. With several (a name that resolves to them), the first that can be bound. The n-th bind to port 0 of each
    /// worker is the same port in all of them.
    ///
    /// # Errors
    /// The operating system's, as itself, to the worker that asked; it may try again.
    /// # Cancel safety
    /// Dropped before completion, the supervisor may hold the socket; the next bind of the address gets it.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        UdpSocket::builder().bind(address).await
    }

    /// Settings beyond the address.
    pub fn builder() -> UdpSocketBuilder {
        UdpSocketBuilder { exclusive: false, v6_only: false, name: None }
    }

    /// A socket of this process's own, from the standard library's: no other worker has it.
    ///
    /// # Errors
    /// The operating system's. (The socket becomes non-blocking.)
    /// # Panics
    /// Outside a tokio runtime, as tokio's.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        Ok(UdpSocket { socket: tokio::net::UdpSocket::from_std(socket)?, share: None })
    }

    /// Whether it is a socket that the supervisor owns.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.share.is_some()
    }
}

impl Deref for UdpSocket {
    type Target = tokio::net::UdpSocket;

    fn deref(&self) -> &Self::Target {
        &self.socket
    }
}

/// Settings of a socket, made by [`UdpSocket::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct UdpSocketBuilder {
    exclusive: bool,
    v6_only: bool,
    name: Option<String>,
}

impl UdpSocketBuilder {
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

    /// Binds. See [`UdpSocket::bind`].
    ///
    /// # Errors
    /// The operating system's, as itself.
    /// # Cancel safety
    /// As [`UdpSocket::bind`].
    pub async fn bind(self, address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let mut last = None;
        open::in_runtime()?;
        for address in tokio::net::lookup_host(address).await? {
            match self.at(Place::Udp(address)).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the address resolves to nothing")))
    }

    /// As [`TcpListenerBuilder::descriptor`](crate::TcpListenerBuilder::descriptor).
    ///
    /// # Errors
    /// It was no UDP socket when the program started.
    /// # Cancel safety
    /// As [`UdpSocket::bind`].
    pub async fn descriptor(self, number: RawFd) -> io::Result<UdpSocket> {
        self.at(Place::Descriptor(number, place::Kind::Udp)).await
    }

    /// As [`TcpListenerBuilder::activated`](crate::TcpListenerBuilder::activated).
    ///
    /// # Errors
    /// None was passed, or it is no UDP socket.
    /// # Cancel safety
    /// As [`UdpSocket::bind`].
    pub async fn activated(self, name: impl Into<String>) -> io::Result<UdpSocket> {
        self.at(Place::Named(name.into(), place::Kind::Udp)).await
    }

    async fn at(&self, place: Place) -> io::Result<UdpSocket> {
        open::in_runtime()?;
        let terms = terms();
        match Here::worker() {
            Some(here) if !self.exclusive => {
                let key = key(&here, place, self.v6_only, self.name.clone());
                let (share, socket) = DatagramShare::bind(here, key, terms).await?;
                let socket = tokio::net::UdpSocket::from_std(socket.into())?;
                Ok(UdpSocket { socket, share: Some(share) })
            }
            _ => {
                let opened = open::open(&place, manner(self.v6_only, &terms))?;
                UdpSocket::from_std(opened.socket.into())
            }
        }
    }
}
