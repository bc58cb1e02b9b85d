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
use crate::mailbox::depot::{Lanes, Way};
use crate::mailbox::lane::{Layout, Parts};
use crate::mailbox::ring::Place;
use crate::mailbox_spec::{self, Mailbox};
use crate::sys::{descriptors, memory};
use crate::wire::control::{End, Sizes};

struct Pair {
    memory: Arc<OwnedFd>,
    bells: [Arc<OwnedFd>; 2],
    sizes: Sizes,
    layout: Layout,
    generation: u32,
    fresh: bool,
}

/// What a dead process leaves in one lane.
pub(crate) struct Left {
    /// The other side.
    pub(crate) peer: Slot,
    /// How far what `peer` wrote is out of its next incarnation's reach: messages, replies.
    pub(crate) taken: (u64, u64),
    /// How far it had written itself: messages, replies.
    pub(crate) written: (u64, u64),
    /// Whether the lane's doorbells are of no use any more.
    pub(crate) deaf: bool,
    /// Messages that it, or its next incarnation, will not handle: the one that it had taken and not done; and, if the mailbox
    /// is to be empty, all that waited.
    pub(crate) dead: Vec<Record>,
}

/// A message in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The position behind it.
    pub(crate) end: u64,
    /// What is beside it.
    pub(crate) kind: u32,
    /// Its bytes in the ring.
    pub(crate) bytes: Vec<u8>,
    /// Whether it was in hand.
    pub(crate) in_hand: bool,
}

/// What is to become of a dead reader's mailbox.
pub(crate) struct Fate<'a> {
    /// Whether the record that was in hand of this lane is read again by the next incarnation.
    pub(crate) again: &'a mut dyn FnMut(Slot, &Record) -> bool,
    /// Whether what waits is thrown away.
    pub(crate) empty: bool,
}

/// All pairs of slots that share a lane.
#[derive(Default)]
pub(crate) struct Switchboard {
    pairs: Mutex<HashMap<(Slot, Slot), Arc<Pair>>>,
    /// The mailboxes that are not the usual one.
    mailboxes: Mutex<HashMap<Slot, Mailbox>>,
}

fn key(a: Slot, b: Slot) -> (Slot, Slot) {
    if a < b { (a, b) } else { (b, a) }
}

impl Switchboard {
    /// Three descriptors a lane, and half of the limit for everything else: workers must not be able to use them all up.
    fn most_pairs(&self) -> usize {
        crate::sys::process::descriptor_limit().0.map_or(usize::MAX, |limit| (limit / 6) as usize)
    }

    /// Says how much a slot's mailbox holds; lanes that exist stay as they are.
    pub(crate) fn set_mailbox(&self, slot: Slot, mailbox: Mailbox) {
        if mailbox != Mailbox::default() {
            self.mailboxes.lock().insert(slot, mailbox);
        }
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
        let (first, second) = key(me, peer);
        let sizes = {
            let mailboxes = self.mailboxes.lock();
            let of = |slot| mailboxes.get(&slot).copied().unwrap_or_default();
            mailbox_spec::sizes((first, second), &of(first), &of(second))
        };
        let layout = Layout::new(sizes).ok_or(io::ErrorKind::InvalidInput)?;
        let (first, second) = descriptors::socket_pair(SocketType::STREAM)?;
        let pair = Arc::new(Pair {
            memory: Arc::new(memory::create("rclust-lane", layout.len() as u64)?),
            bells: [Arc::new(first), Arc::new(second)],
            sizes,
            layout,
            generation: 0,
            fresh: false,
        });
        let own = parts(&pair, me, peer);
        pairs.insert(key(me, peer), pair);
        Ok((own, true))
    }

    /// Gives a lane new doorbells, and if `fresh` new memory: what lay in the old one is lost, with what spoilt it.
    pub(crate) fn renew(&self, a: Slot, b: Slot, fresh: bool) -> io::Result<()> {
        let mut pairs = self.pairs.lock();
        let Some(old) = pairs.get(&key(a, b)) else { return Ok(()) };
        let (first, second) = descriptors::socket_pair(SocketType::STREAM)?;
        let memory = match fresh {
            true => Arc::new(memory::create("rclust-lane", old.layout.len() as u64)?),
            false => old.memory.clone(),
        };
        let bells = [Arc::new(first), Arc::new(second)];
        let (sizes, layout, generation) = (old.sizes, old.layout, old.generation + 1);
        pairs.insert(key(a, b), Arc::new(Pair { memory, bells, sizes, layout, generation, fresh }));
        Ok(())
    }

    /// The lanes of a slot, as its process takes part in them.
    pub(crate) fn lanes_of(&self, slot: Slot) -> Vec<Parts> {
        let pairs = self.pairs.lock();
        pairs.iter().filter_map(|(key, pair)| Some(parts(pair, slot, other(*key, slot)?))).collect()
    }

    /// A slot's process is gone: puts its cursors where its next incarnation begins, rings everybody who may wait for it, and
    /// tells what it left. Called before the next incarnation is told of its lanes.
    pub(crate) fn process_died(&self, slot: Slot, fate: Fate<'_>) -> Vec<Left> {
        let mut left = Vec::new();
        for (key, pair) in self.pairs.lock().iter() {
            let Some(peer) = other(*key, slot) else { continue };
            let theirs = End::writing(peer, slot);
            let mut dead = Vec::new();
            let messages = settle(
                pair,
                pair.layout.messages_of(theirs),
                |record| match record {
                    record if record.in_hand && (fate.again)(peer, &record) => true,
                    record => {
                        dead.push(record);
                        false
                    }
                },
                fate.empty,
            );
            // Answers are for the dead incarnation's questions alone; what it had taken of them is gone with it.
            let replies = settle(pair, pair.layout.replies_of(theirs), |_| false, false);
            let mine = End::writing(slot, peer);
            let tail = |ring: Place| memory::peek(&*pair.memory, ring.tail_word()).unwrap_or(0);
            let written = (tail(pair.layout.messages_of(mine)), tail(pair.layout.replies_of(mine)));
            // Both are rung, whatever comes of the first.
            let rings = [0, 1].map(|end: usize| descriptors::ring(&*pair.bells[end]));
            let deaf = rings.contains(&false);
            left.push(Left { peer, taken: (messages, replies), written, deaf, dead });
        }
        left
    }

    /// A slot will never be filled again: whom it has lanes with.
    pub(crate) fn peers_of(&self, slot: Slot) -> Vec<Slot> {
        self.mailboxes.lock().remove(&slot);
        self.pairs.lock().keys().filter_map(|key| other(*key, slot)).collect()
    }

    /// Gives up the lane of a slot that will never be filled again with a peer that writes nothing more to it, and returns what
    /// waited there.
    pub(crate) fn give_up(&self, slot: Slot, peer: Slot) -> Vec<Record> {
        let Some(pair) = self.pairs.lock().remove(&key(slot, peer)) else { return Vec::new() };
        let mut waited = Vec::new();
        let waits = |record| {
            waited.push(record);
            false
        };
        settle(&pair, pair.layout.messages_of(End::writing(peer, slot)), waits, true);
        waited
    }
}

impl Lanes for Switchboard {
    fn sizes(&self, a: Slot, b: Slot) -> Option<Sizes> {
        self.pairs.lock().get(&key(a, b)).map(|pair| pair.sizes)
    }

    fn done(&self, (writer, reader, ring): Way) -> u64 {
        let pairs = self.pairs.lock();
        let place = |pair: &Pair| pair.layout.ring_of(End::writing(writer, reader), ring);
        pairs
            .get(&key(writer, reader))
            .map_or(0, |pair| memory::peek(&*pair.memory, place(pair).done_word()).unwrap_or(0))
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
    let (generation, fresh) = (pair.generation, pair.fresh);
    Parts { peer, end, sizes: pair.sizes, memory: pair.memory.clone(), bell, ringer, generation, fresh }
}

/// Puts a dead reader's cursors where the next one begins, and returns that position. `see` gets the record in between (and all
/// that wait, if they are thrown away); `true` has the one in hand read again. Cursors that cannot be (a hostile worker's) are set
/// to the writer's tail: that lane's messages are lost with the worker that spoilt it, and only those.
fn settle(pair: &Pair, ring: Place, mut see: impl FnMut(Record) -> bool, empty: bool) -> u64 {
    let word = |at| memory::peek(&*pair.memory, at).unwrap_or(0);
    let (tail, taken, done) = (word(ring.tail_word()), word(ring.taken_word()), word(ring.done_word()));
    let capacity = ring.capacity as u64;
    let sane = taken % 8 == 0
        && done % 8 == 0
        && taken.wrapping_sub(done) <= capacity
        && tail.wrapping_sub(taken) <= capacity
        && tail.wrapping_sub(done) <= capacity;
    let mut begin = if sane { taken } else { tail & !7 };
    if sane {
        let mut at = done;
        while at != if empty { tail } else { taken } {
            let Some(record) = read_record(pair, ring, at, tail.wrapping_sub(at), taken) else { break };
            let (end, in_hand) = (record.end, record.in_hand);
            if see(record) && in_hand {
                begin = done;
                break;
            }
            at = end;
        }
        if empty {
            begin = tail;
        }
    }
    // Failing to write would leave the old cursors, which the next reader refuses with an error of its own.
    let _ = memory::poke(&*pair.memory, ring.taken_word(), begin);
    let _ = memory::poke(&*pair.memory, ring.done_word(), begin);
    begin
}

fn read_record(pair: &Pair, ring: Place, at: u64, available: u64, taken: u64) -> Option<Record> {
    let place = ring.at(at) as u64;
    let mut head = [0; 8];
    memory::peek_bytes(&*pair.memory, place, &mut head).ok()?;
    let (len, kind) = ring.head(head, available).ok()?;
    let mut bytes = vec![0; len];
    memory::peek_bytes(&*pair.memory, place + 8, &mut bytes).ok()?;
    let end = at.wrapping_add(Place::record(len) as u64);
    Some(Record { end, kind, bytes, in_hand: taken.wrapping_sub(end) as i64 >= 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::lane::Lane;
    use crate::mailbox::ring::Need;

    #[test]
    fn a_cursor_on_the_other_side_of_zero_is_only_a_cursor() {
        let board = Switchboard::default();
        let (parts, _) = board.open(Slot(0), Slot(3)).unwrap();
        let lane = Lane::open(board.open(Slot(0), Slot(3)).unwrap().0).unwrap();
        let ring = Layout::new(parts.sizes).unwrap().messages_of(End::of(Slot(0), Slot(3)));
        // The reader of a ring in which nothing was written yet says that it has come less far than to its beginning.
        memory::poke(&*parts.memory, ring.done_word(), 0u64.wrapping_sub(8)).unwrap();
        let mut out = lane.out.lock();
        while out.writer.push(0, &[0; 1000]).is_ok() {}
        assert_eq!(out.writer.wait_for_room(Need::plain(ring.largest_payload())), Ok(false));
        assert_eq!(board.process_died(Slot(3), Fate { again: &mut |_, _| false, empty: false })[0].taken.0, 0);
        out.writer.reassert(false);
        let next = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
        let mut buffer = Vec::new();
        next.inbox.lock().take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [0; 1000], "what it had not taken waits for the next one");
    }

    #[test]
    fn a_tail_that_leaves_no_room_for_what_is_in_hand_does_not_shut_out_the_next_one() {
        let board = Switchboard::default();
        let (parts, _) = board.open(Slot(0), Slot(3)).unwrap();
        let lane = Lane::open(board.open(Slot(0), Slot(3)).unwrap().0).unwrap();
        let worker = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
        worker.out.lock().writer.push(0, &[1; 20]).unwrap();
        lane.inbox.lock().take(&mut Vec::new()).unwrap().unwrap();
        // A full ring, counted from what the supervisor has taken and not done.
        let ring = Layout::new(parts.sizes).unwrap().messages_of(End::Second);
        memory::poke(&*parts.memory, ring.tail_word(), 32 + ring.capacity as u64).unwrap();
        board.process_died(Slot(3), Fate { again: &mut |_, _| false, empty: false });
        lane.repair();
        assert!(Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).is_ok());
    }

    #[test]
    fn what_a_dead_reader_had_in_hand_is_left_and_the_rest_waits() {
        let board = Switchboard::default();
        let (writer, made) = board.open(Slot(0), Slot(3)).unwrap();
        assert!(made);
        let writer = Lane::open(writer).unwrap();
        for n in 0..3u8 {
            writer.out.lock().writer.push(0, &[n; 5]).unwrap();
        }
        {
            let reader = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
            let mut buffer = Vec::new();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
            reader.inbox.lock().done();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
        }
        let died =
            |again: bool, empty: bool| board.process_died(Slot(3), Fate { again: &mut |_, _| again, empty }).remove(0);
        let bytes = |left: &Left| left.dead.iter().map(|record| (record.bytes[0], record.in_hand)).collect::<Vec<_>>();
        let left = died(true, false);
        assert_eq!((left.peer, left.taken.0, bytes(&left)), (Slot(0), 16, vec![]), "it is to be read again");
        {
            let again = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
            let mut buffer = Vec::new();
            again.inbox.lock().take(&mut buffer).unwrap().unwrap();
            assert_eq!(buffer, [1; 5]);
        }
        let left = died(false, false);
        assert_eq!((left.taken.0, bytes(&left)), (32, vec![(1, true)]));
        let next = Lane::open(board.open(Slot(3), Slot(0)).unwrap().0).unwrap();
        let mut buffer = Vec::new();
        next.inbox.lock().take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [2; 5]);
        writer.out.lock().writer.push(0, &[3; 5]).unwrap();
        let left = died(false, true);
        assert_eq!(bytes(&left), [(2, true), (3, false)], "one in hand, and one that waited and is thrown away");
        assert_eq!(bytes(&died(false, true)), []);
    }
}
