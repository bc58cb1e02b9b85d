//! How a slot's worker stands.

use std::time::Duration;

use crate::id::WorkerId;

/// How a slot's worker stands: which state, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// What it is doing.
    pub state: WorkerState,
    /// The incarnation that is meant: the one that is there, or the last one; `None` where there never was one.
    pub worker: Option<WorkerId>,
    /// Its process, while there is one.
    pub pid: Option<u32>,
}

/// What a slot's worker is doing. The first six are the life of one incarnation, in their order (one that binds nothing is never
/// `Listening`, one that crashes leaves some out); the others say that there is no process, and whether one will come.
///
/// Node's words: `none` is [`Starting`](WorkerState::Starting), `online` and `listening` are what they say, `disconnecting` and `destroying` are
/// [`Stopping`](WorkerState::Stopping), `disconnected` and `dead` are what they say. [`Ready`](WorkerState::Ready) Node does not know: there, who
/// listens is taken to be able to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// Its process is ordered or there, and has not said anything.
    Starting,
    /// It knows who it is and runs the program.
    Online,
    /// It has its share of a listener, and is not ready yet.
    Listening,
    /// It can serve.
    Ready,
    /// It was asked to stop, or asked for that itself, and drains.
    Stopping,
    /// Its control link is closed and its process still there, for a moment.
    Disconnected,
    /// It has ended, and nobody will start it again but a call or its group's restart.
    Dead,
    /// It has ended, and is started again after so long (zero: at once).
    Restarting(Duration),
    /// The slot is no more: its specification was forgotten.
    Gone,
}

impl WorkerState {
    /// Whether there is a process, and a control link with it.
    #[must_use]
    pub fn is_connected(self) -> bool {
        match self {
            WorkerState::Starting
            | WorkerState::Online
            | WorkerState::Listening
            | WorkerState::Ready
            | WorkerState::Stopping => true,
            WorkerState::Disconnected | WorkerState::Dead | WorkerState::Restarting(_) | WorkerState::Gone => false,
        }
    }

    /// Whether there is no process.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self, WorkerState::Dead | WorkerState::Restarting(_) | WorkerState::Gone)
    }
}
