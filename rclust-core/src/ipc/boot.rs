//! What a new process is told first, and what it checks before it believes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::ipc::link::WorkerReader;
use crate::process::role::RoleError;
use crate::sys::link::Socket;
use crate::sys::{identity, process};
use crate::wire::control::{BootMessage, ToWorker};

/// A worker's first moments: the link, and who it is.
pub(crate) struct Booted {
    pub(crate) socket: Arc<Socket>,
    pub(crate) reader: WorkerReader,
    pub(crate) message: BootMessage,
    pub(crate) stdin: Option<OwnedFd>,
}

/// Reads the boot message from the link that came as fd 0, and checks that both sides run the same program.
pub(crate) fn receive(link: OwnedFd) -> Result<Booted, RoleError> {
    let socket = Arc::new(Socket::new(link));
    let mut reader = WorkerReader::new(socket.clone());
    let (message, mut fds) = match reader.next_blocking::<ToWorker>() {
        Ok((ToWorker::Boot(message), fds)) => (*message, fds),
        Ok(_) => return Err(RoleError::Boot(io::Error::other("the first frame is no boot message"))),
        Err(error) => return Err(RoleError::Boot(error)),
    };
    let own = identity::own_identity().map_err(RoleError::Boot)?;
    if own != message.identity {
        return Err(RoleError::OtherProgram);
    }
    let stdin = if message.stdin { fds.pop() } else { None };
    Ok(Booted { socket, reader, message, stdin })
}

/// Makes the process what the boot message says, before any of the user's code runs.
pub(crate) fn apply(booted: &mut Booted) -> Result<(), RoleError> {
    let message = &booted.message;
    let (soft, hard) = message.descriptors;
    process::set_descriptor_limit(soft, hard).map_err(RoleError::Settings)?;
    // Both are courtesies: a container may forbid the first, and a name is only seen by people.
    let _ = process::volunteer_for_oom(300);
    let _ = process::set_name(&message.name);
    if let Some(stdin) = booted.stdin.take() {
        process::set_stdin(stdin).map_err(RoleError::Settings)?;
    }
    process::die_with_parent().map_err(RoleError::Settings)?;
    if process::parent() != message.supervisor {
        return Err(RoleError::Orphan);
    }
    Ok(())
}

/// The process id on the other side of a Unix socket, as the kernel noted it when the pair was made.
pub(crate) fn peer_of(socket: impl AsFd) -> io::Result<u32> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
}
