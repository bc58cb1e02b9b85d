//! The supervisor's hold on every lane: memory and doorbells outlive the processes that use them.
//!
//! Nothing is mapped here. After a death the dead reader's cursors are read and set through the descriptor.

use std::collections::{HashMap, HashSet};
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
use crate::wire::control::{End, Part, Sizes};

/// How many processes take part in a slot's side of its lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Side {
    /// One.
    #[default]
    Whole,
    /// One that writes and one that reads the slot's messages: a reload has moved those to another seat's process.
    Split,
}

/// A doorbell: two ends of a socket pair. Each process of one side has one with each process of the other.
struct Bell {
    /// Who has its ends: the place among the processes of the first slot's side, and of the second's.
    ends: [usize; 2],
    fds: [Arc<OwnedFd>; 2],
}

struct Pair {
    memory: Arc<OwnedFd>,
    bells: Vec<Bell>,
    sizes: Sizes,
    layout: Layout,
    generation: u32,
    fresh: bool,
}

/// What a dead process leaves in one lane.
pub(crate) struct Left {
    /// Its slot, or the seat that it wrote from.
    pub(crate) side: Slot,
    /// The other side.
    pub(crate) peer: Slot,
    /// How far the messages that `peer` wrote are out of its next incarnation's reach; `None`: it did not read them.
    pub(crate) taken: Option<u64>,
    /// What it had of the lane as a writer, if it was one.
    pub(crate) seat: Option<LeftSeat>,
    /// Whether the lane's doorbells are of no use any more.
    pub(crate) deaf: bool,
    /// Messages that it, or its next incarnation, will not handle: the one that it had taken and not done; and, if the mailbox
    /// is to be empty, all that waited.
    pub(crate) dead: Vec<Record>,
}

/// What a dead process leaves in a lane that it wrote to.
#[derive(Clone, Copy)]
pub(crate) struct LeftSeat {
    /// How far the answers to its questions are out of reach.
    pub(crate) answers: u64,
    /// How far it had written: messages, replies.
    pub(crate) written: (u64, u64),
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
    /// The slots whose side is not one process's.
    split: Mutex<HashSet<Slot>>,
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

    /// Whether two processes share a slot's side.
    fn side(&self, slot: Slot) -> Side {
        if self.split.lock().contains(&slot) { Side::Split } else { Side::Whole }
    }

    /// What of its side's lanes belongs to a process that writes, or that reads the slot's messages.
    pub(crate) fn part(&self, slot: Slot, reads: bool) -> Part {
        match (self.side(slot), reads) {
            (Side::Whole, _) => Part::Whole,
            (Side::Split, true) => Part::Inbox,
            (Side::Split, false) => Part::Seat,
        }
    }

    /// The parts of `me` in its lane with `peer`; the lane is made at first use. `true`: it was.
    pub(crate) fn open(&self, me: Slot, peer: Slot, part: Part) -> io::Result<(Parts, bool)> {
        let mut pairs = self.pairs.lock();
        if let Some(pair) = pairs.get(&key(me, peer)) {
            return Ok((parts(pair, me, peer, part), false));
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
            let of = |slot: Slot| mailboxes.get(&slot.place()).copied().unwrap_or_default();
            mailbox_spec::sizes((first, second), &of(first), &of(second))
        };
        let layout = Layout::new(sizes).ok_or(io::ErrorKind::InvalidInput)?;
        let pair = Arc::new(Pair {
            memory: Arc::new(memory::create("rclust-lane", layout.len() as u64)?),
            bells: self.bells(key(me, peer))?,
            sizes,
            layout,
            generation: 0,
            fresh: false,
        });
        let own = parts(&pair, me, peer, part);
        pairs.insert(key(me, peer), pair);
        Ok((own, true))
    }

    /// Gives a lane new doorbells, and if `fresh` new memory: what lay in the old one is lost, with what spoilt it.
    pub(crate) fn renew(&self, a: Slot, b: Slot, fresh: bool) -> io::Result<()> {
        let mut pairs = self.pairs.lock();
        let Some(old) = pairs.get(&key(a, b)) else { return Ok(()) };
        let memory = match fresh {
            true => Arc::new(memory::create("rclust-lane", old.layout.len() as u64)?),
            false => old.memory.clone(),
        };
        let bells = self.bells(key(a, b))?;
        let (sizes, layout, generation) = (old.sizes, old.layout, old.generation + 1);
        pairs.insert(key(a, b), Arc::new(Pair { memory, bells, sizes, layout, generation, fresh }));
        Ok(())
    }

    /// Makes the doorbells of a pair: in a slot's lane to itself the first is its writer's own, and a second one is the way to
    /// another reader.
    fn bells(&self, (first, second): (Slot, Slot)) -> io::Result<Vec<Bell>> {
        let places = |slot| if self.side(slot) == Side::Split { 2 } else { 1 };
        let ends: Vec<[usize; 2]> = match (places(first), places(second)) {
            (places, _) if first == second => (0..places).map(|reader| [0, reader]).collect(),
            (one, other) => (0..one).flat_map(|a| (0..other).map(move |b| [a, b])).collect(),
        };
        let make = |ends| -> io::Result<Bell> {
            let (first, second) = descriptors::socket_pair(SocketType::STREAM)?;
            Ok(Bell { ends, fds: [Arc::new(first), Arc::new(second)] })
        };
        ends.into_iter().map(make).collect()
    }

    /// A slot's messages are read by the process that has its first seat, or else by another. Returns whom it has lanes with: they
    /// want new doorbells.
    pub(crate) fn set_reader(&self, slot: Slot, seat: Slot) -> Vec<Slot> {
        let mut split = self.split.lock();
        if seat == slot {
            split.remove(&slot)
        } else {
            split.insert(slot)
        };
        self.pairs.lock().keys().filter_map(|key| other(*key, slot)).collect()
    }

    /// The lanes of a slot or a seat, as one of its processes takes part in them.
    pub(crate) fn lanes_of(&self, slot: Slot, part: Part) -> Vec<Parts> {
        let pairs = self.pairs.lock();
        pairs.iter().filter_map(|(key, pair)| Some(parts(pair, slot, other(*key, slot)?, part))).collect()
    }

    /// How often a lane was renewed.
    pub(crate) fn generation(&self, a: Slot, b: Slot) -> Option<u32> {
        self.pairs.lock().get(&key(a, b)).map(|pair| pair.generation)
    }

    /// A slot's process is gone: puts its cursors where its next incarnation begins, rings everybody who may wait for it, and
    /// tells what it left. Called before the next incarnation is told of its lanes. `reads`: the slot's messages were its to read.
    pub(crate) fn process_died(&self, seat: Slot, reads: bool, mut fate: Fate<'_>) -> Vec<Left> {
        let mut left = self.leave(seat, true, reads && seat == seat.place(), &mut fate);
        if reads && seat != seat.place() {
            left.extend(self.leave(seat.place(), false, true, &mut fate));
        }
        left
    }

    /// A slot's messages pass over to another process: tells how far they had been taken, and what was not done of that.
    pub(crate) fn give_over(&self, slot: Slot, mut fate: Fate<'_>) -> Vec<Left> {
        self.leave(slot, false, true, &mut fate)
    }

    fn leave(&self, side: Slot, writes: bool, reads: bool, fate: &mut Fate<'_>) -> Vec<Left> {
        let mut left = Vec::new();
        for (key, pair) in self.pairs.lock().iter() {
            let Some(peer) = other(*key, side) else { continue };
            let theirs = End::writing(peer, side);
            let mut dead = Vec::new();
            let taken = reads.then(|| {
                let see = |record: Record| match record {
                    record if record.in_hand && (fate.again)(peer, &record) => true,
                    record => {
                        dead.push(record);
                        false
                    }
                };
                settle(pair, pair.layout.messages_of(theirs), see, fate.empty)
            });
            let mine = End::writing(side, peer);
            let tail = |ring: Place| memory::peek(&*pair.memory, ring.tail_word()).unwrap_or(0);
            let seat = writes.then(|| LeftSeat {
                // Answers are for the dead incarnation's questions alone; what it had taken of them is gone with it.
                answers: settle(pair, pair.layout.replies_of(theirs), |_| false, false),
                written: (tail(pair.layout.messages_of(mine)), tail(pair.layout.replies_of(mine))),
            });
            // All are rung, whatever comes of the first.
            let rings: Vec<bool> =
                pair.bells.iter().flat_map(|bell| &bell.fds).map(|end| descriptors::ring(&**end)).collect();
            left.push(Left { side, peer, taken, seat, deaf: rings.contains(&false), dead });
        }
        left
    }

    /// A slot will never be filled again: whom it has lanes with.
    pub(crate) fn peers_of(&self, slot: Slot) -> Vec<Slot> {
        self.mailboxes.lock().remove(&slot);
        self.split.lock().remove(&slot);
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

fn parts(pair: &Pair, me: Slot, peer: Slot, part: Part) -> Parts {
    let end = End::of(me, peer);
    let place = usize::from(part == Part::Inbox);
    let mut bells = Vec::new();
    let mut ringer = None;
    for bell in &pair.bells {
        let [first, second] = &bell.fds;
        if me != peer {
            if bell.ends[end as usize] == place {
                bells.push(bell.fds[end as usize].clone());
            }
        } else if bell.ends[1] == 0 && part != Part::Inbox {
            bells.push(first.clone());
            ringer = Some(second.clone());
        } else if bell.ends[1] == 1 {
            bells.push(if part == Part::Inbox { second.clone() } else { first.clone() });
        }
    }
    let (generation, fresh) = (pair.generation, pair.fresh);
    Parts { me, peer, part, end, sizes: pair.sizes, memory: pair.memory.clone(), bells, ringer, generation, fresh }
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
        let (parts, _) = board.open(Slot(0), Slot(3), Part::Whole).unwrap();
        let lane = Lane::open(&board.open(Slot(0), Slot(3), Part::Whole).unwrap().0).unwrap();
        let ring = Layout::new(parts.sizes).unwrap().messages_of(End::of(Slot(0), Slot(3)));
        // The reader of a ring in which nothing was written yet says that it has come less far than to its beginning.
        memory::poke(&*parts.memory, ring.done_word(), 0u64.wrapping_sub(8)).unwrap();
        let mut out = lane.out.lock();
        while out.writer.push(0, &[0; 1000]).is_ok() {}
        assert_eq!(out.writer.wait_for_room(Need::plain(ring.largest_payload())), Ok(false));
        assert_eq!(
            board.process_died(Slot(3), true, Fate { again: &mut |_, _| false, empty: false })[0].taken,
            Some(0)
        );
        out.writer.reassert(false);
        let next = Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).unwrap();
        let mut buffer = Vec::new();
        next.inbox.lock().take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [0; 1000], "what it had not taken waits for the next one");
    }

    #[test]
    fn a_tail_that_leaves_no_room_for_what_is_in_hand_does_not_shut_out_the_next_one() {
        let board = Switchboard::default();
        let (parts, _) = board.open(Slot(0), Slot(3), Part::Whole).unwrap();
        let lane = Lane::open(&board.open(Slot(0), Slot(3), Part::Whole).unwrap().0).unwrap();
        let worker = Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).unwrap();
        worker.out.lock().writer.push(0, &[1; 20]).unwrap();
        lane.inbox.lock().take(&mut Vec::new()).unwrap().unwrap();
        // A full ring, counted from what the supervisor has taken and not done.
        let ring = Layout::new(parts.sizes).unwrap().messages_of(End::Second);
        memory::poke(&*parts.memory, ring.tail_word(), 32 + ring.capacity as u64).unwrap();
        board.process_died(Slot(3), true, Fate { again: &mut |_, _| false, empty: false });
        lane.repair(Part::Whole, true);
        assert!(Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).is_ok());
    }

    #[test]
    fn what_a_dead_reader_had_in_hand_is_left_and_the_rest_waits() {
        let board = Switchboard::default();
        let (writer, made) = board.open(Slot(0), Slot(3), Part::Whole).unwrap();
        assert!(made);
        let writer = Lane::open(&writer).unwrap();
        for n in 0..3u8 {
            writer.out.lock().writer.push(0, &[n; 5]).unwrap();
        }
        {
            let reader = Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).unwrap();
            let mut buffer = Vec::new();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
            reader.inbox.lock().done();
            reader.inbox.lock().take(&mut buffer).unwrap().unwrap();
        }
        let died = |again: bool, empty: bool| {
            board.process_died(Slot(3), true, Fate { again: &mut |_, _| again, empty }).remove(0)
        };
        let bytes = |left: &Left| left.dead.iter().map(|record| (record.bytes[0], record.in_hand)).collect::<Vec<_>>();
        let left = died(true, false);
        assert_eq!((left.peer, left.taken, bytes(&left)), (Slot(0), Some(16), vec![]), "it is to be read again");
        {
            let again = Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).unwrap();
            let mut buffer = Vec::new();
            again.inbox.lock().take(&mut buffer).unwrap().unwrap();
            assert_eq!(buffer, [1; 5]);
        }
        let left = died(false, false);
        assert_eq!((left.taken, bytes(&left)), (Some(32), vec![(1, true)]));
        let next = Lane::open(&board.open(Slot(3), Slot(0), Part::Whole).unwrap().0).unwrap();
        let mut buffer = Vec::new();
        next.inbox.lock().take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [2; 5]);
        writer.out.lock().writer.push(0, &[3; 5]).unwrap();
        let left = died(false, true);
        assert_eq!(bytes(&left), [(2, true), (3, false)], "one in hand, and one that waited and is thrown away");
        assert_eq!(bytes(&died(false, true)), []);
    }
}
