//! Asks waiting for a reply. Pure.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use crate::exit::ExitReason;
use crate::id::Slot;
use crate::mailbox::beside::Body;

/// What an asker hears.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The encoded answer, and the sockets beside it.
    Answered { body: Body, sockets: Vec<OwnedFd> },
    /// The port was dropped.
    Dropped,
    /// Who had taken the question died.
    Died(ExitReason),
    /// The slot will never be filled again.
    Closed,
    /// The answer could not be sent back.
    Unanswerable(String),
}

/// Where an answer goes.
pub(crate) type Sink = oneshot::Sender<Outcome>;

struct Entry {
    sink: Sink,
    asked: Slot,
    position: u64,
    /// Sent on: by whom last, and how often. `asked` and `position` are then of that one's lane.
    via: Option<(Slot, u8)>,
}

impl Entry {
    /// Whether it was taken between these.
    fn within(&self, (behind, taken): (u64, u64)) -> bool {
        self.position > behind && self.position <= taken
    }
}

/// All open asks of one process.
#[derive(Default)]
pub(crate) struct Pending {
    open: HashMap<u64, Entry>,
}

impl Pending {
    /// An ask was committed: its record ends at `position` of the lane to `asked`.
    pub(crate) fn opened(&mut self, id: u64, sink: Sink, asked: Slot, position: u64) {
        if self.open.len() > 64 && self.open.len() == self.open.capacity() {
            // Before growing: those whose asker has gone away (time-outs) are not waited for.
            self.open.retain(|_, entry| !entry.sink.is_closed());
        }
        self.open.insert(id, Entry { sink, asked, position, via: None });
    }

    /// An outcome arrived. Unknown ids (answered, timed out, forged) are ignored.
    pub(crate) fn settle(&mut self, id: u64, outcome: Outcome) {
        if let Some(entry) = self.open.remove(&id) {
            // The asker may have stopped waiting.
            let _ = entry.sink.send(outcome);
        }
    }

    /// The port of an open ask was sent on by `via` to `to`, in the record of their lane that ends at `end`. `false`: nobody waits,
    /// or it is old news.
    pub(crate) fn moved(&mut self, id: u64, via: Slot, to: Slot, end: u64, hops: u8) -> bool {
        match self.open.get_mut(&id) {
            Some(entry) if entry.via.is_none_or(|(_, before)| hops > before) => {
                (entry.asked, entry.position, entry.via) = (to, end, Some((via, hops)));
                true
            }
            _ => false,
        }
    }

    /// An incarnation of `asked` died after taking everything behind the first position and up to the second: those asks fail,
    /// earlier ones (a predecessor has those, and lives) and later ones go on waiting.
    pub(crate) fn died(&mut self, asked: Slot, taken: (u64, u64), reason: &ExitReason) {
        let which = |entry: &Entry| entry.via.is_none() && entry.asked == asked && entry.within(taken);
        self.fail(which, || Outcome::Died(reason.clone()));
    }

    /// The process in this seat died: what it was asked inside answers (which have no position) fails.
    pub(crate) fn seat_died(&mut self, seat: Slot, reason: &ExitReason) {
        let which = |entry: &Entry| entry.via.is_none() && entry.asked == seat && entry.position == 0;
        self.fail(which, || Outcome::Died(reason.clone()));
    }

    /// The same for ports that `via` had sent on.
    pub(crate) fn moved_died(&mut self, via: Slot, asked: Slot, taken: (u64, u64), reason: &ExitReason) {
        let which = |entry: &Entry| {
            entry.via.is_some_and(|(last, _)| last == via) && entry.asked == asked && entry.within(taken)
        };
        self.fail(which, || Outcome::Died(reason.clone()));
    }

    /// `asked` will never be filled again.
    pub(crate) fn closed(&mut self, asked: Slot) {
        self.fail(|entry| entry.via.is_none() && entry.asked == asked, || Outcome::Closed);
    }

    /// What `asked` was asked is lost: its lane was spoilt.
    pub(crate) fn spoilt(&mut self, asked: Slot) {
        let why = || Outcome::Unanswerable("the lane's memory was spoilt, by it or by this process".to_owned());
        self.fail(|entry| entry.via.is_none() && entry.asked == asked, why);
    }

    fn fail(&mut self, which: impl Fn(&Entry) -> bool, outcome: impl Fn() -> Outcome) {
        let ids: Vec<u64> = self.open.iter().filter(|(_, entry)| which(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            self.settle(id, outcome());
        }
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_fails_what_was_taken_and_nothing_else() {
        let mut pending = Pending::default();
        let mut ends = Vec::new();
        for (id, slot, position) in [(1, 5, 64), (2, 5, 128), (3, 5, 192), (4, 6, 64)] {
            let (sink, end) = oneshot::channel();
            pending.opened(id, sink, Slot(slot), position);
            ends.push(end);
        }
        pending.died(Slot(5), (64, 128), &ExitReason::Code(3));
        assert!(ends[0].try_recv().is_err(), "its predecessor has that one");
        pending.died(Slot(5), (0, 64), &ExitReason::Code(3));
        assert!(matches!(ends[0].try_recv(), Ok(Outcome::Died(ExitReason::Code(3)))));
        assert!(matches!(ends[1].try_recv(), Ok(Outcome::Died(ExitReason::Code(3)))));
        assert!(ends[2].try_recv().is_err() && ends[3].try_recv().is_err());
        assert_eq!(pending.len(), 2, "3 and 4");
        assert!(pending.moved(4, Slot(6), Slot(5), 64, 1));
        assert!(pending.moved(4, Slot(5), Slot(7), 32, 2) && !pending.moved(4, Slot(6), Slot(5), 64, 1), "old news");
        pending.died(Slot(6), (0, 1000), &ExitReason::Unknown);
        pending.moved_died(Slot(6), Slot(5), (0, 1000), &ExitReason::Unknown);
        assert!(ends[3].try_recv().is_err(), "it is elsewhere");
        pending.moved_died(Slot(5), Slot(7), (0, 32), &ExitReason::Code(4));
        assert!(matches!(ends[3].try_recv(), Ok(Outcome::Died(ExitReason::Code(4)))));
        pending.settle(1, Outcome::Dropped);
        pending.closed(Slot(5));
        assert!(matches!(ends[2].try_recv(), Ok(Outcome::Closed)));
    }
}
