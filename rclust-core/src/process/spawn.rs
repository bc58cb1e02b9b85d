//! Starts this binary again as a worker: by `posix_spawn`, never by fork, on a thread that does nothing else.
//!
//! `std::process::Command` takes the `posix_spawn` way as long as no `pre_exec`, `uid` or `gid` is set, so that the cost
//! does not follow the supervisor's heap. The kernel sends the parent-death signal when the *thread* that started a
//! process ends: this one lives as long as the supervisor.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::fs::{Access, AtFlags};
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags};

use crate::id::WorkerId;
use crate::process::role::MARK;
use crate::process::thread::Thread;
use crate::sys::descriptors;
use crate::sys::identity::{self, Identity};

/// What to run: the program's file, and how it was called.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// An O_PATH descriptor: replacing the file at its path does not change what is run.
    pub(crate) file: Arc<OwnedFd>,
    /// What it is.
    pub(crate) identity: Identity,
    /// Where it was started from: a reload runs what stands there then. Symbolic links in it are not resolved before.
    pub(crate) path: Arc<Path>,
    pub(crate) arg0: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) depth: u32,
}

impl Program {
    /// This process's own program, as it was called.
    pub(crate) fn own() -> io::Result<Program> {
        let exe = Path::new("/proc/self/exe");
        let file = identity::open_program(exe)
            .map_err(|error| io::Error::new(error.kind(), format!("/proc/self/exe: {error}; rclust needs /proc")))?;
        let identity = Identity::of(&file)?;
        let mut args = std::env::args_os();
        let arg0 = args.next().unwrap_or_else(|| "rclust".into());
        let path = called_as(&arg0, identity).or_else(|| std::fs::read_link(exe).ok()).unwrap_or_default();
        Ok(Program { file: Arc::new(file), identity, path: path.into(), arg0, args: args.collect(), depth: 1 })
    }

    /// The program that stands at this one's path now.
    pub(crate) fn reopen(&self) -> io::Result<Program> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        let file = identity::open_program(&self.path).map_err(named)?;
        rustix::fs::accessat(rustix::fs::CWD, &*self.path, Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| named(error.into()))?;
        let identity = Identity::of(&file)?;
        Ok(Program { file: Arc::new(file), identity, ..self.clone() })
    }
}

/// The absolute path by which a program was called, if it leads to this program.
fn called_as(arg0: &OsStr, identity: Identity) -> Option<PathBuf> {
    let leads_here = |path: &PathBuf| {
        let file = identity::open_program(path).ok();
        file.and_then(|file| Identity::of(file).ok()).is_some_and(|found| found == identity)
    };
    let called = Path::new(arg0);
    if called.components().nth(1).is_some() || called.is_absolute() {
        return std::path::absolute(called).ok().filter(leads_here);
    }
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).filter_map(|folder| std::path::absolute(folder.join(called)).ok());
    found.find(leads_here)
}

/// What a process is started with that is not as the supervisor's.
#[derive(Default)]
pub(crate) struct Dress {
    pub(crate) env_clear: bool,
    /// In this order; `None`: taken out.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    /// Instead of the program's own arguments.
    pub(crate) argv: Option<Vec<OsString>>,
    pub(crate) stdout: Place,
    pub(crate) stderr: Place,
}

/// Where an output goes.
#[derive(Default)]
pub(crate) enum Place {
    /// Where the supervisor's goes.
    #[default]
    Inherit,
    /// /dev/null.
    Null,
    /// The writing end of a pipe.
    Pipe(OwnedFd),
}

impl Place {
    fn stdio(self) -> Stdio {
        match self {
            Place::Inherit => Stdio::inherit(),
            Place::Null => Stdio::null(),
            Place::Pipe(pipe) => Stdio::from(pipe),
        }
    }
}

/// What was started.
pub(crate) enum Begun {
    /// A process; without a pidfd, where the system refuses those.
    Process { pid: Pid, pidfd: Option<OwnedFd> },
    /// A thread that plays one.
    Thread(Arc<Thread>),
}

/// A started worker, and the supervisor's end of its control link.
pub(crate) struct Started {
    pub(crate) begun: Begun,
    pub(crate) link: OwnedFd,
}

/// Starts one worker, which gets this end of its control link.
pub(crate) type Order = Box<dyn FnOnce(OwnedFd) -> io::Result<Begun> + Send>;

/// The outcome of one order.
pub(crate) struct Spawned {
    pub(crate) worker: WorkerId,
    pub(crate) outcome: io::Result<Started>,
}

/// The *spawn* thread's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<(WorkerId, Order)>,
    /// Orders that are wanted no more, and have not been carried out.
    cancelled: Arc<Mutex<HashSet<WorkerId>>>,
}

impl Spawner {
    /// Starts the thread; `report` is called on it, once for each order. `for_ever`: it must not end before the process.
    pub(crate) fn start(for_ever: bool, report: impl Fn(Spawned) + Send + 'static) -> io::Result<Spawner> {
        let (sender, orders) = mpsc::channel::<(WorkerId, Order)>();
        let cancelled = Arc::<Mutex<HashSet<WorkerId>>>::default();
        let unwanted = cancelled.clone();
        std::thread::Builder::new().name("rclust-spawn".to_owned()).stack_size(256 << 10).spawn(move || {
            for (worker, order) in orders {
                let outcome = if unwanted.lock().remove(&worker) {
                    Err(io::Error::other("it was wanted no more before it was started"))
                } else {
                    begin(order)
                };
                report(Spawned { worker, outcome });
            }
            // The tree has ended. The thread must not: its end would be every remaining child's death signal.
            if for_ever {
                loop {
                    std::thread::park();
                }
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

    /// Orders a worker. `false`: the thread is gone.
    pub(crate) fn order(&self, worker: WorkerId, order: Order) -> bool {
        self.orders.send((worker, order)).is_ok()
    }
}

fn begin(order: Order) -> io::Result<Started> {
    let (link, theirs) = descriptors::socket_pair(SocketType::STREAM)?;
    Ok(Started { begun: order(theirs)?, link })
}

/// Starts a process, in a group of its own or (to be able to read the terminal) in the supervisor's.
pub(crate) fn process(program: &Program, theirs: OwnedFd, own_group: bool, dress: Dress) -> io::Result<Begun> {
    let mut command = Command::new(format!("/proc/self/fd/{}", program.file.as_raw_fd()));
    command.arg0(&program.arg0).args(dress.argv.as_ref().unwrap_or(&program.args));
    if dress.env_clear {
        command.env_clear();
    }
    for (name, value) in &dress.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env(MARK, program.depth.to_string());
    command.stdin(Stdio::from(theirs)).stdout(dress.stdout.stdio()).stderr(dress.stderr.stdio());
    if own_group {
        command.process_group(0);
    }
    // The child is waited for by its pidfd; dropping std's handle neither waits nor kills.
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    Ok(Begun::Process { pid, pidfd })
}
