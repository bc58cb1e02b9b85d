//! Am I the supervisor, or slot 3 in incarnation 7? Decided before any of the user's code.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::sockopt;

use crate::ipc::boot::peer_of;
use crate::sys::process;

/// The mark of a worker in its environment: the depth of its cluster. Taken out again at boot.
pub(crate) const MARK: &str = "RCLUST_WORKER_DEPTH";

/// The largest depth; a program that starts itself without end stops here.
pub(crate) const DEEPEST: u32 = 8;

/// What this process is, for the `init` function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessRole {
    /// The supervisor.
    Supervisor,
    /// A worker.
    Worker {
        /// Its path in the tree, `name[index]` for a pool's member.
        name: String,
        /// Its place in its pool, 0 outside one.
        index: usize,
        /// Which process of its slot it is; the first is 1.
        incarnation: u32,
    },
}

/// Why a process refuses the role that its environment claims.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    /// The mark is not one.
    #[error("{MARK} is `{0}`: that variable is rclust's own, remove it from the environment")]
    Mark(String),
    /// Too deep.
    #[error("{MARK} is {0}, the deepest allowed is {DEEPEST}: does this program start itself without end?")]
    TooDeep(u32),
    /// fd 0 is no link.
    #[error(
        "{MARK} is set, but standard input is not the control link of a supervisor ({0}): remove it from the environment"
    )]
    NoLink(io::Error),
    /// fd 0 is somebody else's.
    #[error("{MARK} is set, but the process at the other end of standard input ({peer}) is not the parent ({parent})")]
    NotParent { peer: u32, parent: u32 },
    /// No boot message.
    #[error("the supervisor's boot message did not come: {0}")]
    Boot(io::Error),
    /// Another build.
    #[error("this process runs another program than its supervisor: the file was replaced between start and exec")]
    OtherProgram,
    /// The supervisor died meanwhile.
    #[error("the supervisor died while this worker was starting")]
    Orphan,
    /// A setting cannot be applied.
    #[error("a setting of this worker cannot be applied: {0}")]
    Settings(io::Error),
    /// A setting of the child's cannot be applied; which, and what to do.
    #[error("its process cannot be as it is described: {0}")]
    Process(String),
}

/// What the environment says this process is.
pub(crate) enum Claim {
    /// No mark.
    Supervisor,
    /// Process 1 of a container or namespace: an init first.
    Init,
    /// A worker, with its control link.
    Worker { link: OwnedFd },
}

/// Looks at mark, standard input and parent.
pub(crate) fn claim() -> Result<Claim, RoleError> {
    let Some(mark) = process::take_env(MARK) else {
        return Ok(if std::process::id() == 1 { Claim::Init } else { Claim::Supervisor });
    };
    let depth: u32 = mark.parse().map_err(|_| RoleError::Mark(mark.clone()))?;
    if depth == 0 {
        return Err(RoleError::Mark(mark));
    }
    if depth > DEEPEST {
        return Err(RoleError::TooDeep(depth));
    }
    let stdin = rustix::stdio::stdin();
    sockopt::socket_type(stdin).map_err(|error| RoleError::NoLink(error.into()))?;
    let peer = peer_of(stdin).map_err(RoleError::NoLink)?;
    let parent = process::parent();
    if peer != parent || parent == 0 {
        return Err(RoleError::NotParent { peer, parent });
    }
    Ok(Claim::Worker { link: process::take_stdin().map_err(RoleError::NoLink)? })
}
