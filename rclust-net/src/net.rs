//! The *net* thread of the supervisor: owns every listener, accepts, and hands each connection to a slot.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rclust_core::WorkerId;
use rclust_core::extension::{Event, Extension, Supervisor, os};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::accept::{self, Accepted};
use crate::bind::{Ask, Key, Told};
use crate::dispatch::{Candidate, Dispatch, Picker};
use crate::handoff::queue::{Connection, Queue};
use crate::load::{self, LISTENERS, Load, Page, UNTAKEN};

/// Connections accepted before others have a turn.
const TURN: usize = 32;

/// The pause after an accept for which the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// Turns that a closing listener's task may need.
const CLOSING_TURNS: usize = 8;

/// One line in this time about such pauses.
const COMPLAIN: Duration = Duration::from_secs(1);

/// The extension of the supervisor.
pub(crate) struct Net;

impl Extension for Net {
    fn run(self: Box<Self>, events: mpsc::UnboundedReceiver<Event>, supervisor: Supervisor) {
        let runtime =
            match tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    // Without it every bind is refused by the core ("no such extension"), which says where to look.
                    tracing::error!(target: "rclust::net", %error, "the net thread has no runtime");
                    return;
                }
            };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, serve(events, supervisor));
    }
}

async fn serve(mut events: mpsc::UnboundedReceiver<Event>, supervisor: Supervisor) {
    let house = Rc::new(RefCell::new(House {
        supervisor,
        slots: BTreeMap::new(),
        listeners: HashMap::new(),
        next: 0,
        draining: Vec::new(),
        quiet: None,
    }));
    while let Some(event) = events.recv().await {
        handle(&house, event);
    }
}

/// One slot of the tree, as far as connections are concerned.
struct Slot {
    current: WorkerId,
    ready: bool,
    page: Page,
    memory: Arc<OwnedFd>,
    most: u64,
}

/// One slot's queue at one listener.
struct Lane {
    queue: Queue,
    handed: u64,
    /// How often the current worker has bound it: it has dropped its share when it has dropped each.
    binds: u32,
    /// The kernel said full where the counters said room (a worker lies): until it is heard of again.
    stuck: bool,
}

struct Bound {
    key: Key,
    local: SocketAddr,
    picker: Picker,
    lanes: BTreeMap<u32, Lane>,
    /// Accepted or taken back, and waiting for a slot.
    held: VecDeque<Connection>,
    /// Notified when a slot may have room, or something is held.
    room: Rc<Notify>,
    /// The socket has no connection waiting (seen since the stop began).
    drained: bool,
}

struct House {
    supervisor: Supervisor,
    slots: BTreeMap<u32, Slot>,
    listeners: HashMap<u32, Bound>,
    next: u32,
    /// Workers that are about to be told to stop, when what they took has begun.
    draining: Vec<(WorkerId, oneshot::Sender<()>)>,
    /// The tree is stopping, and wants to hear when nothing is untaken.
    quiet: Option<oneshot::Sender<()>>,
}

type Shared = Rc<RefCell<House>>;

fn handle(house: &Shared, event: Event) {
    match event {
        Event::Started { worker, .. } => house.borrow_mut().started(worker),
        Event::Ready { worker } => house.borrow_mut().set_ready(worker, true),
        Event::Draining { worker, quiet } => {
            let mut own = house.borrow_mut();
            own.set_ready(worker, false);
            own.take_back(worker);
            own.draining.push((worker, quiet));
            own.tell_drained();
        }
        Event::Gone { worker } => {
            let mut own = house.borrow_mut();
            own.set_ready(worker, false);
            own.take_back(worker);
            own.draining.retain(|(draining, _)| *draining != worker);
        }
        Event::Forgotten { slot } => house.borrow_mut().forget(slot.0),
        Event::Request { worker, id, body } => request(house, worker, id, &body),
        Event::Room { worker, told } => {
            told.store(false, Ordering::Release);
            house.borrow_mut().heard_of(worker);
        }
        Event::Quiet(told) => {
            let mut own = house.borrow_mut();
            own.quiet = Some(told);
            own.wake_all();
            own.tell_if_quiet();
        }
        _ => {}
    }
}

fn request(house: &Shared, worker: WorkerId, id: u64, body: &[u8]) {
    match postcard::from_bytes(body) {
        Ok(Ask::Bind { key, backlog, dispatch, descriptors }) => {
            let house = house.clone();
            tokio::task::spawn_local(async move {
                let wish = Wish { key, backlog, dispatch, descriptors };
                let mut bound = bind(&house, worker, &wish);
                // Our own socket for this address may be closing: its task has the next turns.
                for _ in 0..CLOSING_TURNS {
                    match &bound {
                        Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                        _ => break,
                    }
                    bound = bind(&house, worker, &wish);
                }
                let supervisor = house.borrow().supervisor.clone();
                match bound {
                    Ok((listener, local, fds)) => {
                        supervisor.listening(worker, local.to_string());
                        respond(&house, worker, id, &Told::Bound { listener, local }, fds);
                    }
                    Err(error) => {
                        supervisor.refused_listen(worker, wish.key.address.to_string(), error.to_string());
                        let told = Told::Failed { errno: error.raw_os_error(), text: error.to_string() };
                        respond(&house, worker, id, &told, Vec::new());
                    }
                }
            });
        }
        Ok(Ask::Close { listener }) => {
            house.borrow_mut().close(worker, listener);
            respond(house, worker, id, &Told::Closed, Vec::new());
        }
        Err(error) => respond(house, worker, id, &Told::Failed { errno: None, text: error.to_string() }, Vec::new()),
    }
}

fn respond(house: &Shared, worker: WorkerId, id: u64, told: &Told, fds: Vec<Arc<OwnedFd>>) {
    // Encoding these cannot fail: no map without a length, no float, no user type.
    let body = postcard::to_allocvec(told).unwrap_or_default();
    house.borrow().supervisor.respond(worker, id, body, fds);
}

/// What a worker asks for.
struct Wish {
    key: Key,
    backlog: u32,
    dispatch: Dispatch,
    descriptors: Option<u64>,
}

type Bind = (u32, SocketAddr, Vec<Arc<OwnedFd>>);

fn bind(house: &Shared, worker: WorkerId, wish: &Wish) -> io::Result<Bind> {
    let Wish { key, backlog, dispatch, descriptors } = wish;
    let mut own = house.borrow_mut();
    let Some(slot) = own.slots.get_mut(&worker.slot.0).filter(|slot| slot.current == worker) else {
        return Err(io::Error::other("this worker is not current any more"));
    };
    slot.most = load::most(*descriptors);
    let memory = slot.memory.clone();
    let known = own.listeners.iter().find(|(_, bound)| bound.key == *key).map(|(number, _)| *number);
    let number = match known {
        Some(number) => number,
        None => {
            let number = own.free_number()?;
            let socket = accept::listen(key.address, key.v6_only, *backlog)?;
            let local = socket2::SockRef::from(&socket).local_addr()?;
            let local = local.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
            let socket = os::register_readable(socket)?;
            let room = Rc::new(Notify::new());
            let picker = Picker::new(*dispatch);
            let (lanes, held) = (BTreeMap::new(), VecDeque::new());
            own.listeners.insert(
                number,
                Bound { key: key.clone(), local, picker, lanes, held, room: room.clone(), drained: false },
            );
            tokio::task::spawn_local(run_listener(house.clone(), number, socket, room));
            number
        }
    };
    let bound = own.listeners.get_mut(&number).ok_or_else(|| io::Error::other("the listener is gone"))?;
    let lane = match bound.lanes.entry(worker.slot.0) {
        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(Lane { queue: Queue::new()?, handed: 0, binds: 0, stuck: false })
        }
    };
    lane.binds += 1;
    let fds = vec![lane.queue.receiving_end(), memory];
    bound.room.notify_one();
    Ok((number, bound.local, fds))
}

impl House {
    fn free_number(&mut self) -> io::Result<u32> {
        for _ in 0..LISTENERS {
            let number = self.next % LISTENERS;
            self.next = self.next.wrapping_add(1);
            if !self.listeners.contains_key(&number) {
                return Ok(number);
            }
        }
        Err(io::Error::other(format!("a cluster has at most {LISTENERS} shared listeners")))
    }

    fn started(&mut self, worker: WorkerId) {
        match self.slots.get_mut(&worker.slot.0) {
            Some(slot) => {
                slot.current = worker;
                slot.ready = false;
                slot.page.reset();
            }
            None => match Page::create() {
                Ok((page, memory)) => {
                    let slot = Slot { current: worker, ready: false, page, memory, most: u64::MAX };
                    self.slots.insert(worker.slot.0, slot);
                }
                Err(error) => {
                    // Its binds are refused, with a reason of their own.
                    tracing::error!(target: "rclust::net", %error, slot = worker.slot.0, "no load page");
                }
            },
        }
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                lane.handed = 0;
                lane.binds = 0;
                lane.stuck = false;
            }
        }
    }

    fn set_ready(&mut self, worker: WorkerId, ready: bool) {
        if let Some(slot) = self.slots.get_mut(&worker.slot.0).filter(|slot| slot.current == worker) {
            slot.ready = ready;
        }
        self.wake_all();
    }

    /// A worker takes nothing more: what it has not taken is for others.
    fn take_back(&mut self, worker: WorkerId) {
        if self.slots.get(&worker.slot.0).is_none_or(|slot| slot.current != worker) {
            return;
        }
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                let back = lane.queue.read_back();
                lane.handed = lane.handed.saturating_sub(back.len() as u64);
                bound.held.extend(back);
                bound.room.notify_one();
            }
        }
        self.tell_if_quiet();
    }

    fn close(&mut self, worker: WorkerId, number: u32) {
        if self.slots.get(&worker.slot.0).is_none_or(|slot| slot.current != worker) {
            return;
        }
        let Some(bound) = self.listeners.get_mut(&number) else { return };
        let Some(lane) = bound.lanes.get_mut(&worker.slot.0) else { return };
        lane.binds = lane.binds.saturating_sub(1);
        if lane.binds > 0 {
            return;
        }
        bound.held.extend(lane.queue.read_back());
        bound.lanes.remove(&worker.slot.0);
        if bound.lanes.is_empty() {
            // Dropped by every worker, not lost with a dead one: the socket closes with its task.
            let room = bound.room.clone();
            self.listeners.remove(&number);
            room.notify_one();
        }
    }

    /// A slot will never be filled again: its page and its queues go.
    fn forget(&mut self, slot: u32) {
        self.slots.remove(&slot);
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.remove(&slot) {
                bound.held.extend(lane.queue.read_back());
                bound.room.notify_one();
            }
        }
    }

    fn heard_of(&mut self, worker: WorkerId) {
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                lane.stuck = false;
            }
            bound.room.notify_one();
        }
        self.tell_if_quiet();
        self.tell_drained();
    }

    fn wake_all(&self) {
        for bound in self.listeners.values() {
            bound.room.notify_one();
        }
    }

    /// The slots that may get a connection of this listener.
    fn candidates(&self, number: u32) -> Vec<Candidate> {
        let Some(bound) = self.listeners.get(&number) else { return Vec::new() };
        let ready = bound.lanes.iter().filter(|(_, lane)| !lane.stuck);
        ready
            .filter_map(|(slot, lane)| {
                let state = self.slots.get(slot).filter(|state| state.ready)?;
                if Load::new(lane.handed, state.page.read(number)).untaken >= UNTAKEN {
                    return None;
                }
                let load = self.load(*slot, state);
                (load < state.most).then_some(Candidate { slot: *slot, load })
            })
            .collect()
    }

    /// All connections of a slot, open and untaken, at every listener.
    fn load(&self, slot: u32, state: &Slot) -> u64 {
        let lanes = self.listeners.iter().filter_map(|(number, bound)| Some((*number, bound.lanes.get(&slot)?)));
        lanes
            .map(|(number, lane)| {
                let load = Load::new(lane.handed, state.page.read(number));
                load.untaken + load.open
            })
            .sum()
    }

    /// Gives a connection to the slot that the policy picks; it comes back where nobody has room.
    fn dispatch(&mut self, number: u32, mut connection: Connection) -> Result<(), Connection> {
        loop {
            let candidates = self.candidates(number);
            let Some(bound) = self.listeners.get_mut(&number) else { return Err(connection) };
            let Some(slot) = bound.picker.pick(&candidates) else { return Err(connection) };
            let Some(lane) = bound.lanes.get_mut(&slot) else { return Err(connection) };
            match lane.queue.give(connection) {
                Ok(()) => {
                    lane.handed += 1;
                    return Ok(());
                }
                Err(back) => {
                    connection = back;
                    lane.stuck = true;
                }
            }
        }
    }

    /// Whether somebody has room; if not, everybody who may have some is asked to tell.
    fn somebody_has_room(&self, number: u32) -> bool {
        if !self.candidates(number).is_empty() {
            return true;
        }
        for state in self.slots.values().filter(|state| state.ready) {
            state.page.want();
        }
        !self.candidates(number).is_empty()
    }

    /// Answers for the draining workers that have read from everything they took.
    fn tell_drained(&mut self) {
        let waiting = std::mem::take(&mut self.draining);
        for (worker, quiet) in waiting {
            if let Some(slot) = self.slots.get(&worker.slot.0) {
                slot.page.want();
            }
            if self.has_unread(worker) {
                self.draining.push((worker, quiet));
            } else {
                // The tree may have lost its patience.
                let _ = quiet.send(());
            }
        }
    }

    fn has_unread(&self, worker: WorkerId) -> bool {
        let Some(slot) = self.slots.get(&worker.slot.0).filter(|slot| slot.current == worker) else { return false };
        self.listeners.iter().any(|(number, bound)| {
            let lane = bound.lanes.get(&worker.slot.0);
            lane.is_some_and(|lane| Load::new(lane.handed, slot.page.read(*number)).unread > 0)
        })
    }

    /// While stopping: whether every connection that was accepted is in a program's hands.
    fn tell_if_quiet(&mut self) {
        if self.quiet.is_none() {
            return;
        }
        for state in self.slots.values().filter(|state| state.ready) {
            state.page.want();
        }
        let untaken = self.listeners.iter().any(|(number, bound)| {
            !bound.drained
                || !bound.held.is_empty()
                || bound.lanes.iter().any(|(slot, lane)| {
                    let state = self.slots.get(slot).filter(|state| state.ready);
                    state.is_some_and(|state| Load::new(lane.handed, state.page.read(*number)).untaken > 0)
                })
        });
        if !untaken {
            if let Some(told) = self.quiet.take() {
                // The tree may have lost its patience.
                let _ = told.send(());
            }
        }
    }
}

/// What a listener's task does next.
enum Step {
    /// The listener is gone.
    End,
    /// Nobody has room: wait for it.
    WaitForRoom,
    /// Accept.
    Accept,
}

async fn run_listener(house: Shared, number: u32, socket: AsyncFd<OwnedFd>, room: Rc<Notify>) {
    let mut complained: Option<Instant> = None;
    loop {
        match next_step(&house, number) {
            Step::End => return,
            Step::WaitForRoom => room.notified().await,
            Step::Accept => {
                let stopping = house.borrow().quiet.is_some();
                let mut guard = tokio::select! {
                    // While stopping, what waits in the backlog is accepted now or never.
                    () = std::future::ready(()), if stopping => None,
                    guard = socket.readable() => match guard {
                        Ok(guard) => Some(guard),
                        Err(_) => return,
                    },
                    // Something was given back, or the stop began, or the listener is gone.
                    () = room.notified() => continue,
                };
                match accept_turn(&house, number, &socket) {
                    Turn::Full => {}
                    Turn::More => tokio::task::yield_now().await,
                    Turn::Empty if stopping => break,
                    Turn::Empty => {
                        if let Some(guard) = &mut guard {
                            guard.clear_ready();
                        }
                    }
                    Turn::Exhausted(error) => {
                        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
                            complained = Some(Instant::now());
                            tracing::warn!(target: "rclust::net", %error, "accept pauses; clients wait in the backlog");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }
    // The tree stops: from here on clients are refused by the system, and what was accepted finds a worker.
    drop(socket);
    if let Some(bound) = house.borrow_mut().listeners.get_mut(&number) {
        bound.drained = true;
    }
    while !matches!(next_step(&house, number), Step::End) {
        room.notified().await;
    }
}

/// Gives what is held, then says whether to accept.
fn next_step(house: &Shared, number: u32) -> Step {
    let mut own = house.borrow_mut();
    loop {
        let Some(bound) = own.listeners.get_mut(&number) else { return Step::End };
        let Some(connection) = bound.held.pop_front() else { break };
        if let Err(connection) = own.dispatch(number, connection) {
            if let Some(bound) = own.listeners.get_mut(&number) {
                bound.held.push_front(connection);
            }
            if !own.somebody_has_room(number) {
                return Step::WaitForRoom;
            }
        }
    }
    own.tell_if_quiet();
    if own.somebody_has_room(number) { Step::Accept } else { Step::WaitForRoom }
}

enum Turn {
    /// No slot has room.
    Full,
    /// There may be more to accept.
    More,
    /// Nobody is waiting.
    Empty,
    /// No descriptors or memory.
    Exhausted(io::Error),
}

fn accept_turn(house: &Shared, number: u32, socket: &AsyncFd<OwnedFd>) -> Turn {
    let mut own = house.borrow_mut();
    for _ in 0..TURN {
        if own.candidates(number).is_empty() {
            return Turn::Full;
        }
        match accept::accept(socket.get_ref()) {
            Accepted::Connection(connection) => {
                if let Err(connection) = own.dispatch(number, connection) {
                    if let Some(bound) = own.listeners.get_mut(&number) {
                        bound.held.push_back(connection);
                    }
                    return Turn::Full;
                }
            }
            Accepted::ClientGone => {}
            Accepted::Nobody => return Turn::Empty,
            Accepted::Exhausted(error) => return Turn::Exhausted(error),
        }
    }
    Turn::More
}
