//! The running tree as its program sees it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::{LookupError, RunError};
use crate::events::Events;
use crate::id::Slot;
use crate::mailbox::dead::{Dead, DeadLetters, DeadReason};
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::receiver::Receiver;
use crate::output::OutputLines;
use crate::pool_ref::{self, PoolRef};
use crate::run::probe;
use crate::run::shared::{Command, Shared};
use crate::supervisor_ref::{DynamicRef, SupervisorRef};
use crate::worker::{Message, Worker};
use crate::worker_ref::{self, WorkerRef};

/// A running tree. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    root: SupervisorRef,
}

impl std::ops::Deref for Cluster {
    type Target = SupervisorRef;

    fn deref(&self) -> &SupervisorRef {
        &self.root
    }
}

impl Cluster {
    pub(crate) fn new(shared: Arc<Shared>, endpoint: Arc<Endpoint>) -> Cluster {
        Cluster { root: SupervisorRef { shared, endpoint, slot: Slot::SUPERVISOR, name: String::new() } }
    }

    /// The mailbox of a worker, by its path: `"sum"`, `"ingest/parser"`, a pool's member `"web[2]"`. It names the slot and
    /// follows restarts; `V` is looked at for its message type only.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, a pool's path, other messages.
    pub fn worker<V: Worker>(&self, path: &str) -> Result<WorkerRef<V::Msg>, LookupError> {
        worker_ref::worker(&self.root.endpoint, path)
    }

    /// The members of a pool, by its path.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, a worker's path, other messages.
    pub fn pool<V: Worker>(&self, path: &str) -> Result<PoolRef<V::Msg>, LookupError> {
        Ok(pool_ref::pool(&self.root.endpoint, path)?.within(self.root.shared.clone()))
    }

    /// What workers send to the supervisor's body ([`Context::supervisor`](crate::Context::supervisor)). There is one queue:
    /// the first inbox that is made reads it, later ones get nothing while it lives.
    #[must_use]
    pub fn inbox<M: Message>(&self) -> Inbox<M> {
        let shared = &self.root.shared;
        Inbox::new(shared.inbox.clone(), self.root.endpoint.clone(), shared.dead.clone(), None)
    }

    /// The dead letters: messages that were in hand of a worker that died, and messages that could not be decoded.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { dead: self.root.shared.dead.clone() }
    }

    /// A supervisor of the tree, by its path; a pool is one too. The cluster itself stands for the outermost one.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, or a worker's.
    pub fn supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        let directory = self.root.shared.directory.read();
        match directory.nodes.get(path) {
            Some(slot) => Ok(SupervisorRef { slot: *slot, name: path.to_owned(), ..self.root.clone() }),
            None if directory.workers.contains_key(path) => Err(LookupError::IsWorker { path: path.to_owned() }),
            None => Err(LookupError::NotFound { path: path.to_owned() }),
        }
    }

    /// A dynamic supervisor of the tree, by its path.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, or a worker's.
    pub fn dynamic<W: Worker>(&self, path: &str) -> Result<DynamicRef<W>, LookupError> {
        Ok(DynamicRef::new(self.supervisor(path)?))
    }

    /// A stream of what happens from now on. It never holds the tree up; a reader that is [`EVENTS`](crate::EVENTS) events behind
    /// is told how many it missed.
    #[must_use]
    pub fn events(&self) -> Events {
        Events { receiver: self.root.shared.events() }
    }

    /// A stream of what workers write, where their child says [`Output::Stream`](crate::Output::Stream). It never holds anybody up:
    /// what does not fit into its bounds is dropped and counted.
    #[must_use]
    pub fn output(&self) -> OutputLines {
        self.root.shared.lines.clone()
    }

    /// Waits until the tree has ended: by an operator's signal, by [`Cluster::stop`], or because it gave up.
    ///
    /// # Errors
    /// [`RunError`] when it ended otherwise than by being asked to; returned from `main`, it makes the exit code 1.
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn run(&self) -> Result<(), RunError> {
        self.root.shared.ended().await
    }

    /// Stops the tree in order, children last to first, and waits for its end.
    ///
    /// # Cancel safety
    /// Dropped before completion, the tree goes on stopping.
    pub async fn stop(&self) {
        self.root.shared.command(Command::Stop);
        // How it ended is `run`'s answer.
        let _ = self.root.shared.ended().await;
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

/// The typed inbox of the supervisor's body, or of a test's [probe](crate::testing::probe).
pub struct Inbox<M> {
    receiver: Arc<tokio::sync::Mutex<Option<Receiver>>>,
    endpoint: Arc<Endpoint>,
    dead: Dead,
    _probe: Option<probe::Guard>,
    _message: PhantomData<fn() -> M>,
}

impl<M> Inbox<M> {
    pub(crate) fn new(
        receiver: Arc<tokio::sync::Mutex<Option<Receiver>>>,
        endpoint: Arc<Endpoint>,
        dead: Dead,
        probe: Option<probe::Guard>,
    ) -> Inbox<M> {
        Inbox { receiver, endpoint, dead, _probe: probe, _message: PhantomData }
    }
}

impl<M: Message> Inbox<M> {
    /// The next message and who sent it. What is not an `M` becomes a dead letter, and is skipped.
    ///
    /// # Cancel safety
    /// Dropped before completion, no message is lost.
    pub async fn next(&mut self) -> (Slot, M) {
        let mut receiver = self.receiver.lock().await;
        let receiver = receiver.get_or_insert_with(|| Receiver::new(self.endpoint.clone()));
        loop {
            let from = receiver.next().await;
            let decoded = match receiver.is_heavy() {
                true => receiver.decode_heavy().await,
                false => self.endpoint.within(|| receiver.decode()),
            };
            if let Err(error) = &decoded {
                let (me, reason) = (self.endpoint.me(), DeadReason::Undecodable(error.clone()));
                self.dead.put(me, self.endpoint.name(), from, reason, receiver.bytes().to_vec());
            }
            receiver.done();
            match decoded {
                Ok(message) => return (from.place(), message),
                Err(error) => {
                    tracing::warn!(target: "rclust::supervisor", slot = from.0, %error, "a message to the supervisor cannot be decoded");
                }
            }
        }
    }

    /// The next message alone.
    ///
    /// # Cancel safety
    /// Dropped before completion, no message is lost.
    pub async fn recv(&mut self) -> M {
        self.next().await.1
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}
