//! The processes that the harness starts, and what it reads about them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Options;

/// How long a system has to answer its first request, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A measured system: a process of ours, ended when this is dropped.
pub(crate) struct System {
    child: Child,
}

impl System {
    /// Starts this same file in a role; standard output is a pipe.
    pub(crate) fn role(options: &Options, words: &[&str]) -> Result<System> {
        System::start(options, &mut System::command(words)?)
    }

    /// This same file in a role.
    pub(crate) fn command(words: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("role").args(words);
        Ok(command)
    }

    /// Starts one more process of a system that already runs: its standard error is that system's.
    pub(crate) fn beside(words: &[&str]) -> Result<System> {
        System::role(&Options { verbose: true, ..Options::default() }, words)
    }

    /// Starts a program; standard output is a pipe.
    pub(crate) fn start(options: &Options, command: &mut Command) -> Result<System> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if options.verbose { Stdio::inherit() } else { Stdio::null() });
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(System { child })
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it prints, to their end.
    pub(crate) fn lines(&mut self) -> Result<Vec<String>> {
        let output = self.child.stdout.take().context("the output was already read")?;
        let lines = BufReader::new(output).lines().collect::<Result<Vec<_>, _>>()?;
        self.ended()?;
        Ok(lines)
    }

    /// The same, of a system that is killed if they have not come by then.
    pub(crate) fn lines_within(&mut self, limit: Duration) -> Result<Vec<String>> {
        let pid = self.pid();
        let (done, waiting) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let hangs = waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            // Not yet waited for, so the pid is still its own.
            hangs.then(|| kill(pid))
        });
        let output = self.child.stdout.take().context("the output was already read")?;
        let lines = BufReader::new(output).lines().collect::<Result<Vec<_>, _>>();
        drop(done);
        if let Ok(Some(killed)) = watch.join() {
            killed?;
            bail!("it had not ended after {limit:?}");
        }
        self.ended()?;
        Ok(lines?)
    }

    fn ended(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{status}; --verbose shows what it said");
        }
        Ok(())
    }

    /// Waits until the system answers a request.
    pub(crate) fn answers(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while get(address, PATIENCE).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before it served: {status}; --verbose shows what it said");
            }
            if start.elapsed() > PATIENCE {
                bail!("it does not answer at {address}");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                eprintln!("process {} does not end by SIGTERM and is killed", self.child.id());
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Makes this process end with the thread that started it: called first by every system that is no worker of a cluster.
pub(crate) fn end_with_parent(signal: Signal) -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(signal))?)
}

/// A loopback address that nobody listens at.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// One short request with a connection of its own; the body of its answer, each part of which comes within `limit`.
pub(crate) fn get(address: SocketAddr, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("no answer: {answer:?}"),
    }
}

/// The processes that `pid` started and that still run.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(task?.path().join("children"))?;
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    children.sort_unstable();
    Ok(children)
}

/// Kills a process that is the grandchild of ours: its pid is fresh, its parent has just told it.
pub(crate) fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("that is no pid")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("kill {pid:?}"))
}

/// Where a program is in PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A script for node, in a file as long as this lives.
pub(crate) struct Script {
    pub(crate) node: PathBuf,
    pub(crate) file: PathBuf,
    pub(crate) version: String,
}

impl Script {
    /// `None` if node is not in PATH.
    pub(crate) fn new(name: &str, text: &str) -> Result<Option<Script>> {
        let Some(node) = find("node") else { return Ok(None) };
        let version = Command::new(&node).arg("--version").output()?.stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let file = std::env::temp_dir().join(format!("rclust-benches-{name}-{}.js", std::process::id()));
        fs::write(&file, text)?;
        Ok(Some(Script { node, file, version }))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // A file that stays behind in the temporary folder does no harm.
        let _ = fs::remove_file(&self.file);
    }
}

/// The CPUs that this process may use.
pub(crate) fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps the calling thread, and the threads and processes that it will start, on one CPU.
pub(crate) fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
