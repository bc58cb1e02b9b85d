//! Descriptors whose readiness tokio watches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::link::Socket;

/// A type that owns its descriptor.
///
/// # Safety
/// `as_raw_fd` returns the same open descriptor for as long as the value lives.
pub unsafe trait Owns: AsRawFd {}

// SAFETY: it owns one descriptor and has no way to exchange it.
unsafe impl Owns for OwnedFd {}
// SAFETY: the same; the stream inside is never replaced.
unsafe impl Owns for Socket {}
// SAFETY: an `Arc` lives as long as what it points to, and gives no mutable access that could exchange it.
unsafe impl<T: Owns> Owns for Arc<T> {}

/// Registers a descriptor with the current runtime for reading alone: that a socket can be written again wakes nobody.
pub fn register_readable<T: Owns>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: as in `register`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Registers a listening socket with the current runtime for its end alone (EPOLLHUP, which is always told). It can never be written,
/// and what a new client wakes (EPOLLIN and EPOLLPRI, in one) does not wake this. Wait by `writable()`.
pub fn register_hangup<T: Owns>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: as in `register`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE) }?)
}

/// Registers a descriptor with the current runtime.
pub(crate) fn register<T: Owns>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor stays open and the same as long as `fd` lives (`Owns`), which the `AsyncFd` owns.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
