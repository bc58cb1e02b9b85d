//! What the *net* thread knows: slots, listeners, and who has room.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rclust_core::WorkerId;
use rclust_core::extension::Supervisor;
use tokio::sync::{Notify, oneshot};

use crate::bind::Key;
use crate::dispatch::Picker;
use crate::handoff::queue::{Connection, Queue};
use crate::kernel::Kernel;
use crate::load::{LISTENERS, Load, Page, Said};
use crate::open::SocketFile;
use crate::place::Local;
use crate::registry::KeyOf;
use crate::stall::Stall;
use crate::stats::{SlotStats, Stats};
use crate::succession::{Next, Retired};

/// A connection in whose hands so many workers have died is closed: it may be the reason.
const DEATHS: u8 = 3;

/// One slot of the tree, as far as connections are concerned.
pub(crate) struct Slot {
    pub(crate) current: WorkerId,
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    pub(crate) ready: bool,
    pub(crate) page: Page,
    pub(crate) memory: Arc<OwnedFd>,
    /// How many connections its limit of open descriptors allows.
    pub(crate) most: u64,
    /// Whether the current incarnation's process lives.
    pub(crate) alive: bool,
    /// Whose blocked thread was told of.
    pub(crate) told_blocked: Option<WorkerId>,
    /// What a reload is starting for it.
    pub(crate) next: Option<Next>,
    /// What a reload has replaced.
    pub(crate) retired: Option<Retired>,
}

/// One slot's queue at one listener.
pub(crate) struct Lane {
    /// `None` where its worker accepts itself.
    pub(crate) queue: Option<Queue>,
    /// Put into it since the current incarnation began, and not read back.
    pub(crate) handed: u64,
    /// Put into it ever. Where its worker accepts itself: what its incarnations before took.
    pub(crate) total: u64,
    /// How often the current worker has bound it: it has dropped its share when it has dropped each.
    pub(crate) binds: u32,
    /// Since when it is given nothing, because the kernel said no where the counters said room (a worker lies, or the system is short of
    /// memory): until it is heard of again, or a while later where nothing is in its queue.
    pub(crate) stuck: Option<Instant>,
    pub(crate) stall: Stall,
    /// How many connections its worker wants at most.
    pub(crate) most: u64,
}

impl Lane {
    pub(crate) fn new(queue: Option<Queue>) -> Lane {
        Lane { queue, handed: 0, total: 0, binds: 0, stuck: None, stall: Stall::default(), most: u64::MAX }
    }

    /// What the kernel knows of its queue: untaken and taken. (Of one that its program has in hand the worker's word is believed.)
    pub(crate) fn counted(&self, page: &Page, listener: u32) -> (u64, u64) {
        let untaken = self.queue.as_ref().map_or(0, |queue| {
            let in_hand = page.held(listener).is_some_and(|number| queue.has_given(number));
            queue.untaken().saturating_sub(u64::from(in_hand))
        });
        (untaken, self.handed.saturating_sub(untaken))
    }

    /// It was given a connection.
    pub(crate) fn given(&mut self, page: &Page, listener: u32) {
        self.handed += 1;
        self.total += 1;
        if !self.stall.is_waited_for() {
            let (_, taken) = self.counted(page, listener);
            self.stall.given(Instant::now(), taken);
        }
    }

    /// Whether the question that a slot was asked is read.
    pub(crate) fn look_for_answer(&mut self) {
        if self.queue.as_ref().is_none_or(|queue| queue.untaken() == 0) {
            self.stall.is_back();
        }
    }

    /// Its worker has dropped it once. `true`: as often as it had bound it.
    pub(crate) fn dropped_one(&mut self) -> bool {
        self.binds = self.binds.saturating_sub(1);
        self.binds == 0
    }

    /// How its connections stand.
    pub(crate) fn load(&self, said: Said) -> Load {
        if self.queue.is_some() { Load::new(self.handed, said) } else { Load::own(said) }
    }

    /// Where its worker accepts itself: what that took is kept, because its page ends.
    pub(crate) fn keep_taken(&mut self, page: &Page, listener: u32) {
        if self.queue.is_none() {
            self.total += page.read(listener).taken.min(u64::from(u32::MAX));
        }
    }

    /// A new incarnation begins.
    fn reset(&mut self) {
        // What could not be read back is the next one's.
        self.handed = self.queue.as_ref().map_or(0, Queue::untaken);
        self.binds = 0;
        self.stuck = None;
        self.stall = Stall::default();
    }

    /// What its worker has not taken, oldest first. What its program has in hand is the worker's while it lives, and is moved when it
    /// is dead.
    pub(crate) fn read_back(&mut self, page: &Page, listener: u32, lives: bool) -> Vec<Connection> {
        let Some(queue) = &self.queue else { return Vec::new() };
        let in_hand = if lives { page.begins_reading(listener) } else { page.in_hand(listener) };
        let mut back = Vec::new();
        for (mut connection, number) in queue.read_back(lives.then_some(in_hand)) {
            // Of one that is dead.
            connection.deaths += u8::from(number == in_hand);
            back.push(connection);
        }
        if lives {
            page.ends_reading(listener);
        }
        self.handed = self.handed.saturating_sub(back.len() as u64);
        back
    }
}

/// Who accepts.
pub(crate) enum Intake {
    /// The supervisor, and hands each connection to a slot.
    Handed {
        picker: Picker,
        /// How a sticky policy finds a client's key in its first bytes.
        key_of: Option<KeyOf>,
    },
    /// Workers.
    Kernel(Kernel),
    /// Nobody: workers receive datagrams from this socket.
    Datagrams(Arc<OwnedFd>),
}

/// A listener.
pub(crate) struct Bound {
    pub(crate) key: Key,
    pub(crate) local: Local,
    /// Removed with the listener.
    pub(crate) file: Option<SocketFile>,
    pub(crate) intake: Intake,
    /// How many connections it may have, open and untaken, in all slots.
    pub(crate) most: u64,
    pub(crate) lanes: BTreeMap<u32, Lane>,
    /// Accepted or taken back, and waiting for a slot.
    pub(crate) held: VecDeque<Connection>,
    /// Notified when a slot may have room, or something is held.
    pub(crate) room: Rc<Notify>,
    /// The socket has no connection waiting (seen since the stop began).
    pub(crate) drained: bool,
    /// Connections whose first bytes are waited for.
    pub(crate) peeking: u32,
    pub(crate) accepted: u64,
    /// Handed to slots that are not its own any more.
    pub(crate) handed_before: u64,
    /// Accepted from the kernel's queue of a slot that stays down.
    pub(crate) left: u64,
    pub(crate) moved: u64,
    pub(crate) refused: u64,
    /// Panics of the key function.
    pub(crate) panics: u64,
}

impl Bound {
    pub(crate) fn new(key: Key, local: Local, file: Option<SocketFile>, intake: Intake, most: u64) -> Bound {
        Bound {
            key,
            local,
            file,
            intake,
            most,
            lanes: BTreeMap::new(),
            held: VecDeque::new(),
            room: Rc::default(),
            drained: false,
            peeking: 0,
            accepted: 0,
            handed_before: 0,
            left: 0,
            moved: 0,
            refused: 0,
            panics: 0,
        }
    }

    /// A slot has it no more.
    pub(crate) fn leave(&mut self, slot: u32, slots: &BTreeMap<u32, Slot>) {
        if let Intake::Kernel(kernel) = &mut self.intake {
            kernel.forget(slot, Instant::now());
            kernel.steer(|slot| slots.get(&slot).is_some_and(|state| state.ready));
        }
    }

    /// Holds what came back, before what came later.
    ///
    /// How many were closed, because workers died with them in their hands.
    pub(crate) fn hold(&mut self, back: Vec<Connection>) -> u64 {
        self.moved += back.len() as u64;
        let refused = self.refused;
        for connection in back.into_iter().rev() {
            if connection.deaths < DEATHS {
                self.held.push_front(connection);
            } else {
                self.refused += 1;
            }
        }
        self.room.notify_one();
        self.refused - refused
    }
}

/// See the module.
pub(crate) struct House {
    pub(crate) supervisor: Supervisor,
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) listeners: BTreeMap<u32, Bound>,
    next: u32,
    /// Workers that are about to be told to stop, when what they took has begun.
    pub(crate) draining: Vec<(WorkerId, oneshot::Sender<()>)>,
    /// The tree is stopping, and wants to hear when nothing is untaken.
    pub(crate) quiet: Option<oneshot::Sender<()>>,
    /// Wakes the task that looks for stalls.
    pub(crate) watch: Rc<Notify>,
    pub(crate) watching: bool,
    /// Tells those that wait for first bytes that the tree stops.
    pub(crate) hurry: Rc<Notify>,
    pub(crate) stopping: bool,
}

pub(crate) type Shared = Rc<RefCell<House>>;

impl House {
    pub(crate) fn new(supervisor: Supervisor) -> House {
        House {
            supervisor,
            slots: BTreeMap::new(),
            listeners: BTreeMap::new(),
            next: 0,
            draining: Vec::new(),
            quiet: None,
            watch: Rc::default(),
            watching: false,
            hurry: Rc::default(),
            stopping: false,
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
        if self.slots.get(&worker.slot.0).is_some_and(|slot| slot.alive) {
            return self.succeeds(worker);
        }
        match self.slots.get_mut(&worker.slot.0) {
            Some(slot) => {
                slot.current = worker;
                (slot.ready, slot.alive) = (false, true);
                for (number, bound) in &mut self.listeners {
                    if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                        lane.keep_taken(&slot.page, *number);
                    }
                }
                slot.page.reset();
            }
            None => match Page::create() {
                Ok((page, memory)) => {
                    let (ready, most) = (false, u64::MAX);
                    let (alive, told_blocked, next, retired) = (true, None, None, None);
                    let current = worker;
                    let slot =
                        Slot { current, name, index, ready, page, memory, most, alive, told_blocked, next, retired };
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
            self.tell_ready(worker.slot.0, ready);
        }
    }

    pub(crate) fn is_current(&self, worker: WorkerId) -> bool {
        self.slots.get(&worker.slot.0).is_some_and(|slot| slot.current == worker)
    }

    /// A worker takes nothing more: what it has not taken is for others.
    pub(crate) fn take_back(&mut self, worker: WorkerId, lives: bool) {
        let Some(slot) = self.slots.get(&worker.slot.0).filter(|slot| slot.current == worker) else { return };
        let mut closed = Vec::new();
        for (number, bound) in &mut self.listeners {
            if let Some(lane) = bound.lanes.get_mut(&worker.slot.0) {
                let back = lane.read_back(&slot.page, *number, lives);
                if bound.hold(back) > 0 {
                    closed.push(*number);
                }
            }
        }
        for number in closed {
            let text = format!(
                "a connection is closed: {DEATHS} workers died with it in their hands, before they read a byte of it"
            );
            self.troubled(number, text);
        }
        self.tell_if_quiet();
    }

    pub(crate) fn close(&mut self, worker: WorkerId, number: u32) {
        if !self.is_current(worker) {
            return self.next_closes(worker, number);
        }
        let Some((bound, slot)) = self.listeners.get_mut(&number).zip(self.slots.get(&worker.slot.0)) else { return };
        let Some(lane) = bound.lanes.get_mut(&worker.slot.0) else { return };
        if !lane.dropped_one() {
            return;
        }
        let back = lane.read_back(&slot.page, number, true);
        bound.handed_before += lane.total;
        bound.lanes.remove(&worker.slot.0);
        bound.hold(back);
        // Dropped by every worker, not lost with a dead one: the socket closes with its task.
        self.left(worker.slot.0, number);
    }

    /// A slot will never be filled again: its page and its queues go, and listeners that no other slot has bound.
    pub(crate) fn forget(&mut self, slot: u32) {
        let state = self.slots.remove(&slot);
        let mut empty = Vec::new();
        for (number, bound) in &mut self.listeners {
            let Some(mut lane) = bound.lanes.remove(&slot) else { continue };
            if let Some(state) = &state {
                lane.keep_taken(&state.page, *number);
                bound.hold(lane.read_back(&state.page, *number, false));
            }
            bound.handed_before += lane.total;
            bound.leave(slot, &self.slots);
            empty.push(*number);
        }
        for number in empty {
            self.remove_unbound(number);
        }
    }

    /// Closes a listener.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(bound) = self.listeners.remove(&number) else { return };
        bound.room.notify_one();
        if !bound.held.is_empty() {
            let text = format!("closed with {} connections that no program had taken", bound.held.len());
            self.supervisor.troubled(bound.local.to_string(), text);
        }
    }

    /// What a listener of this worker has done.
    pub(crate) fn stats(&self, worker: WorkerId, number: u32) -> Option<Stats> {
        let bound = self.listeners.get(&number)?;
        let slot = self.slots.get(&worker.slot.0)?;
        let next = slot.next.as_ref().filter(|next| next.worker == worker);
        let own = match next {
            Some(next) => next.lanes.contains_key(&number),
            None => slot.current == worker && bound.lanes.contains_key(&worker.slot.0),
        };
        own.then(|| self.stats_of(number, bound))
    }

    /// What every listener has done, in the order of their numbers.
    pub(crate) fn all_stats(&self) -> Vec<Stats> {
        self.listeners.iter().map(|(number, bound)| self.stats_of(*number, bound)).collect()
    }

    fn stats_of(&self, number: u32, bound: &Bound) -> Stats {
        let slots = bound.lanes.iter().filter_map(|(slot, lane)| {
            let state = self.slots.get(slot)?;
            let said = state.page.read(number);
            let load = lane.load(said);
            Some(SlotStats {
                slot: *slot,
                name: state.name.to_string(),
                takes: state.ready && !lane.stall.is_away(),
                handed: lane.total + if lane.queue.is_some() { 0 } else { said.taken.min(u64::from(u32::MAX)) },
                open: load.open,
                untaken: load.untaken,
                retiring: state.retired.as_ref().and_then(|retired| retired.load(number)).map_or(0, |load| load.open),
                adopted: state.page.read_adopted(),
            })
        });
        let slots: Vec<_> = slots.collect();
        Stats {
            address: bound.local.to_string(),
            name: bound.key.name.clone(),
            accepted: bound.accepted,
            handed: slots.iter().map(|slot| slot.handed).sum::<u64>() + bound.handed_before + bound.left,
            moved: bound.moved,
            refused: bound.refused,
            waiting: bound.held.len() as u64 + u64::from(bound.peeking),
            panics: bound.panics + if let Intake::Handed { picker, .. } = &bound.intake { picker.panics } else { 0 },
            slots,
        }
    }

    /// Which of a listener's sockets get connections may have changed.
    pub(crate) fn steer(&mut self, number: u32) {
        if let Some(Intake::Kernel(kernel)) = self.listeners.get_mut(&number).map(|bound| &mut bound.intake) {
            kernel.steer(|slot| self.slots.get(&slot).is_some_and(|state| state.ready));
        }
    }

    /// Tells that a listener is in trouble.
    pub(crate) fn troubled(&self, number: u32, text: String) {
        let address = self.listeners.get(&number).map_or_else(String::new, |bound| bound.local.to_string());
        self.supervisor.troubled(address, text);
    }
}
