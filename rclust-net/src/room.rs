//! Who has room, and who gets a connection.

use std::rc::Rc;
use std::time::Instant;

use rclust_core::WorkerId;
use tokio::sync::Notify;

use crate::dispatch::{Arrival, Candidate, sticky};
use crate::handoff::queue::{Connection, Queue};
use crate::house::{Bound, House, Intake, Slot};
use crate::load::UNTAKEN;
use crate::peek::{self, Peeked};
use crate::registry::KeyOf;
use crate::stall::{LIMIT, Look};

impl House {
    /// A worker has taken, closed or read something, or has read a question, and we wanted to hear of it.
    pub(crate) fn heard_of(&mut self, worker: WorkerId) {
        let page = self.slots.get(&worker.slot.0).filter(|slot| slot.current == worker).map(|slot| &slot.page);
        for bound in self.listeners.values_mut() {
            if let Some((lane, page)) = bound.lanes.get_mut(&worker.slot.0).zip(page) {
                lane.stuck = None;
                if lane.stall.is_away() {
                    // If it was something else that it told us, it is still to tell when it reads the question.
                    page.want();
                    lane.look_for_answer();
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
    pub(crate) fn candidates(&self, number: u32) -> Vec<Candidate> {
        self.listeners.get(&number).map_or_else(Vec::new, |bound| self.with_room(number, bound).collect())
    }

    /// Whether there is such a slot.
    pub(crate) fn has_candidate(&self, number: u32) -> bool {
        self.listeners.get(&number).is_some_and(|bound| self.with_room(number, bound).next().is_some())
    }

    fn with_room<'a>(&'a self, number: u32, bound: &'a Bound) -> impl Iterator<Item = Candidate> + 'a {
        let in_all: u64 = if bound.most == u64::MAX { 0 } else { self.in_all(number, bound) };
        let lanes = bound.lanes.iter().filter(move |_| in_all < bound.most);
        lanes.filter(|(_, lane)| lane.stuck.is_none() && !lane.stall.is_away()).filter_map(move |(slot, lane)| {
            let state = self.slots.get(slot).filter(|state| state.ready)?;
            let own = lane.load(state.page.read(number));
            if own.untaken >= UNTAKEN || own.untaken + own.open >= lane.most {
                return None;
            }
            let (open, untaken) = self.load(*slot, state);
            let room = open + untaken < state.most;
            room.then(|| Candidate { slot: *slot, name: state.name.clone(), index: state.index, open, untaken })
        })
    }

    /// All connections of a listener, open and untaken.
    fn in_all(&self, number: u32, bound: &Bound) -> u64 {
        let lanes = bound.lanes.iter().filter_map(|(slot, lane)| Some((lane, self.slots.get(slot)?)));
        lanes
            .map(|(lane, state)| lane.load(state.page.read(number)))
            .map(|load| load.open + load.untaken)
            .fold(self.still_open(number), u64::saturating_add)
    }

    /// All connections of a slot, open and untaken, at every listener, and those that it has adopted.
    fn load(&self, slot: u32, state: &Slot) -> (u64, u64) {
        let lanes = self.listeners.iter().filter_map(|(number, bound)| Some((*number, bound.lanes.get(&slot)?)));
        lanes
            .map(|(number, lane)| lane.load(state.page.read(number)))
            .fold((state.page.read_adopted(), 0), |(open, untaken), load| (open + load.open, untaken + load.untaken))
    }

    /// Gives a connection to the candidate that the policy picks. It comes back where there is none, and where the one that was
    /// picked is full in spite of its counters: it is no candidate from then on.
    pub(crate) fn dispatch(
        &mut self,
        number: u32,
        candidates: &[Candidate],
        connection: Connection,
    ) -> Result<(), Connection> {
        let arrival = Arrival { peer: connection.peer, key: connection.key };
        let Some(bound) = self.listeners.get_mut(&number) else { return Err(connection) };
        let Intake::Handed { picker, .. } = &mut bound.intake else { return Err(connection) };
        let Some(slot) = picker.pick(&arrival, candidates) else { return Err(connection) };
        let Some(lane) = bound.lanes.get_mut(&slot) else { return Err(connection) };
        let Some(queue) = &mut lane.queue else { return Err(connection) };
        if let Err(back) = queue.give(connection) {
            lane.stuck = Some(Instant::now());
            // Whoever takes something tells it; of an empty queue nobody will.
            if let Some(state) = self.slots.get(&slot) {
                state.page.want();
            }
            self.watch_slots();
            return Err(back);
        }
        if let Some(state) = self.slots.get(&slot) {
            lane.given(&state.page, number);
        }
        self.watch_slots();
        Ok(())
    }

    fn watch_slots(&mut self) {
        if !std::mem::replace(&mut self.watching, true) {
            self.watch.notify_one();
        }
    }

    /// What is to be done with a connection that was accepted.
    pub(crate) fn accepted(&mut self, number: u32, connection: &mut Connection) -> Option<KeyOf> {
        let stopping = self.is_stopping();
        let peeking: u32 = self.listeners.values().map(|bound| bound.peeking).sum();
        let bound = self.listeners.get_mut(&number)?;
        bound.accepted += 1;
        connection.key = sticky::key(connection.peer);
        let Intake::Handed { key_of: Some(key_of), .. } = &bound.intake else { return None };
        let key_of = key_of.clone();
        match peek::look(&connection.socket, &key_of) {
            Peeked::Key(key) => connection.key = key,
            Peeked::More if peeking < peek::most() && !stopping => {
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

    /// Whether somebody has room; if not, everybody who may have some is asked to tell.
    pub(crate) fn somebody_has_room(&self, number: u32) -> bool {
        if self.has_candidate(number) {
            return true;
        }
        self.want_all();
        self.has_candidate(number)
    }

    pub(crate) fn want_all(&self) {
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
                let Some(state) = self.slots.get(slot) else { continue };
                match lane.stuck {
                    Some(since) if now < since + LIMIT => {
                        next = Some(next.map_or(since + LIMIT, |next: Instant| next.min(since + LIMIT)));
                    }
                    Some(_) if lane.counted(&state.page, *number).0 == 0 => {
                        lane.stuck = None;
                        bound.room.notify_one();
                    }
                    _ => {}
                }
                // Of those that are not ready it has been read back.
                if !lane.stall.is_waited_for() || !state.ready {
                    continue;
                }
                let (untaken, taken) = lane.counted(&state.page, *number);
                match lane.stall.look(now, untaken, taken) {
                    Look::Quiet => {}
                    Look::Until(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                    Look::Stalled => stalled.push((*number, *slot)),
                }
            }
        }
        for (number, slot) in stalled {
            self.tell_blocked(number, slot);
            self.move_away(number, slot);
        }
        self.watching = next.is_some();
        next
    }

    /// Tells, once for each incarnation, what a newcomer to asynchronous code would look for long.
    fn tell_blocked(&mut self, number: u32, slot: u32) {
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.told_blocked != Some(state.current)) else {
            return;
        };
        state.told_blocked = Some(state.current);
        let text = format!(
            "{} has taken no connection for {} ms, while some wait for it: if something blocks its thread (a long computation, a call \
             that waits), give that to tokio::task::spawn_blocking or to a pool of workers of its own",
            state.name,
            LIMIT.as_millis()
        );
        self.troubled(number, text);
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
        let back = lane.read_back(&state.page, number, true);
        state.page.want();
        // An event on an empty queue would not wake it (`epoll(7)` looks again before it tells): it tells when it reads this.
        if lane.queue.as_ref().is_some_and(Queue::ask) {
            lane.stall.moved();
            lane.look_for_answer();
        }
        bound.hold(back);
    }
}
