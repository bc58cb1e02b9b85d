//! What the *net* thread knows: slots, listeners, and who has room.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rclust_core::WorkerId;
use rclust_core::extension::Supervisor;
use tokio::sync::{Notify, oneshot};

use crate::bind::Key;
use crate::dispatch::{Arrival, Candidate, How, Picker, sticky};
use crate::handoff::queue::{Connection, Queue};
use crate::load::{LISTENERS, Load, Page, UNTAKEN};
use crate::peek::{self, Peeked};
use crate::registry::KeyOf;
use crate::stall::{Look, Stall};
use crate::stats::{SlotStats, Stats};

/// One slot of the tree, as far as connections are concerned.
pub(crate) struct Slot {
    pub(crate) current: WorkerId,
    name: Arc<str>,
    index: usize,
    pub(crate) ready: bool,
    pub(crate) page: Page,
    pub(crate) memory: Arc<OwnedFd>,
    /// How many connections its limit of open descriptors allows.
    pub(crate) most: u64,
}

/// One slot's queue at one listener.
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    /// Put into it since the current incarnation began, and not read back.
    handed: u64,
    /// Put into it ever.
    total: u64,
    /// How often the current worker has bound it: it has dropped its share when it has dropped each.
    pub(crate) binds: u32,
    /// The kernel said full where the counters said room (a worker lies): until it is heard of again.
    stuck: bool,
    stall: Stall,
}

impl Lane {
    pub(crate) fn new() -> io::Result<Lane> {
        Ok(Lane { queue: Queue::new()?, handed: 0, total: 0, binds: 0, stuck: false, stall: Stall::default() })
    }

    /// A new incarnation begins.
    fn reset(&mut self) {
        self.handed = 0;
        self.binds = 0;
        self.stuck = false;
        self.stall = Stall::default();
    }

    /// What it has not taken, oldest first.
    fn read_back(&mut self) -> Vec<Connection> {
        let back = self.queue.read_back();
        self.handed = self.handed.saturating_sub(back.len() as u64);
        back
    }
}

/// A listener.
pub(crate) struct Bound {
    pub(crate) key: Key,
    pub(crate) local: SocketAddr,
    picker: Picker,
    /// How a sticky policy finds a client's key in its first bytes.
    key_of: Option<KeyOf>,
    pub(crate) lanes: BTreeMap<u32, Lane>,
    /// Accepted or taken back, and waiting for a slot.
    pub(crate) held: VecDeque<Connection>,
    /// Notified when a slot may have room, or something is held.
    pub(crate) room: Rc<Notify>,
    /// The socket has no connection waiting (seen since the stop began).
    pub(crate) drained: bool,
    /// Connections whose first bytes are waited for.
    peeking: u32,
    accepted: u64,
    /// Handed to slots that are not its own any more.
    handed_before: u64,
    moved: u64,
    refused: u64,
    /// Panics of the key function.
    panics: u64,
}

impl Bound {
    pub(crate) fn new(key: Key, local: SocketAddr, how: How, key_of: Option<KeyOf>) -> Bound {
        Bound {
            key,
            local,
            picker: Picker::new(how),
            key_of,
            lanes: BTreeMap::new(),
            held: VecDeque::new(),
            room: Rc::default(),
            drained: false,
            peeking: 0,
            accepted: 0,
            handed_before: 0,
            moved: 0,
            refused: 0,
            panics: 0,
        }
    }

    /// Holds what came back, before what came later.
    fn hold(&mut self, back: Vec<Connection>) {
        self.moved += back.len() as u64;
        for connection in back.into_iter().rev() {
            self.held.push_front(connection);
        }
        self.room.notify_one();
    }
}

/// See the module.
pub(crate) struct House {
    pub(crate) supervisor: Supervisor,
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) listeners: HashMap<u32, Bound>,
    next: u32,
    /// Workers that are about to be told to stop, when what they took has begun.
    draining: Vec<(WorkerId, oneshot::Sender<()>)>,
    /// The tree is stopping, and wants to hear when nothing is untaken.
    quiet: Option<oneshot::Sender<()>>,
    /// Wakes the task that looks for stalls.
    watch: Rc<Notify>,
    watching: bool,
    /// Tells those that wait for first bytes that the tree stops.
    hurry: Rc<Notify>,
}

pub(crate) type Shared = Rc<RefCell<House>>;

impl House {
    pub(crate) fn new(supervisor: Supervisor) -> House {
        House {
            supervisor,
            slots: BTreeMap::new(),
            listeners: HashMap::new(),
            next: 0,
            draining: Vec::new(),
            quiet: None,
            watch: Rc::default(),
            watching: false,
            hurry: Rc::default(),
        }
    }

    pub(crate) fn free_number(&mut self) -> io::Result<u32> {
        for _ in 0..LISTENERS {
            let number = self.next % LISTENERS;
            self.next = self.next.wrapping_add(1);
            if !self.listeners.contains_key(&number) {
                return Ok(number);
            }
        }
        Err(io::Error::other(format!("a cluster has at most {LISTENERS} shared listeners")))
    }

    pub(crate) fn started(&mut self, worker: WorkerId, name: Arc<str>, index: usize) {
        match self.slots.get_mut(&worker.slot.0) {
            Some(slot) => {
                slot.current = worker;
                slot.ready = false;
                slot.page.reset();
            }
            None => match Page::create() {
                Ok((page, memory)) => {
                    let slot = Slot { current: worker, name, index, ready: false, page, memory, most: u64::MAX };
                    self.slots.insert(worker.slot.0, slot);
                }
                Err(error) => {
                    // Its binds are refused, with a reason of their own.
                    self.supervisor
                        .troubled("load page".to_owned(), format!("slot {} has none: {error}", worker.slot.0));
                }
            },
        }
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                lane.reset();
            }
        }
    }

    pub(crate) fn set_ready(&mut self, worker: WorkerId, ready: bool) {
        if let Some(slot) = self.slots.get_mut(&worker.slot.0).filter(|slot| slot.current == worker) {
            slot.ready = ready;
        }
        self.wake_all();
    }

    fn is_current(&self, worker: WorkerId) -> bool {
        self.slots.get(&worker.slot.0).is_some_and(|slot| slot.current == worker)
    }

    /// A worker takes nothing more: what it has not taken is for others.
    pub(crate) fn take_back(&mut self, worker: WorkerId) {
        if !self.is_current(worker) {
            return;
        }
        for bound in self.listeners.values_mut() {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                let back = lane.read_back();
                bound.hold(back);
            }
        }
        self.tell_if_quiet();
    }

    pub(crate) fn close(&mut self, worker: WorkerId, number: u32) {
        if !self.is_current(worker) {
            return;
        }
        let Some(bound) = self.listeners.get_mut(&number) else { return };
        let Some(lane) = bound.lanes.get_mut(&worker.slot.0) else { return };
        lane.binds = lane.binds.saturating_sub(1);
        if lane.binds > 0 {
            return;
        }
        let back = lane.read_back();
        bound.handed_before += lane.total;
        bound.lanes.remove(&worker.slot.0);
        bound.hold(back);
        if bound.lanes.is_empty() {
            // Dropped by every worker, not lost with a dead one: the socket closes with its task.
            self.listeners.remove(&number);
        }
    }

    /// A slot will never be filled again: its page and its queues go, and listeners that no other slot has bound.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.slots.remove(&slot);
        self.listeners.retain(|_, bound| {
            let Some(mut lane) = bound.lanes.remove(&slot) else { return true };
            bound.handed_before += lane.total;
            let back = lane.read_back();
            bound.hold(back);
            !bound.lanes.is_empty()
        });
    }

    /// A worker has taken, closed or read something, or has read a question, and we wanted to hear of it.
    pub(crate) fn heard_of(&mut self, worker: WorkerId) {
        let page = self.slots.get(&worker.slot.0).filter(|slot| slot.current == worker).map(|slot| &slot.page);
        for (number, bound) in &mut self.listeners {
            if let Some((lane, page)) = bound.lanes.get_mut(&worker.slot.0).zip(page) {
                lane.stuck = false;
                let said = page.read(*number);
                lane.stall.heard_of(said.taken, said.looked);
                if lane.stall.is_away() {
                    // It was something else: still to be told.
                    page.want();
                    let said = page.read(*number);
                    lane.stall.heard_of(said.taken, said.looked);
                }
            }
            bound.room.notify_one();
        }
        // What nobody else had room for may find some now.
        self.watch.notify_one();
        self.tell_if_quiet();
        self.tell_drained();
    }

    pub(crate) fn wake_all(&self) {
        for bound in self.listeners.values() {
            bound.room.notify_one();
        }
        self.watch.notify_one();
    }

    /// The slots that may get a connection of this listener.
    fn candidates(&self, number: u32) -> Vec<Candidate> {
        self.listeners.get(&number).map_or_else(Vec::new, |bound| self.with_room(number, bound).collect())
    }

    /// Whether there is such a slot.
    pub(crate) fn has_candidate(&self, number: u32) -> bool {
        self.listeners.get(&number).is_some_and(|bound| self.with_room(number, bound).next().is_some())
    }

    fn with_room<'a>(&'a self, number: u32, bound: &'a Bound) -> impl Iterator<Item = Candidate> + 'a {
        bound.lanes.iter().filter(|(_, lane)| !lane.stuck && !lane.stall.is_away()).filter_map(move |(slot, lane)| {
            let state = self.slots.get(slot).filter(|state| state.ready)?;
            if Load::new(lane.handed, state.page.read(number)).untaken >= UNTAKEN {
                return None;
            }
            let (open, untaken) = self.load(*slot, state);
            let room = open + untaken < state.most;
            room.then(|| Candidate { slot: *slot, name: state.name.clone(), index: state.index, open, untaken })
        })
    }

    /// All connections of a slot, open and untaken, at every listener.
    fn load(&self, slot: u32, state: &Slot) -> (u64, u64) {
        let lanes = self.listeners.iter().filter_map(|(number, bound)| Some((*number, bound.lanes.get(&slot)?)));
        lanes
            .map(|(number, lane)| Load::new(lane.handed, state.page.read(number)))
            .fold((0, 0), |(open, untaken), load| (open + load.open, untaken + load.untaken))
    }

    /// Gives a connection to the slot that the policy picks; it comes back where nobody has room.
    pub(crate) fn dispatch(&mut self, number: u32, mut connection: Connection) -> Result<(), Connection> {
        loop {
            let candidates = self.candidates(number);
            let Some(bound) = self.listeners.get_mut(&number) else { return Err(connection) };
            let arrival = Arrival { peer: connection.peer, key: connection.key };
            let Some(slot) = bound.picker.pick(&arrival, &candidates) else { return Err(connection) };
            let lane = bound.lanes.get_mut(&slot);
            let Some((lane, state)) = lane.zip(self.slots.get(&slot)) else { return Err(connection) };
            match lane.queue.give(connection) {
                Ok(()) => {
                    lane.handed += 1;
                    lane.total += 1;
                    lane.stall.given(Instant::now(), state.page.read(number).taken);
                    if !std::mem::replace(&mut self.watching, true) {
                        self.watch.notify_one();
                    }
                    return Ok(());
                }
                Err(back) => {
                    connection = back;
                    lane.stuck = true;
                }
            }
        }
    }

    /// What is to be done with a connection that was accepted.
    pub(crate) fn accepted(&mut self, number: u32, connection: &mut Connection) -> Option<KeyOf> {
        let stopping = self.is_stopping();
        let bound = self.listeners.get_mut(&number)?;
        bound.accepted += 1;
        connection.key = sticky::key(connection.peer);
        let key_of = bound.key_of.clone()?;
        match peek::look(&connection.socket, &key_of) {
            Peeked::Key(key) => connection.key = key,
            Peeked::More if bound.peeking < peek::WAITING && !stopping => {
                bound.peeking += 1;
                return Some(key_of);
            }
            Peeked::More | Peeked::NoKey => {}
            Peeked::Panicked => bound.panics += 1,
        }
        None
    }

    /// A connection's first bytes were looked at (or it was lost by that).
    pub(crate) fn peeked(&mut self, number: u32, connection: Option<Connection>, panicked: bool) {
        let Some(bound) = self.listeners.get_mut(&number) else { return };
        bound.peeking = bound.peeking.saturating_sub(1);
        bound.panics += u64::from(panicked);
        match connection {
            Some(connection) => {
                bound.held.push_back(connection);
                bound.room.notify_one();
            }
            None => bound.refused += 1,
        }
    }

    /// Told when the tree stops.
    pub(crate) fn hurry(&self) -> Rc<Notify> {
        self.hurry.clone()
    }

    /// What a listener of this worker has done.
    pub(crate) fn stats(&self, worker: WorkerId, number: u32) -> Option<Stats> {
        let bound = self.listeners.get(&number)?;
        if !self.is_current(worker) || !bound.lanes.contains_key(&worker.slot.0) {
            return None;
        }
        let slots = bound.lanes.iter().filter_map(|(slot, lane)| {
            let state = self.slots.get(slot)?;
            let load = Load::new(lane.handed, state.page.read(number));
            Some(SlotStats {
                slot: *slot,
                name: state.name.to_string(),
                takes: state.ready && !lane.stall.is_away(),
                handed: lane.total,
                open: load.open,
                untaken: load.untaken,
            })
        });
        let slots: Vec<_> = slots.collect();
        Some(Stats {
            accepted: bound.accepted,
            handed: slots.iter().map(|slot| slot.handed).sum::<u64>() + bound.handed_before,
            moved: bound.moved,
            refused: bound.refused,
            waiting: bound.held.len() as u64 + u64::from(bound.peeking),
            panics: bound.panics + bound.picker.panics,
            slots,
        })
    }

    /// Whether somebody has room; if not, everybody who may have some is asked to tell.
    pub(crate) fn somebody_has_room(&self, number: u32) -> bool {
        if self.has_candidate(number) {
            return true;
        }
        self.want_all();
        self.has_candidate(number)
    }

    fn want_all(&self) {
        for state in self.slots.values().filter(|state| state.ready) {
            state.page.want();
        }
    }

    /// Wakes the task that looks for stalls.
    pub(crate) fn watch(&self) -> Rc<Notify> {
        self.watch.clone()
    }

    /// Reads back what stalled slots have not taken, where others have room; says when to look again, if time alone can
    /// change anything.
    pub(crate) fn look_for_stalls(&mut self, now: Instant) -> Option<Instant> {
        let (mut next, mut stalled) = (None, Vec::new());
        for (number, bound) in &mut self.listeners {
            for (slot, lane) in &mut bound.lanes {
                // Of those that are not ready it has been read back.
                let Some(state) = self.slots.get(slot).filter(|state| state.ready) else { continue };
                let said = state.page.read(*number);
                match lane.stall.look(now, Load::new(lane.handed, said).untaken, said.taken) {
                    Look::Quiet => {}
                    Look::Until(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                    Look::Stalled => stalled.push((*number, *slot)),
                }
            }
        }
        for (number, slot) in stalled {
            self.move_away(number, slot);
        }
        self.watching = next.is_some();
        next
    }

    fn move_away(&mut self, number: u32, slot: u32) {
        let others = |house: &House| {
            let bound = house.listeners.get(&number);
            bound.is_some_and(|bound| house.with_room(number, bound).any(|candidate| candidate.slot != slot))
        };
        if !others(self) {
            // Whoever gets room says so, and then it is looked at again.
            self.want_all();
            if !others(self) {
                return;
            }
        }
        let Some((bound, state)) = self.listeners.get_mut(&number).zip(self.slots.get(&slot)) else { return };
        let Some(lane) = bound.lanes.get_mut(&slot) else { return };
        let back = lane.read_back();
        let said = state.page.read(number);
        state.page.want();
        // An event on an empty queue would not wake it (`epoll(7)` looks again before it tells): it tells when it reads this.
        if lane.queue.ask() {
            lane.stall.moved(said.taken, said.looked);
        }
        bound.hold(back);
    }

    /// Tells that a listener is in trouble.
    pub(crate) fn troubled(&self, number: u32, text: String) {
        let address = self.listeners.get(&number).map_or_else(String::new, |bound| bound.local.to_string());
        self.supervisor.troubled(address, text);
    }

    /// Whether the tree is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.quiet.is_some()
    }

    /// The tree stops.
    pub(crate) fn be_quiet(&mut self, told: oneshot::Sender<()>) {
        self.quiet = Some(told);
        self.hurry.notify_waiters();
        self.wake_all();
        self.tell_if_quiet();
    }

    /// A worker is about to be told to stop.
    pub(crate) fn draining(&mut self, worker: WorkerId, quiet: oneshot::Sender<()>) {
        self.draining.push((worker, quiet));
        self.tell_drained();
    }

    pub(crate) fn gone(&mut self, worker: WorkerId) {
        self.draining.retain(|(draining, _)| *draining != worker);
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
    pub(crate) fn tell_if_quiet(&mut self) {
        if self.quiet.is_none() {
            return;
        }
        self.want_all();
        let untaken = self.listeners.iter().any(|(number, bound)| {
            !bound.drained
                || !bound.held.is_empty()
                || bound.peeking > 0
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
