//! What a dead process leaves in its lanes: which message is delivered again, which is a dead letter, what is closed.

use crate::exit::ExitReason;
use crate::id::{Slot, WorkerId};
use crate::mailbox::dead::{DeadReason, LETTER_BYTES};
use crate::mailbox::ring::kind;
use crate::mailbox::switchboard::{Fate, Left, Record, Switchboard};
use crate::run::supervise::Supervise;
use crate::wire::control::{Ring, ToWorker};

/// A message that is delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// Whose lane it lies in.
    pub(crate) peer: Slot,
    /// The position behind it.
    pub(crate) end: u64,
    /// How often it was in hand of an incarnation that died.
    pub(crate) deliveries: u32,
}

impl Again {
    /// Counts one more death with this message in hand.
    fn count(before: Option<Again>, peer: Slot, end: u64) -> Again {
        let earlier = before.filter(|before| (before.peer, before.end) == (peer, end));
        Again { peer, end, deliveries: earlier.map_or(0, |earlier| earlier.deliveries) + 1 }
    }
}

/// The last worker of a slot that will never be filled again.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub(crate) worker: WorkerId,
    pub(crate) name: String,
}

/// Whether a message can be delivered again: its sockets went with the one that took it.
fn has_sockets(record: &Record) -> bool {
    kind::descriptors(record.kind) > usize::from(kind::is_large(record.kind))
}

impl Supervise {
    /// Puts the lanes of a dead process in order.
    pub(crate) fn what_it_left(&mut self, worker: WorkerId, seat: Slot, reads: bool) -> Vec<Left> {
        self.with_fate(worker.slot, |board, fate| board.process_died(seat, reads, fate))
    }

    /// Puts the messages of a slot in order that another process reads from now on.
    pub(crate) fn what_it_gives_over(&mut self, slot: Slot) -> Vec<Left> {
        self.with_fate(slot, |board, fate| board.give_over(slot, Fate { empty: false, ..fate }))
    }

    fn with_fate(&mut self, slot: Slot, leave: impl FnOnce(&Switchboard, Fate<'_>) -> Vec<Left>) -> Vec<Left> {
        let launch = self.last.get(&slot).and_then(|(launch, _)| self.launches.get(launch));
        let (redeliver, empty) = launch.map_or((0, false), |launch| (launch.redeliver, launch.empty_mailbox));
        let before = self.again.get(&slot).copied();
        let mut after = before;
        let mut again = |peer: Slot, record: &Record| {
            let counted = Again::count(before, peer, record.end);
            after = Some(counted);
            counted.deliveries <= redeliver && !empty && !has_sockets(record)
        };
        let left = leave(&self.shared.board, Fate { again: &mut again, empty });
        match after {
            Some(after) => drop(self.again.insert(slot, after)),
            None => drop(self.again.remove(&slot)),
        }
        left
    }

    /// Makes dead letters of what is not delivered again, and closes what was beside it.
    pub(crate) fn bury(&mut self, worker: WorkerId, name: &str, reason: &ExitReason, left: &Left) {
        let slot = worker.slot;
        for record in &left.dead {
            let deliveries = self.again.get(&slot).map_or(1, |again| again.deliveries);
            let why = match record.in_hand {
                true if deliveries > 1 => DeadReason::Quarantined { deliveries, last: reason.clone() },
                true => DeadReason::Died(reason.clone()),
                false => DeadReason::Discarded(reason.clone()),
            };
            if record.in_hand {
                self.again.remove(&slot);
            }
            let (bytes, size) = self.whole(left.side, left.peer, record);
            self.dead_large(worker, name, left.peer, why, bytes, size);
        }
        let depot = &self.shared.depot;
        if let Some(taken) = left.taken {
            depot.reader_died((left.peer, left.side, Ring::Messages), taken);
        }
        if let Some(seat) = left.seat {
            depot.reader_died((left.peer, left.side, Ring::Replies), seat.answers);
            depot.writer_died((left.side, left.peer, Ring::Messages), seat.written.0);
            depot.writer_died((left.side, left.peer, Ring::Replies), seat.written.1);
        }
    }

    /// A slot will never be filled again. What waits for it is dead, once its senders know that they write nothing more.
    pub(crate) fn give_up(&mut self, gone: Gone) {
        let slot = gone.worker.slot;
        self.listened.remove(&slot);
        self.again.remove(&slot);
        for side in [slot, slot.other_seat()] {
            for peer in self.shared.board.peers_of(side) {
                if let Some(own) = self.own(peer) {
                    own.peer_gone(side);
                    self.bury_lane(&gone, side, peer);
                    continue;
                }
                if self.seated(peer).is_some() {
                    self.closing.insert((side, peer), gone.clone());
                } else {
                    self.bury_lane(&gone, side, peer);
                }
                for (worker, _) in self.holders(peer) {
                    self.send(worker, &ToWorker::PeerGone { slot: side }, Vec::new());
                }
            }
        }
    }

    /// `peer` writes nothing more to `slot`: it said so, or its process is gone.
    pub(crate) fn lane_closed(&mut self, slot: Slot, peer: Slot) {
        if let Some(gone) = self.closing.remove(&(slot, peer)) {
            self.bury_lane(&gone, slot, peer);
        }
    }

    /// A process is gone: it writes nothing more to anybody.
    pub(crate) fn lanes_closed(&mut self, peer: Slot) {
        let slots: Vec<Slot> = self.closing.keys().filter(|key| key.1 == peer).map(|key| key.0).collect();
        for slot in slots {
            self.lane_closed(slot, peer);
        }
    }

    fn bury_lane(&mut self, gone: &Gone, slot: Slot, peer: Slot) {
        for record in self.shared.board.give_up(slot, peer) {
            let (bytes, size) = self.whole(slot, peer, &record);
            self.dead_large(gone.worker, &gone.name, peer, DeadReason::Closed, bytes, size);
        }
        self.tell_tracks(peer, slot, (0, u64::MAX), &ExitReason::NotRunning);
        self.tracks.forget(peer, slot);
        for ring in [Ring::Messages, Ring::Replies] {
            self.shared.depot.reader_died((peer, slot, ring), u64::MAX);
            self.shared.depot.reader_died((slot, peer, ring), u64::MAX);
        }
    }

    /// A record's payload, wherever it is, and its size. What is too large for a dead letter is not read.
    fn whole(&self, reader: Slot, peer: Slot, record: &Record) -> (Vec<u8>, u64) {
        if !kind::is_large(record.kind) {
            return (record.bytes.clone(), record.bytes.len() as u64);
        }
        let way = (peer, reader, Ring::Messages);
        self.shared.depot.payload(way, record.end, LETTER_BYTES as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_counted_for_one_message_at_a_time() {
        let first = Again::count(None, Slot(1), 64);
        assert_eq!(first.deliveries, 1);
        let second = Again::count(Some(first), Slot(1), 64);
        assert_eq!(second.deliveries, 2);
        assert_eq!(Again::count(Some(second), Slot(1), 128).deliveries, 1, "another message");
        assert_eq!(Again::count(Some(second), Slot(2), 64).deliveries, 1, "another lane");
    }
}
