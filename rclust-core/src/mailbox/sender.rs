//! Sending into a lane: full means wait or give back, and one doorbell serves many records.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Serialize;

use crate::mailbox::beside::{Large, Letter, Parcel};
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::{Lane, Wake};
use crate::mailbox::ring::{Corrupt, Need, PushError, Writer};
use crate::reply::{Departed, Remote};
use crate::wire::control::Ring;
use crate::wire::payload::{self, Aside};

/// The kind of an ordinary message's record.
pub(crate) const MESSAGE: u32 = 0;

/// Kinds of records in the ring of replies: the payload is the correlation id, the asker's incarnation, and:
pub(crate) const ANSWER: u32 = 0;
/// Nothing: the port was dropped.
pub(crate) const DROPPED: u32 = 1;
/// A text: why the answer cannot come.
pub(crate) const UNANSWERABLE: u32 = 2;
/// Slot (u32), position (u64), hops (u8): the port is in a message of this record's writer to that slot now.
pub(crate) const MOVED: u32 = 3;

/// Why a message did not go.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No room now.
    Full,
    /// No room now for what goes beside it.
    Crowded,
    /// The slot will never be filled again.
    Closed,
    /// Larger than this lane's largest message.
    TooLarge { bytes: usize, limit: usize },
    /// The message's own `Serialize` failed.
    Encode(String),
    /// The slot takes messages of another type.
    OtherMessages,
    /// The operating system refused what goes beside it.
    Os(String),
    /// The reader broke the ring's rules. Never leaves this file: who finds it reports it, and waits for the lane's repair.
    Corrupt(Corrupt),
}

impl From<Corrupt> for Refused {
    fn from(corrupt: Corrupt) -> Refused {
        Refused::Corrupt(corrupt)
    }
}

impl From<PushError> for Refused {
    fn from(error: PushError) -> Refused {
        match error {
            PushError::Full => Refused::Full,
            PushError::Corrupt(corrupt) => Refused::Corrupt(corrupt),
        }
    }
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
    let outcome = match payload::encode(message, endpoint.asker(), &mut buffer) {
        Ok(aside) => commit(endpoint, lane, &buffer, &aside, &mut None),
        Err(error) => Err(Refused::Encode(error)),
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
        Err(Refused::Full | Refused::Crowded) => {}
        other => return other,
    }
    let mut bytes = Vec::new();
    let mut large = None;
    loop {
        bytes.clear();
        // Encoded anew after each wait: a port inside may have been used meanwhile, and ids are given per attempt.
        let aside = payload::encode(message, endpoint.asker(), &mut bytes).map_err(Refused::Encode)?;
        wait_for_room(endpoint, lane, need(lane, &bytes, &aside)).await?;
        // A large payload's memfd is made anew too: it must hold the ids that were given now.
        large.take();
        match commit(endpoint, lane, &bytes, &aside, &mut large) {
            // Somebody else was faster.
            Err(Refused::Full) => {}
            Err(Refused::Crowded) => endpoint.attach_room().await,
            other => return other,
        }
    }
}

/// What a message needs in this lane.
pub(crate) fn need(lane: &Lane, bytes: &[u8], aside: &Aside) -> Need {
    let descriptors = aside.sockets.len();
    if bytes.len() <= lane.inline(Ring::Messages) {
        return Need { payload: bytes.len(), large: 0, descriptors };
    }
    Need { payload: 8, large: bytes.len() as u64, descriptors: descriptors + 1 }
}

/// Waits until there is what is needed, or the lane is closed.
pub(crate) async fn wait_for_room(endpoint: &Endpoint, lane: &Lane, need: Need) -> Result<(), Refused> {
    loop {
        let room = lane.room.notified();
        tokio::pin!(room);
        // Registered before the look, so that a notification in between is not missed.
        room.as_mut().enable();
        if lane.is_closed() {
            return Err(Refused::Closed);
        }
        if !lane.is_distrusted() {
            let room = lane.out.lock().writer.wait_for_room(need);
            match room {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => endpoint.distrust(lane),
            }
        }
        // What is committed and not rung would otherwise wait for us, and we for it.
        lane.ring_if_needed();
        room.await;
    }
}

/// Commits encoded bytes; the ports inside are open from now on, the sockets are the receiver's. `large` is where a payload that is
/// too large for the ring is kept between attempts.
#[inline]
pub(crate) fn commit(
    endpoint: &Arc<Endpoint>,
    lane: &Arc<Lane>,
    bytes: &[u8],
    aside: &Aside,
    large: &mut Option<Large>,
) -> Result<(), Refused> {
    match try_commit(endpoint, lane, bytes, aside, large) {
        Err(Refused::Corrupt(_)) => {
            // Not the message's fault: it waits until the lane is repaired or renewed.
            endpoint.distrust(lane);
            Err(Refused::Full)
        }
        other => other,
    }
}

#[inline]
fn try_commit(
    endpoint: &Arc<Endpoint>,
    lane: &Arc<Lane>,
    bytes: &[u8],
    aside: &Aside,
    large: &mut Option<Large>,
) -> Result<(), Refused> {
    if bytes.len() as u64 > lane.largest() {
        return Err(Refused::TooLarge { bytes: bytes.len(), limit: lane.largest() as usize });
    }
    let beside = bytes.len() > lane.inline(Ring::Messages);
    if beside && large.is_none() {
        // Before it is copied: only if it will have room, and not under the lock.
        if !lane.out.lock().writer.has_room_for(need(lane, bytes, aside))? {
            return Err(Refused::Full);
        }
        *large = Some(Large::new(bytes).map_err(|error| Refused::Os(error.to_string()))?);
    }
    let letter = Letter {
        what: MESSAGE,
        bytes: if beside { &[] } else { bytes },
        large: large.as_ref(),
        sockets: &aside.sockets,
    };
    let mut moved = Vec::new();
    let mut out = lane.out.lock();
    if lane.is_closed() {
        return Err(Refused::Closed);
    }
    if lane.is_distrusted() {
        return Err(Refused::Full);
    }
    if letter.is_plain() && aside.ports.is_empty() {
        push_plain(&mut out.writer, &letter)?;
    } else {
        commit_with(endpoint, lane, &letter, aside, &mut out.writer, &mut moved)?;
    }
    let wake = out.batch.committed(bytes.len());
    drop(out);
    // Ports of others that were sent on: not under the lock, this goes through another lane.
    for (remote, end) in moved {
        remote.moved(lane.peer, end);
    }
    // What is beside a record costs its reader a round trip more, so it may begin at once.
    wake_for(endpoint, lane, if letter.is_plain() { wake } else { Wake::Now });
    Ok(())
}

/// A record with ports or with things beside it.
fn commit_with(
    endpoint: &Endpoint,
    lane: &Lane,
    letter: &Letter<'_>,
    aside: &Aside,
    writer: &mut Writer,
    moved: &mut Vec<(Remote, u64)>,
) -> Result<(), Refused> {
    if !writer.has_room_for(letter.need())? {
        return Err(Refused::Full);
    }
    let end = letter.end(writer);
    let mut theirs = Vec::new();
    let mut open = || {
        for port in &aside.ports {
            match port.cell.depart() {
                Some(Departed::Ours(sink)) => endpoint.pending().opened(port.id, sink, lane.peer, end),
                Some(Departed::Theirs(remote)) => theirs.push(remote),
                None => {}
            }
        }
    };
    // The answer may come before the push returns, so the question is noted first.
    if letter.is_plain() {
        open();
        push_plain(writer, letter)?;
    } else {
        // What is beside it may be refused still: until then the ports stay in the message.
        letter.push_heavy(endpoint, (lane.peer, Ring::Messages), writer, open)?;
    }
    for remote in theirs {
        moved.push((remote, end));
    }
    Ok(())
}

#[inline]
fn push_plain(out: &mut Writer, letter: &Letter<'_>) -> Result<(), Refused> {
    out.push(letter.what, letter.bytes)?;
    Ok(())
}

/// Sends an answer, or the word that none comes. Never waits: without room it stays here, in order.
pub(crate) fn reply(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, parcel: Parcel) {
    let len = parcel.bytes.len();
    lane.replies.lock().waiting.push_back(parcel);
    match flush_replies(endpoint, lane) {
        Ok(true) => {
            let wake = lane.replies.lock().batch.committed(len);
            wake_for(endpoint, lane, wake);
        }
        Ok(false) => {}
        Err(_) => endpoint.distrust(lane),
    }
}

/// Writes the replies that wait for room, as far as there is room. `true`: some were written, and nobody has been rung.
pub(crate) fn flush_replies(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>) -> Result<bool, Corrupt> {
    let mut replies = lane.replies.lock();
    let mut wrote = false;
    while let Some(parcel) = replies.waiting.pop_front() {
        match write_reply(endpoint, lane, &mut replies.writer, &parcel) {
            Ok(()) => wrote = true,
            Err(Refused::Full) => {
                let room = replies.writer.wait_for_room(parcel.letter().need())?;
                replies.waiting.push_front(parcel);
                if !room {
                    break;
                }
            }
            Err(Refused::Crowded) => {
                replies.waiting.push_front(parcel);
                let (endpoint, lane) = (endpoint.clone(), lane.clone());
                endpoint.clone().spawn(async move {
                    endpoint.attach_room().await;
                    if let Ok(true) = flush_replies(&endpoint, &lane) {
                        lane.ring();
                    }
                });
                break;
            }
            Err(Refused::Corrupt(corrupt)) => {
                replies.waiting.push_front(parcel);
                return Err(corrupt);
            }
            // Its asker hears why, or is gone.
            Err(other) => {
                if let Some(word) = parcel.instead(&other) {
                    replies.waiting.push_front(word);
                }
            }
        }
    }
    Ok(wrote)
}

fn write_reply(endpoint: &Endpoint, lane: &Lane, writer: &mut Writer, parcel: &Parcel) -> Result<(), Refused> {
    let letter = parcel.letter();
    if letter.is_plain() {
        return push_plain(writer, &letter);
    }
    if !writer.has_room_for(letter.need())? {
        return Err(Refused::Full);
    }
    letter.push_heavy(endpoint, (lane.peer, Ring::Replies), writer, || ())
}

#[inline]
fn wake_for(endpoint: &Arc<Endpoint>, lane: &Arc<Lane>, wake: Wake) {
    match wake {
        Wake::Now => lane.ring_if_needed(),
        Wake::First => endpoint.ring_later(lane),
        Wake::Later => {}
    }
}
