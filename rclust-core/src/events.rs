//! What happens in a cluster, as a stream for its program.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use crate::exit::ExitReason;
use crate::id::WorkerId;
use crate::tree::event::GiveUp;

/// Events that a slow reader may be behind; older ones make room and are counted.
pub const EVENTS: usize = 512;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The path of the slot, or of the supervisor node.
    pub name: String,
    /// Slot and incarnation, where a process is concerned.
    pub worker: Option<WorkerId>,
    /// Its process id, where it has one.
    pub pid: Option<u32>,
    /// When.
    pub time: SystemTime,
}

impl Event {
    /// What Node calls `worker.exitedAfterDisconnect`: of an end, whether it followed an order to stop or the worker's own wish to
    /// go; `None` for all else that happens.
    ///
    /// True: [`WorkerRef::disconnect`](crate::WorkerRef::disconnect), `terminate_child`, a reload, a smaller pool, the stop of its group or of the cluster,
    /// [`Context::leave`](crate::Context::leave), [`Error::shutdown`](crate::Error::shutdown), SIGTERM; also if its exit code or the deadline's SIGKILL had the last word.
    /// False: it ended by itself, with success or without; [`WorkerRef::kill`](crate::WorkerRef::kill) or anybody's signal, other than the SIGTERM of above. (The reason alone,
    /// [`ExitReason::is_normal`], is what restart types look at.)
    #[must_use]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        match &self.kind {
            EventKind::Exited { reason: ExitReason::Normal | ExitReason::Ignored, .. } => Some(false),
            EventKind::Exited { expected, .. } => Some(*expected),
            _ => None,
        }
    }
}

/// What happened. Of one incarnation, in this order: `Forked`, `Online`, any number of `Listening`, `Ready`, `Disconnected`,
/// `Exited`: each at most once, `Forked`, `Disconnected` and `Exited` exactly once. A failed start has no `Ready`, a process
/// that died at once perhaps no `Online`. After `Exited` comes exactly one of: `Restarting`, `BackingOff` (if it is to be started
/// again), or neither; a reload has the new incarnation `Ready` before the old one is `Disconnected` and `Exited`, as expected; a supervisor that gives up says `GaveUp` after the `Exited` that was one too many.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A process was started.
    Forked,
    /// It has received its boot message and runs the program.
    Online,
    /// It has its share of a listener at this address.
    Listening(String),
    /// It can serve.
    Ready,
    /// Its control link is closed.
    Disconnected,
    /// It is gone.
    Exited {
        /// Why.
        reason: ExitReason,
        /// Whether it had been asked to stop, or ended normally. (Node's `exitedAfterDisconnect` is
        /// [`Event::exited_after_disconnect`].)
        expected: bool,
    },
    /// It will be started again at once.
    Restarting,
    /// It will be started again after this delay.
    BackingOff(Duration),
    /// A supervisor node gave up.
    GaveUp(GiveUp),
}

/// The stream of a cluster's events. It never holds the tree up: what is not read in time is counted.
pub struct Events {
    pub(crate) receiver: broadcast::Receiver<Event>,
}

/// So many events were not read in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were not read in time")]
pub struct Missed(pub u64);

impl Events {
    /// The next event; `None` when the cluster has ended and everything was read.
    ///
    /// # Errors
    /// [`Missed`]: how many events made room since the last call. The next call goes on with the oldest that is left.
    /// # Cancel safety
    /// Dropped before completion, no event is lost.
    pub async fn next(&mut self) -> Option<Result<Event, Missed>> {
        match self.receiver.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Missed(missed))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
