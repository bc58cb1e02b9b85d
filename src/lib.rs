#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(no_inline)]
pub use cluster::main;
pub use rclust_core::{Body, ProcessRole, Program, Role, Settings, Tree, body, tree};
pub use rclust_net::boot;

/// Everything a user names: `use rclust::cluster::{self, ..}`.
pub mod cluster {
    pub mod testing;

    pub use rclust_core::{
        ASK_LIMIT, Answer, Ask, AskError, AutoShutdown, Backoff, Child, ChildCounts, ChildSpec, ChildState, Cluster,
        Context, DEAD_LETTER_BYTES, DEAD_LETTER_LARGEST, DEAD_LETTERS, DeadLetter, DeadLetters, DeadReason,
        DecodeError, Down, Dynamic, DynamicRef, EVENTS, Error, Event, EventKind, Events, ExitReason, GiveUp, Inbox,
        Incarnation, IntoChild, LookupError, Mailbox, Main, ManageError, Message, Missed, MonitorId, Never,
        NoArgsNeeded, Outcome, Output, OutputLine, OutputLines, PlanError, Pool, PoolRef, Process, Recycle, Refusal,
        Reply, Restart, Result, Route, RunError, SHUTDOWN, SOCKETS, START_TIMEOUT, SendError, Set, Shutdown,
        ShutdownSignal, Signal, Size, Slot, SlotState, Socket, Standard, StartError, Stdin, StopReason, Strategy,
        Supervisor, SupervisorRef, Task, Timer, Transfer, TrySendError, Unset, WORKER_COUNT_VARIABLE, Worker,
        WorkerCountError, WorkerId, WorkerRef, WorkerState, WorkerStatus,
    };
    pub use rclust_macros::main;
    #[doc(inline)]
    pub use rclust_net as net;
}

/// Chapters beside the reference.
pub mod guide {
    #[doc = include_str!("../docs/messages.md")]
    pub mod messages {}

    #[doc = include_str!("../docs/from-node.md")]
    pub mod from_node {}

    #[doc = include_str!("../docs/from-erlang.md")]
    pub mod from_erlang {}

    #[doc = include_str!("../docs/from-gunicorn.md")]
    pub mod from_gunicorn {}
}

#[doc(hidden)]
pub mod __private {
    pub use rclust_core::__private::returns;
}
