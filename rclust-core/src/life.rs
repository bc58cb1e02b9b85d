//! A worker's life in the hands of the supervisor's program: how it stands, its end in order, its end at once.
//!
//! All on [`WorkerRef`], and supervisor side: in a worker these calls answer with [`ManageError::NotHere`].

use tokio::sync::oneshot;

use crate::error::ManageError;
use crate::exit::Signal;
use crate::id::WorkerId;
use crate::mailbox::endpoint::Tend;
use crate::standing::{WorkerState, WorkerStatus};
use crate::tree::event::{Answer, Refusal};
use crate::worker::Message;
use crate::worker_ref::WorkerRef;

impl<M: Message> WorkerRef<M> {
    /// Tells how the slot's worker stands now: state, incarnation, process. Supervisor side.
    ///
    /// It is old when it arrives: [`Cluster::events`](crate::Cluster::events) tells of every change.
    ///
    /// # Errors
    /// [`ManageError::NotHere`] in a worker; `Refused` once the tree has ended.
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn status(&self) -> Result<WorkerStatus, ManageError> {
        self.tend(Tend::Status).await
    }

    /// What the slot's worker is doing now: [`WorkerRef::status`] without the rest. Supervisor side.
    ///
    /// # Errors
    /// As [`WorkerRef::status`].
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn state(&self) -> Result<WorkerState, ManageError> {
        Ok(self.status().await?.state)
    }

    /// Whether the slot has a process with an open control link now. Supervisor side.
    ///
    /// # Errors
    /// As [`WorkerRef::status`].
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn is_connected(&self) -> Result<bool, ManageError> {
        Ok(self.state().await?.is_connected())
    }

    /// Whether the slot has no process now. Supervisor side.
    ///
    /// # Errors
    /// As [`WorkerRef::status`].
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn is_dead(&self) -> Result<bool, ManageError> {
        Ok(self.state().await?.is_dead())
    }

    /// Stops the worker in order, whatever its state: it takes nothing new, finishes what is open, and is killed at the deadline of its
    /// `Shutdown`. Returns when it has ended. Supervisor side.
    ///
    /// It is not started again by itself: this is OTP's `terminate_child`, by reference, for a member of a pool and a dynamic copy too. The
    /// specification stays and [`restart_child`](crate::SupervisorRef::restart_child) starts it again (a temporary child's and a copy's are
    /// forgotten). Disconnecting who has ended changes nothing.
    ///
    /// # Errors
    /// [`ManageError::NotHere`] in a worker (there, [`Context::leave`](crate::Context::leave) is for oneself); `Refused` while its supervisor is
    /// stopping or down.
    /// # Cancel safety
    /// Dropped before completion, the worker is stopped all the same.
    pub async fn disconnect(&self) -> Result<(), ManageError> {
        match self.tend(Tend::Disconnect).await? {
            Answer::Refused(refusal) => Err(self.refused(refusal)),
            _ => Ok(()),
        }
    }

    /// Sends a signal to the process that fills the slot now, and tells which incarnation that was. Supervisor side.
    ///
    /// Nothing else happens: what it does is the process's affair, and what follows its end its restart type's. An end by it is no
    /// end that was asked for ([`Event::exited_after_disconnect`](crate::Event::exited_after_disconnect) says false), except that a worker drains at the
    /// first [`Signal::TERM`]. [`WorkerRef::disconnect`] is the way to ask.
    /// With threads in place of processes only [`Signal::KILL`] means something.
    ///
    /// # Errors
    /// [`ManageError::NotHere`] in a worker; `Refused` with `NotRunning` where there is no process, or not yet; `Signal` if the system refuses it.
    /// # Cancel safety
    /// Dropped before completion, the signal may be sent all the same.
    pub async fn kill(&self, signal: Signal) -> Result<WorkerId, ManageError> {
        match self.tend(|answer| Tend::Signal(signal, answer)).await? {
            Some((worker, Ok(()))) => Ok(worker),
            Some((_, Err(error))) => Err(ManageError::Signal { child: self.name().to_owned(), signal, error }),
            None => Err(self.refused(Refusal::NotRunning)),
        }
    }

    /// Gives an order to the supervisor and waits for its answer, which comes at once but for the end of a stop.
    async fn tend<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Tend) -> Result<T, ManageError> {
        let (sender, answer) = oneshot::channel();
        if !self.endpoint().is_some_and(|endpoint| endpoint.tend(self.slot(), order(sender))) {
            return Err(ManageError::NotHere { child: self.name().to_owned() });
        }
        // No answer: the tree has ended.
        answer.await.map_err(|_| self.refused(Refusal::Stopping))
    }

    fn refused(&self, refusal: Refusal) -> ManageError {
        // `ingest/b` stands below `ingest`, a pool's `ingest/web[0]` below `ingest/web`.
        let path = self.name();
        let above = path.strip_suffix(']').and_then(|path| path.rsplit_once('[')).or_else(|| path.rsplit_once('/'));
        let supervisor = above.map_or("the supervisor", |(above, _)| above).to_owned();
        ManageError::Refused { supervisor, child: path.to_owned(), refusal }
    }
}
