//! The worker's side of the control lane: a thread that always reads, whatever the program does.
//!
//! Its end-of-file means that the supervisor is gone, and ends the process at once: the second guard beside the
//! kernel's parent-death signal. It also takes the signals that a service manager or a terminal sends.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::background;
use crate::error::LookupError;
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};
use crate::ipc::link::{WorkerReader, WorkerWriter};
use crate::ipc::porter::Porter;
use crate::ipc::wear::Wear;
use crate::mailbox::beside::{NotAttached, Tag};
use crate::mailbox::endpoint::{Endpoint, Located, Upstream};
use crate::mailbox::lane::Parts;
use crate::recycle::Limits;
use crate::sys::link::Socket;
use crate::sys::readiness;
use crate::wire::control::{Answer, Request, ToSupervisor, ToWorker};

/// How long a question to the supervisor may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a worker that was sent SIGTERM waits for its supervisor's word before it drains on its own.
const TERM_PATIENCE: Duration = Duration::from_secs(2);

type Answered = (Answer, Vec<OwnedFd>);

/// What is done with an answer.
type Then = Box<dyn FnOnce(Answered) + Send>;

/// An order to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) why: StopReason,
    pub(crate) deadline: Option<Duration>,
    /// Last calls are over: what is open is to be closed.
    pub(crate) close: bool,
}

impl Stop {
    /// An order that has just come.
    pub(crate) fn new(why: StopReason, deadline: Option<Duration>) -> Stop {
        Stop { why, deadline, close: false }
    }
}

/// The deadline of a drain whose worker has none.
const LAST_CALLS_LIMIT: Duration = Duration::from_secs(30);

/// What an extension does between an order to stop and the close.
type LastCalls = Box<dyn FnOnce(Option<Duration>, Close) -> BoxFuture<'static, ()> + Send>;

/// Begins the close of a worker that was ordered to stop, at its drop at the latest.
pub(crate) struct Close(Arc<Control>);

impl Drop for Close {
    fn drop(&mut self) {
        self.0.stop.send_if_modified(|stop| match stop {
            Some(stop) => !std::mem::replace(&mut stop.close, true),
            None => false,
        });
    }
}

/// News of another worker's end.
#[derive(Clone, Debug)]
pub(crate) struct PeerDown {
    pub(crate) worker: WorkerId,
    pub(crate) name: String,
    pub(crate) reason: ExitReason,
}

/// What the rest of the worker uses of the control lane.
pub(crate) struct Control {
    writer: WorkerWriter,
    /// Where its sockets are registered; known when the control thread starts.
    runtime: OnceLock<Handle>,
    porter: OnceLock<Arc<Porter>>,
    asking_for_porter: Mutex<()>,
    /// The open questions; `None`: the link has ended, and no answer will come.
    waiting: Mutex<Option<HashMap<u64, Then>>>,
    next: AtomicU64,
    stop: watch::Sender<Option<Stop>>,
    asked: AtomicBool,
    /// Whether no message is in hand any more.
    free: watch::Sender<bool>,
    pub(crate) wear: Wear,
    /// Taken by the order to stop.
    last_calls: Mutex<Option<LastCalls>>,
    downs: Mutex<Option<tokio::sync::mpsc::UnboundedSender<PeerDown>>>,
    watched: Mutex<HashMap<u64, Slot>>,
    /// Whether the first listener makes this worker ready (else `start` does, by returning).
    pub(crate) ready_by_listening: bool,
    /// That it listens was said.
    pub(crate) listened: AtomicBool,
    /// What the extension keeps for this worker.
    pub(crate) kept: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Control {
    pub(crate) fn new(socket: Arc<Socket>, ready_by_listening: bool, limits: Limits) -> Arc<Control> {
        Arc::new(Control {
            writer: WorkerWriter::new(socket),
            runtime: OnceLock::new(),
            porter: OnceLock::new(),
            asking_for_porter: Mutex::new(()),
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            stop: watch::channel(None).0,
            asked: AtomicBool::new(false),
            free: watch::channel(false).0,
            wear: Wear::new(limits),
            last_calls: Mutex::default(),
            downs: Mutex::default(),
            watched: Mutex::default(),
            ready_by_listening,
            listened: AtomicBool::new(false),
            kept: OnceLock::new(),
        })
    }

    /// Says something to the supervisor. If that fails, the supervisor is gone and so is this process, in a moment.
    pub(crate) fn say(&self, word: &ToSupervisor) {
        if let Err(error) = self.writer.send(word) {
            tracing::debug!(%error, "the control lane cannot be written");
        }
    }

    /// The runtime of its worker, once it has begun.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned()
    }

    /// The message in hand is done, and no other will be taken.
    pub(crate) fn free_hands(&self) {
        self.free.send_replace(true);
    }

    async fn hands_are_free(&self) {
        // Its sender is here.
        let _ = self.free.subscribe().wait_for(|free| *free).await;
    }

    /// Whether an order to stop has come.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Changes when an order to stop comes, and when the close begins.
    pub(crate) fn stop(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Where news of watched workers go.
    pub(crate) fn deliver_downs(&self, to: tokio::sync::mpsc::UnboundedSender<PeerDown>) {
        *self.downs.lock() = Some(to);
    }

    /// Watches a slot's current incarnation, once.
    pub(crate) fn watch(&self, id: u64, slot: Slot) {
        self.watched.lock().insert(id, slot);
        self.say(&ToSupervisor::Watch { slot });
    }

    /// Watches no more.
    pub(crate) fn unwatch(&self, id: u64) {
        self.watched.lock().remove(&id);
    }

    /// Tells each monitor of this slot, once.
    fn fire(&self, down: &PeerDown) {
        let mut watched = self.watched.lock();
        let fired = watched.len();
        watched.retain(|_, slot| *slot != down.worker.slot);
        if let Some(downs) = &*self.downs.lock() {
            for _ in watched.len()..fired {
                // The worker's loop may have ended.
                let _ = downs.send(down.clone());
            }
        }
    }

    fn ask_with(&self, request: Request, then: impl FnOnce(Answered) + Send + 'static) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // After the end, what waits for the answer finds `then` dropped.
        if let Some(waiting) = &mut *self.waiting.lock() {
            waiting.insert(id, Box::new(then));
        }
        self.say(&ToSupervisor::Request { id, request });
        id
    }

    /// Asks the supervisor and holds the thread until it answers.
    fn ask_blocking(&self, request: Request) -> Result<Answered, String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let id = self.ask_with(request, move |answered| {
            // Nobody may be waiting any more.
            let _ = sender.send(answered);
        });
        receiver.recv_timeout(ANSWER_LIMIT).map_err(|_| {
            self.take_waiting(id);
            format!("the supervisor is gone, or did not answer within {ANSWER_LIMIT:?}")
        })
    }

    /// The porter; asked for at first use, which holds the thread as [`Control::ask_blocking`] does.
    fn porter(&self) -> io::Result<Arc<Porter>> {
        if let Some(porter) = self.porter.get() {
            return Ok(porter.clone());
        }
        let _one = self.asking_for_porter.lock();
        if let Some(porter) = self.porter.get() {
            return Ok(porter.clone());
        }
        let (answer, mut fds) = self.ask_blocking(Request::Porter).map_err(io::Error::other)?;
        let socket = match answer {
            Answer::Porter => fds.pop(),
            Answer::Refused(why) => return Err(io::Error::other(why)),
            _ => None,
        };
        let socket = socket.ok_or_else(|| io::Error::other("the supervisor gave no socket"))?;
        let runtime = self.runtime.get().ok_or_else(|| io::Error::other("this worker has not begun"))?;
        let _runtime = runtime.enter();
        let porter = Arc::new(Porter::new(socket)?);
        Ok(self.porter.get_or_init(|| porter).clone())
    }

    /// Asks on behalf of an extension. Dropped before completion, the question is still answered, to nobody.
    pub(crate) async fn ask_extension(&self, body: Vec<u8>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let (sender, receiver) = oneshot::channel();
        self.ask_with(Request::Extension(body), move |answered| {
            let _ = sender.send(answered);
        });
        match receiver.await {
            Ok((Answer::Extension(body), fds)) => Ok((body, fds)),
            Ok((Answer::Refused(why), _)) => Err(io::Error::other(why)),
            _ => Err(io::Error::other("the supervisor gave no answer")),
        }
    }

    fn handle(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        word: ToWorker,
        fds: Vec<OwnedFd>,
        begin: &mpsc::SyncSender<()>,
    ) -> io::Result<()> {
        match word {
            ToWorker::Boot(_) => return Err(io::Error::other("a second boot message")),
            ToWorker::Lane { me, peer, part, end, bells, sizes, generation, fresh } => {
                let mut fds = fds.into_iter().map(Arc::new);
                let memory = fds.next();
                let bells: Vec<_> = fds.by_ref().take(bells as usize).collect();
                let (Some(memory), false) = (memory, bells.is_empty()) else {
                    return Err(io::Error::other("a lane without descriptors"));
                };
                let ringer = fds.next();
                let parts = Parts { me, peer, part, end, sizes, memory, bells, ringer, generation, fresh };
                match endpoint.add(parts) {
                    Ok(_) => {}
                    // Spoilt by a predecessor or the peer: that lane is of no use, the others are.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        self.say(&ToSupervisor::CorruptLane { me, peer, generation });
                    }
                    Err(error) => return Err(error),
                }
            }
            ToWorker::Begin => {
                let _ = begin.try_send(());
            }
            ToWorker::Answer { id, answer } => {
                if let Some(then) = self.take_waiting(id) {
                    then((answer, fds));
                }
            }
            ToWorker::Stop { why, deadline } => self.order_stop(Stop::new(why, deadline)),
            ToWorker::Current { again } => endpoint.set_again(again),
            ToWorker::PeerDown { worker, seat, name, taken, reason, watched } => {
                if let Some(taken) = taken {
                    endpoint.peer_died(worker.slot, seat, taken, &reason);
                }
                if watched {
                    self.fire(&PeerDown { worker, name, reason });
                }
            }
            ToWorker::MovedDied { writer, reader, taken, reason } => {
                endpoint.moved_died(writer, reader, taken, &reason);
            }
            ToWorker::Pool { path, members } => endpoint.pool_changed(&path, members),
            ToWorker::PeerGone { slot } => {
                endpoint.peer_gone(slot);
                self.say(&ToSupervisor::LaneClosed { peer: slot });
            }
        }
        Ok(())
    }

    fn take_waiting(&self, id: u64) -> Option<Then> {
        self.waiting.lock().as_mut()?.remove(&id)
    }

    /// The first order counts. On the control thread, which has time also where the program has none.
    fn order_stop(self: &Arc<Self>, stop: Stop) {
        if self.stop.borrow().is_some() {
            return;
        }
        self.asked.store(true, Ordering::Relaxed);
        // The extension knows before the program does.
        let last_calls = self.last_calls.lock().take();
        let last_calls = last_calls.map(|last_calls| last_calls(stop.deadline, Close(self.clone())));
        self.stop.send_replace(Some(Stop { close: last_calls.is_none(), ..stop }));
        if let Some(last_calls) = last_calls {
            let (control, limit) = (self.clone(), stop.deadline.unwrap_or(LAST_CALLS_LIMIT) / 2);
            background::spawn(async move {
                // The message in hand may open a connection, or be given one.
                let _ = tokio::time::timeout(limit, control.hands_are_free()).await;
                last_calls.await;
            });
        }
    }

    /// Says what is to be done between an order to stop and the close; after the order there is nothing to do.
    pub(crate) fn before_close(&self, last_calls: LastCalls) {
        *self.last_calls.lock() = Some(last_calls);
    }
}

/// A worker's way to the supervisor's knowledge.
pub(crate) struct ThroughControl(pub(crate) Arc<Control>);

impl Upstream for ThroughControl {
    fn open(&self, peer: Slot) -> Result<Option<Parts>, String> {
        match self.0.ask_blocking(Request::Lane { peer })?.0 {
            Answer::LaneSent => Ok(None),
            Answer::Refused(why) => Err(why),
            _ => Err("the supervisor's answer makes no sense".to_owned()),
        }
    }

    fn find(&self, path: &str) -> Result<Located, LookupError> {
        let no_cluster = |why: String| LookupError::NoCluster { path: path.to_owned(), why };
        match self.0.ask_blocking(Request::Find { path: path.to_owned() }).map_err(no_cluster)?.0 {
            Answer::Worker(found) => Ok(Located::Worker(found)),
            Answer::Pool(members) => Ok(Located::Pool(members)),
            Answer::NotFound => Err(LookupError::NotFound { path: path.to_owned() }),
            _ => Err(no_cluster("the supervisor's answer makes no sense".to_owned())),
        }
    }

    fn corrupt(&self, me: Slot, peer: Slot, generation: u32) {
        self.0.say(&ToSupervisor::CorruptLane { me, peer, generation });
    }

    fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached> {
        self.0.porter().map_err(NotAttached::Os)?.attach(tag, large, fds)
    }

    fn attach_room(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Ok(porter) = self.0.porter() {
                porter.room().await;
            }
        })
    }

    fn fetch(&self, tag: Tag, descriptors: usize) -> BoxFuture<'_, io::Result<Vec<OwnedFd>>> {
        Box::pin(async move {
            let ask = || self.0.say(&ToSupervisor::Fetch { from: tag.peer, ring: tag.ring, end: tag.end });
            self.0.porter()?.fetch(tag, descriptors, ask).await
        })
    }

    fn track(&self, reader: Slot, writer: Slot, end: u64) {
        self.0.say(&ToSupervisor::Track { reader, writer, end });
    }

    fn handled(&self, tag: Tag) {
        self.0.say(&ToSupervisor::Handled { from: tag.peer, ring: tag.ring, end: tag.end });
    }

    fn control(&self) -> Option<&Arc<Control>> {
        Some(&self.0)
    }
}

/// Starts the thread. Returns when the supervisor has said everything that existed before this worker.
///
/// `end` is called on the thread when the link has ended. `signals`: whether this process's signals are the worker's.
pub(crate) fn start(
    control: Arc<Control>,
    reader: WorkerReader,
    socket: Arc<Socket>,
    endpoint: Arc<Endpoint>,
    signals: bool,
    end: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (begin, begun) = mpsc::sync_channel(1);
    let _ = control.runtime.set(endpoint.runtime());
    std::thread::Builder::new().name("rclust-control".to_owned()).stack_size(256 << 10).spawn(move || {
        let runtime =
            match tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    control.say(&ToSupervisor::Ending(crate::wire::control::Ending::Error(format!(
                        "no runtime: {error}"
                    ))));
                    return end();
                }
            };
        let error = runtime.block_on(read(control.clone(), reader, socket, endpoint, signals, begin));
        // The supervisor is gone, or speaks another language: there is nobody to work for.
        if let Err(error) = error {
            control.say(&ToSupervisor::Ending(crate::wire::control::Ending::Error(format!("control lane: {error}"))));
        }
        // Dropped without the lock: whoever waits may ask again.
        let waiting = control.waiting.lock().take();
        drop(waiting);
        end();
    })?;
    begun.recv().map_err(|_| io::Error::other("the control lane ended before the worker began"))
}

async fn read(
    control: Arc<Control>,
    mut reader: WorkerReader,
    socket: Arc<Socket>,
    endpoint: Arc<Endpoint>,
    signals: bool,
    begin: mpsc::SyncSender<()>,
) -> io::Result<()> {
    let io = readiness::register_readable(socket)?;
    let mut signals = if signals { Some(Signals::new()?) } else { None };
    let mut terminated = false;
    loop {
        while let Some((word, fds)) = reader.next::<ToWorker>()? {
            control.handle(&endpoint, word, fds, &begin)?;
        }
        tokio::select! {
            guard = io.readable() => {
                let mut guard = guard?;
                match reader.read_now() {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    Err(error) => return Err(error),
                }
            }
            kind = next_signal(&mut signals) => {
                if kind != SignalKind::terminate() {
                    // The terminal's and the operator's words are for the supervisor; caught, not ignored, because
                    // "ignored" would be inherited by this worker's own children.
                    continue;
                }
                if terminated {
                    // Twice: now.
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                }
                terminated = true;
                control.say(&ToSupervisor::Terminated);
                let control = control.clone();
                background::spawn(async move {
                    tokio::time::sleep(TERM_PATIENCE).await;
                    control.order_stop(Stop::new(StopReason::Signal, None));
                });
            }
        }
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }
}

/// The next signal of the worker's own; never, where the process's signals are not its own.
async fn next_signal(signals: &mut Option<Signals>) -> SignalKind {
    let Some(signals) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = signals.term.recv() => SignalKind::terminate(),
        _ = signals.int.recv() => SignalKind::interrupt(),
        _ = signals.hup.recv() => SignalKind::hangup(),
    }
}
