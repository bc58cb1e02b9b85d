//! Sockets, files and other descriptors as fields of messages: ownership moves with the message.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, sockopt};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::{payload, schema};

/// The most sockets that one message carries.
pub const SOCKETS: usize = 32;

/// A socket or file as a field of a message, at any depth. Sending the message moves it to the receiver's process: the sender's
/// copy is closed when `send` has returned `Ok`; whatever fails, the message comes back with its sockets inside.
///
/// ```
/// # use rclust_core::Socket;
/// # use tokio::net::TcpStream;
/// #[derive(Debug, serde::Serialize, serde::Deserialize)]
/// enum Job {
///     /// The connection, and what was read of it already.
///     Serve { client: Socket<TcpStream>, read: Vec<u8> },
/// }
/// ```
///
/// What a worker that dies had taken dies with it; a message that still waits keeps its sockets, and the next incarnation gets
/// them. A message with sockets is never redelivered: taking consumes. At most [`SOCKETS`] go with one message.
///
/// Serializing one is only possible as part of a message that is being sent.
///
/// # Source
/// `SCM_RIGHTS` in `unix(7)`.
pub struct Socket<T> {
    cell: Arc<Cell<T>>,
}

impl<T: Transfer> Socket<T> {
    /// Makes it a field.
    pub fn new(inner: T) -> Socket<T> {
        Socket { cell: Arc::new(Cell(Mutex::new(Some(inner)))) }
    }

    /// Takes the socket out.
    ///
    /// # Panics
    /// Never for a socket that a message brought or that [`Socket::new`] made: only a message that was sent has lost its sockets,
    /// and it is gone.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.cell.0.lock().take().expect("only sending takes a socket out, and that consumes the message")
    }
}

impl<T: Transfer> From<T> for Socket<T> {
    fn from(inner: T) -> Socket<T> {
        Socket::new(inner)
    }
}

impl<T> fmt::Debug for Socket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.cell.0.lock().is_some() { "Socket" } else { "Socket(sent)" })
    }
}

impl<T: Transfer> Serialize for Socket<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.cell.0.lock().is_none() {
            return Err(S::Error::custom(payload::refuse("a socket that was already sent")));
        }
        let index = payload::note_socket(self.cell.clone()).map_err(S::Error::custom)?;
        index.serialize(serializer)
    }
}

impl<'de, T: Transfer> Deserialize<'de> for Socket<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Socket<T>, D::Error> {
        if payload::is_tracing() {
            schema::name::<T, D>("rclust::Socket", deserializer)?;
            return Ok(Socket { cell: Arc::new(Cell(Mutex::new(None))) });
        }
        let index = u8::deserialize(deserializer)?;
        let fd = payload::take_socket(index).map_err(D::Error::custom)?;
        // Another process may have sent anything; or this one may not have a runtime where it decodes.
        T::from_fd(fd)
            .map(Socket::new)
            .map_err(|_| D::Error::custom(payload::refuse("a socket of another kind than the message says")))
    }
}

/// Where a socket's value is, shared between the message and the scope that encodes it.
struct Cell<T>(Mutex<Option<T>>);

/// A socket that is about to leave.
pub(crate) trait Held: Send {
    fn fd(&self) -> BorrowedFd<'_>;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: Transfer> Held for T {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_descriptor()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A cell whose type is not known.
pub(crate) trait Carried: Send + Sync {
    /// Takes the socket out, to be sent.
    fn depart(&self) -> Option<Box<dyn Held>>;
    /// It was not sent.
    fn come_back(&self, held: Box<dyn Held>);
}

impl<T: Transfer> Carried for Cell<T> {
    fn depart(&self) -> Option<Box<dyn Held>> {
        Some(Box::new(self.0.lock().take()?))
    }

    fn come_back(&self, held: Box<dyn Held>) {
        if let Ok(inner) = held.into_any().downcast::<T>() {
            *self.0.lock() = Some(*inner);
        }
    }
}

/// What a [`Socket`] can carry: the sockets of tokio and std, streams of `rclust-net`, `File`, `OwnedFd`. Its methods are ours.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in a `Socket`",
    note = "a `Socket` carries the sockets of `tokio::net` and `std::net`, those of `std::os::unix::net`, streams of `cluster::net`, `std::fs::File` and `OwnedFd`"
)]
pub trait Transfer: Sized + Send + 'static {
    /// Its descriptor.
    #[doc(hidden)]
    fn as_descriptor(&self) -> BorrowedFd<'_>;
    /// Makes it of a descriptor that arrived (and may be anything). A tokio socket is registered with the current runtime.
    #[doc(hidden)]
    fn from_fd(fd: OwnedFd) -> io::Result<Self>;
}

/// What kinds of socket a type stands for: another process may send anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Inet,
    Unix,
}

/// Whether a descriptor is the socket that the type promises.
fn check(fd: &OwnedFd, family: Family, kind: SocketType, listens: bool) -> io::Result<()> {
    let domain = sockopt::socket_domain(fd)?;
    let of_family = match family {
        Family::Inet => domain == AddressFamily::INET || domain == AddressFamily::INET6,
        Family::Unix => domain == AddressFamily::UNIX,
    };
    if of_family && sockopt::socket_type(fd)? == kind && sockopt::socket_acceptconn(fd)? == listens {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is a socket of another kind"))
    }
}

macro_rules! plain {
    ($($kind:ty: $family:ident $type:ident $listens:literal),*) => {$(
        impl Transfer for $kind {
            fn as_descriptor(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }
            fn from_fd(fd: OwnedFd) -> io::Result<Self> {
                check(&fd, Family::$family, SocketType::$type, $listens)?;
                // The open file description is shared with whoever had it before: a blocking type must find it blocking.
                rustix::io::ioctl_fionbio(&fd, false)?;
                Ok(fd.into())
            }
        }
    )*};
}

macro_rules! of_tokio {
    ($($kind:ty: $std:ty: $family:ident $type:ident $listens:literal),*) => {$(
        impl Transfer for $kind {
            fn as_descriptor(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }
            fn from_fd(fd: OwnedFd) -> io::Result<Self> {
                check(&fd, Family::$family, SocketType::$type, $listens)?;
                rustix::io::ioctl_fionbio(&fd, true)?;
                Self::from_std(<$std>::from(fd))
            }
        }
    )*};
}

plain!(
    std::net::TcpStream: Inet STREAM false,
    std::net::TcpListener: Inet STREAM true,
    std::net::UdpSocket: Inet DGRAM false,
    std::os::unix::net::UnixStream: Unix STREAM false,
    std::os::unix::net::UnixListener: Unix STREAM true,
    std::os::unix::net::UnixDatagram: Unix DGRAM false
);
of_tokio!(
    tokio::net::TcpStream: std::net::TcpStream: Inet STREAM false,
    tokio::net::TcpListener: std::net::TcpListener: Inet STREAM true,
    tokio::net::UdpSocket: std::net::UdpSocket: Inet DGRAM false,
    tokio::net::UnixStream: std::os::unix::net::UnixStream: Unix STREAM false,
    tokio::net::UnixListener: std::os::unix::net::UnixListener: Unix STREAM true,
    tokio::net::UnixDatagram: std::os::unix::net::UnixDatagram: Unix DGRAM false
);

impl Transfer for std::fs::File {
    fn as_descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(fd.into())
    }
}

impl Transfer for OwnedFd {
    fn as_descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(fd)
    }
}
