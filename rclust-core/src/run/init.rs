//! Process 1 of a container: a minimal init that starts this program as the supervisor, forwards signals, and reaps.
//!
//! The kernel gives process 1 no default signal actions and every orphan of the container. The supervisor proper waits for
//! its own workers only, so somebody else has to be process 1. When this one ends, the kernel ends everything in it.

use std::io;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::background;
use crate::process::spawn::Program;

/// Runs until the supervisor has ended; its exit code (128 + the signal's number, if one ended it) is the result.
pub(crate) fn run(program: &Program) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(program))
}

async fn serve(program: &Program) -> io::Result<ExitCode> {
    let forwarded = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::from_raw(Signal::TTIN.as_raw()), Signal::TTIN),
        (SignalKind::from_raw(Signal::TTOU.as_raw()), Signal::TTOU),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
    ];
    // Handlers first: no signal is lost between the start and here.
    let mut ended = signal(SignalKind::child())?;
    let (sender, mut asked) = tokio::sync::mpsc::channel(16);
    for (kind, number) in forwarded {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        background::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    use std::os::unix::process::CommandExt;
    let file = std::os::fd::AsRawFd::as_raw_fd(&*program.file);
    let child = Command::new(format!("/proc/self/fd/{file}")).arg0(&program.arg0).args(&program.args).spawn()?;
    let supervisor = Pid::from_child(&child);
    loop {
        if let Some(code) = reap(supervisor) {
            return Ok(code);
        }
        tokio::select! {
            _ = ended.recv() => {}
            Some(number) = asked.recv() => {
                // It may have ended in this moment; then the reaping says so.
                let _ = rustix::process::kill_process(supervisor, number);
            }
        }
    }
}

/// Collects everybody who has ended. As process 1 all orphans are ours.
fn reap(supervisor: Pid) -> Option<ExitCode> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == supervisor {
            let number = match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => status,
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            code = Some(ExitCode::from(u8::try_from(number).unwrap_or(1)));
        }
    }
    code
}
