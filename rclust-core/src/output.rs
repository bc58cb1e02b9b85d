//! What workers write, line by line, on its way to who tells or reads it: bounded for each worker, and counted where it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{Mutex, mpsc};

use crate::id::{Slot, WorkerId};

/// Bytes of one slot's lines that may wait, of each output.
const WAITING: usize = 256 << 10;

/// Bytes of all lines that may wait.
const WAITING_OF_ALL: usize = 16 << 20;

/// What a line costs beside its text.
const OVERHEAD: usize = 128;

/// Which of a process's two outputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standard {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standard::Output => "stdout",
            Standard::Error => "stderr",
        })
    }
}

/// A line that a worker wrote ([`Output::Stream`](crate::Output::Stream)).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OutputLine {
    /// Who.
    pub worker: WorkerId,
    /// Its path.
    pub name: String,
    /// Where.
    pub from: Standard,
    /// The line, without its end; a longer one than 3 000 bytes comes in pieces. What is not UTF-8 is replaced.
    pub text: String,
    /// So many lines of this output were dropped since the last one that was read, because too many waited.
    pub dropped: u64,
}

/// The stream of what workers write, where their child says [`Output::Stream`](crate::Output::Stream).
///
/// There is one queue: all that are asked for read from it, and what nobody reads waits, within its bounds.
#[derive(Clone)]
pub struct OutputLines {
    lines: Arc<Mutex<mpsc::UnboundedReceiver<Line>>>,
}

impl OutputLines {
    /// The next line; `None` when the cluster has ended and everything was read.
    ///
    /// # Cancel safety
    /// Dropped before completion, no line is lost.
    pub async fn next(&mut self) -> Option<OutputLine> {
        let mut line = self.lines.lock().await.recv().await?;
        Some(OutputLine {
            worker: line.worker,
            name: line.name.to_string(),
            from: line.from,
            text: std::mem::take(&mut line.text),
            dropped: line.dropped(),
        })
    }
}

impl fmt::Debug for OutputLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputLines")
    }
}

/// A line that waits. Dropped, it makes room.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) worker: WorkerId,
    pub(crate) name: Arc<str>,
    pub(crate) from: Standard,
    pub(crate) text: String,
    cost: usize,
    room: Arc<Room>,
}

impl Line {
    /// How many lines of its output were dropped since somebody asked.
    pub(crate) fn dropped(&self) -> u64 {
        self.room.dropped.swap(0, Ordering::Relaxed)
    }

    /// So many (more) are not told.
    pub(crate) fn are_dropped(&self, lines: u64) {
        self.room.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.cost, Ordering::Relaxed);
        self.room.of_all.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

/// How much of one output of a slot waits.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicUsize,
    dropped: AtomicU64,
    of_all: Arc<AtomicUsize>,
}

/// The writing side of a queue of lines.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<Line>,
    of_all: Arc<AtomicUsize>,
    rooms: HashMap<(Slot, Standard), Weak<Room>>,
}

/// A queue's writing side for one output of one incarnation.
#[derive(Debug)]
pub(crate) struct Source {
    worker: WorkerId,
    name: Arc<str>,
    from: Standard,
    sender: mpsc::UnboundedSender<Line>,
    room: Arc<Room>,
}

/// A queue of lines. Its sender has no bound of its own: [`Source::put`] asks for room.
pub(crate) fn queue() -> (Queue, mpsc::UnboundedReceiver<Line>) {
    let (sender, lines) = mpsc::unbounded_channel();
    (Queue { sender, of_all: Arc::default(), rooms: HashMap::new() }, lines)
}

/// The reading side, for the program.
pub(crate) fn lines(receiver: mpsc::UnboundedReceiver<Line>) -> OutputLines {
    OutputLines { lines: Arc::new(Mutex::new(receiver)) }
}

impl Queue {
    /// For one output of one incarnation. The room is the slot's, for this output alone: a flood of one leaves the other be.
    pub(crate) fn source(&mut self, worker: WorkerId, name: &str, from: Standard) -> Source {
        let room = self.rooms.get(&(worker.slot, from)).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Slots come and go.
            self.rooms.retain(|_, room| room.strong_count() > 0);
            let room =
                Arc::new(Room { used: AtomicUsize::new(0), dropped: AtomicU64::new(0), of_all: self.of_all.clone() });
            self.rooms.insert((worker.slot, from), Arc::downgrade(&room));
            room
        });
        Source { worker, name: name.into(), from, sender: self.sender.clone(), room }
    }
}

impl Source {
    /// Puts a line into the queue, or counts it as dropped. Called on one thread alone: nobody else takes room.
    pub(crate) fn put(&self, text: &[u8]) {
        let cost = text.len() + OVERHEAD;
        let (used, of_all) = (self.room.used.load(Ordering::Relaxed), self.room.of_all.load(Ordering::Relaxed));
        if used + cost > WAITING || of_all + cost > WAITING_OF_ALL {
            self.room.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.room.used.fetch_add(cost, Ordering::Relaxed);
        self.room.of_all.fetch_add(cost, Ordering::Relaxed);
        let (name, room) = (self.name.clone(), self.room.clone());
        let text = String::from_utf8_lossy(text).into_owned();
        // Nobody reads any more: the line is dropped, and its room is free.
        let _ = self.sender.send(Line { worker: self.worker, name, from: self.from, text, cost, room });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    fn worker(slot: u32) -> WorkerId {
        WorkerId { slot: Slot(slot), incarnation: Incarnation(1) }
    }

    #[tokio::test]
    async fn a_flood_is_dropped_and_counted_and_costs_nobody_else_anything() {
        let (mut queue, receiver) = queue();
        let mut lines = lines(receiver);
        let (loud, quiet) =
            (queue.source(worker(1), "loud", Standard::Output), queue.source(worker(2), "q", Standard::Error));
        for _ in 0..10_000 {
            loud.put(&[b'x'; 1000]);
        }
        quiet.put(b"here");
        let fits = WAITING / (1000 + OVERHEAD);
        let first = lines.next().await.unwrap();
        assert_eq!((first.name.as_str(), first.dropped), ("loud", (10_000 - fits) as u64));
        for _ in 1..fits {
            assert_eq!(lines.next().await.unwrap().dropped, 0);
        }
        let last = lines.next().await.unwrap();
        assert_eq!((last.name.as_str(), last.text.as_str(), last.dropped), ("q", "here", 0));
        // Its other output has a room of its own.
        (0..1000).for_each(|_| loud.put(&[b'x'; 1000]));
        queue.source(worker(1), "loud", Standard::Error).put(b"panicked");
        for _ in 0..fits {
            lines.next().await.unwrap();
        }
        assert_eq!(lines.next().await.unwrap().text, "panicked");
        // There is room again.
        loud.put(b"again");
        assert_eq!(lines.next().await.unwrap().text, "again");
    }

    #[test]
    fn all_slots_together_have_a_bound_and_what_is_dropped_unread_makes_room() {
        let (mut queue, receiver) = queue();
        let slots = 2 * WAITING_OF_ALL / WAITING;
        let sources: Vec<_> = (0..slots).map(|n| queue.source(worker(n as u32), "w", Standard::Output)).collect();
        for source in &sources {
            (0..200).for_each(|_| source.put(&[b'x'; 2000]));
        }
        assert!(queue.of_all.load(Ordering::Relaxed) <= WAITING_OF_ALL);
        assert!(receiver.len() > 7000);
        drop(receiver);
        assert_eq!(queue.of_all.load(Ordering::Relaxed), 0);
        sources[0].put(b"nobody reads");
        assert_eq!(queue.of_all.load(Ordering::Relaxed), 0);
        drop(sources);
        drop(queue.source(worker(0), "w", Standard::Output));
        assert_eq!(queue.rooms.len(), 1);
    }
}
