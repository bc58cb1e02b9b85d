//! Connections per slot, who has room: counters in a page that supervisor and worker share.
//!
//! ```text
//! page   0 wants                        set by the supervisor when it waits for room, cleared by the worker that tells it
//!        8 adopted                      connections that the worker has and no listener of the supervisor gave it
//!        64 + 32 n: taken, closed, begun       of listener n, counted up by the worker (begun: read from, or closed unread)
//!                   hand                       the number of the packet that the worker's program has and has not touched, which is in
//!                                              the queue yet, with GOING: and is about to be received; LOOKING: the worker looks for one;
//!                                              READING: the supervisor reads the queue back
//! ```
//! How many were handed is the supervisor's own count; what the worker writes is clamped between it and 0, so that a lying
//! worker changes its own share and nothing else. What is in hand is the worker's word too: by a false one it loses what is in its queue.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rclust_core::extension::os;

/// Bytes of a page.
const LEN: usize = 4096;

/// Bytes of a listener's counters.
const ENTRY: usize = 32;

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

/// The worker looks at its queue.
const LOOKING: u64 = 1 << 32;

/// The worker receives what it had in hand: it is in the queue or not.
const GOING: u64 = 1 << 34;

/// The supervisor reads the queue back. A packet that was in hand before is the worker's, and is thrown away where it is found.
const READING: u64 = 1 << 33;

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

    /// It is about to look at its queue, to have the packet in hand. Worker side; `false`: not now.
    pub(crate) fn looks(&self, listener: u32) -> bool {
        self.map.exchange(hand_word(listener), 0, LOOKING)
    }

    /// It has not found one. Worker side.
    pub(crate) fn looked_in_vain(&self, listener: u32) {
        self.map.exchange(hand_word(listener), LOOKING, 0);
    }

    /// It has one in hand from now on. Worker side; `false`: the supervisor has begun to read back, and the packet may be anybody's.
    pub(crate) fn holds(&self, listener: u32, number: u32) -> bool {
        self.map.exchange(hand_word(listener), LOOKING, number.into())
    }

    /// It is about to receive it. Worker side; `false`: the supervisor has begun to read back, and throws it away where it finds it.
    pub(crate) fn lets_go(&self, listener: u32, number: u32) -> bool {
        self.map.exchange(hand_word(listener), number.into(), GOING | u64::from(number))
    }

    /// It has received it. Worker side.
    pub(crate) fn has_let_go(&self, listener: u32, number: u32) {
        self.map.exchange(hand_word(listener), GOING | u64::from(number), 0);
    }

    /// What was in hand of a worker that is dead, as it said; 0: nothing. Supervisor side.
    pub(crate) fn in_hand(&self, listener: u32) -> u32 {
        self.map.load(hand_word(listener), Ordering::SeqCst) as u32
    }

    /// The number of the packet that is in hand, and in the queue, as the worker says. Supervisor side.
    pub(crate) fn held(&self, listener: u32) -> Option<u32> {
        u32::try_from(self.map.load(hand_word(listener), Ordering::SeqCst)).ok().filter(|number| *number != 0)
    }

    /// The queue of a worker that lives is about to be read back. What is in hand, which is left to the worker. Supervisor side.
    pub(crate) fn begins_reading(&self, listener: u32) -> u32 {
        self.map.swap(hand_word(listener), READING, Ordering::SeqCst) as u32
    }

    /// It has been read back. Supervisor side.
    pub(crate) fn ends_reading(&self, listener: u32) {
        self.map.store(hand_word(listener), 0, Ordering::SeqCst);
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
