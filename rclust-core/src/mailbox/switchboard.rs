//! The supervisor's hold on every lane: memory and doorbells outlive the processes that use them.
//!
//! Nothing is mapped here. After a death the dead reader's cursors are read and set through the descriptor.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::SocketType;

use crate::id::Slot;
use crate::mailbox::lane::{BETWEEN_WORKERS, Layout, Parts, WITH_SUPERVISOR};
use crate::mailbox::ring::Place;
use crate::sys::{descriptors, memory};
use crate::wire::control::End;

struct Pair {
    memory: Arc<OwnedFd>,
    bells: [Arc<OwnedFd>; 2],
    sizes: (u32, u32),
    layout: Layout,
}

/// What a dead reader leaves in one lane.
pub(crate) struct Left {
    /// Who writes that lane.
    pub(crate) peer: Slot,
    /// How far it had taken.
    pub(crate) taken: u64,
    /// The record that it had taken and not done.
    pub(crate) in_hand: Option<Vec<u8>>,
}

/// All pairs of slots that share a lane.
#[derive(Default)]
pub(crate) struct Switchboard {
    pairs: Mutex<HashMap<(Slot, Slot), Arc<Pair>>>,
}

fn key(a: Slot, b: Slot) -> (Slot, Slot) {
    if a < b { (a, b) } else { (b, a) }
}

impl Switchboard {
    /// Three descriptors a lane, and half of the limit for everything else: workers must not be able to use them all up.
    fn most_pairs(&self) -> usize {
        crate::sys::process::descriptor_limit().0.map_or(usize::MAX, |limit| (limit / 6) as usize)
    }

    /// The parts of `me` in its lane with `peer`; the lane is made at first use. `true`: it was.
    pub(crate) fn open(&self, me: Slot, peer: Slot) -> io::Result<(Parts, bool)> {
        let mut pairs = self.pairs.lock();
        if let Some(pair) = pairs.get(&key(me, peer)) {
            return Ok((parts(pair, me, peer), false));
        }
        if me != Slot::SUPERVISOR && peer != Slot::SUPERVISOR && pairs.len() >= self.most_pairs() {
            return Err(io::Error::other(format!(
                "{} lanes are open, which is what half of the supervisor's descriptors allow",
                pairs.len()
            )));
        }
        let capacity =
            if me == Slot::SUPERVISOR || peer == Slot::SUPERVISOR { WITH_SUPERVISOR } else { BETWEEN_WORKERS };
        let sizes = (capacity, capacity);
        let layout = Layout::new(sizes).ok_or(io::ErrorKind::InvalidInput)?;
        let (first, second) = descriptors::socket_pair(SocketType::STREAM)?;
        let pair = Arc::new(Pair {
            memory: Arc::new(memory::create("rclust-lane", layout.len() as u64)?),
            bells: [Arc::new(first), Arc::new(second)],
            sizes,
            layout,
        });
        let own = parts(&pair, me, peer);
        pairs.insert(key(me, peer), pair);
        Ok((own, true))
    }

    /// The lanes of a slot, as its process takes part in them.
    pub(crate) fn lanes_of(&self, slot: Slot) -> Vec<Parts> {
        let pairs = self.pairs.lock();
        pairs.iter().filter_map(|(key, pair)| Some(parts(pair, slot, other(*key, slot)?))).collect()
    }

    /// A slot's process is gone: puts its cursors behind what it had in hand, rings everybody who may wait for it, and
    /// tells what it left. Called before the next incarnation is told of its lanes.
    pub(crate) fn reader_died(&self, slot: Slot) -> Vec<Left> {
        let mut left = Vec::new();
        for (key, pair) in self.pairs.lock().iter() {
            let Some(peer) = other(*key, slot) else { continue };
            let theirs = End::of(slot, peer).other();
            let (taken, in_hand) = settle(pair, pair.layout.messages_of(theirs));
            // Answers are for the dead incarnation's questions alone; what it had taken of them is gone with it.
            settle(pair, pair.layout.replies_of(theirs));
            left.push(Left { peer, taken, in_hand });
            for bell in &pair.bells {
                descriptors::ring(&**bell);
            }
        }
        left
    }

    /// A slot will never be filled again: its lanes are given up.
    pub(crate) fn forget(&self, slot: Slot) -> Vec<Slot> {
        let mut peers = Vec::new();
        self.pairs.lock().retain(|key, _| match other(*key, slot) {
            Some(peer) => {
                peers.push(peer);
                false
            }
            None => true,
        });
        peers
    }
}

fn other((a, b): (Slot, Slot), slot: Slot) -> Option<Slot> {
    if a == slot {
        Some(b)
    } else if b == slot {
        Some(a)
    } else {
        None
    }
}

fn parts(pair: &Pair, me: Slot, peer: Slot) -> Parts {
    let end = End::of(me, peer);
    let bell = pair.bells[end as usize].clone();
    let ringer = (me == peer).then(|| pair.bells[end.other() as usize].clone());
    Parts { peer, end, sizes: pair.sizes, memory: pair.memory.clone(), bell, ringer }
}

/// Makes `done` what was taken, and returns both `taken` and the record in between. Cursors that cannot be (a hostile
/// worker's) are set to the writer's tail: that lane's messages are lost with the worker that spoilt it, and only those.
fn settle(pair: &Pair, ring: Place) -> (u64, Option<Vec<u8>>) {
    let word = |at| memory::peek(&*pair.memory, at).unwrap_or(0);
    let (tail, taken, done) = (word(ring.tail_word()), word(ring.taken_word()), word(ring.done_word()));
    let capacity = ring.capacity as u64;
    let sane = taken % 8 == 0
        && done % 8 == 0
        && taken.wrapping_sub(done) <= capacity
        && tail.wrapping_sub(taken) <= capacity
        && tail.wrapping_sub(done) <= capacity;
    let end = if sane { taken } else { tail & !7 };
    let in_hand = if sane && taken != done { read_record(pair, ring, done, taken - done) } else { None };
    // Failing to write would leave the old cursors, which the next reader refuses with an error of its own.
    let _ = memory::poke(&*pair.memory, ring.taken_word(), end);
    let _ = memory::poke(&*pair.memory, ring.done_word(), end);
    (end, in_hand)
}

fn read_record(pair: &Pair, ring: Place, at: u64, available: u64) -> Option<Vec<u8>> {
    let at = ring.at(at) as u64;
    let mut head = [0; 8];
    memory::peek_bytes(&*pair.memory, at, &mut head).ok()?;
    let (len, _kind) = ring.head(head, available).ok()?;
    let mut bytes = vec![0; len];
    memory::peek_bytes(&*pair.memory, at + 8, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::lane::Lane;

    #[test]
    fn what_a_dead_reader_had_in_hand_is_left_and_the_rest_waits() {
        let board = Switchboard::default();
        let (writer, made) = board.open(Slot(0), Slot(3)).unwrap();
        assert!(made);
        let writer = Lane::open(writer).unwrap();
        for n in 0..3u8 {
            writer.out.lock().push(0, &[n; 5]).unwrap();
        }
        {
            let reader = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
            let mut buffer = Vec::new();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
            reader.inbox.lock().done();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
        }
        let left = board.reader_died(Slot(3));
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].peer, left[0].taken, left[0].in_hand.as_deref()), (Slot(0), 32, Some(&[1u8; 5][..])));
        let next = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
        let mut buffer = Vec::new();
        next.inbox.lock().take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [2; 5]);
        assert!(board.reader_died(Slot(3))[0].in_hand.is_some(), "the third was in hand of the second reader");
    }
}
