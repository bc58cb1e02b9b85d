//! What a user says about a child's process: environment, arguments, outputs, and what it makes of itself before user code.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::id::WorkerId;
use crate::output::Standard;
use crate::process::role::MARK;
use crate::process::spawn::{Dress, Place};
use crate::sys::applied::{MOST_CPUS, Own};
use crate::wire::applied::Applied;

/// A worker opens some twenty descriptors before user code; with fewer than this it could not even say what it lacks.
const LEAST_FILES: u64 = 64;

/// The kernel's bound for supplementary groups (NGROUPS_MAX).
const MOST_GROUPS: usize = 65536;

/// A child's process: what of it is not as the supervisor's.
///
/// ```
/// # use rclust_core::{Child, Output, Pool, Process, Worker};
/// # fn f<A: Worker<Args = ()>, B: Worker<Args = ()>>() {
/// let parser = Child::<A>::new("parser").process(
///     Process::new().env("LANG", "C").directory("/var/empty").uid(65534).gid(65534).nice(10)
///         .address_space(2 << 30).core(0).output(Output::Log),
/// );
/// let pinned = Pool::<B>::new("pinned").process_with(|_worker, index| Process::new().cpus([index as u32]));
/// # }
/// ```
///
/// | | unless said otherwise | given to the new process |
/// |---|---|---|
/// | [`env`](Process::env), [`env_remove`](Process::env_remove), [`env_clear`](Process::env_clear) | the supervisor's environment | as it is started |
/// | [`argv`](Process::argv) | the supervisor's arguments | as it is started |
/// | [`stdout`](Process::stdout), [`stderr`](Process::stderr), [`output`](Process::output) | the supervisor's | as it is started |
/// | [`address_space`](Process::address_space), [`open_files`](Process::open_files), [`core`](Process::core) | the limits that the supervisor was started with | by itself, 1st |
/// | [`nice`](Process::nice) | the supervisor's | by itself, 2nd |
/// | [`cpus`](Process::cpus) | the supervisor's | by itself, 3rd |
/// | [`directory`](Process::directory) | the supervisor's | by itself, 4th |
/// | [`groups`](Process::groups), [`gid`](Process::gid), [`uid`](Process::uid) | the supervisor's | by itself, 5th to 7th |
///
/// What it does by itself it does at [`boot`](crate::boot), before `init`, the runtime and any worker's code; what `main` does before
/// that call is done with the supervisor's rights. The request to die with the supervisor comes after all of it, because a change of
/// the user takes it back. Standard input has a setting of its own ([`Child::stdin`](crate::Child::stdin)).
///
/// What cannot be (a directory that is not there, a user without the right to become one, a limit above the hard one, no CPU,
/// a NUL byte) fails the start: `start()` says which child it is and what to do, before anything is started where that can be known then.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Process {
    /// `None`: taken out.
    env: Vec<(OsString, Option<OsString>)>,
    env_clear: bool,
    argv: Option<Vec<OsString>>,
    stdout: Output,
    stderr: Output,
    applied: Applied,
}

/// Where a worker's standard output or standard error goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// Where the supervisor's goes.
    #[default]
    Inherit,
    /// Nowhere: /dev/null.
    Null,
    /// Line by line into what the supervisor tells of itself: a tracing event with the field `line`, or, without a subscriber, a
    /// line on standard error with the worker's path in front, such as `web[2]: hello`.
    ///
    /// Lines that are longer than 3 000 bytes are told in pieces. Of each output at most 256 KiB wait to be told: what comes while they
    /// do is dropped and counted, and the number is told: a flood costs its worker's own lines and nobody else's. What its children
    /// write counts as its own, and ends with it: the pipe is closed when the worker has ended. Costs the supervisor one descriptor.
    Log,
    /// Line by line to the supervisor's program, which reads them from [`Cluster::output`](crate::Cluster::output). The rest is as
    /// with `Log`, and what waits of all workers together is at most 16 MiB.
    Stream,
}

impl Process {
    /// A process like the supervisor's.
    pub fn new() -> Process {
        Process::default()
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Process {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Process {
        self.env.push((name.into(), None));
        self
    }

    /// Begins with an empty environment: what the supervisor's has, and what was set before this call, is not passed on.
    pub fn env_clear(mut self) -> Process {
        self.env.clear();
        self.env_clear = true;
        self
    }

    /// The arguments behind the program's name, instead of the supervisor's. `main` sees them before [`boot`](crate::boot) does:
    /// a program that parses its arguments there must understand these.
    pub fn argv<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Process {
        self.argv = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Where standard output goes.
    pub fn stdout(mut self, output: Output) -> Process {
        self.stdout = output;
        self
    }

    /// Where standard error goes.
    pub fn stderr(mut self, output: Output) -> Process {
        self.stderr = output;
        self
    }

    /// Where standard output and standard error go.
    pub fn output(self, output: Output) -> Process {
        self.stdout(output).stderr(output)
    }

    /// At most so many bytes of address space (RLIMIT_AS), soft and hard. An allocation beyond them fails, which ends a Rust program
    /// by SIGABRT. What is mapped counts, used or not: stacks of threads (2 MiB each), the lanes of mailboxes, files.
    pub fn address_space(mut self, bytes: u64) -> Process {
        self.applied.address_space = Some(bytes);
        self
    }

    /// At most so many open descriptors (RLIMIT_NOFILE), soft and hard; at least 64. A worker is handed no more connections than
    /// this leaves room for.
    pub fn open_files(mut self, count: u64) -> Process {
        self.applied.open_files = Some(count);
        self
    }

    /// At most so many bytes of a core file (RLIMIT_CORE), soft and hard; 0: none. A process that has changed its user dumps none.
    pub fn core(mut self, bytes: u64) -> Process {
        self.applied.core = Some(bytes);
        self
    }

    /// Its niceness, -20 to 19, absolute: 19 has the least of the processor. Below the supervisor's own needs CAP_SYS_NICE or
    /// RLIMIT_NICE.
    pub fn nice(mut self, nice: i32) -> Process {
        self.applied.nice = Some(nice);
        self
    }

    /// The CPUs that it may run on, by the kernel's numbers.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Process {
        // Numbers beyond the kernel's are kept for the message, but no endless iterator is followed.
        self.applied.cpus = Some(cpus.into_iter().take(MOST_CPUS as usize + 1).collect());
        self
    }

    /// Its working directory. A relative one is relative to the supervisor's.
    pub fn directory(mut self, directory: impl Into<OsString>) -> Process {
        self.applied.directory = Some(directory.into());
        self
    }

    /// Its supplementary groups. None, where [`uid`](Process::uid) changes the user and this is not said.
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Process {
        self.applied.groups = Some(gids.into_iter().take(MOST_GROUPS + 1).collect());
        self
    }

    /// Its group: real, effective and saved. Needs CAP_SETGID.
    pub fn gid(mut self, gid: u32) -> Process {
        self.applied.gid = Some(gid);
        self
    }

    /// Its user: real, effective and saved, so that there is no way back. Needs CAP_SETUID, and CAP_KILL so that the supervisor can
    /// still end it; root has both. Say [`gid`](Process::gid) too: a root supervisor's group is refused to another user's worker.
    pub fn uid(mut self, uid: u32) -> Process {
        self.applied.uid = Some(uid);
        self
    }

    /// The first thing it says that only a process of its own can have.
    fn first(&self) -> Option<&'static str> {
        let Applied { address_space, open_files, core, nice, cpus, directory, groups, gid, uid } = &self.applied;
        let said = [
            ("process(env)", !self.env.is_empty() || self.env_clear),
            ("process(argv)", self.argv.is_some()),
            ("process(stdout)", self.stdout != Output::Inherit),
            ("process(stderr)", self.stderr != Output::Inherit),
            ("process(address_space)", address_space.is_some()),
            ("process(open_files)", open_files.is_some()),
            ("process(core)", core.is_some()),
            ("process(nice)", nice.is_some()),
            ("process(cpus)", cpus.is_some()),
            ("process(directory)", directory.is_some()),
            ("process(groups)", groups.is_some()),
            ("process(gid)", gid.is_some()),
            ("process(uid)", uid.is_some()),
        ];
        said.into_iter().find(|(_, said)| *said).map(|(what, _)| what)
    }

    /// Refuses what cannot be, as far as the supervisor can know it; says what to do.
    fn check(&self) -> Result<(), String> {
        if self.first().is_none() {
            return Ok(());
        }
        self.check_start()?;
        let own = Own::look().map_err(|error| format!("the supervisor cannot find out what it may do: {error}"))?;
        self.check_limits(&own)?;
        self.check_ids(&own)
    }

    /// What it is started with.
    fn check_start(&self) -> Result<(), String> {
        for (name, value) in &self.env {
            let bytes = name.as_bytes();
            let wrong = if name == MARK {
                "is rclust's own: choose another"
            } else if bytes.is_empty() || bytes.contains(&b'=') {
                "is no name of a variable: it must not be empty or have a `=` in it"
            } else if has_nul(name) || value.as_deref().is_some_and(has_nul) {
                "or its value has a NUL byte, which no process can be given: take it out"
            } else {
                continue;
            };
            return Err(format!("env: {name:?} {wrong}"));
        }
        match self.argv.iter().flatten().find(|argument| has_nul(argument)) {
            Some(bad) => Err(format!("argv: {bad:?} has a NUL byte, which no process can be given: take it out")),
            None => Ok(()),
        }
    }

    /// Limits, niceness, CPUs, directory.
    fn check_limits(&self, own: &Own) -> Result<(), String> {
        let said = &self.applied;
        let limits = [
            ("address_space", said.address_space, own.address_space),
            ("open_files", said.open_files, own.open_files),
            ("core", said.core, own.core),
        ];
        for (what, limit, hard) in limits {
            if let (Some(limit), Some(hard)) = (limit, hard) {
                if limit > hard {
                    return Err(format!(
                        "{what}({limit}) is above the supervisor's hard limit, {hard}: say at most that, or raise it where the \
                         supervisor is started (`ulimit -H`, a service manager's Limit..=)"
                    ));
                }
            }
        }
        match said.open_files {
            Some(count) if count < LEAST_FILES => {
                return Err(format!("open_files({count}) is too few for a worker: say at least {LEAST_FILES}"));
            }
            _ => {}
        }
        match said.nice {
            Some(nice) if !(-20..=19).contains(&nice) => {
                return Err(format!("nice({nice}) is no niceness: say -20 to 19"));
            }
            Some(nice) if nice < own.nice.min(own.nicest) => {
                return Err(format!(
                    "nice({nice}) is below the supervisor's own, {}, and it lacks the right to go there: start it with CAP_SYS_NICE (or \
                     RLIMIT_NICE), or say at least {}",
                    own.nice,
                    own.nice.min(own.nicest)
                ));
            }
            _ => {}
        }
        if let Some(cpus) = &said.cpus {
            if cpus.is_empty() {
                return Err("cpus([]) leaves it no CPU to run on: name one, or leave the setting out".to_owned());
            }
            if let Some(cpu) = cpus.iter().find(|cpu| **cpu >= MOST_CPUS) {
                return Err(format!("cpus: there is no CPU {cpu}: the highest number is {}", MOST_CPUS - 1));
            }
        }
        if let Some(directory) = &said.directory {
            let wrong = match std::fs::metadata(directory) {
                Ok(found) if found.is_dir() => return Ok(()),
                Ok(_) => "it is no directory".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(format!("directory({directory:?}): {wrong}: make it, or name another"));
        }
        Ok(())
    }

    /// User and groups.
    fn check_ids(&self, own: &Own) -> Result<(), String> {
        let Applied { groups, gid, uid, .. } = &self.applied;
        let named = groups.iter().flatten().chain(gid).chain(uid);
        if named.into_iter().any(|id| *id == u32::MAX) {
            return Err(format!("{} is no user or group, it means none: name another", u32::MAX));
        }
        if groups.as_ref().is_some_and(|groups| groups.len() > MOST_GROUPS) {
            return Err(format!("groups: a process can have at most {MOST_GROUPS}"));
        }
        if let Some(uid) = self.other_user(own) {
            if !own.may_change_user() {
                return Err(format!(
                    "uid({uid}): the supervisor runs as user {} and lacks CAP_SETUID or CAP_KILL: start it as root, or leave the setting out",
                    own.uid
                ));
            }
            if gid.is_none() && own.gid == 0 {
                return Err(format!("uid({uid}) without a group would keep root's: say gid(..) too"));
            }
        }
        let changes = gid.is_some_and(|gid| gid != own.gid) || groups.is_some() || self.other_user(own).is_some();
        if changes && !own.may_change_groups() {
            return Err("gid and groups: the supervisor lacks CAP_SETGID: start it as root, or leave the settings out"
                .to_owned());
        }
        Ok(())
    }

    fn other_user(&self, own: &Own) -> Option<u32> {
        self.applied.uid.filter(|uid| *uid != own.uid)
    }

    /// Where its standard output and standard error go.
    pub(crate) fn outputs(&self) -> [(Standard, Output); 2] {
        [(Standard::Output, self.stdout), (Standard::Error, self.stderr)]
    }

    /// What it is started with, and what it then does by itself. `pipes` are the writing ends, where an output is piped.
    pub(crate) fn parts(self, pipes: [Option<OwnedFd>; 2]) -> (Dress, Applied) {
        let [stdout, stderr] = pipes;
        let place = |output, pipe: Option<OwnedFd>| match (output, pipe) {
            (_, Some(pipe)) => Place::Pipe(pipe),
            (Output::Null, None) => Place::Null,
            (_, None) => Place::Inherit,
        };
        let mut applied = self.applied;
        if applied.uid.is_some()
            && applied.groups.is_none()
            && Own::look().is_ok_and(|own| applied.uid != Some(own.uid))
        {
            // Another user's worker would keep the supervisor's groups.
            applied.groups = Some(Vec::new());
        }
        let (stdout, stderr) = (place(self.stdout, stdout), place(self.stderr, stderr));
        (Dress { env_clear: self.env_clear, env: self.env, argv: self.argv, stdout, stderr }, applied)
    }
}

/// How the process of an incarnation is made.
#[derive(Clone)]
pub(crate) enum Made {
    Same(Process),
    Each(Arc<Each>),
}

/// A function of the user's: an incarnation, and its place in its pool.
type Each = dyn Fn(WorkerId, usize) -> Process + Send + Sync;

impl Default for Made {
    fn default() -> Made {
        Made::Same(Process::new())
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Made::Same(process) => process.fmt(f),
            Made::Each(_) => f.write_str("made for each incarnation"),
        }
    }
}

impl Made {
    /// The process of one incarnation.
    pub(crate) fn of(&self, worker: WorkerId, index: usize) -> Result<Process, String> {
        match self {
            // It was checked before the start.
            Made::Same(process) => Ok(process.clone()),
            // The user's code, on the tree thread: its panic is this child's failed start and nothing more.
            Made::Each(make) => {
                let process = std::panic::catch_unwind(AssertUnwindSafe(|| make(worker, index)))
                    .map_err(|_| "the function that describes its process panicked".to_owned())?;
                process.check()?;
                Ok(process)
            }
        }
    }

    /// Refuses what cannot be, before anything is started.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Made::Same(process) => process.check(),
            Made::Each(_) => Ok(()),
        }
    }

    /// The first setting that only a process of its own can have.
    pub(crate) fn needs_process(&self) -> Option<&'static str> {
        match self {
            Made::Same(process) => process.first(),
            Made::Each(_) => Some("process_with(..)"),
        }
    }
}

fn has_nul(text: impl AsRef<OsStr>) -> bool {
    text.as_ref().as_bytes().contains(&0)
}
