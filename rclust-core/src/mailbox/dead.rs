//! Dead letters: what was not handled, and why. Bounded; the oldest go first and are counted.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::error::DecodeError;
use crate::exit::ExitReason;
use crate::id::{Slot, WorkerId};
use crate::wire::payload;

/// At most this many dead letters are kept.
pub const LETTERS: usize = 1024;

/// At most this many bytes of dead letters are kept.
pub const BYTES: usize = 16 << 20;

/// A dead letter of more bytes than this is kept without them: it would take the place of all others.
pub const LETTER_BYTES: usize = 4 << 20;

/// Why a letter is dead.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DeadReason {
    /// The incarnation that had it in hand died. It may have been handled completely: what is known is that its
    /// handler had not been seen to return.
    Died(ExitReason),
    /// Its bytes are not of the type that the worker takes; what the decoder said.
    Undecodable(String),
    /// It was delivered this often, as the child's `redeliver` says, and each time its incarnation died with it in hand.
    Quarantined {
        /// How often.
        deliveries: u32,
        /// How the last one died.
        last: ExitReason,
    },
    /// It waited when an incarnation died of this, and the child wants an empty mailbox at a restart.
    Discarded(ExitReason),
    /// It waited when its slot was given up for good.
    Closed,
}

/// A message that will not be handled.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Who was to handle it, and which incarnation had it.
    pub to: WorkerId,
    /// The path of that slot.
    pub name: String,
    /// Who sent it.
    pub from: Slot,
    /// Why it is dead.
    pub reason: DeadReason,
    /// The message's encoded size, in bytes.
    pub size: u64,
    bytes: Vec<u8>,
}

impl DeadLetter {
    /// The message's encoded bytes (postcard); none of a message larger than [`LETTER_BYTES`], and perhaps only the first 64 KiB of
    /// one that could not be decoded.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message as the type that its worker takes. A reply port inside is no longer open.
    ///
    /// # Errors
    /// The bytes are not of this type; they were too many to be kept; or there was a socket in it: that is closed, or went with the
    /// worker that had taken it.
    pub fn decode<M: DeserializeOwned>(&self) -> Result<M, DecodeError> {
        if self.bytes.is_empty() && self.size > 0 {
            return Err(DecodeError(format!("its {} bytes were too many to be kept", self.size)));
        }
        payload::decode(&self.bytes, Vec::new()).map_err(DecodeError)
    }
}

#[derive(Default)]
struct Shelf {
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    missed: u64,
}

/// The supervisor's shelf of dead letters, filled by the tree and read by the body.
#[derive(Clone, Default)]
pub(crate) struct Dead {
    shelf: Arc<Mutex<Shelf>>,
    news: Arc<Notify>,
}

impl Dead {
    pub(crate) fn put(&self, to: WorkerId, name: &str, from: Slot, reason: DeadReason, bytes: Vec<u8>) {
        self.put_large(to, name, from, reason, bytes, None);
    }

    /// The same for a message that has this size, whatever of it is here.
    pub(crate) fn put_large(
        &self,
        to: WorkerId,
        name: &str,
        from: Slot,
        reason: DeadReason,
        bytes: Vec<u8>,
        size: Option<u64>,
    ) {
        let size = size.unwrap_or(bytes.len() as u64);
        let bytes = if bytes.len() > LETTER_BYTES { Vec::new() } else { bytes };
        let mut shelf = self.shelf.lock();
        shelf.bytes += bytes.len();
        shelf.letters.push_back(DeadLetter { to, name: name.to_owned(), from, reason, size, bytes });
        while shelf.letters.len() > LETTERS || shelf.bytes > BYTES {
            let Some(oldest) = shelf.letters.pop_front() else { break };
            shelf.bytes -= oldest.bytes.len();
            shelf.missed += 1;
        }
        drop(shelf);
        self.news.notify_waiters();
    }
}

/// The stream of dead letters of a cluster: the last 1 024 or 16 MiB that nobody has read yet. All streams of one
/// cluster share it: a letter is read once.
pub struct DeadLetters {
    pub(crate) dead: Dead,
}

impl DeadLetters {
    /// The next dead letter; waits for one.
    ///
    /// # Cancel safety
    /// Dropped before completion, no letter is lost.
    pub async fn next(&mut self) -> DeadLetter {
        loop {
            let dead = self.dead.clone();
            let news = dead.news.notified();
            if let Some(letter) = self.try_next() {
                return letter;
            }
            news.await;
        }
    }

    /// The next dead letter, if there is one.
    pub fn try_next(&mut self) -> Option<DeadLetter> {
        let mut shelf = self.dead.shelf.lock();
        let letter = shelf.letters.pop_front()?;
        shelf.bytes -= letter.bytes.len();
        Some(letter)
    }

    /// How many letters had to make room for newer ones, unread, since the cluster started.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.dead.shelf.lock().missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let dead = Dead::default();
        let to = WorkerId { slot: Slot(1), incarnation: Incarnation(1) };
        for n in 0..LETTERS as u32 + 5 {
            dead.put(to, "a", Slot(0), DeadReason::Died(ExitReason::Unknown), n.to_le_bytes().to_vec());
        }
        let mut letters = DeadLetters { dead: dead.clone() };
        assert_eq!(
            (letters.missed(), letters.try_next().map(|letter| letter.bytes)),
            (5, Some(5u32.to_le_bytes().to_vec()))
        );
        for _ in 0..5 {
            dead.put(to, "a", Slot(0), DeadReason::Died(ExitReason::Unknown), vec![0; LETTER_BYTES]);
        }
        let kept: Vec<usize> = std::iter::from_fn(|| letters.try_next()).map(|letter| letter.bytes.len()).collect();
        assert_eq!(kept, [LETTER_BYTES; 4], "only the last fit");
        dead.put(to, "a", Slot(0), DeadReason::Died(ExitReason::Unknown), vec![0; LETTER_BYTES + 1]);
        let large = letters.try_next().unwrap();
        assert_eq!((large.size, large.bytes.len()), (LETTER_BYTES as u64 + 1, 0));
        assert!(large.decode::<u8>().is_err_and(|error| error.to_string().contains("too many")));
    }
}
