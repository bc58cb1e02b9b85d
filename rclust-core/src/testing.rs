//! The same tree with a thread per worker, for users' unit tests. What they call is in `rclust-net`, which adds listeners.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::child_spec::Launch;
use crate::cluster::{Cluster, Inbox};
use crate::context::Context;
use crate::error::{LookupError, RunError, StartError};
use crate::extension::Extension;
use crate::id::WorkerId;
use crate::mailbox::dead::Dead;
use crate::mailbox::endpoint::Located;
use crate::run::boot::{self, Home, Settings, body, tree};
use crate::run::ground::{Ground, Play};
use crate::run::shared::Command;
use crate::run::{open, probe};
use crate::supervisor::Supervisor;
use crate::tree::plan::SupervisorPlan;
use crate::wire::schema;
use crate::worker::{Message, Outcome};
use crate::worker_ref::WorkerRef;

/// Starts a tree whose workers are threads, with extensions, of which at most the last is used.
#[doc(hidden)]
pub async fn start_with(
    settings: Settings,
    supervisor: Supervisor,
    extensions: Vec<Box<dyn Extension>>,
) -> Result<TestCluster, StartError> {
    let (plan, launches) = supervisor.parts()?;
    // The role is here already: the one-role program that plays it finds it as a process finds its own.
    let play: Arc<Play> =
        Arc::new(|name, role, link| boot::on_thread(name, link, move || tree(vec![role], || async {})));
    start(settings, play, plan, launches, extensions).await
}

/// The same for a program whose body is the worker.
#[doc(hidden)]
pub async fn body_with<F, Fut>(
    settings: Settings,
    serve: F,
    extensions: Vec<Box<dyn Extension>>,
) -> Result<TestCluster, StartError>
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    let plan = boot::default_tree(&settings)?;
    let serve = Arc::new(serve);
    let play: Arc<Play> = Arc::new(move |name, _main, link| {
        let serve = serve.clone();
        boot::on_thread(name, link, move || body(move |cx| serve(cx)))
    });
    let launch = boot::default_launch(&settings);
    start(settings, play, plan, vec![launch], extensions).await
}

async fn start(
    settings: Settings,
    play: Arc<Play>,
    plan: SupervisorPlan,
    launches: Vec<Launch>,
    extensions: Vec<Box<dyn Extension>>,
) -> Result<TestCluster, StartError> {
    if settings.has_init() {
        return Err(StartError::NeedsProcess { child: "Settings".to_owned(), setting: "init(..)" });
    }
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    // Nobody but the cluster's own threads and handles has it: it goes with the last of them.
    let home = Home::new(runtime, Ground::Threads(play), (None, None), settings, extensions);
    let (shared, endpoint, up) = open::plant(&home, plan, launches)?;
    // From here on a drop stops it, also of this future.
    let cluster = TestCluster(Cluster::new(shared, endpoint));
    match up.await {
        Ok(outcome) => outcome.map(|()| cluster),
        Err(_) => Err(StartError::Ended(RunError::Lost)),
    }
}

/// A running tree whose workers are threads of the test's process: a [`Cluster`], which it dereferences to, that can be made
/// to crash, and that is stopped when it is dropped.
///
/// The drop does not wait: children are asked to stop in order, each with its deadline, while the test goes on or ends.
/// [`Cluster::stop`] waits. Clones of the `Cluster` inside do not keep it running.
pub struct TestCluster(Cluster);

impl TestCluster {
    /// Ends a worker's current incarnation as SIGKILL would end its process, and tells who it was; `None`: nobody runs there
    /// now. What follows is its supervisor's to decide.
    ///
    /// When this returns, that incarnation reads and sends nothing any more: what is sent from now on is for the next one. Its
    /// end itself comes a moment later; a thread that is blocked is abandoned after 200 ms.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, or a pool's: name a member, such as `web[2]`.
    /// # Cancel safety
    /// Dropped before completion, the worker may crash all the same.
    pub async fn crash(&self, path: &str) -> Result<Option<WorkerId>, LookupError> {
        let shared = &self.0.shared;
        let slot = match shared.find(path)? {
            Located::Worker(found) => found.slot,
            Located::Pool(_) => return Err(LookupError::IsPool { path: path.to_owned() }),
        };
        let (crashed, answer) = oneshot::channel();
        shared.command(Command::Crash { slot, crashed });
        // No answer: the tree has ended, and everybody with it.
        Ok(answer.await.unwrap_or(None))
    }
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.0.shared.command(Command::Stop);
    }
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestCluster")
    }
}

/// A mailbox that the test itself reads: a reference to hand out in messages and arguments, and what comes of it.
///
/// It takes part in the first cluster of threads in which a worker sends to it; for others it is closed. It never crashes: who
/// monitors it hears of its end, a normal one, when the inbox is dropped. It is in no tree, so it cannot be looked up by a path.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::spawn` does.
#[must_use]
pub fn probe<M: Message>() -> (WorkerRef<M>, Inbox<M>) {
    let (endpoint, guard) = probe::make(Handle::current());
    let me = endpoint.me().slot;
    let reference = WorkerRef::new(endpoint.clone(), me, endpoint.name().to_owned(), schema::of::<M>());
    (reference, Inbox::new(Arc::default(), endpoint, Dead::default(), Some(guard)))
}
