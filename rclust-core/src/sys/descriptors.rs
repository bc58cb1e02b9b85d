//! Descriptors: socket pairs, doorbells, and messages that carry descriptors. All close-on-exec.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// How many descriptors one message may carry here (the kernel's limit is 253, SCM_MAX_FD).
pub(crate) const MAX_DESCRIPTORS: usize = 40;

const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Makes a connected pair of non-blocking Unix sockets.
pub fn socket_pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Rings a doorbell. Full means that it has been rung already. `false`: it will never ring again, because an end is closed or
/// somebody shut it down.
pub(crate) fn ring(bell: impl AsFd) -> bool {
    // MSG_DONTWAIT holds even where a peer took O_NONBLOCK away.
    let rung = rustix::net::send(bell, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    !matches!(rung, Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN))
}

/// Takes all that rang. `Ok(false)`: the other end is closed for good.
pub(crate) fn hush(bell: impl AsFd) -> io::Result<bool> {
    let mut sink = [0; 256];
    loop {
        match rustix::net::recv(&bell, &mut sink[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(false),
            Ok((n, _)) if n == sink.len() => {}
            Ok(_) => return Ok(true),
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends bytes with descriptors beside them, without waiting. Returns how many bytes went; the descriptors go with
/// the first.
pub fn send_with(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && (fds.len() > MAX_DESCRIPTORS || !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// What one [`receive_with`] brought.
pub struct Received {
    /// How many bytes; 0 on a stream or after the last packet: the other end is closed.
    pub bytes: usize,
    /// Whether the kernel had to drop descriptors (this process is at its limit).
    pub truncated: bool,
}

/// Receives bytes and the descriptors beside them. They are close-on-exec from the first moment.
pub fn receive_with(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok(Received { bytes: message.bytes, truncated: message.flags.contains(ReturnFlags::CTRUNC) })
}

/// Marks every descriptor above standard error close-on-exec, so that no child gets one by accident.
///
/// What this process was started with (a shell's or a service manager's leftovers) would otherwise go on to workers.
pub(crate) fn close_inherited_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        if number > 2 {
            // SAFETY: the descriptor was open a moment ago; nothing is closed through this borrow, and a number that
            // was closed or reused meanwhile gets at worst a flag that every descriptor here is meant to have.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            match rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC) {
                Ok(()) | Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
