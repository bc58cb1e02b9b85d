//! Starts this binary again as a worker: by `posix_spawn`, never by fork, on a thread that does nothing else.
//!
//! `std::process::Command` takes the `posix_spawn` way as long as no `pre_exec`, `uid` or `gid` is set, so that the cost
//! does not follow the supervisor's heap. The kernel sends the parent-death signal when the *thread* that started a
//! process ends: this one lives as long as the supervisor.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags};

use crate::id::WorkerId;
use crate::process::role::MARK;
use crate::sys::descriptors;

/// What to run: the program's file, and how it was called.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// An O_PATH descriptor: replacing the file at its path does not change what is run.
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) arg0: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) depth: u32,
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// `None`: the system refuses pidfds.
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) link: OwnedFd,
}

/// The outcome of one order.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) worker: WorkerId,
    pub(crate) outcome: io::Result<Started>,
}

/// The *spawn* thread's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<(WorkerId, bool)>,
    /// Orders that are wanted no more, and have not been carried out.
    cancelled: Arc<Mutex<HashSet<WorkerId>>>,
}

impl Spawner {
    /// Starts the thread; `report` is called on it, once for each order.
    pub(crate) fn start(program: Program, report: impl Fn(Spawned) + Send + 'static) -> io::Result<Spawner> {
        let (sender, orders) = mpsc::channel::<(WorkerId, bool)>();
        let cancelled = Arc::<Mutex<HashSet<WorkerId>>>::default();
        let unwanted = cancelled.clone();
        std::thread::Builder::new().name("rclust-spawn".to_owned()).stack_size(256 << 10).spawn(move || {
            for (worker, own_group) in orders {
                let outcome = if unwanted.lock().remove(&worker) {
                    Err(io::Error::other("it was wanted no more before it was started"))
                } else {
                    spawn(&program, own_group)
                };
                report(Spawned { worker, outcome });
            }
            // The tree has ended. The thread must not: its end would be every remaining child's death signal.
            loop {
                std::thread::park();
            }
        })?;
        Ok(Spawner { orders: sender, cancelled })
    }

    /// Takes an order back, if it has not been carried out; it is reported as failed then.
    pub(crate) fn cancel(&self, worker: WorkerId) {
        self.cancelled.lock().insert(worker);
    }

    /// An order was reported: there is nothing to take back any more.
    pub(crate) fn reported(&self, worker: WorkerId) {
        self.cancelled.lock().remove(&worker);
    }

    /// Orders a process, in a group of its own or (to be able to read the terminal) in the supervisor's. `false`: the thread
    /// is gone.
    pub(crate) fn order(&self, worker: WorkerId, own_group: bool) -> bool {
        self.orders.send((worker, own_group)).is_ok()
    }
}

fn spawn(program: &Program, own_group: bool) -> io::Result<Started> {
    let (link, theirs) = descriptors::socket_pair(SocketType::STREAM)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.file.as_raw_fd()));
    command.arg0(&program.arg0).args(&program.args).env(MARK, program.depth.to_string());
    command.stdin(Stdio::from(theirs));
    if own_group {
        command.process_group(0);
    }
    // The child is waited for by its pidfd; dropping std's handle neither waits nor kills.
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    Ok(Started { pid, pidfd, link })
}
