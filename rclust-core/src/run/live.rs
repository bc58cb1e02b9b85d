//! What the supervisor knows of a process: one that lives, and one that is ordered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::exit::{ExitReason, StopReason};
use crate::id::Slot;
use crate::ipc::link::Outgoing;
use crate::process::spawn::Program;
use crate::process::watch::Watched;
use crate::run::collect::Attached;
use crate::run::porter::Porter;
use crate::run::seats::Seated;
use crate::wire::applied::Applied;
use crate::wire::control::Ending;

/// A process that lives.
pub(crate) struct Live {
    pub(crate) process: Watched,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) name: String,
    pub(crate) online: bool,
    /// It has its share of a listener.
    pub(crate) listening: bool,
    pub(crate) ready: bool,
    /// Its link is closed.
    pub(crate) unlinked: bool,
    /// It said that it was sent SIGTERM.
    pub(crate) terminated: bool,
    /// It said that it has room, and the extension has not looked yet.
    pub(crate) room: Arc<AtomicBool>,
    /// Its questions that the extension has not answered.
    pub(crate) asking: u32,
    /// Its piped outputs.
    pub(crate) _outputs: Attached,
    /// What it did that no worker of ours does.
    pub(crate) distrusted: Option<String>,
    /// Asked to stop.
    pub(crate) asked: bool,
    /// Killed because the tree wants it gone (not because it is not trusted).
    pub(crate) killed: bool,
    /// When its start was ordered.
    pub(crate) ordered: Instant,
    pub(crate) ending: Option<Ending>,
    pub(crate) start_timeout: Duration,
    /// The lanes that it was sent: of its slot or seat, with whom.
    pub(crate) lanes: HashSet<(Slot, Slot)>,
    /// How long after it was ready it is replaced, and whether it is to be.
    pub(crate) age: Option<Duration>,
    pub(crate) worn: bool,
    /// Whether it watches itself at all.
    pub(crate) recycles: bool,
    pub(crate) ready_at: Option<Instant>,
    /// What it has of its slot.
    pub(crate) seated: Seated,
    /// The program that it runs, where that is not the first one.
    pub(crate) program: Option<Program>,
    /// Both ends of its porter, once it has asked for one.
    pub(crate) porter: Option<Porter>,
}

/// A process that has been ordered and is not there yet.
pub(crate) struct Ordered {
    pub(crate) launch: u32,
    pub(crate) attempt: u32,
    pub(crate) previous: Option<ExitReason>,
    pub(crate) at: Instant,
    pub(crate) kill: bool,
    pub(crate) stop: Option<(StopReason, Option<Duration>)>,
    /// The program that it runs, where that is not the first one.
    pub(crate) program: Option<Program>,
    /// What it makes of its process.
    pub(crate) applied: Applied,
    pub(crate) outputs: Attached,
}
