//! Why a worker ended, and what counts as a normal end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a worker, or a supervisor node of the tree, ended.
///
/// What a worker says about itself (an error's text, a panic's place) is believed only as text: the
/// kernel's word decides which variant it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It ended by itself and returned success (exit code 0).
    Normal,
    /// It ended because it was asked to; also the reason of a supervisor node that gave up (RULES: OTP's `shutdown`).
    Shutdown,
    /// It asked for its own orderly end and gave a word for it (OTP's `{shutdown, Term}`).
    ShutdownWith(String),
    /// `start`, `on_message` or the body returned an error; its text.
    Error(String),
    /// It panicked.
    Panic {
        /// The panic's message.
        message: String,
        /// `file:line:column`, where known.
        location: Option<String>,
        /// The backtrace, if `RUST_BACKTRACE` enabled one.
        backtrace: Option<String>,
    },
    /// The process ended with this exit code, other than 0, and said no more.
    Code(i32),
    /// A signal ended the process.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It did what no worker of this program does (garbage on its control link, shared memory that is spoilt), and was killed for it;
    /// what it was.
    Distrusted(String),
    /// It did not become ready in time and was killed.
    StartTimeout(Duration),
    /// The process could not be started; the operating system's error.
    Spawn(String),
    /// `start` declined to run (OTP's `ignore`): the slot stays down, no failure is counted.
    Ignored,
    /// There was no process: what a monitor of nobody hears (OTP's `noproc`).
    NotRunning,
    /// The process has ended and its status could not be read (somebody else collected it).
    Unknown,
}

impl ExitReason {
    /// Whether a transient child that ended so stays down.
    ///
    /// # Source
    /// OTP, `supervisor`: a transient child is restarted "only if it terminates abnormally, that is, with an exit
    /// reason other than `normal`, `shutdown`, or `{shutdown,Term}`".
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, ExitReason::Normal | ExitReason::Shutdown | ExitReason::ShutdownWith(_))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("normal"),
            ExitReason::Shutdown => f.write_str("shutdown"),
            ExitReason::ShutdownWith(word) => write!(f, "shutdown: {word}"),
            ExitReason::Error(text) => write!(f, "error: {text}"),
            ExitReason::Panic { message, location, .. } => match location {
                Some(place) => write!(f, "panic at {place}: {message}"),
                None => write!(f, "panic: {message}"),
            },
            ExitReason::Code(code) => write!(f, "exit code {code}"),
            ExitReason::Signal { signal, core } => {
                match signal_name(*signal) {
                    Some(name) => write!(f, "killed by {name}")?,
                    None => write!(f, "killed by signal {signal}")?,
                }
                if *core { f.write_str(", core dumped") } else { Ok(()) }
            }
            ExitReason::Distrusted(what) => write!(f, "killed because it is not to be trusted: {what}"),
            ExitReason::StartTimeout(limit) => write!(f, "not ready within {limit:?}"),
            ExitReason::Spawn(error) => write!(f, "could not be started: {error}"),
            ExitReason::Ignored => f.write_str("declined to start"),
            ExitReason::NotRunning => f.write_str("was not running"),
            ExitReason::Unknown => f.write_str("unknown: its exit status was collected by somebody else"),
        }
    }
}

/// A signal, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Signal(i32);

impl Signal {
    /// Drain and end: a worker that alone is sent it does so, and its restart type decides what follows.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// Die now. It cannot be caught.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// Die now, and dump a core where that is enabled.
    pub const ABRT: Signal = Signal(libc::SIGABRT);
    /// Be stopped until [`Signal::CONT`]. It cannot be caught.
    pub const STOP: Signal = Signal(libc::SIGSTOP);
    /// Go on.
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// The program's own.
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    /// The program's own.
    pub const USR2: Signal = Signal(libc::SIGUSR2);

    /// The signal of this number; `None`: it is none of those with a name, 1 to 31 (the ones above are the C library's to give out).
    #[must_use]
    pub fn new(number: i32) -> Option<Signal> {
        matches!(number, 1..=31).then_some(Signal(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// The usual name of a signal's number on Linux (`signal(7)`), for those that end, stop or continue processes.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        18 => "SIGCONT",
        19 => "SIGSTOP",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Why a worker is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StopReason {
    /// The tree ends.
    Shutdown,
    /// Its group is restarted (`one_for_all`, `rest_for_one`), or its supervisor node gave up.
    Group,
    /// Somebody asked for the end of this child.
    Terminated,
    /// A reload has replaced it.
    Reload,
    /// The pool became smaller.
    Resize,
    /// The worker process itself was sent SIGTERM.
    Signal,
    /// It wanted to go: [`Context::leave`](crate::Context::leave).
    Leave,
}
