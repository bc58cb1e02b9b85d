//! Which process has which part in a slot's lanes, and how the slot's messages pass from one to the next.
//!
//! At most one process reads a slot's messages: its *reader*. While a reload replaces it there are two processes, each writing from a
//! seat of its own (two writers in one ring would spoil it), so the new one can send and ask from its `start` on, and the old one
//! until its end. The messages pass over when the old one has said that it takes no more.

use std::collections::HashMap;

use crate::exit::ExitReason;
use crate::extension;
use crate::id::{Slot, WorkerId};
use crate::run::live::Live;
use crate::run::supervise::Supervise;
use crate::wire::control::{Part, Ring, ToWorker};

/// What a process has of its slot.
#[derive(Clone, Debug)]
pub(crate) struct Seated {
    /// From where it writes.
    pub(crate) seat: Slot,
    /// Whether it is the slot's reader.
    pub(crate) reads: bool,
    /// It is being started by a reload, and another is current.
    pub(crate) successor: bool,
    /// A reload has replaced it.
    pub(crate) retired: bool,
    /// How far it had taken each peer's messages when it gave up reading.
    pub(crate) gave_up: HashMap<Slot, u64>,
}

impl Seated {
    /// As whom it has a ring of a lane.
    pub(crate) fn side(&self, ring: Ring) -> Slot {
        match ring {
            Ring::Messages => self.seat.place(),
            Ring::Replies => self.seat,
        }
    }

    /// Whether a lane of this slot or seat may be its.
    pub(crate) fn is(&self, side: Slot) -> bool {
        side == self.seat || side == self.seat.place()
    }
}

impl Supervise {
    /// Those that live, and those that are dead and not cleaned up.
    fn all_seated(&self) -> impl Iterator<Item = (WorkerId, &Seated)> {
        let living = self.live.iter().map(|(worker, live)| (*worker, &live.seated));
        living.chain(self.leaving.iter().map(|(worker, seated)| (*worker, seated)))
    }

    /// The living process in a seat.
    pub(crate) fn seated(&self, seat: Slot) -> Option<WorkerId> {
        self.live.iter().find(|(_, live)| live.seated.seat == seat).map(|(worker, _)| *worker)
    }

    /// The living reader of a slot.
    fn reader(&self, slot: Slot) -> Option<WorkerId> {
        self.living(slot).find(|(_, live)| live.seated.reads).map(|(worker, _)| *worker)
    }

    fn living(&self, slot: Slot) -> impl Iterator<Item = (&WorkerId, &Live)> {
        self.live.iter().filter(move |(worker, _)| worker.slot == slot)
    }

    /// Who fills a slot now.
    pub(crate) fn current(&self, slot: Slot) -> Option<WorkerId> {
        self.living(slot).find(|(_, live)| !live.seated.retired && !live.seated.successor).map(|(worker, _)| *worker)
    }

    /// Who is to read a slot's messages after the one who does.
    fn heir(&self, slot: Slot) -> Option<WorkerId> {
        let heir = |live: &Live| !live.seated.retired && !live.seated.reads;
        self.living(slot).find(|(_, live)| heir(live)).map(|(worker, _)| *worker)
    }

    /// The living processes that have a part in the lanes of a slot or seat.
    pub(crate) fn holders(&self, side: Slot) -> Vec<(WorkerId, Part)> {
        let mut holders = Vec::new();
        holders.extend(self.seated(side).map(|worker| (worker, self.shared.board.part(side, false))));
        if self.shared.board.part(side, true) == Part::Inbox {
            holders.extend(self.reader(side).map(|worker| (worker, Part::Inbox)));
        }
        holders
    }

    /// Finds a place for a new process of a slot. `None`: there is none, two processes of it live.
    pub(crate) fn take_seat(&mut self, worker: WorkerId) -> Option<Seated> {
        let slot = worker.slot;
        let own = self.seats.get(&slot).copied().unwrap_or(slot);
        let taken = |seat: Slot| self.all_seated().any(|(_, seated)| seated.seat == seat);
        let seat = [own, own.other_seat()].into_iter().find(|seat| !taken(*seat))?;
        let others = || self.all_seated().filter(|(other, _)| other.slot == slot);
        let reads = !others().any(|(_, seated)| seated.reads);
        let successor = others().any(|(_, seated)| !seated.retired);
        if reads {
            self.moved_to(slot, seat);
        }
        Some(Seated { seat, reads, successor, retired: false, gave_up: HashMap::new() })
    }

    /// The process in this seat reads the slot's messages: its lanes get doorbells for that.
    fn moved_to(&mut self, slot: Slot, seat: Slot) {
        self.seats.insert(slot, seat);
        for peer in self.shared.board.set_reader(slot, seat) {
            self.renew_lane(slot, peer, false);
        }
    }

    /// A replacement is ready: the old one is not the slot's worker any more.
    pub(crate) fn retire(&mut self, old: WorkerId, by: WorkerId) {
        if let Some(new) = self.live.get_mut(&by) {
            new.seated.successor = false;
            self.seats.insert(by.slot, new.seated.seat);
        }
        if let Some(old) = self.live.get_mut(&old) {
            old.seated.retired = true;
        }
        self.tell_extension(extension::Event::Replaced { worker: old, by });
    }

    /// A retired process takes no more messages.
    pub(crate) fn gave_up(&mut self, old: WorkerId) {
        let Some(seated) = self.live.get(&old).map(|live| &live.seated) else { return };
        // Whoever stops for another reason has nobody to give them to yet.
        if !seated.retired || !seated.reads {
            return;
        }
        let (slot, name) = (old.slot, self.shared.name(old.slot));
        let left = self.what_it_gives_over(slot);
        for left in &left {
            // Nothing, unless it lied.
            self.bury(old, &name, &ExitReason::Normal, left);
        }
        if let Some(live) = self.live.get_mut(&old) {
            live.seated.reads = false;
            live.seated.gave_up = left.iter().filter_map(|left| Some((left.peer, left.taken?))).collect();
        }
        self.inherit(slot);
    }

    /// A slot has no reader: whoever waits for that becomes it.
    pub(crate) fn inherit(&mut self, slot: Slot) {
        if self.all_seated().any(|(other, seated)| other.slot == slot && seated.reads) {
            return;
        }
        let Some(heir) = self.heir(slot) else { return };
        let Some(live) = self.live.get_mut(&heir) else { return };
        live.seated.reads = true;
        let seat = live.seated.seat;
        let again = self.again.get(&slot).map(|again| (again.peer, again.deliveries));
        self.send(heir, &ToWorker::Current { again }, Vec::new());
        self.moved_to(slot, seat);
    }

    /// Behind which of a peer's messages those begin that only the slot's current worker has taken.
    pub(crate) fn taken_before(&self, slot: Slot, peer: Slot) -> u64 {
        let retired = self.living(slot).filter(|(_, live)| live.seated.retired);
        retired.filter_map(|(_, live)| live.seated.gave_up.get(&peer).copied()).max().unwrap_or(0)
    }
}
