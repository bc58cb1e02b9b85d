//! Real worker processes under a tree that somebody else holds: for the player of recorded scenarios.
//!
//! The loop, the threads and the processes are those of every cluster; only the decisions come from outside.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::child_spec::{Args, Launch};
use crate::error::StartError;
use crate::id::{Slot, WorkerId};
use crate::mailbox::endpoint::Endpoint;
use crate::run::decider::Decider;
use crate::run::open;
use crate::run::shared::{Command, Shared};
use crate::tree::event::{Action, Event};
use crate::wire::payload;
use crate::worker::{Role, Worker};
use crate::worker_ref::WorkerRef;

/// Processes of one worker type, started, stopped and killed by actions.
pub struct Processes {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    events: mpsc::Receiver<Event>,
    begun: Instant,
}

impl Processes {
    /// Prepares a process that passed boot. `args` gives each incarnation its arguments, on the tree thread.
    ///
    /// # Errors
    /// As `Supervisor::start`.
    pub fn open<W: Worker>(args: impl Fn(WorkerId) -> W::Args + Send + 'static) -> Result<Processes, StartError> {
        let (sender, events) = mpsc::channel();
        let encode = move |worker| payload::encode_plain(&args(worker));
        let launch = Launch::new(Role::of::<W>(), Args::Each(Box::new(encode)));
        let (shared, endpoint, _up) = open::open(open::home()?, Decider::Player(sender), vec![launch])?;
        Ok(Processes { shared, endpoint, events, begun: Instant::now() })
    }

    /// Has an action performed. `Start` with `launch` 0 starts a worker.
    pub fn perform(&self, action: Action) {
        self.shared.command(Command::Perform(action));
    }

    /// The mailbox of a slot's worker.
    #[must_use]
    pub fn worker<W: Worker>(&self, slot: Slot) -> WorkerRef<W::Msg> {
        WorkerRef::new(self.endpoint.clone(), slot, slot.to_string(), crate::worker_ref::ANYTHING)
    }

    /// The time since the processes were opened.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits for the next event, until this time at most. Holds the thread.
    #[must_use]
    pub fn next(&self, until: Option<Duration>) -> Option<Event> {
        match until {
            Some(until) => self.events.recv_timeout(until.saturating_sub(self.now())).ok(),
            None => self.events.recv().ok(),
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Processes")
    }
}
