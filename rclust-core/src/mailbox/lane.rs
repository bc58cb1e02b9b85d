//! One pair of slots: their memory, their doorbell, and this process's side of the four rings in it.
//!
//! ```text
//! page 0   headers of the rings: messages first->second, second->first, replies first->second, second->first
//! then     their data, each with its slack
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};

use crate::id::Slot;
use crate::mailbox::beside::Parcel;
use crate::mailbox::linger::Luck;
use crate::mailbox::ring::{Corrupt, HEADER, Place, Reader, Writer};
use crate::sys::descriptors;
use crate::sys::shared::Mapping;
use crate::wire::control::{End, Part, Ring, Sizes};

/// Open asks in one lane; further ones wait until one has ended.
pub(crate) const OPEN_ASKS: usize = 1024;

/// At most this many messages, or bytes, wait for one wake.
const BATCH_MESSAGES: usize = 32;
const BATCH_BYTES: usize = 16 << 10;

/// How the memory of a pair is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    rings: [Place; 4],
    len: usize,
}

impl Layout {
    /// The division for these capacities (powers of two, at least a page).
    pub(crate) fn new(sizes: Sizes) -> Option<Layout> {
        let [first, second] = sizes.messages;
        let sizes = [first, second, sizes.replies, sizes.replies];
        if sizes.iter().any(|size| !size.is_power_of_two() || *size < 4096 || *size > 1 << 30) {
            return None;
        }
        let mut at = 4096;
        let rings = std::array::from_fn(|n| {
            let place = Place { header: n * HEADER, data: at, capacity: sizes[n] as usize };
            at += place.span().next_multiple_of(4096);
            place
        });
        Some(Layout { rings, len: at })
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The ring of messages that `end` writes.
    pub(crate) fn messages_of(&self, end: End) -> Place {
        self.rings[end as usize]
    }

    /// One of the rings that `end` writes.
    pub(crate) fn ring_of(&self, end: End, ring: Ring) -> Place {
        match ring {
            Ring::Messages => self.messages_of(end),
            Ring::Replies => self.replies_of(end),
        }
    }

    /// The ring of replies that `end` writes.
    pub(crate) fn replies_of(&self, end: End) -> Place {
        self.rings[2 + end as usize]
    }
}

impl End {
    /// The end of `me` in a pair with `peer`.
    pub(crate) fn of(me: Slot, peer: Slot) -> End {
        if me < peer { End::First } else { End::Second }
    }

    /// The end whose rings `writer` writes. In a slot's lane to itself there is one ring of each kind, the first end's.
    pub(crate) fn writing(writer: Slot, reader: Slot) -> End {
        End::of(reader, writer).other()
    }

    /// The other one.
    pub(crate) fn other(self) -> End {
        match self {
            End::First => End::Second,
            End::Second => End::First,
        }
    }
}

/// What a process needs to take part in a lane.
pub(crate) struct Parts {
    pub(crate) me: Slot,
    pub(crate) peer: Slot,
    pub(crate) part: Part,
    pub(crate) end: End,
    pub(crate) sizes: Sizes,
    pub(crate) memory: Arc<OwnedFd>,
    /// One for each process on the other side.
    pub(crate) bells: Vec<Arc<OwnedFd>>,
    /// In a slot's lane to itself: the end that rings the first of them, which is the same one elsewhere.
    pub(crate) ringer: Option<Arc<OwnedFd>>,
    /// How often it was renewed.
    pub(crate) generation: u32,
    /// Whether the last time its memory was, too.
    pub(crate) fresh: bool,
}

/// The ends that ring the processes on the other side.
type Ringers = Vec<Arc<OwnedFd>>;

/// This side of the four rings.
struct Rings {
    out: Writer,
    replies: Writer,
    inbox: Reader,
    answers: Reader,
    inline: [usize; 2],
    largest: u64,
}

impl Parts {
    fn rings(&self) -> io::Result<Rings> {
        let invalid = |what: Corrupt| io::Error::new(io::ErrorKind::InvalidData, what);
        let layout = Layout::new(self.sizes).ok_or_else(|| invalid(Corrupt("a lane's size")))?;
        let map = Arc::new(Mapping::new(self.memory.clone(), layout.len())?);
        let theirs = self.end.other();
        // A slot's lane to itself is one ring, written and read by the same slot.
        let mine = if self.me == self.peer { theirs } else { self.end };
        let place = layout.messages_of(mine);
        let waiting = self.sizes.waiting[mine as usize];
        // What another process uses in this moment is not looked at: its cursors move.
        let writer = |place| match self.part {
            Part::Inbox => Ok(Writer::absent(map.clone(), place)),
            Part::Whole | Part::Seat => Writer::open(map.clone(), place, waiting),
        };
        let reader = |place, absent| match self.part == absent {
            true => Ok(Reader::absent(map.clone(), place)),
            false => Reader::open(map.clone(), place),
        };
        Ok(Rings {
            out: writer(place).map_err(invalid)?,
            replies: writer(layout.replies_of(mine)).map_err(invalid)?,
            inbox: reader(layout.messages_of(theirs), Part::Seat).map_err(invalid)?,
            answers: reader(layout.replies_of(theirs), Part::Inbox).map_err(invalid)?,
            inline: [place.largest_payload(), layout.replies_of(mine).largest_payload()],
            largest: self.sizes.largest[mine as usize],
        })
    }

    /// The messages of the other side alone.
    fn inbox(&self) -> io::Result<Reader> {
        let invalid = |what: Corrupt| io::Error::new(io::ErrorKind::InvalidData, what);
        let layout = Layout::new(self.sizes).ok_or_else(|| invalid(Corrupt("a lane's size")))?;
        let map = Arc::new(Mapping::new(self.memory.clone(), layout.len())?);
        Reader::open(map, layout.messages_of(self.end.other())).map_err(invalid)
    }

    fn ringers(&self) -> Ringers {
        let mut ringers = self.bells.clone();
        if let (Some(first), Some(ringer)) = (ringers.first_mut(), &self.ringer) {
            *first = ringer.clone();
        }
        ringers
    }
}

/// The messages that this side writes.
pub(crate) struct Out {
    pub(crate) writer: Writer,
    pub(crate) batch: Batch,
}

/// The replies that this side writes; what finds no room waits here, so that answering never waits.
pub(crate) struct Replies {
    pub(crate) writer: Writer,
    pub(crate) batch: Batch,
    pub(crate) waiting: VecDeque<Parcel>,
}

/// Records that are committed and not rung for.
#[derive(Default)]
pub(crate) struct Batch {
    records: usize,
    bytes: usize,
}

impl Batch {
    /// Notes a committed record. `Wake::First`: the caller has to see to it that somebody rings later.
    #[inline]
    pub(crate) fn committed(&mut self, bytes: usize) -> Wake {
        self.records += 1;
        self.bytes += bytes;
        if self.records >= BATCH_MESSAGES || self.bytes >= BATCH_BYTES {
            Wake::Now
        } else if self.records == 1 {
            Wake::First
        } else {
            Wake::Later
        }
    }

    /// Whether there are any; they are rung for now.
    fn end(&mut self) -> bool {
        std::mem::take(self).records > 0
    }
}

/// This process's side of one pair.
pub(crate) struct Lane {
    /// This side: the process's slot, or its seat.
    pub(crate) me: Slot,
    pub(crate) peer: Slot,
    /// Whether this process writes here (and reads the answers to its questions).
    writes: AtomicBool,
    /// Whether the messages here are this process's to read.
    reads: AtomicBool,
    pub(crate) out: Mutex<Out>,
    pub(crate) replies: Mutex<Replies>,
    pub(crate) inbox: Mutex<Reader>,
    pub(crate) answers: Mutex<Reader>,
    /// Notified when there may be room to send again.
    pub(crate) room: Notify,
    /// Whether the receiver has it on its list.
    pub(crate) active: AtomicBool,
    closed: AtomicBool,
    /// Its peer broke the rings' rules; cleared when that peer is dead and the rings are repaired.
    distrusted: AtomicBool,
    /// Notified then.
    pub(crate) repaired: Notify,
    /// Notified when it has other doorbells.
    pub(crate) renewed: Notify,
    inline: [usize; 2],
    largest: u64,
    ringers: RwLock<Ringers>,
    generation: AtomicU32,
    /// Open asks; more than this wait.
    pub(crate) asks: Semaphore,
    /// Whether answers come soon.
    pub(crate) luck: Luck,
    /// Whether a thread looks for them, awake: one does it for all.
    pub(crate) lingering: AtomicBool,
    answered: AtomicU64,
}

impl Lane {
    /// Takes part in a lane.
    pub(crate) fn open(parts: &Parts) -> io::Result<Lane> {
        let Rings { out, replies, inbox, answers, inline, largest } = parts.rings()?;
        Ok(Lane {
            me: parts.me,
            peer: parts.peer,
            writes: AtomicBool::new(parts.part != Part::Inbox),
            reads: AtomicBool::new(parts.part != Part::Seat),
            out: Mutex::new(Out { writer: out, batch: Batch::default() }),
            replies: Mutex::new(Replies { writer: replies, batch: Batch::default(), waiting: VecDeque::new() }),
            inbox: Mutex::new(inbox),
            answers: Mutex::new(answers),
            room: Notify::new(),
            active: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
            repaired: Notify::new(),
            renewed: Notify::new(),
            inline,
            largest,
            ringers: RwLock::new(parts.ringers()),
            generation: AtomicU32::new(parts.generation),
            asks: Semaphore::new(OPEN_ASKS),
            luck: Luck::default(),
            lingering: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        })
    }

    /// How often it was renewed.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// The supervisor renewed it: the same lane with other doorbells, and perhaps with other memory.
    /// `lost` is called when nothing more is written to memory that is given up.
    pub(crate) fn renew(&self, parts: &Parts, lost: impl FnOnce()) -> io::Result<()> {
        if parts.fresh {
            let rings = parts.rings()?;
            let mut out = self.out.lock();
            *out = Out { writer: rings.out, batch: Batch::default() };
            // Under the lock: no question goes into the old memory after that, and none is in the new one before.
            lost();
            drop(out);
            let mut replies = self.replies.lock();
            (replies.writer, replies.batch) = (rings.replies, Batch::default());
            // Answers to questions that were lost with the old memory.
            replies.waiting.clear();
            drop(replies);
            *self.inbox.lock() = rings.inbox;
            *self.answers.lock() = rings.answers;
            self.distrusted.store(false, Ordering::Release);
            self.active.store(false, Ordering::Release);
        } else if parts.part != Part::Seat && !self.reads() {
            // Another process has read here: this one goes on where that one stopped.
            *self.inbox.lock() = parts.inbox()?;
        }
        self.reads.store(parts.part != Part::Seat, Ordering::Release);
        self.writes.store(parts.part != Part::Inbox, Ordering::Release);
        *self.ringers.write() = parts.ringers();
        self.generation.store(parts.generation, Ordering::Release);
        self.renewed.notify_waiters();
        self.repaired.notify_one();
        self.room.notify_waiters();
        Ok(())
    }

    /// Whether the messages here are this process's to read.
    pub(crate) fn reads(&self) -> bool {
        self.reads.load(Ordering::Acquire)
    }

    /// Whether this process writes here.
    pub(crate) fn writes(&self) -> bool {
        self.writes.load(Ordering::Acquire)
    }

    /// This process reads no more messages here; its successor will.
    pub(crate) fn give_up_reading(&self) {
        self.reads.store(false, Ordering::Release);
    }

    /// Payloads up to this size go through the ring, in bytes; larger ones beside it.
    #[inline]
    pub(crate) fn inline(&self, ring: Ring) -> usize {
        self.inline[ring as usize]
    }

    /// The largest encoded message of this lane, in bytes.
    #[inline]
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Whether the slot on the other side will never be filled again.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// It will not. When this returns nothing more is committed: who commits looks under the lock.
    pub(crate) fn close(&self) {
        let out = self.out.lock();
        self.closed.store(true, Ordering::Release);
        drop(out);
        self.room.notify_waiters();
    }

    /// Takes no further part, for good: this side's worker was declared dead while its thread may live on (in-process mode).
    /// When this returns, nothing of it will be read, written or handled any more, and its successor may begin.
    pub(crate) fn cut(&self) {
        self.close();
        self.out.lock().writer.cut();
        self.replies.lock().writer.cut();
        self.inbox.lock().cut();
        self.answers.lock().cut();
    }

    /// Takes all that rang. `Ok(false)`: the lane is given up.
    pub(crate) fn hush(&self, bell: &OwnedFd) -> io::Result<bool> {
        // Under the lock that `cut` takes: the dead must not take a ring that is meant for their successor.
        let inbox = self.inbox.lock();
        if inbox.is_cut() { Ok(false) } else { descriptors::hush(bell) }
    }

    /// The peer broke the rings' rules: nothing is sent to it or read from it until it is dead. `false`: that was known.
    pub(crate) fn distrust(&self) -> bool {
        // Who commits looks under the lock: when this returns, every question that is in the lane is noted as open.
        let _out = self.out.lock();
        !self.distrusted.swap(true, Ordering::AcqRel)
    }

    /// Whether it is: senders wait until it is repaired or renewed.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Acquire)
    }

    /// A process of the peer's is dead, which had this part of its side: what it spoilt is put in order, and the lane serves its
    /// successor. `alone`: no other process has a part there. `true`: it is open again.
    pub(crate) fn repair(&self, part: Part, alone: bool) -> bool {
        let spoilt = self.distrusted.load(Ordering::Acquire);
        if spoilt && !alone {
            return false;
        }
        if spoilt || part != Part::Seat {
            self.out.lock().writer.reassert(spoilt);
        }
        if spoilt || part != Part::Inbox {
            self.replies.lock().writer.reassert(spoilt);
            self.inbox.lock().repair(spoilt);
            self.answers.lock().repair(spoilt);
        }
        if !spoilt {
            return false;
        }
        self.distrusted.store(false, Ordering::Release);
        self.active.store(false, Ordering::Release);
        self.repaired.notify_one();
        self.room.notify_waiters();
        true
    }

    /// Rings the reader on the other side if it sleeps and something was committed since the last time.
    #[inline]
    pub(crate) fn ring_if_needed(&self) {
        let messages = {
            let mut out = self.out.lock();
            out.batch.end() && out.writer.reader_sleeps()
        };
        let replies = {
            let mut replies = self.replies.lock();
            replies.batch.end() && replies.writer.reader_sleeps()
        };
        if messages || replies {
            self.ring();
        }
    }

    /// Rings the other side.
    pub(crate) fn ring(&self) {
        // A doorbell that is broken is found by the other side's task.
        for ringer in &*self.ringers.read() {
            descriptors::ring(&**ringer);
        }
    }

    /// Bytes that this side has written since the lane was made.
    pub(crate) fn written(&self) -> u64 {
        let messages = self.out.lock().writer.tail();
        messages.wrapping_add(self.replies.lock().writer.tail())
    }

    /// When the last answer came here, by its endpoint's count.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// An answer has come.
    pub(crate) fn set_answered(&self, count: u64) {
        self.answered.store(count, Ordering::Relaxed);
    }

    /// Bytes of this side's messages that are not done.
    pub(crate) fn backlog(&self) -> u64 {
        self.out.lock().writer.backlog()
    }

    /// Gives the pages of this side's rings back if their reader has handled everything. An error costs memory, nothing else.
    pub(crate) fn release_if_empty(&self) -> bool {
        let messages = self.out.lock().writer.release_if_empty().unwrap_or(false);
        let replies = self.replies.lock().writer.release_if_empty().unwrap_or(false);
        messages && replies
    }
}

/// Who has to ring for a committed record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// The batch is full: ring now.
    Now,
    /// The first of a batch: see to it that the batch is rung.
    First,
    /// Somebody will.
    Later,
}
