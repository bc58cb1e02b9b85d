//! What comes back: answers are taken, and handed to those who asked.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::id::Slot;
use crate::mailbox::beside::{Body, Tag};
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::Lane;
use crate::mailbox::linger;
use crate::mailbox::pending::Outcome;
use crate::mailbox::ring::{Corrupt, kind};
use crate::mailbox::sender;
use crate::wire::control::Ring;

/// Replies handled before others get a turn.
const TURN: usize = 256;

impl Endpoint {
    /// A port of ours was sent on.
    fn moved(&self, via: Slot, id: u64, value: &[u8]) {
        let [s0, s1, s2, s3, end @ .., hops] = value else { return };
        let (to, Ok(end)) = (Slot(u32::from_le_bytes([*s0, *s1, *s2, *s3])), end.try_into()) else { return };
        let end = u64::from_le_bytes(end);
        if self.pending().moved(id, via, to, end, *hops) {
            self.upstream.track(to, via, end);
        }
    }

    /// Settles the answers that have come. `false`: there are more than one turn's worth.
    pub(super) fn take_answers(self: &Arc<Self>, lane: &Lane) -> Result<bool, Corrupt> {
        let mut answers = lane.answers.lock();
        let mut bytes = Vec::new();
        for turn in 0..TURN {
            bytes.clear();
            match answers.take(&mut bytes)? {
                Some(kind) => {
                    if turn == 0 {
                        lane.set_answered(self.answered.fetch_add(1, Ordering::Relaxed) + 1);
                    }
                    let end = answers.taken();
                    let heavy = kind::descriptors(kind) > 0;
                    if (answers.done() || heavy) && answers.writer_waits() {
                        lane.ring();
                    }
                    if heavy {
                        self.settle_later(lane.peer, kind, end, std::mem::take(&mut bytes));
                    } else {
                        self.settle(lane.peer, kind, &bytes, Vec::new());
                    }
                }
                None => {
                    if answers.writer_waits() {
                        lane.ring();
                    }
                    if answers.sleep()? {
                        if answers.worth_telling_idle() {
                            lane.ring();
                        }
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Waits a moment for an answer in this lane, until `come` says that it has come. What else comes is settled too.
    ///
    /// # Cancel safety
    /// Dropped before completion, the answer comes as if nobody had waited awake. Nor does it matter when it is polled again, if ever: a
    /// lane is awake only while this runs.
    pub(crate) async fn linger_for_answer(self: &Arc<Self>, lane: &Arc<Lane>, mut come: impl FnMut() -> bool) {
        lane.luck.linger_for_answer(|| self.look_for_answer(lane, &mut come)).await;
    }

    /// Looks for it, awake, for some microseconds.
    fn look_for_answer(self: &Arc<Self>, lane: &Lane, mut come: impl FnMut() -> bool) -> bool {
        if lane.lingering.swap(true, Ordering::AcqRel) {
            // Another thread does.
            return come();
        }
        lane.answers.lock().stay_awake();
        let found = linger::look(|| {
            if !lane.answers.lock().is_empty() {
                let _ = self.take_answers(lane);
                lane.answers.lock().stay_awake();
            }
            come()
        });
        // Announces sleep again, and settles what came before that. A ring that is corrupt is found by the bell's task.
        while matches!(self.take_answers(lane), Ok(false)) {}
        lane.lingering.store(false, Ordering::Release);
        found || come()
    }

    /// Hands an answer to its asker, with what is beside it.
    fn settle_later(self: &Arc<Self>, from: Slot, what: u32, end: u64, mut bytes: Vec<u8>) {
        let own = self.clone();
        let tag = Tag { peer: from, ring: Ring::Replies, end };
        self.spawn(async move {
            match own.fetch(tag, what, &mut bytes).await {
                Ok((None, sockets)) => own.settle(from, what, &bytes, sockets),
                Ok((Some(sealed), sockets)) => {
                    if let Some(id) = own.asked_by_us(&bytes) {
                        own.pending().settle(id, Outcome::Answered { body: Body::Large(sealed), sockets });
                    }
                    own.handled(tag);
                }
                Err(error) => {
                    if let Some(id) = own.asked_by_us(&bytes) {
                        own.pending().settle(id, Outcome::Unanswerable(format!("what was beside it: {error}")));
                    }
                }
            }
        });
    }

    /// The question that an answer is for, unless a predecessor asked it.
    fn asked_by_us(&self, bytes: &[u8]) -> Option<u64> {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let incarnation = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        (incarnation == self.me().incarnation.0).then_some(u64::from_le_bytes(*id))
    }

    /// Hands an answer to its asker.
    pub(crate) fn settle(&self, from: Slot, what: u32, bytes: &[u8], sockets: Vec<OwnedFd>) {
        let Some(id) = self.asked_by_us(bytes) else { return };
        let value = &bytes[12..];
        let outcome = match kind::what(what) {
            sender::MOVED => return self.moved(from, id, value),
            sender::ANSWER => Outcome::Answered { body: Body::Inline(value.to_vec()), sockets },
            sender::DROPPED => Outcome::Dropped,
            _ => Outcome::Unanswerable(String::from_utf8_lossy(value).into_owned()),
        };
        self.pending().settle(id, outcome);
    }
}
