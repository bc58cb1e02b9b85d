//! Managing children at run time: OTP's calls, on the running tree and on any supervisor in it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::child_spec::{IntoChild, Launch, Launches};
use crate::error::{ManageError, StartError};
use crate::id::{Slot, WorkerId};
use crate::mailbox::endpoint::{Endpoint, Tend};
use crate::run::shared::{Command, Shared};
use crate::tree::event::{Answer, ChildState, Counts, Refusal, Request, SpecView};
use crate::wire::schema;
use crate::worker::Worker;
use crate::worker_ref::WorkerRef;

/// A supervisor of the running tree: its children can be added, stopped, started again, forgotten, listed and counted.
///
/// | call | running | down | restarting | unknown name |
/// |---|---|---|---|---|
/// | `start_child` | `AlreadyStarted` | `AlreadyPresent` | `AlreadyPresent` | starts it |
/// | `restart_child` | `Running` | starts it | `Restarting` | `NotFound` |
/// | `terminate_child` | stops it | done | cancels it | `NotFound` |
/// | `delete_child` | `Running` | forgets it | `Restarting` | `NotFound` |
///
/// While a child starts or stops, reads answer at once; `terminate_child` cancels a start (no failure is counted); the other
/// calls about that child wait for its outcome and then answer by the table. Calls about other children do not wait for it,
/// unless a whole group is being restarted.
///
/// # Source
/// OTP, `supervisor`: `start_child/2`, `restart_child/2`, `terminate_child/2`, `delete_child/2`, `which_children/1`, `count_children/1`,
/// `get_childspec/2`.
#[derive(Clone)]
pub struct SupervisorRef {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) slot: Slot,
    pub(crate) name: String,
}

impl SupervisorRef {
    async fn call(&self, what: &str, request: Request, launches: Vec<Launch>) -> Result<Answer, ManageError> {
        let (sender, answer) = oneshot::channel();
        self.shared.command(Command::Call { request, launches, answer: sender });
        self.answered(what, answer).await
    }

    async fn answered(&self, what: &str, answer: oneshot::Receiver<Answer>) -> Result<Answer, ManageError> {
        let refused = |refusal| ManageError::Refused { supervisor: self.shown(), child: what.to_owned(), refusal };
        match answer.await {
            Ok(Answer::Refused(refusal)) => Err(refused(refusal)),
            Ok(answer) => Ok(answer),
            // The tree has ended.
            Err(_) => Err(refused(Refusal::Stopping)),
        }
    }

    fn shown(&self) -> String {
        if self.name.is_empty() { "the supervisor".to_owned() } else { self.name.clone() }
    }

    /// Adds a child behind the others and starts it; `None`: it declined to start and is kept, down.
    ///
    /// # Errors
    /// The table above; a start that fails keeps nothing. A type that is not among the program's roles is refused before.
    /// # Cancel safety
    /// Dropped before completion, the child is started all the same.
    pub async fn start_child(&self, child: impl IntoChild) -> Result<Option<WorkerId>, ManageError> {
        let mut launches = Launches::default();
        let piece = child.into_child(&mut launches).map_err(ManageError::Child)?;
        let name = piece.0.name.clone();
        crate::run::open::check_child(&piece.0, &name, &launches.0, &self.shared.ground).map_err(ManageError::Child)?;
        let request = Request::StartChild { supervisor: self.slot, child: piece.0 };
        Ok(started(self.call(&name, request, launches.0).await?))
    }

    /// Starts a child that is down.
    ///
    /// # Errors
    /// The table above; a start that fails leaves the child down and is not tried again.
    /// # Cancel safety
    /// Dropped before completion, the child is started all the same.
    pub async fn restart_child(&self, name: &str) -> Result<Option<WorkerId>, ManageError> {
        let request = Request::RestartChild { supervisor: self.slot, name: name.to_owned() };
        Ok(started(self.call(name, request, Vec::new()).await?))
    }

    /// Stops a child and keeps its specification (a temporary one's is forgotten).
    ///
    /// # Errors
    /// The table above.
    /// # Cancel safety
    /// Dropped before completion, the child is stopped all the same.
    pub async fn terminate_child(&self, name: &str) -> Result<(), ManageError> {
        let request = Request::TerminateChild { supervisor: self.slot, name: name.to_owned() };
        self.call(name, request, Vec::new()).await.map(drop)
    }

    /// Stops all children in order, last to first, and keeps their specifications; returns when the last one has ended. The cluster goes on,
    /// and its body: [`restart_child`](SupervisorRef::restart_child) starts a child again. ([`Cluster::stop`](crate::Cluster::stop) ends the cluster.)
    ///
    /// It is OTP's `terminate_child` for each; dynamic copies and temporary children are forgotten.
    ///
    /// # Errors
    /// The supervisor is stopping, or is not there (any more).
    /// # Cancel safety
    /// Dropped before completion, some have been stopped and some have not.
    pub async fn disconnect(&self) -> Result<(), ManageError> {
        for child in self.which_children().await? {
            let (sender, answer) = oneshot::channel();
            self.shared.command(Command::Tend { slot: child.slot, order: Tend::Disconnect(sender) });
            self.answered(&child.name, answer).await?;
        }
        Ok(())
    }

    /// Forgets a child that is down: its mailbox is closed.
    ///
    /// # Errors
    /// The table above.
    /// # Cancel safety
    /// Dropped before completion, the child is forgotten all the same.
    pub async fn delete_child(&self, name: &str) -> Result<(), ManageError> {
        let request = Request::DeleteChild { supervisor: self.slot, name: name.to_owned() };
        self.call(name, request, Vec::new()).await.map(drop)
    }

    /// Lists the children, newest first.
    ///
    /// # Errors
    /// This supervisor is not there (any more).
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn which_children(&self) -> Result<Vec<ChildState>, ManageError> {
        match self.call("which_children", Request::WhichChildren { supervisor: self.slot }, Vec::new()).await? {
            Answer::Children(children) => Ok(children),
            _ => Ok(Vec::new()),
        }
    }

    /// Counts the children.
    ///
    /// # Errors
    /// This supervisor is not there (any more).
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn count_children(&self) -> Result<Counts, ManageError> {
        match self.call("count_children", Request::CountChildren { supervisor: self.slot }, Vec::new()).await? {
            Answer::Counts(counts) => Ok(counts),
            _ => Ok(Counts::default()),
        }
    }

    /// Shows a child's specification.
    ///
    /// # Errors
    /// `NotFound`.
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn child_spec(&self, name: &str) -> Result<SpecView, ManageError> {
        let request = Request::ChildSpec { supervisor: self.slot, name: name.to_owned() };
        match self.call(name, request, Vec::new()).await? {
            Answer::Spec(spec) => Ok(spec),
            _ => Err(ManageError::Refused {
                supervisor: self.shown(),
                child: name.to_owned(),
                refusal: Refusal::NotFound,
            }),
        }
    }

    /// Gives a pool another size: more members are started behind the others, fewer are stopped from the end.
    ///
    /// # Errors
    /// This is no pool, the size is not 1 to 4096, or a new member failed to start (then none is added).
    /// # Cancel safety
    /// Dropped before completion, the size changes all the same.
    pub async fn resize(&self, size: usize) -> Result<(), ManageError> {
        if size == 0 || size > crate::worker_count::LARGEST {
            let refusal = Refusal::Bad(format!("a pool has 1 to {} members, not {size}", crate::worker_count::LARGEST));
            return Err(ManageError::Refused { supervisor: self.shown(), child: "resize".to_owned(), refusal });
        }
        let size = size as u32;
        self.call("resize", Request::Resize { supervisor: self.slot, size }, Vec::new()).await.map(drop)
    }

    /// Replaces every worker below this supervisor by a fresh incarnation, one after the other: the new one is ready before the old
    /// one is asked to go. The old one finishes the message that it has in hand, gives its mailbox over, and drains by its
    /// child's deadline; messages that wait are handled by the new one, in order. A reload is no death: no strategy applies,
    /// nothing is counted, nobody's `on_down` is called.
    ///
    /// It runs the program that stands *now* at the path that this one was called by ([`Settings::program`](crate::Settings::program)); once
    /// a worker is ready with it, so do that slot's restarts. A program whose messages or arguments have other types is refused
    /// (to change those, stop the cluster and start it). SIGHUP reloads the whole tree.
    ///
    /// `Ok` says that every new one is ready; old ones may still drain. Two incarnations that live side by side send each in their own
    /// order, as two senders do. A worker that is down or waits for a restart is left as it is; when it comes up, it runs the new program.
    ///
    /// # Errors
    /// The first new worker that fails to become ready ends the reload: its old one, and those whose turn had not come, go on as
    /// they are. Or the tree is stopping.
    /// # Cancel safety
    /// Dropped before completion, the reload goes on.
    pub async fn reload(&self) -> Result<(), ManageError> {
        self.reload_by(1).await
    }

    /// The same, with up to `surge` workers being replaced at a time; 0 is 1.
    ///
    /// # Errors
    /// As [`SupervisorRef::reload`]; with the first failure no further one is begun.
    /// # Cancel safety
    /// Dropped before completion, the reload goes on.
    pub async fn reload_by(&self, surge: usize) -> Result<(), ManageError> {
        let surge = u32::try_from(surge).unwrap_or(u32::MAX);
        self.call("reload", Request::Reload { slot: self.slot, surge }, Vec::new()).await.map(drop)
    }

    /// The same for one worker below this supervisor, by its path from here: `"sum"`, `"web[2]"`.
    ///
    /// # Errors
    /// As [`SupervisorRef::reload`]; or there is no such worker, or it is not up.
    /// # Cancel safety
    /// Dropped before completion, the reload goes on.
    pub async fn reload_child(&self, name: &str) -> Result<WorkerId, ManageError> {
        let path = if self.name.is_empty() { name.to_owned() } else { format!("{}/{name}", self.name) };
        let slot = self.shared.directory.read().workers.get(&path).map(|found| found.slot);
        let refused = |refusal| ManageError::Refused { supervisor: self.shown(), child: name.to_owned(), refusal };
        let slot = slot.ok_or_else(|| refused(Refusal::NotFound))?;
        let answer = self.call(name, Request::Reload { slot, surge: 1 }, Vec::new()).await?;
        started(answer).ok_or_else(|| refused(Refusal::NotRunning))
    }
}

fn started(answer: Answer) -> Option<WorkerId> {
    match answer {
        Answer::Started(worker) => Some(worker),
        _ => None,
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorRef({})", self.shown())
    }
}

/// A [`Dynamic`](crate::Dynamic) supervisor of the running tree: copies of its template are started and stopped.
pub struct DynamicRef<W: Worker> {
    node: SupervisorRef,
    _worker: PhantomData<fn() -> W>,
}

impl<W: Worker> DynamicRef<W> {
    pub(crate) fn new(node: SupervisorRef) -> DynamicRef<W> {
        DynamicRef { node, _worker: PhantomData }
    }

    /// Starts a copy with these arguments, which it keeps across restarts.
    ///
    /// # Errors
    /// There are `max_children` copies, or the start failed (then nothing is kept).
    /// # Cancel safety
    /// Dropped before completion, the copy is started all the same.
    pub async fn start(&self, args: W::Args) -> Result<WorkerRef<W::Msg>, ManageError> {
        let launch = crate::dynamic::copy::<W>(&args);
        let request = Request::StartCopy { supervisor: self.node.slot, launch: 0 };
        match self.node.call("a copy", request, vec![launch]).await? {
            Answer::Started(worker) => {
                let name = self.node.shared.name(worker.slot);
                Ok(WorkerRef::new(self.node.endpoint.clone(), worker.slot, name, schema::of::<W::Msg>()))
            }
            _ => {
                let (supervisor, child) = (self.node.shown(), "a copy".to_owned());
                let refusal = Refusal::Failed(crate::exit::ExitReason::Ignored);
                Err(ManageError::Refused { supervisor, child, refusal })
            }
        }
    }

    /// Stops a copy and forgets it. One that has ended already is done.
    ///
    /// # Errors
    /// The copy waits for a restart in this moment: ask again.
    /// # Cancel safety
    /// Dropped before completion, the copy is stopped all the same.
    pub async fn terminate(&self, copy: &WorkerRef<W::Msg>) -> Result<(), ManageError> {
        let states = self.node.which_children().await?;
        let Some(child) = states.into_iter().find(|child| child.slot == copy.slot()) else {
            // It has ended already, which is what was asked for (OTP: `ok` for a dead process).
            return Ok(());
        };
        let Some(worker) = child.state.worker() else {
            let (supervisor, child) = (self.node.shown(), copy.name().to_owned());
            return Err(ManageError::Refused { supervisor, child, refusal: Refusal::NotFound });
        };
        let request = Request::TerminateWorker { supervisor: self.node.slot, worker };
        self.node.call(copy.name(), request, Vec::new()).await.map(drop)
    }

    /// The copies that there are.
    ///
    /// # Errors
    /// This supervisor is not there (any more).
    /// # Cancel safety
    /// Dropped before completion, nothing has changed.
    pub async fn copies(&self) -> Result<Vec<WorkerRef<W::Msg>>, ManageError> {
        let states = self.node.which_children().await?;
        let copies = states.into_iter().map(|child| {
            let name = self.node.shared.name(child.slot);
            WorkerRef::new(self.node.endpoint.clone(), child.slot, name, schema::of::<W::Msg>())
        });
        Ok(copies.collect())
    }
}

impl<W: Worker> fmt::Debug for DynamicRef<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamicRef({})", self.node.shown())
    }
}

/// What a refusal means, in words.
pub(crate) fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::AlreadyStarted(worker) => format!("it runs already, as {worker}"),
        Refusal::AlreadyPresent => "there is one of this name, which is not running: restart or delete that".to_owned(),
        Refusal::Running => "it runs: terminate it first".to_owned(),
        Refusal::Restarting => "a restart of it is pending: terminate it first, or wait".to_owned(),
        Refusal::NotFound => "there is none of this name".to_owned(),
        Refusal::NotRunning => "it is not up".to_owned(),
        Refusal::Dynamic => "the call does not fit this kind of supervisor".to_owned(),
        Refusal::MaxChildren(most) => format!("there are {most} copies, which is the most it may have"),
        Refusal::Failed(reason) => format!("its start failed: {reason}"),
        Refusal::Bad(text) => text.clone(),
        Refusal::Stopping => "the supervisor is stopping".to_owned(),
        Refusal::Cancelled => "it was terminated while it was starting".to_owned(),
    }
}

impl From<StartError> for ManageError {
    fn from(error: StartError) -> ManageError {
        ManageError::Child(error)
    }
}
