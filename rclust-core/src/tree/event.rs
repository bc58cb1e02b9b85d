//! All that goes into the tree, and all that comes out.

use std::time::Duration;

use super::plan::{ChildPlan, Restart, Shutdown};
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};

/// A moment, as the time since the tree was made. The machine has no clock of its own.
pub type Time = Duration;

/// Names one management call, so that its answer finds the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Start the tree. Given once, first.
    Boot,
    /// The worker says that it can serve.
    Ready {
        /// Who.
        worker: WorkerId,
    },
    /// The worker's process is gone, or never came to be (then the reason is `Spawn`). Given exactly once for
    /// each [`Action::Start`]. Before `Ready` it is a failed start; `Ignored` is OTP's `ignore`.
    Exited {
        /// Who.
        worker: WorkerId,
        /// Why.
        reason: ExitReason,
    },
    /// The worker wants to end, by itself and in order: it is asked to stop, and its restart type decides what follows.
    Leave {
        /// Who.
        worker: WorkerId,
    },
    /// The time that [`Tree::poll_wakeup`](super::machine::Tree::poll_wakeup) named has come (an early or a spare one does no harm).
    Wakeup,
    /// A management call.
    Call {
        /// The answer's address.
        call: CallId,
        /// What is asked.
        request: Request,
    },
    /// End one supervisor node from outside, with this reason. A signal 9 kills it: its workers die at once, and
    /// its supervisor hears of it when the last is gone (RULES 47 and "Where ours differs"). Any other reason: it
    /// stops its children and then ends with the reason (RULES 44, 45). Of no effect on a node that is not up.
    EndSupervisor {
        /// The node.
        supervisor: Slot,
        /// The reason it ends with.
        reason: ExitReason,
    },
    /// Let a supervisor node handle nothing from its queue until it is resumed (OTP's `sys:suspend`). For tests that
    /// want several deaths to be there before the first is looked at. A stop is obeyed all the same.
    Suspend {
        /// The node.
        supervisor: Slot,
    },
    /// The end of `Suspend`.
    Resume {
        /// The node.
        supervisor: Slot,
    },
    /// Stop the whole tree in order (an operator's signal, the body's end). A second one changes nothing.
    Stop,
    /// Stop the whole tree now: kill everything that lives.
    Kill,
}

/// What is to be done. Each effect's outcome comes back as an [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a process for this slot.
    Start {
        /// Slot and the new incarnation.
        worker: WorkerId,
        /// The `launch` number of the child's plan: what to run, with which arguments.
        launch: u32,
        /// How often in a row this slot has failed to become ready before this start; 0 for a first attempt.
        attempt: u32,
        /// Why the previous incarnation ended, if there was one.
        previous: Option<ExitReason>,
    },
    /// A supervisor node is about to start its children; answered by `Ready` or `Exited` of the same id. Comes only
    /// after [`Tree::ask_before_supervisors`](super::machine::Tree::ask_before_supervisors).
    StartSupervisor {
        /// The node's slot and its new incarnation.
        supervisor: WorkerId,
    },
    /// Ask the worker to stop (a message, nothing more; the deadline is kept here).
    Stop {
        /// Who.
        worker: WorkerId,
        /// Why.
        why: StopReason,
        /// How long it has before it is killed; `None`: no limit.
        deadline: Option<Duration>,
    },
    /// End the worker's process now.
    Kill {
        /// Who.
        worker: WorkerId,
    },
    /// Take the worker's place away, not its life: it finishes the message in hand, gives up the read side of its
    /// lanes, is dispatched nothing, drains. A replacement is ready and becomes current. (Reload.)
    Retire {
        /// The incarnation that is replaced.
        worker: WorkerId,
        /// The incarnation that becomes current.
        by: WorkerId,
        /// How long the retired one has before it is killed; `None`: no limit.
        deadline: Option<Duration>,
    },
    /// Something the program and the log are told; no effect is asked for.
    Notice(Notice),
    /// The answer to a management call; exactly one for each.
    Answer {
        /// Which call.
        call: CallId,
        /// The outcome.
        answer: Answer,
    },
    /// The slot's specification is gone: it will never be filled again. (An incarnation that a reload had retired may
    /// still live; its end is reported as any other.)
    Forget {
        /// Which place.
        slot: Slot,
    },
    /// Every child is up: `start()` may return.
    Booted,
    /// The tree has ended; nothing lives and no further action comes.
    End(End),
}

/// What the program and the log are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A worker became ready (again): it is the current one of its slot.
    Up {
        /// Who.
        worker: WorkerId,
    },
    /// A child has ended, a worker or a supervisor node, and its supervisor has just handled that. Exactly one for
    /// each incarnation that was started.
    Ended {
        /// Who.
        worker: WorkerId,
        /// Why.
        reason: ExitReason,
        /// What its supervisor made of it.
        how: Ending,
    },
    /// A child ended and a restart was decided; it comes after `delay`.
    Restarting {
        /// The slot of the child.
        slot: Slot,
        /// Zero, or the backoff.
        delay: Duration,
        /// How often in a row it has failed to start.
        attempt: u32,
    },
    /// The slot stays empty: its end asked for no restart.
    Down {
        /// Which place.
        slot: Slot,
    },
    /// A supervisor node is up: all its children are.
    SupervisorUp {
        /// Its slot and its own count of incarnations.
        supervisor: WorkerId,
    },
    /// A supervisor node has stopped all its children and ended.
    SupervisorDown {
        /// Its slot and incarnation.
        supervisor: WorkerId,
        /// Why.
        reason: ExitReason,
    },
    /// A supervisor node gave up: see the fields.
    GaveUp(GiveUp),
}

/// In which situation a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By itself: its restart type decides what follows (RULES 11).
    Died,
    /// Before it was ready: a failed start, or one that was declined.
    StartFailed,
    /// Before it was ready, because it was no longer wanted. Nothing is counted.
    Cancelled,
    /// While it was being stopped, or found dead when its turn came (RULES 31, 41). Nothing follows.
    Stopped,
    /// Its supervisor node was killed, and it with it (RULES 47).
    Orphaned,
    /// A reload had replaced it. Nothing follows.
    Retired,
}

/// Which child exhausted its supervisor, how often, in which period, with the last reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// The supervisor node that gave up.
    pub supervisor: Slot,
    /// The child whose end was one too many.
    pub child: Slot,
    /// Restarts that were allowed (with `failed_starts`: failed starts in a row).
    pub restarts: u32,
    /// In which period; `None`: failed starts in a row of one slot.
    pub within: Option<Duration>,
    /// The last reason.
    pub reason: ExitReason,
}

/// How the tree ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It was asked to and did.
    Stopped,
    /// The first start of this child failed; what was up has been stopped (OTP: `failed_to_start_child`).
    StartFailed {
        /// The worker's slot (the innermost, where supervisors are nested).
        slot: Slot,
        /// Why.
        reason: ExitReason,
    },
    /// The root gave up.
    GaveUp(GiveUp),
    /// `auto_shutdown` of the root took effect.
    AutoShutdown {
        /// The significant child whose end did it.
        slot: Slot,
    },
}

/// A management call. `supervisor` is the node it is addressed to; names are those of its direct children.
#[derive(Clone, Debug)]
pub enum Request {
    /// Add a child at the end and start it.
    StartChild {
        /// The node.
        supervisor: Slot,
        /// The new child.
        child: ChildPlan,
    },
    /// Start a copy of the template of a dynamic supervisor.
    StartCopy {
        /// The node.
        supervisor: Slot,
        /// What to run: overrides the template's `launch`.
        launch: u32,
    },
    /// Start a child that is down.
    RestartChild {
        /// The node.
        supervisor: Slot,
        /// The child.
        name: String,
    },
    /// Stop a child and keep its specification.
    TerminateChild {
        /// The node.
        supervisor: Slot,
        /// The child.
        name: String,
    },
    /// Stop one incarnation of a child of this node (the only way to address a dynamic copy).
    TerminateWorker {
        /// The node.
        supervisor: Slot,
        /// The process.
        worker: WorkerId,
    },
    /// Forget a child that is down.
    DeleteChild {
        /// The node.
        supervisor: Slot,
        /// The child.
        name: String,
    },
    /// List the children, newest first.
    WhichChildren {
        /// The node.
        supervisor: Slot,
    },
    /// Count them.
    CountChildren {
        /// The node.
        supervisor: Slot,
    },
    /// Show a child's specification.
    ChildSpec {
        /// The node.
        supervisor: Slot,
        /// The child.
        name: String,
    },
    /// Make a pool larger or smaller.
    Resize {
        /// The pool's node.
        supervisor: Slot,
        /// How many slots it shall have.
        size: u32,
    },
    /// Replace a worker, or every worker of a node one by one, by a fresh incarnation: new one ready first.
    Reload {
        /// A worker's slot or a supervisor node's.
        slot: Slot,
        /// How many of a node's workers are replaced at a time; 0 is 1.
        surge: u32,
    },
}

/// What a management call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The child runs: which incarnation (start, restart).
    Started(WorkerId),
    /// The start was declined (`ignore`): the child is down.
    Declined,
    /// Done.
    Done,
    /// The list asked for, newest first.
    Children(Vec<ChildState>),
    /// The counts asked for.
    Counts(Counts),
    /// The specification asked for.
    Spec(SpecView),
    /// Refused or failed.
    Refused(Refusal),
}

/// Why a management call was refused or failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// A child of this name runs.
    AlreadyStarted(WorkerId),
    /// A specification of this name exists, and is not running.
    AlreadyPresent,
    /// The child runs.
    Running,
    /// A restart of the child is pending.
    Restarting,
    /// There is no such child, or no such supervisor node.
    NotFound,
    /// The supervisor node is there but not up (OTP: `noproc`); or the worker to be reloaded is not.
    NotRunning,
    /// The call does not fit this kind of supervisor (OTP: `{error, simple_one_for_one}`).
    Dynamic,
    /// The dynamic supervisor has `max_children` copies.
    MaxChildren(u32),
    /// The start failed, with this reason; nothing is kept (start) or the child stays down (restart).
    Failed(ExitReason),
    /// The specification cannot be (see the text).
    Bad(String),
    /// The supervisor node, or the tree, is stopping.
    Stopping,
    /// A terminate call came while the child was starting.
    Cancelled,
}

/// One line of `which_children`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildState {
    /// The name among its siblings.
    pub name: String,
    /// Its place.
    pub slot: Slot,
    /// What it is doing.
    pub state: State,
    /// Whether it is a supervisor node.
    pub supervisor: bool,
}

/// What a slot is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Specification kept, no process.
    Down,
    /// The process exists and is not ready yet.
    Starting(WorkerId),
    /// Ready.
    Up(WorkerId),
    /// Asked to stop, still alive.
    Stopping(WorkerId),
    /// A failed start; another follows at once.
    Restarting,
    /// The next start waits for this long from now.
    Backoff(Duration),
}

impl State {
    /// The incarnation that is there, if one is.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        match self {
            State::Starting(worker) | State::Up(worker) | State::Stopping(worker) => Some(*worker),
            State::Down | State::Restarting | State::Backoff(_) => None,
        }
    }
}

/// The counts of `count_children`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Specifications.
    pub specs: u32,
    /// Children whose process (or node) is alive.
    pub active: u32,
    /// Specifications of supervisors, up or not.
    pub supervisors: u32,
    /// Specifications of workers, up or not.
    pub workers: u32,
}

/// What a child's specification says, as `child_spec` shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpecView {
    /// When it is restarted.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Whether its end can end its supervisor.
    pub significant: bool,
}
