//! Starts programs, watches what they say, finds their workers, kills them, and waits for events with a deadline.

pub mod client;
pub mod lines;
pub mod load;
pub mod procfs;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd};

/// How long an event may take. Machines stall; this is for hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A program that was started by a test. Dropped, it and its workers are killed.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// A program to start, its environment without what the test's own holds of rclust's.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("WEB_CONCURRENCY").env_remove("RCLUST_WORKER_DEPTH").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null());
    command
}

/// Starts a program and reads both its outputs.
pub fn start(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (sender, lines) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
        child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>),
    ];
    for output in outputs.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    Running { child, lines, seen: Vec::new() }
}

impl Running {
    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line (of either output) with this text in it, and returns it. Lines before it are consumed.
    pub fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("no line with `{text}` ({why:?}); the program said:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Waits for lines with each of these texts, in any order: the two outputs have none between them.
    pub fn all(&mut self, texts: &[&str]) {
        let mut missing = texts.to_vec();
        while !missing.is_empty() {
            let line = self.line("");
            missing.retain(|text| !line.contains(text));
            if self.seen.len() > 100_000 {
                panic!("no lines with {missing:?}");
            }
        }
    }

    /// Waits until each of these texts was said, be it before this call.
    pub fn all_said(&mut self, texts: &[&str]) {
        let missing: Vec<&str> =
            texts.iter().filter(|text| !self.seen.iter().any(|line| line.contains(**text))).copied().collect();
        self.all(&missing);
    }

    /// Waits for a line with this text, and returns the rest of the line behind it.
    pub fn after(&mut self, text: &str) -> String {
        let line = self.line(text);
        line.split_once(text).map(|(_, rest)| rest.trim().to_owned()).expect("the line has the text")
    }

    /// Waits for a line that begins with this, and returns what follows. (The supervisor's stories begin with `rclust: `.)
    pub fn own(&mut self, beginning: &str) -> String {
        loop {
            let line = self.line(beginning);
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the end: exit status, and everything that was said.
    pub fn end(mut self) -> (ExitStatus, String) {
        await_end(self.pid());
        let status = self.child.wait().expect("the program can be waited for");
        // The outputs end with the last process that has them.
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("a process still holds the output:\n{}", self.seen.join("\n")),
            }
        }
        (status, self.seen.join("\n"))
    }

    /// Waits for an end with this exit code.
    pub fn end_with(self, code: i32) -> String {
        let (status, said) = self.end();
        assert_eq!(status.code(), Some(code), "{status}; the program said:\n{said}");
        said
    }

    /// The workers: children of the supervisor, by age.
    pub fn workers(&self) -> Vec<u32> {
        procfs::children(self.pid())
    }

    /// Everything that was said so far.
    pub fn said(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Workers die with their supervisor; that is tested elsewhere.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that a test started (or that its program did).
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    // It may have ended already.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Shuts the one socket down that a process listens on: what a program can do to its own descriptor, done from here.
pub fn shut_listener_down(pid: u32) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a process that runs");
    let listening: Vec<_> = (3..64)
        .filter_map(|fd| pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok())
        .filter(|fd| rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false))
        .collect();
    assert_eq!(listening.len(), 1);
    rustix::net::shutdown(&listening[0], rustix::net::Shutdown::Both).expect("a socket that listens");
}

/// Waits until a process has ended.
pub fn await_end(pid: u32) {
    assert!(ends_within(pid, DEADLINE), "process {pid} does not end");
}

/// Whether a process ends in time.
pub fn ends_within(pid: u32, limit: Duration) -> bool {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    // Gone already, and reaped.
    let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// Whether something that no event tells becomes true before the deadline.
pub fn comes_true(mut look: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if look() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Waits for something that no event tells (a counter in /proc): looks again and again until the deadline.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}
