//! Where the workers of a cluster run: in processes, or (`testing`) in threads of this one. What follows from it is here.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::child_spec::Launch;
use crate::error::StartError;
use crate::process::spawn::{self, Begun, Dress, Order, Program};
use crate::process::thread::Thread;
use crate::worker::Role;

/// Starts a thread of this name that plays a role at the other end of this control link.
pub(crate) type Play = dyn Fn(String, Role, OwnedFd) -> io::Result<Arc<Thread>> + Send + Sync;

/// See the module.
pub(crate) enum Ground {
    /// In processes of this program, which can play these roles.
    Processes { program: Program, roles: Vec<Role> },
    /// In threads of this process. Any role: it is here already.
    Threads(Arc<Play>),
}

impl Ground {
    /// Whether the cluster is this process's own: its signals, its identity, its end.
    pub(crate) fn has_process(&self) -> bool {
        matches!(self, Ground::Processes { .. })
    }

    /// Refuses what cannot be run here.
    pub(crate) fn check(&self, child: &str, launch: &Launch) -> Result<(), StartError> {
        let child = child.to_owned();
        match self {
            Ground::Processes { roles, .. } if !roles.iter().any(|role| (role.id)() == (launch.role.id)()) => {
                let listed: Vec<&str> = roles.iter().map(|role| (role.name)()).collect();
                let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
                Err(StartError::UnknownRole { child, role: (launch.role.name)().to_owned(), listed })
            }
            Ground::Processes { .. } => launch.process.check().map_err(|error| StartError::Process { child, error }),
            Ground::Threads(_) => match launch.needs_process() {
                Some(setting) => Err(StartError::NeedsProcess { child, setting }),
                None => Ok(()),
            },
        }
    }

    /// The program that was started, where workers are processes.
    pub(crate) fn program(&self) -> Option<&Program> {
        match self {
            Ground::Processes { program, .. } => Some(program),
            Ground::Threads(_) => None,
        }
    }

    /// How a worker is started; `newer`: with this program in place of the first one.
    pub(crate) fn order(&self, name: String, launch: &Launch, newer: Option<Program>, dress: Dress) -> Order {
        match self {
            Ground::Processes { program, .. } => {
                let program = newer.unwrap_or_else(|| program.clone());
                // The terminal is the foreground group's: a worker that inherits it stays in the supervisor's.
                let own_group = !launch.stdin;
                Box::new(move |link| spawn::process(&program, link, own_group, dress))
            }
            Ground::Threads(play) => {
                let (play, role) = (play.clone(), launch.role);
                Box::new(move |link| Ok(Begun::Thread(play(name, role, link)?)))
            }
        }
    }
}
