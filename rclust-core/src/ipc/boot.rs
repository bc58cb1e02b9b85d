//! What a new process is told first, and what it checks before it believes it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::ipc::link::WorkerReader;
use crate::process::role::RoleError;
use crate::sys::link::Socket;
use crate::sys::{applied, identity, process};
use crate::wire::applied::Applied;
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
    apply_settings(&message.applied).map_err(RoleError::Process)?;
    // After a change of the user, which takes this back (prctl(2)).
    process::die_with_parent().map_err(RoleError::Settings)?;
    if process::parent() != message.supervisor {
        return Err(RoleError::Orphan);
    }
    Ok(())
}

/// Address space that a worker needs beside what its program has mapped when it boots.
const LEAST_SPACE: u64 = 32 << 20;

/// What the child's description asks for, in its order: rights go last.
fn apply_settings(settings: &Applied) -> Result<(), String> {
    let Applied { address_space, open_files, core, nice, cpus, directory, groups, gid, uid } = settings;
    if settings.is_per_thread() {
        let threads = applied::threads().map_err(|error| format!("its threads cannot be counted: {error}"))?;
        if threads > 1 {
            return Err(format!(
                "niceness, CPUs, user and groups are a thread's, and this process has {threads} already: start none before rclust::boot"
            ));
        }
    }
    if let Some(bytes) = *address_space {
        let least = applied::address_space().unwrap_or(0) + LEAST_SPACE;
        if bytes < least {
            return Err(format!("address_space({bytes}) is too little to begin with: say at least {least}"));
        }
        named(format_args!("address_space({bytes})"), applied::limit_address_space(bytes))?;
    }
    if let Some(count) = *open_files {
        named(format_args!("open_files({count})"), applied::limit_open_files(count))?;
    }
    if let Some(bytes) = *core {
        named(format_args!("core({bytes})"), applied::limit_core(bytes))?;
    }
    if let Some(nice) = *nice {
        named(format_args!("nice({nice})"), applied::set_nice(nice))?;
    }
    if let Some(cpus) = cpus {
        let usable = match applied::set_cpus(cpus) {
            // `sched_setaffinity(2)`: none of them is there, or none is allowed.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(BTreeSet::new()),
            outcome => outcome,
        };
        let usable = named(format_args!("cpus({cpus:?})"), usable)?;
        if usable.is_empty() {
            let now = named(format_args!("cpus({cpus:?})"), applied::cpus())?;
            return Err(format!(
                "cpus({cpus:?}): this machine or container has none of these for it; it runs on {now:?}"
            ));
        }
        if usable != *cpus {
            return Err(format!(
                "cpus({cpus:?}): of these this machine or container lets it use only {usable:?}: name those"
            ));
        }
    }
    if let Some(directory) = directory {
        match applied::set_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(format!(
                    "directory({directory:?}): the supervisor's user may not enter it, and it is entered before a change of user: let it, or \
                     name another"
                ));
            }
            outcome => named(format_args!("directory({directory:?})"), outcome)?,
        }
    }
    if let Some(groups) = groups {
        named(format_args!("groups({groups:?})"), applied::set_groups(groups))?;
    }
    if let Some(gid) = *gid {
        named(format_args!("gid({gid})"), applied::set_gid(gid))?;
    }
    if let Some(uid) = *uid {
        named(format_args!("uid({uid})"), applied::set_uid(uid))?;
    }
    Ok(())
}

fn named<T>(setting: std::fmt::Arguments<'_>, outcome: io::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("{setting}: {error}"))
}

/// The process id on the other side of a Unix socket, as the kernel noted it when the pair was made.
pub(crate) fn peer_of(socket: impl AsFd) -> io::Result<u32> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
}
