//! Processes: who this one is, how others are started, how their ends are noticed.

pub(crate) mod role;
pub(crate) mod spawn;
pub(crate) mod thread;
pub(crate) mod watch;
