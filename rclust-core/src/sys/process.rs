//! This process: its environment's mark, its name, its limits, its parent.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, Signal};

/// Takes a variable out of the environment, so that no child of this process inherits it.
///
/// Called by boot, and by extensions from their `prepare`, while the process has one thread (documented there).
pub fn take_env(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: boot runs before this process has started a thread of ours, and its documentation demands that the
    // caller has started none either; so nobody reads the environment at the same time.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Moves standard input away to a close-on-exec descriptor and puts /dev/null in its place.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let moved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(moved)
}

/// Makes `fd` the standard input.
pub(crate) fn set_stdin(fd: OwnedFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(&fd)?)
}

/// Names the process for `ps` and `top` (the main thread's name; the kernel keeps 15 bytes).
pub(crate) fn set_name(name: &str) -> io::Result<()> {
    let cut: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    let name = CString::new(cut).map_err(io::Error::other)?;
    Ok(rustix::thread::set_name(&name)?)
}

/// Asks the kernel to kill this process when the thread that started it ends.
///
/// # Source
/// `PR_SET_PDEATHSIG` in `prctl(2)`.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The process id of the parent, 0 if it is in another pid namespace.
pub(crate) fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

/// The soft and hard limit of open descriptors; `None` is unlimited.
pub(crate) fn descriptor_limit() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    (limit.current, limit.maximum)
}

/// Sets the limit of open descriptors.
pub(crate) fn set_descriptor_limit(soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: soft, maximum: hard })?)
}

/// Makes this process a likelier victim of the out-of-memory killer than its supervisor.
pub(crate) fn volunteer_for_oom(adjustment: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", adjustment.to_string())
}

/// Ends this process at once: no destructor, no exit handler runs.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` may be called from any thread at any time.
    unsafe { libc::_exit(code) }
}
