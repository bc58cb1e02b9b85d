//! What a worker changes of its own process, and what the supervisor's may: limits, niceness, CPUs, directory, ids.
//!
//! These are rustix's calls alone. Those of threads (niceness, CPUs, ids) reach the calling thread and the threads that it starts:
//! they are made while it is the only one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CpuSet};

/// The CPU numbers that the kernel's interface has room for.
pub(crate) const MOST_CPUS: u32 = CpuSet::MAX_CPU as u32;

/// What this process is, for those who ask before a child is started.
pub(crate) struct Own {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nice: i32,
    /// The lowest niceness that it may set.
    pub(crate) nicest: i32,
    pub(crate) address_space: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) core: Option<u64>,
    capabilities: CapabilitySet,
}

impl Own {
    /// Looks.
    pub(crate) fn look() -> io::Result<Own> {
        let capabilities = rustix::thread::capabilities(None)?.effective;
        let hard = |resource| rustix::process::getrlimit(resource).maximum;
        let nicest = match rustix::process::getrlimit(Resource::Nice).current {
            _ if capabilities.contains(CapabilitySet::SYS_NICE) => -20,
            None => -20,
            // RLIMIT_NICE is 20 minus the niceness (getrlimit(2)).
            Some(limit) => 20 - limit.min(40) as i32,
        };
        Ok(Own {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            nice: rustix::process::getpriority_process(None)?,
            nicest,
            address_space: hard(Resource::As),
            open_files: hard(Resource::Nofile),
            core: hard(Resource::Core),
            capabilities,
        })
    }

    /// Whether it may become another user, and end what has become one.
    pub(crate) fn may_change_user(&self) -> bool {
        self.capabilities.contains(CapabilitySet::SETUID | CapabilitySet::KILL)
    }

    /// Whether it may change its groups.
    pub(crate) fn may_change_groups(&self) -> bool {
        self.capabilities.contains(CapabilitySet::SETGID)
    }
}

/// How many threads this process has.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Bytes of address space that this process has now.
pub(crate) fn address_space() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse().ok());
    size.map(|kib: u64| kib << 10).ok_or_else(|| io::Error::other("/proc/self/status has another form"))
}

fn set_limit(resource: Resource, limit: u64) -> io::Result<()> {
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

/// Limits the address space, for good.
pub(crate) fn limit_address_space(bytes: u64) -> io::Result<()> {
    set_limit(Resource::As, bytes)
}

/// Limits the open descriptors, for good.
pub(crate) fn limit_open_files(count: u64) -> io::Result<()> {
    set_limit(Resource::Nofile, count)
}

/// Limits the size of a core, for good.
pub(crate) fn limit_core(bytes: u64) -> io::Result<()> {
    set_limit(Resource::Core, bytes)
}

/// Sets the niceness.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// Sets the CPUs, and returns those that it may use now: the kernel leaves out what it may not.
pub(crate) fn set_cpus(cpus: &BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < MOST_CPUS).for_each(|cpu| set.set(*cpu as usize));
    rustix::thread::sched_setaffinity(None, &set)?;
    self::cpus()
}

/// The CPUs that it may use.
pub(crate) fn cpus() -> io::Result<BTreeSet<u32>> {
    let now = rustix::thread::sched_getaffinity(None)?;
    Ok((0..MOST_CPUS).filter(|cpu| now.is_set(*cpu as usize)).collect())
}

/// Sets the working directory.
pub(crate) fn set_directory(directory: &OsStr) -> io::Result<()> {
    Ok(rustix::process::chdir(directory)?)
}

/// Sets the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Sets the real, effective and saved group: there is no way back.
pub(crate) fn set_gid(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
}

/// Sets the real, effective and saved user: there is no way back.
pub(crate) fn set_uid(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}
