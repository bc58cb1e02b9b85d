//! Sending into a lane: full means wait or give back, and one doorbell serves many records.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Serialize;

use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::{Lane, Wake};
use crate::mailbox::ring::{Place, PushError};
use crate::wire::payload::{self, Port};

/// The kind of an ordinary message's record.
pub(crate) const MESSAGE: u32 = 0;

/// Kinds of records in the ring of replies: the payload is the correlation id, the asker's incarnation, and:
pub(crate) const ANSWER: u32 = 0;
/// Nothing: the port was dropped.
pub(crate) const DROPPED: u32 = 1;
/// A text: why the answer cannot come.
pub(crate) const UNANSWERABLE: u32 = 2;

/// Why a message did not go.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No room now.
    Full,
    /// The slot will never be filled again.
    Closed,
    /// Larger than this lane's largest record.
    TooLarge { bytes: usize, limit: usize },
    /// The message's own `Serialize` failed.
    Encode(String),
}

thread_local! {
    /// Encoding happens here and is copied once, into the ring.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Messages up to this size leave their buffer behind for the next one.
const KEEP: usize = 64 << 10;

/// Encodes and commits a message without waiting; on failure nothing was taken out of it.
pub(crate) fn try_send<M: Serialize>(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, message: &M) -> Result<(), Refused> {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let outcome = match payload::encode(message, endpoint.me(), &mut buffer) {
        Ok(ports) => commit(endpoint, lane, &buffer, &ports),
        Err(error) => Err(Refused::Encode(error.to_string())),
    };
    if buffer.capacity() <= KEEP {
        SCRATCH.set(buffer);
    }
    outcome
}

/// The same, waiting while the lane is full.
///
/// # Cancel safety
/// Dropped before completion, nothing was queued.
pub(crate) async fn send<M: Serialize>(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, message: &M) -> Result<(), Refused> {
    match try_send(endpoint, lane, message) {
        Err(Refused::Full) => {}
        other => return other,
    }
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        // Encoded anew after each wait: a port inside may have been used meanwhile, and ids are given per attempt.
        let ports =
            payload::encode(message, endpoint.me(), &mut bytes).map_err(|error| Refused::Encode(error.to_string()))?;
        match wait_and_commit(endpoint, lane, &bytes, ports).await {
            Err(Refused::Full) => {}
            other => return other,
        }
    }
}

/// One wait for room, then one attempt. `Full`: somebody else was faster.
async fn wait_and_commit(
    endpoint: &Arc<Endpoint>,
    lane: &Arc<Lane>,
    bytes: &[u8],
    ports: Vec<Port>,
) -> Result<(), Refused> {
    wait_for_room(lane, bytes.len()).await?;
    commit(endpoint, lane, bytes, &ports)
}

/// Waits until a record of `len` bytes has room, or the lane is closed.
pub(crate) async fn wait_for_room(lane: &Lane, len: usize) -> Result<(), Refused> {
    loop {
        let room = lane.room.notified();
        tokio::pin!(room);
        // Registered before the look, so that a notification in between is not missed.
        room.as_mut().enable();
        if lane.is_closed() {
            return Err(Refused::Closed);
        }
        // A reader that breaks the ring's rules is killed by those who find out; its senders see a closed slot.
        if lane.out.lock().wait_for_room(len).map_err(|_| Refused::Closed)? {
            return Ok(());
        }
        // What is committed and not rung would otherwise wait for us, and we for it.
        lane.ring_if_needed();
        room.await;
    }
}

/// Commits encoded bytes; the ports inside are open from now on.
pub(crate) fn commit(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, bytes: &[u8], ports: &[Port]) -> Result<(), Refused> {
    if bytes.len() > lane.largest() {
        return Err(Refused::TooLarge { bytes: bytes.len(), limit: lane.largest() });
    }
    if lane.is_closed() {
        return Err(Refused::Closed);
    }
    let mut out = lane.out.lock();
    if !ports.is_empty() {
        // The answer may come before `push` returns, so the question is noted first, and only if it will have room.
        match out.has_room_for(bytes.len()) {
            Ok(true) => {}
            Ok(false) => return Err(Refused::Full),
            Err(_) => return Err(Refused::Closed),
        }
        let position = out.tail() + Place::record(bytes.len()) as u64;
        for port in ports {
            if let Some(sink) = port.cell.depart() {
                endpoint.pending().opened(port.id, sink, lane.peer, position);
            }
        }
    }
    match out.push(MESSAGE, bytes) {
        Ok(_) => {}
        Err(PushError::Full) => return Err(Refused::Full),
        Err(PushError::Corrupt(_)) => return Err(Refused::Closed),
    }
    drop(out);
    wake(endpoint, lane, bytes.len());
    Ok(())
}

/// Sends an answer, or the word that none comes. Never waits: without room it stays here, in order.
pub(crate) fn reply(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, kind: u32, bytes: Vec<u8>) {
    let mut replies = lane.replies.lock();
    let sent = replies.waiting.is_empty() && replies.writer.push(kind, &bytes).is_ok();
    let len = bytes.len();
    if !sent {
        replies.waiting.push_back((kind, bytes));
        drop(replies);
        // Asks for the reader's ring, and tries again in case it came in between. A corrupt ring gets no answers.
        let _ = lane.flush_replies();
        return;
    }
    drop(replies);
    wake(endpoint, lane, len);
}

fn wake(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, bytes: usize) {
    match lane.committed(bytes) {
        Wake::Now => lane.ring_if_needed(),
        Wake::First => endpoint.ring_later(lane),
        Wake::Later => {}
    }
}
