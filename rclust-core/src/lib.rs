//! The core of rclust: supervision tree, mailboxes, processes. Users depend on the `rclust` crate, which re-exports this.
//!
//! One binary becomes a supervised cluster of processes. A worker is an actor that happens to be an operating-system process:
//! it has a typed mailbox and a place in a supervision tree. When it crashes, is killed or hangs, it dies alone; the supervisor
//! replaces it, and what waited for it waits for the replacement.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "rclust runs on Linux; other systems are prepared for (all calls stand behind `sys`) but not written yet"
);

mod background;
mod child_spec;
mod cluster;
mod context;
mod dynamic;
mod error;
mod events;
mod exit;
#[doc(hidden)]
pub mod extension;
#[cfg(any(fuzzing, all(test, not(rclust_loom))))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod ipc;
mod life;
mod mailbox;
mod mailbox_spec;
mod output;
mod pool_ref;
mod process;
mod process_spec;
mod recycle;
#[doc(hidden)]
pub mod replay;
mod reply;
mod run;
mod socket;
mod standing;
mod supervisor;
mod supervisor_ref;
mod sys;
pub mod testing;
mod trace;
#[doc(hidden)]
pub mod tree;
mod wire;
mod worker;
mod worker_count;
mod worker_ref;

pub use child_spec::{Child, IntoChild, NoArgsNeeded, Pool, SHUTDOWN, START_TIMEOUT, Set, Stdin, Unset};
pub use cluster::{Cluster, Inbox};
pub use context::{Context, MonitorId, ShutdownSignal, Task, Timer};
pub use dynamic::Dynamic;
pub use error::{
    AskError, DecodeError, Error, LookupError, ManageError, Result, RunError, SendError, StartError, TrySendError,
    WorkerCountError,
};
pub use events::{EVENTS, Event, EventKind, Events, Missed};
pub use exit::{ExitReason, Signal, StopReason};
pub use id::{Incarnation, Slot, WorkerId};
pub use mailbox::dead::{
    BYTES as DEAD_LETTER_BYTES, DeadLetter, DeadLetters, DeadReason, LETTER_BYTES as DEAD_LETTER_LARGEST,
    LETTERS as DEAD_LETTERS,
};
pub use mailbox_spec::Mailbox;
pub use output::{OutputLine, OutputLines, Standard};
pub use pool_ref::{PoolRef, Route};
pub use process::role::ProcessRole;
pub use process_spec::{Output, Process};
pub use recycle::Recycle;
pub use reply::{ASK_LIMIT, Answer, Ask, Reply};
pub use run::boot::{Body, Program, Settings, Tree, body, boot, boot_with, tree};
pub use socket::{SOCKETS, Socket, Transfer};
pub use standing::{WorkerState, WorkerStatus};
pub use supervisor::Supervisor;
pub use supervisor_ref::{DynamicRef, SupervisorRef};
pub use tree::event::{ChildState, Counts as ChildCounts, GiveUp, Refusal, SpecView as ChildSpec, State as SlotState};
pub use tree::plan::{AutoShutdown, Backoff, PlanError, Restart, Shutdown, Strategy};
pub use worker::{Down, Main, Message, Never, Outcome, Role, Worker};
pub use worker_count::{Size, VARIABLE as WORKER_COUNT_VARIABLE};
pub use worker_ref::WorkerRef;

#[doc(hidden)]
pub mod __private {
    //! What the macros need.

    /// Refuses a return type that is no outcome, at its own place.
    pub const fn returns<T: crate::Outcome>() {}
}
