//! Connections per slot, who has room: counters in a page that supervisor and worker share.
//!
//! ```text
//! page   0 wants                        set by the supervisor when it waits for room, cleared by the worker that tells it
//!        8 adopted                      connections that the worker has and no listener of the supervisor gave it
//!        64 + 40 n: taken, closed, begun       of listener n, counted up by the worker (begun: read from, or closed unread)
//!                   in hand                    by the worker: the packet that its program has and has not touched, which is in the queue yet
//!                   back                       by the supervisor: how often it read the queue back, and what was in hand the last time
//! ```
//! How many were handed is the supervisor's own count; what the worker writes is clamped between it and 0, so that a lying
//! worker changes its own share and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rclust_core::extension::os;

/// Bytes of a page.
const LEN: usize = 8192;

/// Bytes of a listener's counters.
const ENTRY: usize = 40;

/// Listeners that a page has room for.
pub(crate) const LISTENERS: u32 = ((LEN - 64) / ENTRY) as u32;

/// Untaken connections that a slot holds of one listener.
pub(crate) const UNTAKEN: u64 = 16;

const WANTS: usize = 0;

const ADOPTED: usize = 8;

fn taken_word(listener: u32) -> usize {
    64 + ENTRY * listener as usize
}

fn closed_word(listener: u32) -> usize {
    taken_word(listener) + 8
}

fn begun_word(listener: u32) -> usize {
    taken_word(listener) + 16
}

fn hand_word(listener: u32) -> usize {
    taken_word(listener) + 24
}

fn back_word(listener: u32) -> usize {
    taken_word(listener) + 32
}

/// What the supervisor says of its last reading back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    /// How often it has begun to.
    pub(crate) times: u32,
    /// The packet that was in the worker's hand, and is the worker's: it was thrown away where it was read. 0: none.
    pub(crate) in_hand: u32,
}

/// One slot's page.
#[derive(Debug)]
pub(crate) struct Page {
    map: os::Mapping,
}

impl Page {
    /// Makes a page; the descriptor goes to the slot's workers. Supervisor side.
    pub(crate) fn create() -> io::Result<(Page, Arc<OwnedFd>)> {
        let memory = Arc::new(os::create_memory("rclust-load", LEN as u64)?);
        Ok((Page { map: os::Mapping::new(memory.clone(), LEN)? }, memory))
    }

    /// Maps the page that came from the supervisor. Worker side.
    pub(crate) fn open(memory: OwnedFd) -> io::Result<Page> {
        Ok(Page { map: os::Mapping::new(Arc::new(memory), LEN)? })
    }

    /// A new incarnation begins: nothing is taken, nothing closed. Supervisor side, while no process has the page.
    pub(crate) fn reset(&self) {
        for at in (0..LEN).step_by(8) {
            self.map.store(at, 0, Ordering::Relaxed);
        }
    }

    /// What the worker says of a listener. Supervisor side.
    pub(crate) fn read(&self, listener: u32) -> Said {
        let taken = self.map.load(taken_word(listener), Ordering::Acquire);
        let closed = self.map.load(closed_word(listener), Ordering::Acquire);
        Said { taken, closed, begun: self.map.load(begun_word(listener), Ordering::Acquire) }
    }

    /// Asks to be told when something changes; look once more afterwards. Supervisor side.
    pub(crate) fn want(&self) {
        self.map.store(WANTS, 1, Ordering::Relaxed);
        // Pairs with the fence in `changed`: either it sees the wish, or we see its count.
        fence(Ordering::SeqCst);
    }

    /// A connection was taken. Worker side; `true`: the supervisor waits to hear of it.
    pub(crate) fn taken(&self, listener: u32) -> bool {
        self.map.add(taken_word(listener), 1, Ordering::Release);
        self.changed()
    }

    /// A connection ended, or was moved away. Worker side.
    pub(crate) fn closed(&self, listener: u32) -> bool {
        self.map.add(closed_word(listener), 1, Ordering::Release);
        self.changed()
    }

    /// A connection was read from for the first time, or closed before. Worker side.
    pub(crate) fn begun(&self, listener: u32) -> bool {
        self.map.add(begun_word(listener), 1, Ordering::Release);
        self.changed()
    }

    /// It has adopted so many connections. Worker side.
    pub(crate) fn adopted(&self, count: u64) -> bool {
        self.map.store(ADOPTED, count, Ordering::Release);
        self.changed()
    }

    /// This packet is in the program's hand, and in the queue until it is touched; 0: none is. Worker side.
    pub(crate) fn holds(&self, listener: u32, number: u32) {
        self.map.store(hand_word(listener), number.into(), Ordering::Release);
        // Pairs with the fence in `reads_back`: either it sees what is in hand, or we see that it has begun.
        fence(Ordering::SeqCst);
    }

    /// What is in its hand, as it says. Supervisor side.
    pub(crate) fn in_hand(&self, listener: u32) -> u32 {
        self.map.load(hand_word(listener), Ordering::Acquire) as u32
    }

    /// What the supervisor said last. Worker side.
    pub(crate) fn back(&self, listener: u32) -> Back {
        let word = self.map.load(back_word(listener), Ordering::Acquire);
        Back { times: (word >> 32) as u32, in_hand: word as u32 }
    }

    /// Its queue is about to be read back, while it lives: what is in hand is the worker's. Supervisor side.
    pub(crate) fn reads_back(&self, listener: u32) -> u32 {
        let times = u64::from(self.back(listener).times.wrapping_add(1)) << 32;
        self.map.store(back_word(listener), times, Ordering::Release);
        fence(Ordering::SeqCst);
        let in_hand = self.in_hand(listener);
        self.map.store(back_word(listener), times | u64::from(in_hand), Ordering::Release);
        in_hand
    }

    /// How many it says that it has adopted: no more than a process has descriptors, that sums stay sums. Supervisor side.
    pub(crate) fn read_adopted(&self) -> u64 {
        self.map.load(ADOPTED, Ordering::Acquire).min(u64::from(u32::MAX))
    }

    /// A question was found in the queue. Worker side.
    pub(crate) fn looked(&self) -> bool {
        self.changed()
    }

    fn changed(&self) -> bool {
        fence(Ordering::SeqCst);
        self.map.load(WANTS, Ordering::Relaxed) != 0 && self.map.swap(WANTS, 0, Ordering::AcqRel) != 0
    }
}

/// What a worker says of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) taken: u64,
    pub(crate) closed: u64,
    pub(crate) begun: u64,
}

/// What is believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Handed and not taken.
    pub(crate) untaken: u64,
    /// Taken and not closed.
    pub(crate) open: u64,
    /// Taken and not yet read from: a program that shuts down now would throw them away.
    pub(crate) unread: u64,
}

impl Load {
    /// Clamps a worker's word by what was handed to it.
    pub(crate) fn new(handed: u64, said: Said) -> Load {
        let taken = said.taken.min(handed);
        let closed = said.closed.min(taken);
        Load { untaken: handed - taken, open: taken - closed, unread: taken - said.begun.min(taken) }
    }
}

impl Load {
    /// Of a worker that accepts itself: its own word, by which only its own share can suffer.
    pub(crate) fn own(said: Said) -> Load {
        Load::new(said.taken, said)
    }
}

/// How many connections a worker with this limit of open descriptors is handed at most: some are its own.
pub(crate) fn most(descriptors: Option<u64>) -> u64 {
    match descriptors {
        None => u64::MAX,
        Some(limit) => limit.saturating_sub((limit / 8).max(24)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_worker_is_clamped() {
        for (taken, closed) in [(u64::MAX, 0), (u64::MAX, u64::MAX), (0, u64::MAX), (3, 9)] {
            let load = Load::new(10, Said { taken, closed, begun: closed });
            assert!(load.untaken + load.open <= 10 && load.unread <= 10, "{load:?}");
        }
        let said = Said { taken: 7, closed: 4, begun: 6 };
        assert_eq!(Load::new(10, said), Load { untaken: 3, open: 3, unread: 1 });
    }

    #[test]
    fn a_small_limit_leaves_room_for_the_workers_own_descriptors() {
        assert_eq!((most(Some(64)), most(Some(1024)), most(Some(10))), (40, 896, 1));
    }

    #[test]
    fn who_wants_to_know_is_told_once() {
        let (supervisor, memory) = Page::create().unwrap();
        let worker = Page::open(memory.try_clone().unwrap()).unwrap();
        assert!(!worker.taken(2));
        supervisor.want();
        assert!(worker.closed(2));
        assert!(!worker.taken(2));
        assert_eq!(supervisor.read(2), Said { taken: 2, closed: 1, begun: 0 });
        worker.adopted(u64::MAX);
        assert_eq!(supervisor.read_adopted(), u64::from(u32::MAX));
        supervisor.reset();
        assert_eq!(supervisor.read(2), Said { taken: 0, closed: 0, begun: 0 });
        assert_eq!(supervisor.read_adopted(), 0);
    }
}
