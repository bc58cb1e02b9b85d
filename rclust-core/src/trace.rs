//! Every life-cycle event of the supervisor and its fields, in one list.
//!
//! They are told on the supervisor's main thread, never on the *tree* thread: a subscriber or a full pipe may block. With a
//! subscriber they are tracing events of the target `rclust::supervisor`; without one, a line each on standard error.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::exit::ExitReason;
use crate::id::WorkerId;
use crate::output::Line;

/// What happened.
#[derive(Debug)]
pub(crate) enum Story {
    /// A process was started.
    Started { worker: WorkerId, name: String, pid: u32 },
    /// It can serve.
    Ready { worker: WorkerId, name: String, pid: u32 },
    /// It was asked to stop.
    Stopping { worker: WorkerId, name: String, pid: u32 },
    /// It is gone.
    Exited { worker: WorkerId, name: String, pid: u32, reason: ExitReason, expected: bool },
    /// It will be started again.
    Restarting { name: String, delay: Duration, attempt: u32 },
    /// A supervisor node, or the whole tree, gave up.
    GaveUp { name: String, text: String },
    /// A worker has its share of a listener.
    Listening { worker: WorkerId, name: String, address: String },
    /// A worker was refused a listener.
    Refused { worker: WorkerId, name: String, address: String, error: String },
    /// A listener is in trouble.
    Troubled { address: String, text: String },
    /// A worker did what no worker of ours does.
    Distrusted { worker: WorkerId, name: String, error: String },
    /// A message became a dead letter.
    DeadLetter { worker: WorkerId, name: String, bytes: usize, reason: String },
    /// An operator's signal.
    Signal { name: &'static str, meaning: &'static str },
    /// A worker has reached a limit at which it is replaced.
    Worn { worker: WorkerId, name: String, text: String },
    /// What became of a reload that a signal ordered.
    Reload { text: String },
    /// The tree has ended.
    Ended { text: String },
    /// A worker wrote a line.
    Wrote { line: Line },
    /// So many lines of a worker were not told, because too many waited.
    Dropped { worker: WorkerId, name: String, lines: u64 },
    /// So many stories were not told, because the main thread was busy.
    Missed { stories: u64 },
}

/// Whether standard error can be written without waiting.
///
/// A pipe that is ready has room for PIPE_BUF bytes (`pipe(7)`), which a line is cut to.
pub(crate) fn has_room() -> bool {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Writes a line to standard error, unless that would wait: a pipe that nobody reads must not hold up the end. Whether it was written.
pub(crate) fn say(line: &str) -> bool {
    if !has_room() {
        return false;
    }
    let mut text = format!("rclust: {line}");
    while text.len() > 4000 || !text.is_char_boundary(text.len()) {
        text.pop();
    }
    text.push('\n');
    // Standard error may be closed; then nobody listens.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    true
}

/// Prints a line on standard error, or into what a test harness captures instead of it.
pub(crate) fn print(line: &str) -> bool {
    eprintln!("rclust: {line}");
    true
}

impl Story {
    /// Tells it; with `say`, where no subscriber is installed. Whether it was told.
    pub(crate) fn tell(&self, say: fn(&str) -> bool) -> bool {
        if !tracing::dispatcher::has_been_set() {
            return say(&self.line());
        }
        self.trace();
        true
    }

    fn trace(&self) {
        const TARGET: &str = "rclust::supervisor";
        match self {
            Story::Started { worker, name, pid } => {
                tracing::info!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, pid, "started");
            }
            Story::Ready { worker, name, pid } => {
                tracing::info!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, pid, "ready");
            }
            Story::Stopping { worker, name, pid } => {
                tracing::info!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, pid, "stopping");
            }
            Story::Exited { worker, name, pid, reason, expected } => {
                let (slot, incarnation) = (worker.slot.0, worker.incarnation.0);
                if *expected {
                    tracing::info!(target: TARGET, slot, incarnation, name, pid, %reason, "exited");
                } else {
                    tracing::warn!(target: TARGET, slot, incarnation, name, pid, %reason, "exited");
                }
            }
            Story::Restarting { name, delay, attempt } => {
                tracing::info!(target: TARGET, name, delay_ms = delay.as_millis() as u64, attempt, "restarting");
            }
            Story::GaveUp { name, text } => tracing::error!(target: TARGET, name, text, "gave up"),
            Story::Listening { worker, name, address } => {
                tracing::info!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, address, "listening");
            }
            Story::Refused { worker, name, address, error } => {
                tracing::warn!(target: TARGET, slot = worker.slot.0, name, address, error, "refused to listen");
            }
            Story::Troubled { address, text } => tracing::warn!(target: TARGET, address, text, "listener in trouble"),
            Story::Distrusted { worker, name, error } => {
                tracing::error!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, error, "distrusted");
            }
            Story::DeadLetter { worker, name, bytes, reason } => {
                tracing::warn!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, bytes, reason, "dead letter");
            }
            Story::Signal { name, meaning } => tracing::info!(target: TARGET, signal = name, meaning, "signal"),
            Story::Worn { worker, name, text } => {
                tracing::info!(target: TARGET, slot = worker.slot.0, incarnation = worker.incarnation.0, name, text, "recycled");
            }
            Story::Reload { text } => tracing::info!(target: TARGET, text, "reload"),
            Story::Ended { text } => tracing::info!(target: TARGET, text, "ended"),
            Story::Wrote { line } => {
                let (slot, incarnation, name) = (line.worker.slot.0, line.worker.incarnation.0, &*line.name);
                let (from, line) = (line.from, line.text.as_str());
                tracing::info!(target: TARGET, slot, incarnation, name, %from, line, "wrote");
            }
            Story::Dropped { worker, name, lines } => {
                tracing::warn!(target: TARGET, slot = worker.slot.0, name, lines, "output dropped");
            }
            Story::Missed { stories } => tracing::warn!(target: TARGET, stories, "missed"),
        }
    }

    fn line(&self) -> String {
        match self {
            Story::Started { worker, name, pid } => {
                format!("{name} started, pid {pid}, incarnation {}", worker.incarnation.0)
            }
            Story::Ready { name, pid, .. } => format!("{name} ready, pid {pid}"),
            Story::Stopping { name, pid, .. } => format!("{name} stopping, pid {pid}"),
            Story::Exited { name, pid, reason, expected, .. } => {
                format!("{name} exited, pid {pid}: {reason}{}", if *expected { "" } else { " (unexpected)" })
            }
            Story::Restarting { name, delay, attempt } if delay.is_zero() => match attempt {
                0 => format!("{name} restarting"),
                n => format!("{name} restarting after {n} failed starts"),
            },
            Story::Restarting { name, delay, attempt } => {
                format!("{name} restarting in {delay:.0?} after {attempt} failed starts")
            }
            Story::GaveUp { name, text } => format!("{name} {text}"),
            Story::Listening { name, address, .. } => format!("{name} listening on {address}"),
            Story::Refused { name, address, error, .. } => format!("{name} cannot listen on {address}: {error}"),
            Story::Troubled { address, text } => format!("{address}: {text}"),
            Story::Distrusted { name, error, .. } => format!("{name} is not trusted any more: {error}"),
            Story::DeadLetter { name, bytes, reason, .. } => {
                format!("{name}: a message of {bytes} bytes is dead: {reason}")
            }
            Story::Signal { name, meaning } => format!("{name}: {meaning}"),
            Story::Worn { name, text, .. } => format!("{name} is recycled: {text}"),
            Story::Reload { text } => format!("reload: {text}"),
            Story::Ended { text } => format!("the cluster has ended: {text}"),
            Story::Wrote { line } => format!("{}: {}", line.name, printable(&line.text)),
            Story::Dropped { name, lines, .. } => {
                format!("{name}: {lines} lines of its output were dropped: it writes faster than they can be told")
            }
            Story::Missed { stories } => format!("{stories} events were not told: the main thread was busy"),
        }
    }
}

/// A worker's text, without what a terminal would obey.
fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |char: char| char.is_control() && char != '\t';
    if !text.contains(obeyed) {
        return text.into();
    }
    let shown = text.chars().fold(String::new(), |mut shown, char| {
        match obeyed(char) {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
        shown
    });
    shown.into()
}
