//! One process's side of all its lanes: who it is, whom it can reach, what rings it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::background;
use crate::error::LookupError;
use crate::exit::{ExitReason, Signal};
use crate::id::{Slot, WorkerId};
use crate::ipc::control::Control;
use crate::mailbox::bell::{answer_bell, ring_batches};
use crate::mailbox::beside::{self, NotAttached, Tag};
use crate::mailbox::lane::{Lane, Parts};
use crate::mailbox::pending::Pending;
use crate::mailbox::ring::kind;
use crate::pool_ref::Members;
use crate::socket::SOCKETS;
use crate::standing::WorkerStatus;
use crate::sys::memory::Sealed;
use crate::sys::readiness;
use crate::tree::event::Answer;
use crate::wire::control::{Found, Part};

/// The way to the supervisor's knowledge: a call in the supervisor, a question over the control lane in a worker.
pub(crate) trait Upstream: Send + Sync {
    /// A lane to `peer`; `Ok(None)`: it has been installed already.
    fn open(&self, peer: Slot) -> Result<Option<Parts>, String>;
    /// What a path names.
    fn find(&self, path: &str) -> Result<Located, LookupError>;
    /// The peer's ring in the lane with `me` is corrupt, as of this generation of the lane.
    fn corrupt(&self, me: Slot, peer: Slot, generation: u32);
    /// Hands over what goes beside the record that this side is about to commit. Never waits.
    fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached>;
    /// Waits after [`NotAttached::Crowded`].
    fn attach_room(&self) -> BoxFuture<'_, ()>;
    /// Gets what is beside a record that this side has taken.
    ///
    /// Dropped before completion, it is lost with the record.
    fn fetch(&self, tag: Tag, descriptors: usize) -> BoxFuture<'_, io::Result<Vec<OwnedFd>>>;
    /// A port of ours is in the record of `writer`'s lane to `reader` that ends there: we want to hear of the death that takes it.
    fn track(&self, reader: Slot, writer: Slot, end: u64);
    /// What [`Upstream::fetch`] brought is needed no more (a large payload is kept until then).
    fn handled(&self, tag: Tag);
    /// Gives the supervisor's loop an order about a slot's worker. `false`: this is a worker, which gives none.
    fn tend(&self, _slot: Slot, _order: Tend) -> bool {
        false
    }
    /// A worker's control lane.
    fn control(&self) -> Option<&Arc<Control>> {
        None
    }
}

/// What the supervisor's program wants of one worker, and where the answer goes.
pub(crate) enum Tend {
    /// How does it stand?
    Status(oneshot::Sender<WorkerStatus>),
    /// Stop it in order.
    Disconnect(oneshot::Sender<Answer>),
    /// Send its process a signal; who got it, if there is one.
    Signal(Signal, oneshot::Sender<Option<(WorkerId, io::Result<()>)>>),
}

/// What a path names.
pub(crate) enum Located {
    Worker(Found),
    Pool(Vec<Found>),
}

/// One process in the cluster (or, in tests, one thread that plays one).
pub(crate) struct Endpoint {
    me: WorkerId,
    /// Where this process writes from.
    seat: Slot,
    name: String,
    runtime: Handle,
    pub(super) upstream: Box<dyn Upstream>,
    lanes: RwLock<HashMap<Slot, Arc<Lane>>>,
    /// The lanes where this process reads its slot's messages, and writes nothing: it does that from another seat.
    inboxes: RwLock<HashMap<Slot, Arc<Lane>>>,
    /// A message that is delivered again, whose delivery has not begun: in whose lane, and how often it was delivered.
    again: Mutex<Option<(Slot, u32)>>,
    /// It has been replaced, and reads no more messages.
    gave_up: AtomicBool,
    /// Serializes the opening of lanes, and their being added.
    opening: Mutex<()>,
    adding: Mutex<()>,
    active: Mutex<Vec<Arc<Lane>>>,
    activity: Notify,
    unrung: Mutex<Vec<Arc<Lane>>>,
    pub(super) ring: Notify,
    pending: Mutex<Pending>,
    /// Counts the times that answers came.
    pub(super) answered: AtomicU64,
    /// Pools that were looked up here.
    pools: Mutex<HashMap<String, Arc<Members>>>,
    ready: AtomicBool,
    /// Whether it was declared dead while its thread may live on.
    cut: RwLock<bool>,
    was_cut: Notify,
}

static PROCESS: OnceLock<Arc<Endpoint>> = OnceLock::new();

/// What the threads of one worker share (in-process mode); filled when it has an endpoint. Weak, because the runtime that an
/// endpoint has keeps the seat of its threads.
pub(crate) type Seat = Arc<OnceLock<Weak<Endpoint>>>;

thread_local! {
    static THREAD: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// Who this thread, or else this process, is.
pub(crate) fn current() -> Option<Arc<Endpoint>> {
    match THREAD.with(|own| own.borrow().clone()) {
        Some(seat) => seat.get().and_then(Weak::upgrade),
        None => PROCESS.get().cloned(),
    }
}

/// This thread is one of a worker's.
pub(crate) fn sit(seat: &Seat) {
    THREAD.with(|own| *own.borrow_mut() = Some(seat.clone()));
}

/// Whether this thread is one of a worker's.
pub(crate) fn is_seated() -> bool {
    // Also asked in a thread's last moments, when it has lost what is its own.
    THREAD.try_with(|own| own.borrow().is_some()).unwrap_or(false)
}

impl Endpoint {
    /// Makes the process's endpoint. Its tasks run on `runtime`.
    pub(crate) fn new(me: WorkerId, name: String, runtime: Handle, upstream: Box<dyn Upstream>) -> Arc<Endpoint> {
        Endpoint::seated(me, me.slot, name, runtime, upstream)
    }

    /// The same for a process that writes from this seat of its slot.
    pub(crate) fn seated(
        me: WorkerId,
        seat: Slot,
        name: String,
        runtime: Handle,
        upstream: Box<dyn Upstream>,
    ) -> Arc<Endpoint> {
        let endpoint = Arc::new(Endpoint {
            me,
            seat,
            name,
            runtime,
            upstream,
            lanes: RwLock::default(),
            inboxes: RwLock::default(),
            again: Mutex::default(),
            gave_up: AtomicBool::new(false),
            opening: Mutex::new(()),
            adding: Mutex::new(()),
            active: Mutex::default(),
            activity: Notify::new(),
            unrung: Mutex::default(),
            ring: Notify::new(),
            pending: Mutex::default(),
            answered: AtomicU64::new(0),
            pools: Mutex::default(),
            ready: AtomicBool::new(false),
            cut: RwLock::new(false),
            was_cut: Notify::new(),
        });
        background::spawn_on(&endpoint.runtime, ring_batches(endpoint.clone()));
        endpoint
    }

    /// Makes it the answer to "who is this process". Once.
    pub(crate) fn install(self: &Arc<Self>) {
        let _ = PROCESS.set(self.clone());
    }

    /// Who this is.
    pub(crate) fn me(&self) -> WorkerId {
        self.me
    }

    /// Where it writes from.
    pub(crate) fn seat(&self) -> Slot {
        self.seat
    }

    /// Whom answers to its questions are for.
    pub(crate) fn asker(&self) -> WorkerId {
        WorkerId { slot: self.seat, incarnation: self.me.incarnation }
    }

    /// The first message that it reads has been delivered before.
    pub(crate) fn set_again(&self, again: Option<(Slot, u32)>) {
        *self.again.lock() = again;
    }

    /// That, once.
    pub(crate) fn take_again(&self) -> Option<(Slot, u32)> {
        self.again.lock().take()
    }

    /// Reads no more of its slot's messages, for good: what was taken is done, and a successor goes on.
    pub(crate) fn give_up_reading(&self) {
        // Behind lanes that are being added, which know of it then.
        let _one = self.adding.lock();
        self.gave_up.store(true, Ordering::Release);
        self.lanes.read().values().for_each(|lane| lane.give_up_reading());
        for (_, lane) in self.inboxes.write().drain() {
            lane.give_up_reading();
            lane.close();
        }
        self.active.lock().clear();
    }

    /// The path of this slot.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has said that it is ready (before that it must not ask the supervisor's body).
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// It has.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// See [`Upstream::tend`].
    pub(crate) fn tend(&self, slot: Slot, order: Tend) -> bool {
        self.upstream.tend(slot, order)
    }

    /// A worker's control lane; `None` in the supervisor.
    pub(crate) fn control(&self) -> Option<&Arc<Control>> {
        self.upstream.control()
    }

    /// Calls `act` as this endpoint: what is decoded in it belongs here. For code that knows its endpoint, on a thread that
    /// may be nobody's (a test's own).
    pub(crate) fn within<T>(self: &Arc<Self>, act: impl FnOnce() -> T) -> T {
        struct Restore(Option<Seat>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let before = self.0.take();
                THREAD.with(|own| *own.borrow_mut() = before);
            }
        }
        // For each message: no count is touched.
        let here = THREAD.with(|own| match &*own.borrow() {
            Some(seat) => seat.get().is_some_and(|own| Weak::as_ptr(own) == Arc::as_ptr(self)),
            None => PROCESS.get().is_some_and(|own| Arc::ptr_eq(own, self)),
        });
        if here {
            return act();
        }
        let seat = Arc::new(OnceLock::from(Arc::downgrade(self)));
        let _restore = Restore(THREAD.with(|own| own.borrow_mut().replace(seat)));
        act()
    }

    /// Takes no further part, for good (in-process mode: a thread cannot be killed). When this returns, nothing is read,
    /// written or handled by this side any more, whatever its threads do.
    pub(crate) fn cut(&self) {
        *self.cut.write() = true;
        // Behind those that were being added.
        let _one = self.adding.lock();
        self.lanes.read().values().for_each(|lane| lane.cut());
        self.inboxes.read().values().for_each(|lane| lane.cut());
        self.was_cut.notify_one();
    }

    /// Resolves when it was cut off. For one waiter.
    pub(crate) async fn was_cut(&self) {
        self.was_cut.notified().await;
    }

    /// Held while something is done that only the living may do; `None`: it was cut off.
    pub(crate) fn alive(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let cut = self.cut.read();
        (!*cut).then_some(cut)
    }

    /// The open asks.
    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock()
    }

    /// Hands over what goes beside a record.
    pub(crate) fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached> {
        self.upstream.attach(tag, large, fds)
    }

    /// Waits until there may be room for that.
    pub(crate) async fn attach_room(&self) {
        self.upstream.attach_room().await;
    }

    /// Gets what is beside a record that was taken, and checks it; `bytes` are the record's.
    pub(crate) async fn fetch(
        &self,
        tag: Tag,
        what: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<(Option<Sealed>, Vec<OwnedFd>), String> {
        if kind::descriptors(what) > SOCKETS + 1 {
            return Err(format!("it says that {} descriptors are beside it", kind::descriptors(what)));
        }
        let fds = self.upstream.fetch(tag, kind::descriptors(what)).await.map_err(|error| error.to_string())?;
        beside::open(what, bytes, fds)
    }

    /// What was beside a record is needed no more.
    pub(crate) fn handled(&self, tag: Tag) {
        self.upstream.handled(tag);
    }

    /// Where its tasks run.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Runs a task of this endpoint's.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// The members of a pool, kept up to date from now on; `found` is what a lookup said.
    pub(crate) fn pool(&self, path: &str, found: Vec<Found>) -> Arc<Members> {
        let mut pools = self.pools.lock();
        let members = pools.entry(path.to_owned()).or_insert_with(|| {
            let members = Members::default();
            members.set(found);
            Arc::new(members)
        });
        members.clone()
    }

    /// A pool has these members now.
    pub(crate) fn pool_changed(&self, path: &str, found: Vec<Found>) {
        if let Some(members) = self.pools.lock().get(path) {
            members.set(found);
        }
    }

    /// What a path names.
    pub(crate) fn find(&self, path: &str) -> Result<Located, LookupError> {
        self.upstream.find(path)
    }

    /// The lane to a slot; opened at first use. In a worker that is one question to the supervisor, during which the
    /// calling thread is held (tens of microseconds, 5 s at most).
    pub(crate) fn lane(self: &Arc<Self>, peer: Slot) -> Result<Arc<Lane>, String> {
        if let Some(lane) = self.lanes.read().get(&peer) {
            return Ok(lane.clone());
        }
        let _one = self.opening.lock();
        if let Some(lane) = self.lanes.read().get(&peer) {
            return Ok(lane.clone());
        }
        if let Some(parts) = self.upstream.open(peer)? {
            return self.add(parts).map_err(|error| error.to_string());
        }
        self.lanes.read().get(&peer).cloned().ok_or_else(|| "the supervisor sent no lane".to_owned())
    }

    /// The lane to a slot, if it is open.
    pub(crate) fn open_lane(&self, peer: Slot) -> Option<Arc<Lane>> {
        self.lanes.read().get(&peer).cloned()
    }

    /// Takes part in a lane, once per peer.
    pub(crate) fn add(self: &Arc<Self>, parts: Parts) -> io::Result<Arc<Lane>> {
        let peer = parts.peer;
        let _one = self.adding.lock();
        let lanes = if parts.part == Part::Inbox { &self.inboxes } else { &self.lanes };
        let known = lanes.read().get(&peer).cloned();
        if let Some(lane) = known.clone().filter(|lane| lane.generation() >= parts.generation) {
            return Ok(lane);
        }
        if *self.cut.read() {
            return Err(io::Error::other("this worker was declared dead"));
        }
        let renewed = known.is_some();
        let lane = match known {
            Some(lane) => {
                lane.renew(&parts, || self.pending.lock().spoilt(peer))?;
                lane
            }
            None => Arc::new(Lane::open(&parts)?),
        };
        if self.gave_up.load(Ordering::Acquire) {
            lane.give_up_reading();
        }
        lanes.write().insert(peer, lane.clone());
        for bell in parts.bells {
            let bell = {
                let _runtime = self.runtime.enter();
                readiness::register_readable(bell)?
            };
            background::spawn_on(&self.runtime, answer_bell(self.clone(), lane.clone(), bell, parts.generation));
        }
        self.activate(&lane);
        if renewed {
            // Who waits on the other side may have been rung at a doorbell that is no more.
            lane.ring();
        }
        Ok(lane)
    }

    /// Puts a lane on the receiver's list.
    pub(super) fn activate(&self, lane: &Arc<Lane>) {
        if lane.reads() && !lane.active.swap(true, Ordering::AcqRel) {
            self.active.lock().push(lane.clone());
            self.activity.notify_one();
        }
    }

    /// The lane where the answers of a slot come: that of its seat.
    pub(crate) fn answering(&self, lane: &Arc<Lane>) -> Arc<Lane> {
        let lanes = self.lanes.read();
        let other = lanes.get(&lane.peer.other_seat());
        // Of two, the one that has been answered from last.
        let newer = other.filter(|other| other.answered() > lane.answered());
        newer.unwrap_or(lane).clone()
    }

    /// Moves the lanes that have (or may have) messages to `turn`.
    pub(crate) fn drain_active(&self, turn: &mut std::collections::VecDeque<Arc<Lane>>) {
        turn.extend(self.active.lock().drain(..));
    }

    /// Whether some have.
    pub(crate) fn has_active(&self) -> bool {
        !self.active.lock().is_empty()
    }

    /// Completes when a lane has become active since the last time.
    pub(crate) async fn activity(&self) {
        self.activity.notified().await;
    }

    /// Rings this lane's reader when the sending task has yielded.
    pub(crate) fn ring_later(&self, lane: &Arc<Lane>) {
        self.unrung.lock().push(lane.clone());
        self.ring.notify_one();
    }

    /// Rings everybody whom committed records wait for, now.
    pub(crate) fn ring_all(&self) {
        let lanes = std::mem::take(&mut *self.unrung.lock());
        for lane in lanes {
            lane.ring_if_needed();
        }
    }

    /// An incarnation of `reader` died, or its slot was given up; it had taken `writer`'s messages up to `taken`.
    pub(crate) fn moved_died(&self, writer: Slot, reader: Slot, taken: (u64, u64), reason: &ExitReason) {
        self.pending.lock().moved_died(writer, reader, taken, reason);
    }

    /// An incarnation of `peer` died; it had taken our messages behind and up to these.
    pub(crate) fn peer_died(self: &Arc<Self>, peer: Slot, seat: Slot, taken: (u64, u64), reason: &ExitReason) {
        // What it had answered is answered, also if nobody has looked yet. A ring that it spoilt is found by its bell's task.
        let lane = self.lanes.read().get(&seat).cloned();
        if let Some(lane) = lane {
            while matches!(self.take_answers(&lane), Ok(false)) {}
        }
        let mut pending = self.pending.lock();
        pending.died(peer, taken, reason);
        pending.seat_died(seat, reason);
    }

    /// Whether this slot's lane is known to be spoilt, and not in order again.
    pub(crate) fn distrusts(&self, peer: Slot) -> bool {
        self.lanes.read().get(&peer).is_some_and(|lane| lane.is_distrusted())
    }

    /// A process on the other side of a lane is dead, which had this part of it. What it spoilt there is put in order before the
    /// next one looks: the supervisor's own counts are the truth, and it alone does this. `alone`: nobody else has a part there.
    pub(crate) fn repair(&self, peer: Slot, part: Part, alone: bool) {
        let lane = self.lanes.read().get(&peer).cloned();
        if let Some(lane) = lane.filter(|lane| lane.repair(part, alone)) {
            self.activate(&lane);
        }
    }

    /// The worker on the other side says that what this side wrote is spoilt: nothing of it will be believed.
    pub(crate) fn spoilt(&self, peer: Slot) {
        let lane = self.lanes.read().get(&peer).cloned();
        if let Some(lane) = lane {
            self.distrust(&lane);
        }
    }

    /// `peer` will never be filled again.
    pub(crate) fn peer_gone(&self, peer: Slot) {
        // References that still hold the lane find it closed; its memory and doorbell go with the last of them.
        for lanes in [&self.lanes, &self.inboxes] {
            let Some(lane) = lanes.write().remove(&peer) else { continue };
            lane.close();
            // Nobody may be reading the inbox: an empty lane must not wait there for a reader for ever. What the slot had
            // sent before it went is still read.
            let empty = lane.inbox.lock().is_empty();
            self.active.lock().retain(|active| !(empty && Arc::ptr_eq(active, &lane)));
        }
        self.pending.lock().closed(peer);
    }

    /// The cluster has ended: nothing can be sent any more.
    pub(crate) fn close(&self) {
        let peers: Vec<Slot> = self.lanes.read().keys().chain(self.inboxes.read().keys()).copied().collect();
        for peer in peers {
            self.peer_gone(peer);
        }
    }

    /// The peer broke the ring's rules: nothing of it is read any more, and the supervisor hears of it.
    pub(crate) fn distrust(&self, lane: &Lane) {
        if lane.distrust() {
            self.pending.lock().spoilt(lane.peer);
            self.upstream.corrupt(lane.me, lane.peer, lane.generation());
        }
    }
}
