//! Many lanes, one reader: takes records in turn, knows what is in hand and what is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::de::DeserializeOwned;

use crate::id::Slot;
use crate::mailbox::beside::Tag;
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::Lane;
use crate::mailbox::linger::Luck;
use crate::mailbox::ring::kind;
use crate::sys::memory::Sealed;
use crate::wire::control::Ring;
use crate::wire::payload;

/// Records of one lane before the next lane has its turn.
const BUDGET: u32 = 64;

/// A buffer larger than this is not kept while nothing comes.
const KEEP: usize = 64 << 10;

/// The one reader of a process's mailbox.
pub(crate) struct Receiver {
    endpoint: Arc<Endpoint>,
    turn: VecDeque<Arc<Lane>>,
    budget: u32,
    in_hand: Option<Arc<Lane>>,
    buffer: Vec<u8>,
    /// The kind of the record in hand, and the position behind it.
    what: u32,
    end: u64,
    large: Option<Sealed>,
    /// The first record of this lane has been delivered so often before.
    again: Option<(Slot, u32)>,
    delivery: u32,
    /// Whether something came since it last looked in vain.
    busy: bool,
    luck: Luck,
}

impl Receiver {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Receiver {
        let again = endpoint.take_again();
        Receiver {
            endpoint,
            turn: VecDeque::new(),
            budget: BUDGET,
            in_hand: None,
            buffer: Vec::new(),
            what: 0,
            end: 0,
            large: None,
            again,
            delivery: 1,
            busy: false,
            luck: Luck::default(),
        }
    }

    /// Takes the next record, whose bytes are then in [`Receiver::bytes`]; it is in hand until [`Receiver::done`], or until the
    /// next one is taken: the record in hand has been handled.
    #[inline]
    pub(crate) fn try_next(&mut self) -> Option<Slot> {
        self.finish_beside();
        loop {
            if self.turn.is_empty() {
                self.done();
                self.endpoint.drain_active(&mut self.turn);
            }
            let lane = self.turn.front()?;
            let same = self.in_hand.as_ref().is_some_and(|in_hand| Arc::ptr_eq(in_hand, lane));
            if !same {
                self.done();
            }
            let lane = self.turn.front()?;
            self.buffer.clear();
            let mut inbox = lane.inbox.lock();
            if same && inbox.done() && inbox.writer_waits() {
                lane.ring();
            }
            let taken = inbox.take(&mut self.buffer);
            self.end = inbox.taken();
            drop(inbox);
            match taken {
                Ok(Some(what)) => {
                    self.what = what;
                    self.busy = true;
                    let from = lane.peer;
                    self.delivery = match self.again {
                        Some((lane, before)) if lane == from => {
                            self.again = None;
                            before + 1
                        }
                        _ => 1,
                    };
                    if !same {
                        self.in_hand = Some(lane.clone());
                    }
                    self.budget -= 1;
                    if self.budget == 0 {
                        self.next_lane();
                    }
                    return Some(from);
                }
                Ok(None) => {
                    self.in_hand = None;
                    self.rest();
                }
                Err(_) => {
                    self.in_hand = None;
                    if let Some(lane) = self.turn.pop_front() {
                        self.budget = BUDGET;
                        self.endpoint.distrust(&lane);
                    }
                }
            }
        }
    }

    fn next_lane(&mut self) {
        self.budget = BUDGET;
        self.turn.rotate_left(1);
        // Lanes that were rung meanwhile have their turn too.
        self.endpoint.drain_active(&mut self.turn);
    }

    /// The first lane is empty: its reader goes to sleep, unless something came in between.
    fn rest(&mut self) {
        let Some(lane) = self.turn.pop_front() else { return };
        if self.turn.is_empty() {
            // Others may have become active while this one was never empty.
            self.endpoint.drain_active(&mut self.turn);
        }
        // The last one: its next record may be on its way.
        if self.turn.is_empty() && std::mem::take(&mut self.busy) {
            let mut inbox = lane.inbox.lock();
            if inbox.writer_waits() {
                lane.ring();
            }
            drop(inbox);
            // What was answered or sent meanwhile is not kept waiting for this.
            self.endpoint.ring_all();
            if self.luck.linger(|| !lane.inbox.lock().is_empty() || self.endpoint.has_active()) {
                // It goes on with what is left of its turn: whoever else is there comes next.
                self.turn.push_front(lane);
                self.endpoint.drain_active(&mut self.turn);
                return;
            }
        }
        self.budget = BUDGET;
        // First off the list, then the flag, then the last look: a ring from here on puts it back.
        lane.active.store(false, Ordering::Release);
        let mut inbox = lane.inbox.lock();
        if inbox.writer_waits() {
            lane.ring();
        }
        match inbox.sleep() {
            Ok(true) => {
                if inbox.worth_telling_idle() {
                    lane.ring();
                }
            }
            Ok(false) => {
                drop(inbox);
                if !lane.active.swap(true, Ordering::AcqRel) {
                    self.turn.push_back(lane);
                }
            }
            Err(_) => {
                drop(inbox);
                self.endpoint.distrust(&lane);
            }
        }
    }

    /// The same, waiting for a record.
    ///
    /// # Cancel safety
    /// Dropped before completion, nothing was taken.
    pub(crate) async fn next(&mut self) -> Slot {
        loop {
            if let Some(from) = self.try_next() {
                return from;
            }
            if self.buffer.capacity() > KEEP {
                self.buffer = Vec::new();
            }
            self.endpoint.activity().await;
            if self.again.is_none() {
                self.again = self.endpoint.take_again();
            }
        }
    }

    /// The bytes of the record in hand, as far as they are here.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.large.as_ref().map_or(&self.buffer, Sealed::bytes)
    }

    /// Which delivery of the record in hand this is.
    #[inline]
    pub(crate) fn delivery(&self) -> u32 {
        self.delivery
    }

    /// Whether something of the record in hand came another way, and has to be [fetched](Receiver::decode_heavy).
    #[inline]
    pub(crate) fn is_heavy(&self) -> bool {
        kind::descriptors(self.what) > 0
    }

    /// The message in hand, which has nothing beside it.
    #[inline]
    pub(crate) fn decode<M: DeserializeOwned>(&self) -> Result<M, String> {
        payload::decode(&self.buffer, Vec::new())
    }

    /// The message in hand, with what is beside it.
    ///
    /// # Cancel safety
    /// Dropped before completion, what is beside it is lost.
    pub(crate) async fn decode_heavy<M: DeserializeOwned>(&mut self) -> Result<M, String> {
        let Some(tag) = self.tag() else { return self.decode() };
        let mut buffer = std::mem::take(&mut self.buffer);
        let fetched = self.endpoint.fetch(tag, self.what, &mut buffer).await;
        self.buffer = buffer;
        let (large, sockets) = fetched?;
        self.large = large;
        self.endpoint.within(|| payload::decode::<M>(self.bytes(), sockets))
    }

    fn tag(&self) -> Option<Tag> {
        let lane = self.in_hand.as_ref()?;
        Some(Tag { peer: lane.peer, ring: Ring::Messages, end: self.end })
    }

    /// The record in hand has been handled.
    #[inline]
    pub(crate) fn done(&mut self) {
        self.finish_beside();
        if let Some(lane) = self.in_hand.take() {
            let mut inbox = lane.inbox.lock();
            if inbox.done() && inbox.writer_waits() {
                lane.ring();
            }
        }
    }

    /// The same for what is beside it.
    #[inline]
    fn finish_beside(&mut self) {
        if !self.is_heavy() {
            return;
        }
        if self.large.take().is_some() {
            if let Some(tag) = self.tag() {
                self.endpoint.handled(tag);
            }
        }
        self.what = 0;
        if let Some(lane) = self.in_hand.take() {
            let mut inbox = lane.inbox.lock();
            inbox.done();
            // A writer that waits for room beside the ring waits for records with something beside them.
            if inbox.writer_waits() {
                lane.ring();
            }
        }
    }
}
