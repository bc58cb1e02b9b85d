//! Many lanes, one reader: takes records in turn, knows what is in hand and what is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::id::Slot;
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::Lane;

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
}

impl Receiver {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Receiver {
        Receiver { endpoint, turn: VecDeque::new(), budget: BUDGET, in_hand: None, buffer: Vec::new() }
    }

    /// Takes the next record, whose bytes are then in [`Receiver::bytes`]; it is in hand until [`Receiver::done`].
    pub(crate) fn try_next(&mut self) -> Option<Slot> {
        loop {
            if self.turn.is_empty() {
                self.endpoint.drain_active(&mut self.turn);
            }
            let lane = self.turn.front()?;
            self.buffer.clear();
            let taken = lane.inbox.lock().take(&mut self.buffer);
            match taken {
                Ok(Some(_kind)) => {
                    let from = lane.peer;
                    self.in_hand = Some(lane.clone());
                    self.budget -= 1;
                    if self.budget == 0 {
                        self.next_lane();
                    }
                    return Some(from);
                }
                Ok(None) => self.rest(),
                Err(_) => {
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
        }
    }

    /// The bytes of the record in hand.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The record in hand has been handled.
    pub(crate) fn done(&mut self) {
        if let Some(lane) = self.in_hand.take() {
            let mut inbox = lane.inbox.lock();
            if inbox.done() && inbox.writer_waits() {
                lane.ring();
            }
        }
    }
}
