//! The end of a process to an `ExitReason`, exactly once.
//!
//! Only our own children are waited for, each by its own descriptor, never `waitpid(-1)`: the user's children are theirs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use crate::exit::{self, ExitReason};
use crate::process::spawn::Begun;
use crate::process::thread::Thread;
use crate::sys::readiness;
use crate::wire::control::Ending;

/// What the kernel said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Code(i32),
    Signal { signal: i32, core: bool },
    Unknown,
}

/// One worker's process (or thread): to be waited for and, if need be, killed.
#[derive(Clone)]
pub(crate) enum Watched {
    /// A child process.
    Process { pid: Pid, pidfd: Option<Arc<AsyncFd<OwnedFd>>>, kill_group: bool },
    /// A thread that plays one.
    Thread(Arc<Thread>),
}

impl Watched {
    pub(crate) fn new(begun: Begun, kill_group: bool) -> io::Result<Watched> {
        match begun {
            Begun::Process { pid, pidfd } => {
                let pidfd = pidfd.map(readiness::register_readable).transpose()?.map(Arc::new);
                Ok(Watched::Process { pid, pidfd, kill_group })
            }
            Begun::Thread(thread) => Ok(Watched::Thread(thread)),
        }
    }

    /// The process that it is, or is in.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Watched::Process { pid, .. } => pid.as_raw_nonzero().get().unsigned_abs(),
            Watched::Thread(_) => std::process::id(),
        }
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        // It may have ended already.
        let _ = self.signal(exit::Signal::KILL);
    }

    /// Sends it a signal. Until it has been waited for, its pid is its own.
    pub(crate) fn signal(&self, signal: exit::Signal) -> io::Result<()> {
        match self {
            Watched::Process { pid, pidfd, .. } => {
                let signal = Signal::from_named_raw(signal.number()).ok_or(Errno::INVAL)?;
                match pidfd {
                    Some(pidfd) => rustix::process::pidfd_send_signal(pidfd.get_ref(), signal)?,
                    None => rustix::process::kill_process(*pid, signal)?,
                }
                Ok(())
            }
            Watched::Thread(thread) if signal == exit::Signal::KILL => {
                thread.end(Status::Signal { signal: libc::SIGKILL, core: false });
                Ok(())
            }
            Watched::Thread(_) => {
                let why = "this worker is a thread (in-process mode), which SIGKILL alone can be sent to";
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Status {
        match self {
            Watched::Process { pid, pidfd: Some(pidfd), kill_group } => {
                // An error of the readiness itself cannot be waited out; the wait below then holds for a moment.
                let _ = pidfd.readable().await;
                if *kill_group {
                    // It has ended and was not collected: until then nobody else can have its group's number.
                    let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
                }
                wait(WaitId::PidFd(pidfd.get_ref().as_fd()))
            }
            Watched::Process { pid, .. } => {
                let pid = *pid;
                tokio::task::spawn_blocking(move || wait(WaitId::Pid(pid))).await.unwrap_or(Status::Unknown)
            }
            Watched::Thread(thread) => thread.ended().await,
        }
    }
}

fn wait(id: WaitId<'_>) -> Status {
    loop {
        match rustix::process::waitid(id.clone(), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Status::Code(code),
                    (_, Some(signal)) => Status::Signal { signal, core: status.dumped() },
                    _ => Status::Unknown,
                };
            }
            Err(Errno::INTR) => {}
            // ECHILD: somebody else has waited for it.
            Ok(None) | Err(_) => return Status::Unknown,
        }
    }
}

/// Puts the kernel's word and the worker's own together. The kernel's decides the kind; `asked`: we told it to stop.
pub(crate) fn reason(status: Status, word: Option<Ending>, asked: bool) -> ExitReason {
    match (status, word) {
        (Status::Unknown, _) => ExitReason::Unknown,
        (Status::Signal { signal, core }, Some(Ending::Panic { message, location, backtrace }))
            if signal == libc::SIGABRT =>
        {
            let _ = core;
            ExitReason::Panic { message, location, backtrace }
        }
        (Status::Signal { signal, core }, _) => ExitReason::Signal { signal, core },
        (Status::Code(0), Some(Ending::Shutdown)) => ExitReason::Shutdown,
        (Status::Code(0), Some(Ending::ShutdownWith(word))) => ExitReason::ShutdownWith(word),
        (Status::Code(0), Some(Ending::Declined)) => ExitReason::Ignored,
        (Status::Code(0), _) if asked => ExitReason::Shutdown,
        (Status::Code(0), _) => ExitReason::Normal,
        (Status::Code(_), Some(Ending::Error(text))) => ExitReason::Error(text),
        (Status::Code(_), Some(Ending::Panic { message, location, backtrace })) => {
            ExitReason::Panic { message, location, backtrace }
        }
        (Status::Code(code), _) => ExitReason::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_decides_and_the_workers_explains() {
        let panic = || Some(Ending::Panic { message: "m".into(), location: None, backtrace: None });
        let cases = [
            (Status::Code(0), None, false, "normal"),
            (Status::Code(0), None, true, "shutdown"),
            (Status::Code(0), Some(Ending::Shutdown), false, "shutdown"),
            (Status::Code(0), Some(Ending::Error("lies".into())), false, "normal"),
            (Status::Code(1), Some(Ending::Error("no key".into())), true, "error: no key"),
            (Status::Code(101), panic(), false, "panic: m"),
            (Status::Code(42), None, false, "exit code 42"),
            (Status::Code(42), Some(Ending::Normal), false, "exit code 42"),
            (Status::Signal { signal: 6, core: true }, panic(), false, "panic: m"),
            (Status::Signal { signal: 11, core: true }, None, false, "killed by SIGSEGV, core dumped"),
            (Status::Signal { signal: 9, core: false }, Some(Ending::Normal), true, "killed by SIGKILL"),
        ];
        for (status, word, asked, text) in cases {
            let shown = format!("{status:?} {word:?}");
            assert_eq!(reason(status, word, asked).to_string(), text, "{shown}");
        }
        assert_eq!(reason(Status::Unknown, None, true), ExitReason::Unknown);
    }
}
