//! What a worker is given: who it is, whom it can reach, timers, tasks, and the word that it shall stop.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::LookupError;
use crate::exit::ExitReason;
use crate::id::{Slot, WorkerId};
use crate::ipc::control::{Control, Stop};
use crate::mailbox::endpoint::Endpoint;
use crate::pool_ref::{self, PoolRef};
use crate::wire::control::ToSupervisor;
use crate::wire::schema;
use crate::worker::{Main, Message, Outcome, Report, Worker};
use crate::worker_ref::{self, ANYTHING, WorkerRef};

/// Facts about this incarnation.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) worker: WorkerId,
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) attempt: u32,
    pub(crate) previous: Option<ExitReason>,
}

/// What a worker is given. `Context` alone is that of the body of `#[cluster::main] async fn main(cx: cluster::Context)`.
pub struct Context<W: Worker = Main> {
    facts: Arc<Facts>,
    endpoint: Arc<Endpoint>,
    control: Arc<Control>,
    tasks: Arc<Tasks>,
    linked: mpsc::UnboundedSender<Report>,
    own: mpsc::UnboundedSender<W::Msg>,
    monitors: Cell<u64>,
    delivery: Cell<u32>,
}

/// What the context's tasks and timers send to the worker's loop.
pub(crate) struct Inputs<M> {
    pub(crate) linked: mpsc::UnboundedReceiver<Report>,
    pub(crate) own: mpsc::UnboundedReceiver<M>,
}

impl<W: Worker> Context<W> {
    pub(crate) fn new(
        facts: Arc<Facts>,
        endpoint: Arc<Endpoint>,
        control: Arc<Control>,
    ) -> (Context<W>, Inputs<W::Msg>) {
        let (linked, linked_ends) = mpsc::unbounded_channel();
        let (own, own_messages) = mpsc::unbounded_channel();
        let tasks = Arc::default();
        let context =
            Context { facts, endpoint, control, tasks, linked, own, monitors: Cell::new(0), delivery: Cell::new(1) };
        (context, Inputs { linked: linked_ends, own: own_messages })
    }

    pub(crate) fn tasks(&self) -> Arc<Tasks> {
        self.tasks.clone()
    }

    /// This worker's own mailbox, to be given to others.
    #[must_use]
    pub fn me(&self) -> WorkerRef<W::Msg> {
        let schema = schema::of::<W::Msg>();
        WorkerRef::new(self.endpoint.clone(), self.facts.worker.slot, self.facts.name.clone(), schema)
    }

    /// Slot and incarnation.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.facts.worker
    }

    /// The slot's path in the tree, `name[index]` for a pool's member.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// This worker's place in its pool, from 0; 0 outside a pool. The same across restarts.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.facts.index
    }

    /// How many starts of this slot have failed in a row before this one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// Why the previous incarnation of this slot ended; `None` for the first.
    #[must_use]
    pub fn previous(&self) -> Option<&ExitReason> {
        self.facts.previous.as_ref()
    }

    /// Which delivery of the message in hand this is: 1, or more if incarnations died with it in hand and the child is to have
    /// such messages again (`Child::redeliver`).
    #[must_use]
    pub fn delivery(&self) -> u32 {
        self.delivery.get()
    }

    pub(crate) fn set_delivery(&self, delivery: u32) {
        self.delivery.set(delivery);
    }

    /// Says that this worker can serve. Only the body of `main` needs it: its worker is otherwise ready with its first
    /// listener, or after a second of staying up. (After 24 s where it is to replace one, in a reload, in whose slot there was a listener: so that
    /// no port is without anybody.) Saying it twice does no harm.
    pub fn ready(&self) {
        say_ready(&self.endpoint, &self.control);
    }

    /// Leaves: this worker is stopped in order, as if somebody had asked for that. Intake stops, connections that it has not taken go
    /// to others, [`Context::draining`] and [`Context::shutdown`] resolve, [`Worker::on_stop`] hears [`StopReason::Leave`](crate::StopReason::Leave), and the deadline
    /// is that of the child's `Shutdown`. (Node: `worker.disconnect()` or `worker.kill()` in the worker itself.)
    ///
    /// It is announced as voluntary ([`Event::exited_after_disconnect`](crate::Event::exited_after_disconnect)), and the restart type decides what follows
    /// [`ExitReason::Shutdown`]: a permanent child is replaced, which is how a worker recycles itself; a transient or temporary one is
    /// not. Who leaves before it is ready leaves when it is. Saying it twice does no harm.
    #[doc(alias = "disconnect")]
    pub fn leave(&self) {
        self.control.say(&ToSupervisor::Leave);
    }

    /// A future that resolves when this worker shall end: close what is idle, finish what is under way.
    ///
    /// That is at once with the order to stop, unless the worker has connections of `cluster::net`. Then last calls come first
    /// ([`Context::draining`]), and this resolves when none of them had traffic for a quiet window (1 s unless a listener's builder says
    /// otherwise), when none is open, or after half the deadline, whichever comes first.
    ///
    /// What is open has until the deadline of the child's `Shutdown`, counted from the order; then the process is killed. Where that is
    /// `Infinity`, connections alone are cut, 30 s after the order.
    #[must_use]
    pub fn shutdown(&self) -> ShutdownSignal {
        ShutdownSignal::close(self.control.stop())
    }

    /// A future that resolves with the order to stop (or to make room for a successor), when last calls begin.
    ///
    /// Nothing new comes from listeners of `cluster::net`, what was not taken goes elsewhere, and open connections are served on
    /// until [`Context::shutdown`]: say on them that they end (`net::LastCalls` does it for HTTP/1). A [`Worker`] reads no
    /// more messages; its [`Worker::on_stop`] is called now.
    #[must_use]
    pub fn draining(&self) -> ShutdownSignal {
        ShutdownSignal::order(self.control.stop())
    }

    /// The mailbox of a worker of the tree, by its path; `V` is looked at for its message type only.
    ///
    /// Asks the supervisor, and holds the thread until it answers (tens of microseconds, 5 s at most): keep what you get.
    ///
    /// # Errors
    /// [`LookupError`]: no such path, a pool's path, other messages.
    pub fn worker<V: Worker>(&self, path: &str) -> Result<WorkerRef<V::Msg>, LookupError> {
        worker_ref::worker(&self.endpoint, path)
    }

    /// The members of a pool, by its path. Everything else as [`Context::worker`].
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn pool<V: Worker>(&self, path: &str) -> Result<PoolRef<V::Msg>, LookupError> {
        pool_ref::pool(&self.endpoint, path)
    }

    /// The typed inbox of the supervisor's body ([`Cluster::inbox`](crate::Cluster::inbox)). Nobody checks that the body reads
    /// messages of this type: what it cannot decode it reports.
    ///
    /// Asking it from `start` fails at once with [`AskError::NotReady`](crate::AskError::NotReady): the body reads its inbox only
    /// when every worker is ready.
    #[must_use]
    pub fn supervisor<M: Message>(&self) -> WorkerRef<M> {
        WorkerRef::new(self.endpoint.clone(), Slot::SUPERVISOR, "the supervisor".to_owned(), ANYTHING)
    }

    /// Watches a worker: [`Worker::on_down`] is called when its current incarnation ends; at once if there is none.
    pub fn monitor<M>(&self, worker: &WorkerRef<M>) -> MonitorId {
        let id = self.monitors.get() + 1;
        self.monitors.set(id);
        self.control.watch(id, worker.slot());
        MonitorId(id)
    }

    /// Stops watching. No later call of `on_down` comes from this monitor.
    pub fn demonitor(&self, id: MonitorId) {
        self.control.unwatch(id.0);
    }

    /// Puts a message into this worker's own queue after a delay. It is lost with this incarnation.
    pub fn send_after(&self, delay: Duration, message: W::Msg) -> Timer {
        let own = self.own.clone();
        Timer(tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            // The worker may be stopping.
            let _ = own.send(message);
        }))
    }

    /// Puts a message into this worker's own queue every `period`, beginning one period from now.
    pub fn send_every(&self, period: Duration, mut make: impl FnMut() -> W::Msg + 'static) -> Timer {
        let own = self.own.clone();
        Timer(tokio::task::spawn_local(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                if own.send(make()).is_err() {
                    return;
                }
            }
        }))
    }

    /// Runs a task beside the worker. Its error or panic ends nothing but itself (a client's reset must not kill a worker).
    ///
    /// A stopping worker waits for it until the deadline: a task that loops for ever has to watch [`Context::shutdown`] (or, to end
    /// with the last message, [`Context::draining`]).
    /// The task cannot borrow the context: clone [`Context::me`] or [`Context::shutdown`] into it first.
    pub fn spawn<F>(&self, task: F) -> Task<F::Output>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: Send + 'static,
    {
        Task(tokio::spawn(self.tasks.track(task.into_future())))
    }

    /// The same for a task that stays on the worker's thread and need not be `Send`.
    pub fn spawn_local<F>(&self, task: F) -> Task<F::Output>
    where
        F: IntoFuture,
        F::IntoFuture: 'static,
        F::Output: 'static,
    {
        Task(tokio::task::spawn_local(self.tasks.track(task.into_future())))
    }

    /// Runs a task that the worker lives and dies with: when it ends, the worker ends; its error or panic is the exit reason.
    ///
    /// A worker that serves binds in `start` and links its server.
    pub fn spawn_linked<F>(&self, task: F)
    where
        F: IntoFuture,
        F::IntoFuture: 'static,
        F::Output: Outcome,
    {
        let linked = self.linked.clone();
        let task = self.tasks.track(task.into_future());
        tokio::task::spawn_local(async move {
            let outcome = crate::run::work::catch(async { task.await.report() }).await;
            // The worker may have ended before.
            let _ = linked.send(outcome.unwrap_or_else(|panic| Report::panicked(&panic)));
        });
    }
}

impl<W: Worker> fmt::Debug for Context<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("worker", &self.facts.worker)
            .field("name", &self.facts.name)
            .finish_non_exhaustive()
    }
}

/// Says once that this worker can serve.
pub(crate) fn say_ready(endpoint: &Endpoint, control: &Control) {
    if !endpoint.is_ready() {
        endpoint.set_ready();
        control.say(&ToSupervisor::Ready);
    }
}

/// Names a monitor of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorId(u64);

/// A message to come. Dropping it changes nothing; [`Timer::cancel`] takes it back.
#[derive(Debug)]
pub struct Timer(JoinHandle<()>);

impl Timer {
    /// Runs what it stands for; without a runtime there is nothing to wait for.
    pub(crate) fn on(runtime: Option<Handle>, task: impl Future<Output = ()> + Send + 'static) -> Timer {
        match runtime {
            Some(runtime) => Timer(runtime.spawn(task)),
            None => Timer(tokio::spawn(task)),
        }
    }

    /// No further message comes from this timer.
    pub fn cancel(self) {
        self.0.abort();
    }
}

/// A running task. Dropping the handle lets it go on.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Waits for the task's end; `None`: it was aborted, or it panicked.
    ///
    /// # Cancel safety
    /// Dropped before completion, the task goes on.
    pub async fn join(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Counts open tasks, so that a stopping worker can wait for them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    open: AtomicUsize,
    idle: Notify,
}

impl Tasks {
    fn track<F: Future>(self: &Arc<Self>, task: F) -> impl Future<Output = F::Output> + use<F> {
        struct Open(Arc<Tasks>);
        impl Drop for Open {
            fn drop(&mut self) {
                if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.0.idle.notify_waiters();
                }
            }
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let open = Open(self.clone());
        async move {
            let _open = open;
            task.await
        }
    }

    /// Resolves when no task is open.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Resolves when last calls begin, or when the close does. Made for `axum::serve(..).with_graceful_shutdown(cx.shutdown())`.
pub struct ShutdownSignal {
    stop: watch::Receiver<Option<Stop>>,
    reached: Reached,
    waiting: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Whether an order has come as far as is waited for.
type Reached = fn(&Option<Stop>) -> bool;

impl ShutdownSignal {
    /// Of the order to stop.
    pub(crate) fn order(stop: watch::Receiver<Option<Stop>>) -> ShutdownSignal {
        ShutdownSignal::new(stop, Option::is_some)
    }

    /// Of the close.
    pub(crate) fn close(stop: watch::Receiver<Option<Stop>>) -> ShutdownSignal {
        ShutdownSignal::new(stop, |stop| stop.is_some_and(|stop| stop.close))
    }

    fn new(stop: watch::Receiver<Option<Stop>>, reached: Reached) -> ShutdownSignal {
        let mut waiter = stop.clone();
        let waiting = Box::pin(async move {
            // The control lane outlives everybody who waits here.
            let _ = waiter.wait_for(reached).await;
        });
        ShutdownSignal { stop, reached, waiting }
    }

    /// Whether it has resolved.
    #[must_use]
    pub fn is_set(&self) -> bool {
        (self.reached)(&self.stop.borrow())
    }
}

impl Future for ShutdownSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        self.waiting.as_mut().poll(cx)
    }
}

impl Clone for ShutdownSignal {
    fn clone(&self) -> Self {
        ShutdownSignal::new(self.stop.clone(), self.reached)
    }
}

impl fmt::Debug for ShutdownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShutdownSignal({})", if self.is_set() { "set" } else { "not set" })
    }
}
