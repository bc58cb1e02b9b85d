//! Steering a group of SO_REUSEPORT sockets.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::steer::Instruction;

/// Attaches a program that names the socket of the group (by its place, in the order in which they began to listen) which gets a
/// connection. It replaces the one before.
///
/// # Source
/// `SO_ATTACH_REUSEPORT_CBPF` in `socket(7)`.
pub(crate) fn steer(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let mut filters: Vec<libc::sock_filter> = program
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.if_true,
            jf: instruction.if_false,
            k: instruction.value,
        })
        .collect();
    let len = u16::try_from(filters.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let attached = libc::sock_fprog { len, filter: filters.as_mut_ptr() };
    // SAFETY: the descriptor is open (`AsFd`); `attached` and the `len` filters that it points to live until the call returns;
    // the kernel copies and checks them, and keeps no pointer.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const attached).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
