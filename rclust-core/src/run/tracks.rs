//! Reply ports that were sent on: their askers hear of the death that takes one, though they have no lane with who died.

use std::collections::{HashMap, VecDeque};

use crate::exit::ExitReason;
use crate::id::Slot;
use crate::run::supervise::Supervise;
use crate::wire::control::ToWorker;

/// At most so many ports are watched in one lane; of more, the oldest are left to their time-outs. Answered ones count until
/// then, because nobody tells.
const MOST: usize = 1024;

/// Positions behind the first and up to the second.
type Range = (u64, u64);

fn within((behind, taken): Range, end: u64) -> bool {
    end > behind && end <= taken
}

/// See the module. Lanes are (writer, reader).
#[derive(Default)]
pub(crate) struct Tracks {
    open: HashMap<(Slot, Slot), VecDeque<(Slot, u64)>>,
    /// Behind what and how far the last incarnation of each reader had taken, and why it died: a port may be told of late.
    dead: HashMap<(Slot, Slot), (Range, ExitReason)>,
}

impl Tracks {
    /// Watches a port of `asker`'s. An answer: it is dead already.
    fn add(&mut self, asker: Slot, lane: (Slot, Slot), end: u64) -> Option<(Range, ExitReason)> {
        if let Some(dead) = self.dead.get(&lane).filter(|(taken, _)| within(*taken, end)) {
            return Some(dead.clone());
        }
        let open = self.open.entry(lane).or_default();
        if open.len() == MOST {
            open.pop_front();
        }
        open.push_back((asker, end));
        None
    }

    /// A reader died, having taken so far: who has to hear of it.
    fn died(&mut self, lane: (Slot, Slot), taken: Range, reason: &ExitReason) -> Vec<Slot> {
        self.dead.insert(lane, (taken, reason.clone()));
        let Some(open) = self.open.get_mut(&lane) else { return Vec::new() };
        let mut askers: Vec<Slot> =
            open.iter().filter(|(_, end)| within(taken, *end)).map(|(asker, _)| *asker).collect();
        open.retain(|(_, end)| !within(taken, *end));
        if open.is_empty() {
            self.open.remove(&lane);
        }
        askers.sort_unstable();
        askers.dedup();
        askers
    }

    /// A lane is given up.
    pub(crate) fn forget(&mut self, writer: Slot, reader: Slot) {
        self.open.remove(&(writer, reader));
        self.dead.remove(&(writer, reader));
        self.open.remove(&(reader, writer));
        self.dead.remove(&(reader, writer));
    }
}

impl Supervise {
    /// A port of `asker`'s is in a message of `writer` to `reader`. Nothing of it is believed: it costs a bounded entry.
    pub(crate) fn track(&mut self, asker: Slot, reader: Slot, writer: Slot, end: u64) {
        let lives = self.shared.directory.read().slots.contains_key(&reader);
        let known = self.shared.directory.read().slots.contains_key(&writer.place()) || writer == Slot::SUPERVISOR;
        let dead = if !lives {
            Some(((0, u64::MAX), ExitReason::NotRunning))
        } else if known {
            self.tracks.add(asker, (writer, reader), end)
        } else {
            None
        };
        if let Some((taken, reason)) = dead {
            self.tell_asker(asker, (writer, reader), taken, &reason);
        }
    }

    /// A reader died: the askers of what it had taken hear of it.
    pub(crate) fn tell_tracks(&mut self, writer: Slot, reader: Slot, taken: Range, reason: &ExitReason) {
        for asker in self.tracks.died((writer, reader), taken, reason) {
            self.tell_asker(asker, (writer, reader), taken, reason);
        }
    }

    fn tell_asker(&self, asker: Slot, (writer, reader): (Slot, Slot), taken: Range, reason: &ExitReason) {
        if let Some(own) = self.own(asker) {
            return own.moved_died(writer, reader, taken, reason);
        }
        if let Some(asker) = self.seated(asker) {
            let reason = reason.clone();
            self.send(asker, &ToWorker::MovedDied { writer, reader, taken, reason }, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: (Slot, Slot) = (Slot(1), Slot(2));

    #[test]
    fn a_death_is_told_to_the_askers_of_what_it_took_also_when_they_come_late() {
        let mut tracks = Tracks::default();
        for (asker, end) in [(5, 64), (6, 128), (5, 192)] {
            assert_eq!(tracks.add(Slot(asker), LANE, end), None);
        }
        assert_eq!(tracks.died(LANE, (0, 128), &ExitReason::Code(1)), [Slot(5), Slot(6)]);
        assert_eq!(tracks.died(LANE, (0, 128), &ExitReason::Code(1)), [], "once");
        assert_eq!(tracks.add(Slot(7), LANE, 100), Some(((0, 128), ExitReason::Code(1))));
        assert_eq!(tracks.died(LANE, (128, 192), &ExitReason::Code(2)), [Slot(5)]);
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let mut tracks = Tracks::default();
        for end in 0..5000 {
            tracks.add(Slot(5), LANE, end);
        }
        assert_eq!(tracks.open[&LANE].len(), MOST);
    }
}
