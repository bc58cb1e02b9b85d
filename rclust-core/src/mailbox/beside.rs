//! What goes beside a record: sockets, and payloads too large for a ring. It goes first, to the supervisor, under the position
//! that the record is going to end at; then the record is committed. The reader, having taken the record, asks for it.
//!
//! So the supervisor has it before anybody can see the record, keeps it while the record waits (whoever dies), and hands it on
//! once: a socket is in one process only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::id::Slot;
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::ring::{Need, Place, Writer, kind};
use crate::mailbox::sender::{self, Refused};
use crate::socket::{Carried, Held};
use crate::sys::memory::{self, Sealed};
use crate::wire::control::Ring;

/// Names what is beside one record, from one side of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    /// The other side.
    pub(crate) peer: Slot,
    /// The writer's ring.
    pub(crate) ring: Ring,
    /// The position behind the record.
    pub(crate) end: u64,
}

/// Why it did not go.
#[derive(Debug)]
pub(crate) enum NotAttached {
    /// Not now: too much is on its way.
    Crowded,
    /// The operating system said no.
    Os(io::Error),
}

/// A payload in a memfd of its own, which nobody can change any more.
#[derive(Debug)]
pub(crate) struct Large {
    fd: OwnedFd,
    len: u64,
}

impl Large {
    /// Moves a payload there.
    pub(crate) fn new(payload: &[u8]) -> io::Result<Large> {
        Ok(Large { fd: memory::create_sealed("rclust-message", payload)?, len: payload.len() as u64 })
    }
}

/// A record to be written, with what is beside it.
pub(crate) struct Letter<'a> {
    /// Whose it is.
    pub(crate) what: u32,
    /// What goes through the ring.
    pub(crate) bytes: &'a [u8],
    pub(crate) large: Option<&'a Large>,
    pub(crate) sockets: &'a [Arc<dyn Carried>],
}

impl Letter<'_> {
    /// Whether there is nothing beside it.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.large.is_none() && self.sockets.is_empty()
    }

    /// What it needs.
    pub(crate) fn need(&self) -> Need {
        let large = self.large.map(|large| large.len);
        Need {
            payload: self.bytes.len() + if large.is_some() { 8 } else { 0 },
            large: large.unwrap_or(0),
            descriptors: self.sockets.len() + usize::from(large.is_some()),
        }
    }

    /// Where the record will end in this ring.
    pub(crate) fn end(&self, writer: &Writer) -> u64 {
        writer.tail().wrapping_add(Place::record(self.need().payload) as u64)
    }

    /// Hands what is beside the record to the supervisor, calls `before`, and commits the record. The caller has seen that there
    /// is room.
    pub(crate) fn push_heavy(
        &self,
        endpoint: &Endpoint,
        (peer, ring): (Slot, Ring),
        writer: &mut Writer,
        before: impl FnOnce(),
    ) -> Result<(), Refused> {
        let need = self.need();
        let tag = Tag { peer, ring, end: self.end(writer) };
        let leaving = Leaving::begin(self.sockets)?;
        let mut fds: Vec<BorrowedFd<'_>> = self.large.iter().map(|large| large.fd.as_fd()).collect();
        fds.extend(leaving.held.iter().map(|(_, held)| held.fd()));
        match endpoint.attach(tag, self.large.is_some(), &fds) {
            Ok(()) => {}
            Err(NotAttached::Crowded) => return Err(Refused::Crowded),
            Err(NotAttached::Os(error)) => return Err(Refused::Os(error.to_string())),
        }
        drop(fds);
        leaving.gone();
        before();
        let what = kind::with(self.what, self.large.is_some(), need.descriptors);
        let pushed = match self.large {
            None => writer.push_heavy(what, self.bytes, need),
            Some(large) => writer.push_heavy(what, &[self.bytes, &large.len.to_le_bytes()].concat(), need),
        };
        pushed.map(|_| ()).map_err(Refused::from)
    }
}

/// A socket taken out of its message, and where it was.
type Taken<'a> = (&'a Arc<dyn Carried>, Box<dyn Held>);

/// Sockets taken out of their message; they go back unless they have gone.
struct Leaving<'a> {
    held: Vec<Taken<'a>>,
}

impl Leaving<'_> {
    fn begin(sockets: &[Arc<dyn Carried>]) -> Result<Leaving<'_>, Refused> {
        let mut leaving = Leaving { held: Vec::with_capacity(sockets.len()) };
        for cell in sockets {
            match cell.depart() {
                Some(held) => leaving.held.push((cell, held)),
                None => return Err(Refused::Encode("a socket that was already sent".to_owned())),
            }
        }
        Ok(leaving)
    }

    /// They are the receiver's now: this process's copies are closed.
    fn gone(mut self) {
        self.held.clear();
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for (cell, held) in self.held.drain(..) {
            cell.come_back(held);
        }
    }
}

/// A reply that waits for room.
pub(crate) struct Parcel {
    pub(crate) what: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) large: Option<Large>,
    pub(crate) sockets: Vec<Arc<dyn Carried>>,
}

impl Parcel {
    pub(crate) fn letter(&self) -> Letter<'_> {
        Letter { what: self.what, bytes: &self.bytes, large: self.large.as_ref(), sockets: &self.sockets }
    }

    /// What an asker is told when its answer cannot come.
    pub(crate) fn instead(&self, why: &Refused) -> Option<Parcel> {
        let why = match why {
            Refused::Encode(why) | Refused::Os(why) if self.what == sender::ANSWER => why,
            _ => return None,
        };
        Some(Parcel::plain(sender::UNANSWERABLE, [self.bytes.get(..12)?, why.as_bytes()].concat()))
    }

    /// One that has nothing beside it.
    pub(crate) fn plain(what: u32, bytes: Vec<u8>) -> Parcel {
        Parcel { what, bytes, large: None, sockets: Vec::new() }
    }
}

/// A payload that arrived.
#[derive(Debug)]
pub(crate) enum Body {
    /// Copied out of the ring.
    Inline(Vec<u8>),
    /// In a memfd that nobody can change.
    Large(Sealed),
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Body::Inline(bytes) => bytes,
            Body::Large(sealed) => sealed.bytes(),
        }
    }
}

/// What is beside a record, as it arrived: checks it against what the record says. `bytes` are the record's; its last eight are
/// cut off if they were the payload's length.
pub(crate) fn open(
    what: u32,
    bytes: &mut Vec<u8>,
    mut fds: Vec<OwnedFd>,
) -> Result<(Option<Sealed>, Vec<OwnedFd>), String> {
    if fds.len() != kind::descriptors(what) {
        return Err(format!("{} descriptors came beside it, {} were sent", fds.len(), kind::descriptors(what)));
    }
    if !kind::is_large(what) {
        return Ok((None, fds));
    }
    let length = bytes.len().checked_sub(8).ok_or("its length is missing")?;
    let len = bytes[length..].first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
    bytes.truncate(length);
    if fds.is_empty() {
        return Err("its payload is missing".to_owned());
    }
    // The supervisor has seen that it is sealed, and no larger than this slot takes.
    let sealed = Sealed::new(fds.remove(0), len as usize).map_err(|error| error.to_string())?;
    Ok((Some(sealed), fds))
}
