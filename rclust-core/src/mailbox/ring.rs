//! Records in a byte region that two processes share: commit, taken, done. Checks everything it reads.
//!
//! One writer, one reader, each a process that may die or lie at any moment. Positions are bytes since the ring was
//! made and only grow; a record at position `p` lies at `p & (capacity - 1)`, and the last one before the end runs on
//! into a slack of one largest record, so that every record is one piece. Their arithmetic wraps: no honest ring comes near
//! the end of 64 bits, but a liar's cursor may lie on its other side.
//!
//! ```text
//! record   u32 length of the payload | u32 kind | payload | padding to 8 bytes        (native byte order)
//! header   0 tail, 8 waiting                 written by the writer (waiting: cleared by the reader)
//!          128 taken, 136 done               written by the reader
//!          256 sleeping                      set by the reader, cleared by the writer
//! ```
//! A record exists from the one Release store of `tail` on that follows its bytes. `taken` is stored before a record is
//! decoded, `done` when its handler has returned: *in hand* is what lies between.
//!
//! A record may have things beside it (descriptors, a payload too large for the ring) that travel another way; its kind says
//! how many. The writer counts those of the records that are not done, and waits when there are too many.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sys::shared::{Mapping, Ordering, fence};

const TAIL: usize = 0;
const WAITING: usize = 8;
const TAKEN: usize = 128;
const DONE: usize = 136;
const SLEEPING: usize = 256;

/// Bytes of a ring's header.
pub(crate) const HEADER: usize = 384;

/// So many bytes through a ring are worth giving its pages back when it idles.
pub(crate) const WORTH_RELEASING: u64 = 64 << 10;

/// Bytes in front of a record's payload.
const RECORD_HEAD: usize = 8;

/// What a record's `kind` says: whose it is (the low byte) and what is beside it.
pub(crate) mod kind {
    /// The payload is a memfd of its own, the first descriptor beside the record; the record has its length (u64) at its end.
    const LARGE: u32 = 1 << 8;

    /// A kind with things beside it: `descriptors` in all, the first of them a large payload.
    pub(crate) fn with(what: u32, large: bool, descriptors: usize) -> u32 {
        what | if large { LARGE } else { 0 } | (descriptors as u32) << 16
    }

    /// Whose it is.
    pub(crate) fn what(kind: u32) -> u32 {
        kind & 0xff
    }

    /// How many descriptors are beside the record.
    pub(crate) fn descriptors(kind: u32) -> usize {
        (kind >> 16) as usize
    }

    /// Whether its payload is beside the record.
    pub(crate) fn is_large(kind: u32) -> bool {
        kind & LARGE != 0
    }
}

/// What a record needs: room in the ring, and room for what is beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Bytes of the payload in the ring.
    pub(crate) payload: usize,
    /// Bytes of a payload beside it.
    pub(crate) large: u64,
    /// Descriptors beside it.
    pub(crate) descriptors: usize,
}

impl Need {
    /// Of a record that has nothing beside it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn plain(payload: usize) -> Need {
        Need { payload, ..Need::default() }
    }
}

/// Descriptors beside the records of one ring that are not done.
pub(crate) const DESCRIPTORS: usize = 128;

/// A record that is not done and has something beside it.
#[derive(Debug)]
struct Heavy {
    end: u64,
    large: u64,
    descriptors: usize,
}

/// Where a ring lies in a mapping and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Offset of the header; a multiple of 128.
    pub(crate) header: usize,
    /// Offset of the data; a multiple of 4096.
    pub(crate) data: usize,
    /// Bytes of the ring; a power of two.
    pub(crate) capacity: usize,
}

impl Place {
    /// The largest record, head included: half the ring, so that two always fit.
    pub(crate) fn largest(&self) -> usize {
        self.capacity / 2
    }

    /// The largest payload.
    #[inline]
    pub(crate) fn largest_payload(&self) -> usize {
        self.largest() - RECORD_HEAD
    }

    /// Bytes of data with the slack.
    pub(crate) fn span(&self) -> usize {
        self.capacity + self.largest()
    }

    /// Where a reader's `taken` word lies, for the supervisor's look at a dead reader.
    pub(crate) fn taken_word(&self) -> u64 {
        (self.header + TAKEN) as u64
    }

    /// Where a reader's `done` word lies.
    pub(crate) fn done_word(&self) -> u64 {
        (self.header + DONE) as u64
    }

    /// Where the writer's `tail` word lies.
    pub(crate) fn tail_word(&self) -> u64 {
        (self.header + TAIL) as u64
    }

    /// Where the record at `position` lies.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> usize {
        self.data + (position as usize & (self.capacity - 1))
    }

    /// Bytes that a payload takes as a record.
    #[inline]
    pub(crate) fn record(payload: usize) -> usize {
        RECORD_HEAD + payload.next_multiple_of(8)
    }

    /// Reads a record's head: the payload's length and the kind, if the length can be.
    #[inline]
    pub(crate) fn head(&self, bytes: [u8; 8], available: u64) -> Result<(usize, u32), Corrupt> {
        let word = u64::from_ne_bytes(bytes);
        let (len, kind) = (word as u32 as usize, (word >> 32) as u32);
        if len > self.largest_payload() || Place::record(len) as u64 > available {
            return Err(Corrupt("a record's length"));
        }
        Ok((len, kind))
    }
}

/// The other side broke the ring's rules: it is not to be trusted further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared mailbox memory is corrupt: {0} cannot be")]
pub(crate) struct Corrupt(pub(crate) &'static str);

/// What a side that was cut off is told, so that it treats the ring as one that it must not touch.
const CUT: Corrupt = Corrupt("a worker that was declared dead and goes on");

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// No room now.
    Full,
    /// The reader's cursors make no sense.
    Corrupt(Corrupt),
}

/// The writing side of a ring.
#[derive(Debug)]
pub(crate) struct Writer {
    map: Arc<Mapping>,
    place: Place,
    tail: u64,
    done: u64,
    /// Bytes that may be beside records that are not done.
    most_large: u64,
    heavy: VecDeque<Heavy>,
    cut: bool,
}

impl Writer {
    /// Goes on where the last writer of this ring stopped.
    pub(crate) fn open(map: Arc<Mapping>, place: Place, most_large: u64) -> Result<Writer, Corrupt> {
        let tail = map.load(place.header + TAIL, Ordering::Acquire);
        let done = map.load(place.header + DONE, Ordering::Acquire);
        let mut writer = Writer { map, place, tail, done, most_large, heavy: VecDeque::new(), cut: false };
        if tail % 8 != 0 {
            return Err(Corrupt("the tail"));
        }
        writer.check(done)?;
        // Records that cannot be are their reader's to find; what is counted here only paces this side.
        let _ = writer.count_heavy();
        Ok(writer)
    }

    /// In place of a ring's writer, where another process has that part: nothing can be written.
    pub(crate) fn absent(map: Arc<Mapping>, place: Place) -> Writer {
        Writer { map, place, tail: 0, done: 0, most_large: 0, heavy: VecDeque::new(), cut: true }
    }

    /// What the last writer left beside records that are not done.
    fn count_heavy(&mut self) -> Result<(), Corrupt> {
        let mut at = self.done;
        while at != self.tail {
            let place = self.place.at(at);
            let head = self.map.load(place, Ordering::Relaxed);
            let (len, kind) = self.place.head(head.to_ne_bytes(), self.tail.wrapping_sub(at))?;
            at = at.wrapping_add(Place::record(len) as u64);
            if kind::descriptors(kind) > 0 {
                let mut length = Vec::new();
                if kind::is_large(kind) && len >= 8 {
                    self.map.read(place + RECORD_HEAD + len - 8, 8, &mut length);
                }
                let large = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
                self.heavy.push_back(Heavy { end: at, large, descriptors: kind::descriptors(kind) });
            }
        }
        Ok(())
    }

    #[inline]
    fn check(&self, done: u64) -> Result<(), Corrupt> {
        let used = self.tail.wrapping_sub(done);
        if done % 8 != 0 || used > self.place.capacity as u64 { Err(Corrupt("the reader's cursor")) } else { Ok(()) }
    }

    /// Writes and commits a record; returns the position behind it. Nothing is rung.
    #[inline]
    pub(crate) fn push(&mut self, kind: u32, payload: &[u8]) -> Result<u64, PushError> {
        let size = Place::record(payload.len());
        debug_assert!(size <= self.place.largest(), "the caller checks the size limit");
        if !self.has_room(size).map_err(PushError::Corrupt)? {
            return Err(PushError::Full);
        }
        Ok(self.write(kind, payload, size))
    }

    /// The same for a record with things beside it, for which [`Writer::has_room_for`] has said yes.
    pub(crate) fn push_heavy(&mut self, kind: u32, payload: &[u8], need: Need) -> Result<u64, PushError> {
        let end = self.push(kind, payload)?;
        self.heavy.push_back(Heavy { end, large: need.large, descriptors: need.descriptors });
        Ok(end)
    }

    #[inline]
    fn write(&mut self, kind: u32, payload: &[u8], size: usize) -> u64 {
        let at = self.place.at(self.tail);
        let head = u64::from(payload.len() as u32) | u64::from(kind) << 32;
        self.map.write(at, &head.to_ne_bytes());
        self.map.write(at + RECORD_HEAD, payload);
        self.tail = self.tail.wrapping_add(size as u64);
        // The commit: from here on the record survives this process.
        self.map.store(self.place.header + TAIL, self.tail, Ordering::Release);
        self.tail
    }

    /// The position behind the last record.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes of records that are not done, as their reader says; large payloads count.
    pub(crate) fn backlog(&mut self) -> u64 {
        let done = self.map.load(self.place.header + DONE, Ordering::Acquire);
        // A reader whose cursor cannot be is found elsewhere; here it only looks full.
        if self.check(done).is_err() {
            return u64::MAX;
        }
        self.done = done;
        self.prune();
        self.heavy.iter().map(|heavy| heavy.large).fold(self.tail.wrapping_sub(done), u64::saturating_add)
    }

    /// Whether a record that needs this has room now.
    pub(crate) fn has_room_for(&mut self, need: Need) -> Result<bool, Corrupt> {
        let room = self.has_room(Place::record(need.payload))?;
        if !room || need.descriptors == 0 {
            return Ok(room);
        }
        if !self.has_room_beside(need) {
            let done = self.map.load(self.place.header + DONE, Ordering::Acquire);
            self.check(done)?;
            self.done = done;
            return Ok(self.has_room_beside(need));
        }
        Ok(true)
    }

    /// Forgets heavy records that are done.
    fn prune(&mut self) {
        while self.heavy.front().is_some_and(|heavy| heavy.end.wrapping_sub(self.done) as i64 <= 0) {
            self.heavy.pop_front();
        }
    }

    /// Alone, a record always has room: its own limits were checked before.
    fn has_room_beside(&mut self, need: Need) -> bool {
        self.prune();
        let (large, descriptors) = self.heavy.iter().fold((0u64, 0), |(large, descriptors), heavy| {
            (large.saturating_add(heavy.large), descriptors + heavy.descriptors)
        });
        self.heavy.is_empty()
            || (large.saturating_add(need.large) <= self.most_large && descriptors + need.descriptors <= DESCRIPTORS)
    }

    /// Writes nothing more, for good: its worker was declared dead while its thread may live on (in-process mode).
    pub(crate) fn cut(&mut self) {
        self.cut = true;
    }

    #[inline]
    fn has_room(&mut self, size: usize) -> Result<bool, Corrupt> {
        if self.cut {
            return Err(CUT);
        }
        let room = |tail: u64, done: u64| self.place.capacity as u64 - tail.wrapping_sub(done) >= size as u64;
        if room(self.tail, self.done) {
            return Ok(true);
        }
        let done = self.map.load(self.place.header + DONE, Ordering::Acquire);
        self.check(done)?;
        self.done = done;
        Ok(room(self.tail, done))
    }

    /// Tells the reader that this side waits for room, and looks once more: `true` if there is what is needed now.
    pub(crate) fn wait_for_room(&mut self, need: Need) -> Result<bool, Corrupt> {
        self.map.store(self.place.header + WAITING, 1, Ordering::Relaxed);
        // Pairs with the fence in `Reader::writer_waits`: either it sees the flag, or we see its `done`.
        fence(Ordering::SeqCst);
        self.has_room_for(need)
    }

    /// Whether the reader sleeps and must be woken; asking takes the duty to ring.
    #[inline]
    pub(crate) fn reader_sleeps(&self) -> bool {
        // Pairs with the fence in `Reader::sleep`: either it sees our tail, or we see its flag.
        fence(Ordering::SeqCst);
        let word = self.place.header + SLEEPING;
        self.map.load(word, Ordering::Relaxed) != 0 && self.map.swap(word, 0, Ordering::AcqRel) != 0
    }

    /// Says again, into the memory, what this side knows of the ring, after its reader died: no process reads meanwhile.
    /// If the reader had changed what is not its own, or `spoilt` says that the records are, they are given up.
    pub(crate) fn reassert(&mut self, spoilt: bool) {
        let word = |word| self.map.load(self.place.header + word, Ordering::Acquire);
        let (tail, taken, done) = (word(TAIL), word(TAKEN), word(DONE));
        let sane = tail == self.tail
            && self.check(done).is_ok()
            && self.check(taken).is_ok()
            && taken.wrapping_sub(done) <= tail.wrapping_sub(done);
        if spoilt || !sane {
            for word in [TAKEN, DONE, TAIL] {
                self.map.store(self.place.header + word, self.tail, Ordering::Release);
            }
            self.done = self.tail;
            self.heavy.clear();
        }
    }

    /// Gives the ring's pages back if the reader has handled everything, so that all of it is this side's.
    pub(crate) fn release_if_empty(&mut self) -> std::io::Result<bool> {
        let done = self.map.load(self.place.header + DONE, Ordering::Acquire);
        if done != self.tail || self.cut {
            return Ok(false);
        }
        self.done = done;
        self.map.release(self.place.data, self.place.span())?;
        Ok(true)
    }
}

/// The reading side of a ring.
#[derive(Debug)]
pub(crate) struct Reader {
    map: Arc<Mapping>,
    place: Place,
    taken: u64,
    done: u64,
    tail: u64,
    told: u64,
    told_idle: u64,
    cut: bool,
    absent: bool,
}

impl Reader {
    /// Goes on where the last reader stopped, or where the supervisor put it.
    pub(crate) fn open(map: Arc<Mapping>, place: Place) -> Result<Reader, Corrupt> {
        let taken = map.load(place.header + TAKEN, Ordering::Acquire);
        let done = map.load(place.header + DONE, Ordering::Acquire);
        if taken % 8 != 0 || taken != done {
            return Err(Corrupt("the reader's cursor"));
        }
        let (tail, told, told_idle) = (taken, done, done);
        let mut reader = Reader { map, place, taken, done, tail, told, told_idle, cut: false, absent: false };
        reader.look()?;
        Ok(reader)
    }

    /// In place of a ring's reader, where another process has that part: there is nothing to take.
    pub(crate) fn absent(map: Arc<Mapping>, place: Place) -> Reader {
        Reader { map, place, taken: 0, done: 0, tail: 0, told: 0, told_idle: 0, cut: false, absent: true }
    }

    /// Reads nothing more, for good: see [`Writer::cut`]. What is in hand stays so.
    pub(crate) fn cut(&mut self) {
        self.cut = true;
        // The next `take` looks, and is told.
        self.tail = self.taken;
    }

    /// Whether it was cut off.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    #[inline]
    fn look(&mut self) -> Result<bool, Corrupt> {
        if self.cut {
            return Err(CUT);
        }
        if self.absent {
            return Ok(false);
        }
        let tail = self.map.load(self.place.header + TAIL, Ordering::Acquire);
        if tail % 8 != 0 || tail.wrapping_sub(self.taken) > self.place.capacity as u64 {
            return Err(Corrupt("the writer's tail"));
        }
        self.tail = tail;
        Ok(tail != self.taken)
    }

    /// Whether there is nothing to take. (What cannot be read counts as something.)
    #[inline]
    pub(crate) fn is_empty(&mut self) -> bool {
        self.tail == self.taken && matches!(self.look(), Ok(false))
    }

    /// Takes the next record: its payload is appended to `into`, its kind returned. It is in hand until [`Reader::done`].
    #[inline]
    pub(crate) fn take(&mut self, into: &mut Vec<u8>) -> Result<Option<u32>, Corrupt> {
        if self.tail == self.taken && !self.look()? {
            return Ok(None);
        }
        let available = self.tail.wrapping_sub(self.taken);
        if available < RECORD_HEAD as u64 {
            return Err(Corrupt("the writer's tail"));
        }
        let at = self.place.at(self.taken);
        // The head is read once, as one word: the writer may change it under our eyes.
        let head = self.map.load(at, Ordering::Relaxed);
        let (len, kind) = self.place.head(head.to_ne_bytes(), available)?;
        self.taken = self.taken.wrapping_add(Place::record(len) as u64);
        self.map.store(self.place.header + TAKEN, self.taken, Ordering::Release);
        self.map.read(at + RECORD_HEAD, len, into);
        Ok(Some(kind))
    }

    /// The position behind the record that was taken last.
    #[inline]
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// What was taken has been handled. `true`: time to ask [`Reader::writer_waits`].
    #[inline]
    pub(crate) fn done(&mut self) -> bool {
        if self.cut {
            return false;
        }
        self.done = self.taken;
        self.map.store(self.place.header + DONE, self.done, Ordering::Release);
        self.done.wrapping_sub(self.told) >= self.place.capacity as u64 / 4
    }

    /// Whether the writer waits for room and must be woken; asking takes the duty to ring.
    #[inline]
    pub(crate) fn writer_waits(&mut self) -> bool {
        self.told = self.done;
        fence(Ordering::SeqCst);
        let word = self.place.header + WAITING;
        self.map.load(word, Ordering::Relaxed) != 0 && self.map.swap(word, 0, Ordering::AcqRel) != 0
    }

    /// Takes the announcement of sleep back: the writer need not ring. [`Reader::sleep`] has to follow.
    pub(crate) fn stay_awake(&self) {
        self.map.store(self.place.header + SLEEPING, 0, Ordering::Relaxed);
    }

    /// Announces sleep and looks once more. `false`: there is something, stay awake (the flag may stay set: the
    /// writer then rings once for nothing; clearing it could take a ring that somebody else needs).
    pub(crate) fn sleep(&mut self) -> Result<bool, Corrupt> {
        if self.absent {
            return Ok(true);
        }
        self.map.store(self.place.header + SLEEPING, 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Ok(!self.look()?)
    }

    /// Puts the ring in order after its writer died, if it had changed what is not its own, or `spoilt` says that the records
    /// are: what this side has not taken is then lost.
    ///
    /// This side's own count is the truth; no process writes meanwhile.
    pub(crate) fn repair(&mut self, spoilt: bool) {
        let word = |word| self.map.load(self.place.header + word, Ordering::Acquire);
        let own = word(TAKEN) == self.taken && word(DONE) == self.done;
        let tail = word(TAIL);
        // The next writer counts its room from `done`: what is in hand takes some of it.
        let sane = [self.taken, self.done].iter().all(|own| tail.wrapping_sub(*own) <= self.place.capacity as u64);
        if !spoilt && own && sane && tail % 8 == 0 {
            return;
        }
        self.done = self.taken;
        self.tail = self.taken;
        for word in [TAKEN, DONE, TAIL] {
            self.map.store(self.place.header + word, self.taken, Ordering::Release);
        }
    }

    /// Whether so much was handled since the last `true` that the writer may want to give the ring's pages back.
    pub(crate) fn worth_telling_idle(&mut self) -> bool {
        let worth = self.done.wrapping_sub(self.told_idle) >= WORTH_RELEASING;
        if worth {
            self.told_idle = self.done;
        }
        worth
    }
}

#[cfg(all(test, rclust_loom))]
mod models;

#[cfg(all(test, not(rclust_loom)))]
mod properties;

#[cfg(all(test, not(rclust_loom)))]
mod tests {
    use super::*;

    const PLACE: Place = Place { header: 0, data: 4096, capacity: 4096 };

    fn map() -> Arc<Mapping> {
        let len = PLACE.data + PLACE.span();
        Arc::new(Mapping::new(Arc::new(crate::sys::memory::create("ring-test", len as u64).unwrap()), len).unwrap())
    }

    fn open(map: &Arc<Mapping>) -> (Writer, Reader) {
        (Writer::open(map.clone(), PLACE, 0).unwrap(), Reader::open(map.clone(), PLACE).unwrap())
    }

    #[test]
    fn sides_that_were_cut_off_change_nothing_for_their_successors() {
        let map = map();
        let (mut writer, mut reader) = open(&map);
        for n in 0..3 {
            writer.push(n, &[n as u8; 9]).unwrap();
        }
        let mut buffer = Vec::new();
        assert_eq!(reader.take(&mut buffer), Ok(Some(0)));
        reader.cut();
        writer.cut();
        assert!(!reader.done() && reader.take(&mut buffer).is_err() && reader.sleep().is_err());
        assert!(matches!(writer.push(9, &[]), Err(PushError::Corrupt(_))) && !writer.release_if_empty().unwrap());
        let word = |word| map.load(PLACE.header + word, Ordering::Relaxed);
        assert_eq!((word(DONE), word(TAKEN), word(TAIL)), (0, 24, 72), "in hand is in hand, and nothing was added");
        // As the supervisor does after a death.
        map.store(PLACE.header + DONE, 24, Ordering::Relaxed);
        let (mut writer, mut reader) = open(&map);
        writer.push(3, &[]).unwrap();
        for n in 1..=3 {
            assert_eq!(reader.take(&mut buffer), Ok(Some(n)));
        }
    }

    #[test]
    fn a_sleeping_reader_is_rung_once_and_a_waking_one_not_at_all() {
        let map = map();
        let mut writer = Writer::open(map.clone(), PLACE, 1 << 20).unwrap();
        let mut reader = Reader::open(map, PLACE).unwrap();
        assert!(reader.sleep().unwrap());
        writer.push(0, b"x").unwrap();
        assert!(writer.reader_sleeps());
        assert!(!writer.reader_sleeps(), "the duty to ring was taken");
        assert!(!reader.sleep().unwrap(), "there is a record: stay awake");
    }

    #[test]
    fn a_waiting_writer_is_rung_when_a_quarter_is_free() {
        let map = map();
        let mut writer = Writer::open(map.clone(), PLACE, 1 << 20).unwrap();
        let mut reader = Reader::open(map, PLACE).unwrap();
        let mut count = 0;
        while writer.push(0, &[0; 56]).is_ok() {
            count += 1;
        }
        assert!(!writer.wait_for_room(Need::plain(56)).unwrap());
        let mut buffer = Vec::new();
        let mut told = 0;
        for handled in 1..=count {
            reader.take(&mut buffer).unwrap().unwrap();
            if reader.done() && reader.writer_waits() {
                told = handled;
                break;
            }
        }
        assert_eq!(told, count / 4);
    }
}
