//! The supervisor's store of what is beside records: sockets and large payloads, kept from the moment they are sent until the
//! record's reader asks for them. They outlive their writer, and the reader's incarnations.
//!
//! Each worker that sends or takes such things has a *porter* socket (SOCK_SEQPACKET): up come packets of one tag and its
//! descriptors, down go the answers to its questions. Nothing that comes up is believed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{RecvFlags, sockopt};

use crate::id::Slot;
use crate::mailbox::beside::Tag;
use crate::mailbox::ring::DESCRIPTORS;
use crate::sys::{descriptors, memory};
use crate::wire::control::{End, Ring, Sizes};

/// One ring: who writes it, who reads it, which of the two.
pub(crate) type Way = (Slot, Slot, Ring);

/// What is beside one record.
#[derive(Debug, Default)]
struct Lot {
    /// The payload; kept until it has been handled.
    large: Option<OwnedFd>,
    size: u64,
    /// Given once.
    sockets: Vec<OwnedFd>,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Given {
    /// All of it, the payload first.
    Descriptors(Vec<OwnedFd>),
    /// It was given to an incarnation that is dead, or never came.
    Gone,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Depot {
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    ways: HashMap<Way, BTreeMap<u64, Lot>>,
    porters: HashMap<Slot, Arc<OwnedFd>>,
}

/// Bytes of a packet: peer (u32), ring (u8), large (u8), number of descriptors (u16), end (u64); native order, both sides are one
/// program on one machine.
pub(crate) const NOTE: usize = 16;

/// A tag as it travels.
pub(crate) fn note(tag: Tag, large: bool, descriptors: usize) -> [u8; NOTE] {
    let mut bytes = [0; NOTE];
    bytes[..4].copy_from_slice(&tag.peer.0.to_ne_bytes());
    bytes[4] = tag.ring as u8;
    bytes[5] = large.into();
    bytes[6..8].copy_from_slice(&(descriptors as u16).to_ne_bytes());
    bytes[8..].copy_from_slice(&tag.end.to_ne_bytes());
    bytes
}

/// Reads one: the tag, whether the first descriptor is a payload, how many there are.
pub(crate) fn read_note(bytes: &[u8; NOTE]) -> Option<(Tag, bool, usize)> {
    let [p0, p1, p2, p3, ring, large, n0, n1, end @ ..] = *bytes;
    let ring = match ring {
        0 => Ring::Messages,
        1 => Ring::Replies,
        _ => return None,
    };
    let tag = Tag { peer: Slot(u32::from_ne_bytes([p0, p1, p2, p3])), ring, end: u64::from_ne_bytes(end) };
    (large <= 1).then_some((tag, large == 1, usize::from(u16::from_ne_bytes([n0, n1]))))
}

/// What the depot has to know of a lane: its sizes, and how far its readers are.
pub(crate) trait Lanes {
    /// The sizes of the lane between these two, if there is one.
    fn sizes(&self, a: Slot, b: Slot) -> Option<Sizes>;
    /// The reader's `done` of a ring.
    fn done(&self, way: Way) -> u64;
}

impl Depot {
    /// A worker has a porter from now on.
    pub(crate) fn add_porter(&self, slot: Slot, socket: Arc<OwnedFd>) {
        self.store.lock().porters.insert(slot, socket);
    }

    /// Takes in what a worker has sent up. `Ok(false)`: nothing more will come. An error says what no worker of ours does.
    pub(crate) fn take_in(&self, slot: Slot, lanes: &impl Lanes) -> Result<bool, String> {
        let mut store = self.store.lock();
        let Some(socket) = store.porters.get(&slot).cloned() else { return Ok(false) };
        loop {
            let mut bytes = [0; NOTE];
            let mut fds = Vec::new();
            match descriptors::receive_with(&*socket, &mut bytes, &mut fds, RecvFlags::DONTWAIT) {
                // The other end is closed: its process is gone or going.
                Ok(received) if received.bytes == 0 => return Ok(false),
                Ok(received) => {
                    let outcome = match read_note(&bytes) {
                        Some((tag, large, count))
                            if received.bytes == NOTE && !received.truncated && count == fds.len() =>
                        {
                            store.put(slot, tag, large, fds, lanes)
                        }
                        // At the supervisor's own limit the kernel drops descriptors: its reader finds them gone.
                        _ if received.truncated => {
                            dispose(fds);
                            Ok(())
                        }
                        _ => {
                            dispose(fds);
                            Err("a packet beside its records that cannot be".to_owned())
                        }
                    };
                    outcome?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                // It closed its end with an answer in it that it had not read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// The supervisor's own body sends.
    pub(crate) fn put(
        &self,
        from: Slot,
        tag: Tag,
        large: bool,
        fds: &[BorrowedFd<'_>],
        lanes: &impl Lanes,
    ) -> io::Result<()> {
        let copies: Result<Vec<OwnedFd>, _> = fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3)).collect();
        self.store.lock().put(from, tag, large, copies?, lanes).map_err(io::Error::other)
    }

    /// Gives a reader what is beside the record that it has taken: once, but for a payload, which is kept until it is handled.
    pub(crate) fn give(&self, reader: Slot, tag: Tag, lanes: &impl Lanes) -> io::Result<Given> {
        let way = (tag.peer, reader, tag.ring);
        if self.store.lock().lot(way, tag.end).is_none() {
            // Sent before its record was committed: it is at the latest in the writer's socket. What the writer sent wrong is
            // found by whoever reads that socket otherwise.
            let _ = self.take_in(tag.peer, lanes);
        }
        let mut store = self.store.lock();
        let Some(lot) = store.lot(way, tag.end) else { return Ok(Given::Gone) };
        let mut fds = Vec::with_capacity(lot.sockets.len() + 1);
        if let Some(large) = &lot.large {
            fds.push(rustix::io::fcntl_dupfd_cloexec(large, 3)?);
        }
        fds.append(&mut lot.sockets);
        if lot.large.is_none() {
            store.forget(way, |end| end == tag.end);
        }
        Ok(Given::Descriptors(fds))
    }

    /// A copy of a record's payload, unless it is larger than `limit`, and its size: for a dead letter.
    pub(crate) fn payload(&self, way: Way, end: u64, limit: u64) -> Option<(Vec<u8>, u64)> {
        let mut store = self.store.lock();
        let lot = store.lot(way, end)?;
        if lot.size > limit {
            return Some((Vec::new(), lot.size));
        }
        let mut bytes = vec![0; lot.size as usize];
        memory::peek_bytes(lot.large.as_ref()?, 0, &mut bytes).ok()?;
        Some((bytes, lot.size))
    }

    /// What was beside this record is wanted no more.
    pub(crate) fn handled(&self, reader: Slot, tag: Tag) {
        self.store.lock().forget((tag.peer, reader, tag.ring), |end| end == tag.end);
    }

    /// A reader died and its cursor stands at `taken`: what is beside records before that went with it.
    pub(crate) fn reader_died(&self, way: Way, taken: u64) {
        self.store.lock().forget(way, |end| end <= taken);
    }

    /// A writer died with its tail there: what is beside records that it never committed is closed.
    pub(crate) fn writer_died(&self, way: Way, tail: u64) {
        self.store.lock().forget(way, |end| end > tail);
    }

    /// The porter of a dead process, after its last packets were taken in.
    pub(crate) fn remove_porter(&self, slot: Slot) {
        self.store.lock().porters.remove(&slot);
    }

    /// How many descriptors it holds beside records.
    #[cfg(test)]
    fn held(&self) -> usize {
        let store = self.store.lock();
        let lots = store.ways.values().flat_map(BTreeMap::values);
        lots.map(|lot| lot.sockets.len() + usize::from(lot.large.is_some())).sum()
    }
}

impl Store {
    fn lot(&mut self, way: Way, end: u64) -> Option<&mut Lot> {
        self.ways.get_mut(&way)?.get_mut(&end)
    }

    /// Keeps what is beside a record. Too much of it means that the writer does not count as workers of ours do.
    fn put(
        &mut self,
        from: Slot,
        tag: Tag,
        large: bool,
        mut fds: Vec<OwnedFd>,
        lanes: &impl Lanes,
    ) -> Result<(), String> {
        let way = (from, tag.peer, tag.ring);
        let Some(sizes) = lanes.sizes(from, tag.peer) else {
            dispose(fds);
            return Err(format!("it sends descriptors to {}, with which it has no lane", tag.peer));
        };
        let end = End::writing(from, tag.peer) as usize;
        let mut lot = Lot::default();
        if large && !fds.is_empty() {
            let payload = fds.remove(0);
            match memory::sealed_size(&payload) {
                Ok(size) if size <= sizes.largest[end] => {
                    lot.size = size;
                    lot.large = Some(payload);
                }
                Ok(size) => {
                    dispose(fds);
                    return Err(format!("a payload of {size} bytes, the limit of that lane is {}", sizes.largest[end]));
                }
                Err(error) => {
                    dispose(fds);
                    return Err(error.to_string());
                }
            }
        }
        lot.sockets = fds;
        let lots = self.ways.entry(way).or_default();
        if !fits(lots, &lot, sizes.waiting[end]) {
            // What its reader says it has handled without asking for it is not waited for.
            let done = lanes.done(way);
            lots.retain(|end, _| *end > done);
        }
        if !fits(lots, &lot, sizes.waiting[end]) || lots.contains_key(&tag.end) {
            dispose(lot.sockets);
            return Err("it sends more beside its records than a lane holds".to_owned());
        }
        lots.insert(tag.end, lot);
        Ok(())
    }

    fn forget(&mut self, way: Way, which: impl Fn(u64) -> bool) {
        let Some(lots) = self.ways.get_mut(&way) else { return };
        lots.retain(|end, lot| {
            let goes = which(*end);
            if goes {
                dispose(std::mem::take(&mut lot.sockets));
            }
            !goes
        });
        if lots.is_empty() {
            self.ways.remove(&way);
        }
    }
}

/// Whether one more lot is within what an honest writer lets wait (its own count may lag by one record that is in hand).
fn fits(lots: &BTreeMap<u64, Lot>, more: &Lot, waiting: u64) -> bool {
    let descriptors: usize = lots.values().map(|lot| lot.sockets.len() + 1).sum();
    let bytes: u64 = lots.values().map(|lot| lot.size).sum();
    lots.is_empty()
        || (descriptors + more.sockets.len() < 2 * DESCRIPTORS
            && bytes.saturating_add(more.size) <= waiting.saturating_mul(2))
}

/// Closes descriptors that somebody else prepared: the last close of a socket that lingers would hold this thread.
fn dispose(fds: Vec<OwnedFd>) {
    for fd in &fds {
        // What is no socket has no such option, and nothing to wait for.
        let _ = sockopt::set_socket_linger(fd, None::<Duration>);
    }
}

/// What a reader in this process gets.
pub(crate) fn given(given: io::Result<Given>) -> io::Result<Vec<OwnedFd>> {
    match given? {
        Given::Descriptors(fds) => Ok(fds),
        Given::Gone => Err(io::Error::other("its sender did not send it")),
    }
}

/// Sends a reader the answer to its question. A reader that does not take its answers gets none: it waits for one at a time.
pub(crate) fn answer(socket: impl AsFd, tag: Tag, given: &Given) -> io::Result<()> {
    let fds: &[OwnedFd] = match given {
        Given::Descriptors(fds) => fds,
        Given::Gone => &[],
    };
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let bytes = note(tag, false, borrowed.len());
    descriptors::send_with(socket, &bytes, &borrowed).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(Sizes, u64);

    impl Lanes for Always {
        fn sizes(&self, _a: Slot, _b: Slot) -> Option<Sizes> {
            Some(self.0)
        }
        fn done(&self, _way: Way) -> u64 {
            self.1
        }
    }

    fn lanes(done: u64) -> Always {
        let sizes = Sizes { messages: [1 << 20; 2], replies: 1 << 20, largest: [1 << 20; 2], waiting: [1 << 20; 2] };
        Always(sizes, done)
    }

    fn tag(end: u64) -> Tag {
        Tag { peer: Slot(2), ring: Ring::Messages, end }
    }

    fn some_fd() -> OwnedFd {
        descriptors::socket_pair(rustix::net::SocketType::STREAM).unwrap().0
    }

    #[test]
    fn a_socket_is_given_once_and_to_its_reader_alone() {
        let depot = Depot::default();
        let fd = some_fd();
        depot.put(Slot(1), tag(64), false, &[fd.as_fd()], &lanes(0)).unwrap();
        let from = Tag { peer: Slot(1), ..tag(64) };
        assert!(matches!(depot.give(Slot(3), from, &lanes(0)).unwrap(), Given::Gone));
        assert!(matches!(depot.give(Slot(2), from, &lanes(0)).unwrap(), Given::Descriptors(fds) if fds.len() == 1));
        assert!(matches!(depot.give(Slot(2), from, &lanes(0)).unwrap(), Given::Gone));
        assert_eq!(depot.held(), 0);
    }

    #[test]
    fn a_payload_is_kept_until_it_is_handled() {
        let depot = Depot::default();
        let payload = memory::create_sealed("test", b"payload").unwrap();
        depot.put(Slot(1), tag(64), true, &[payload.as_fd()], &lanes(0)).unwrap();
        let from = Tag { peer: Slot(1), ..tag(64) };
        for _ in 0..2 {
            assert!(matches!(depot.give(Slot(2), from, &lanes(0)).unwrap(), Given::Descriptors(fds) if fds.len() == 1));
        }
        let way = (Slot(1), Slot(2), Ring::Messages);
        assert_eq!(depot.payload(way, 64, 7), Some((b"payload".to_vec(), 7)));
        assert_eq!(depot.payload(way, 64, 3), Some((Vec::new(), 7)));
        depot.handled(Slot(2), from);
        assert_eq!(depot.held(), 0);
    }

    #[test]
    fn deaths_close_what_nobody_will_take() {
        let depot = Depot::default();
        for end in [64, 128, 192, 256] {
            depot.put(Slot(1), tag(end), false, &[some_fd().as_fd()], &lanes(0)).unwrap();
        }
        let way = (Slot(1), Slot(2), Ring::Messages);
        depot.writer_died(way, 192);
        assert_eq!(depot.held(), 3);
        depot.reader_died(way, 64);
        assert_eq!(depot.held(), 2);
        depot.reader_died(way, u64::MAX);
        assert_eq!(depot.held(), 0);
    }

    #[test]
    fn a_writer_that_does_not_count_is_refused_and_a_reader_that_skips_is_not_waited_for() {
        let depot = Depot::default();
        let mut end = 0;
        while depot.put(Slot(1), tag(end), false, &[some_fd().as_fd()], &lanes(0)).is_ok() {
            end += 64;
            assert!(end < 64 * 1000, "a lane's lots are bounded");
        }
        assert!(depot.held() <= 2 * DESCRIPTORS);
        depot.put(Slot(1), tag(end), false, &[some_fd().as_fd()], &lanes(end - 64)).unwrap();
        assert_eq!(depot.held(), 1);
    }

    #[test]
    fn packets_that_cannot_be_are_an_error() {
        let (up, down) = descriptors::socket_pair(rustix::net::SocketType::SEQPACKET).unwrap();
        let depot = Depot::default();
        depot.add_porter(Slot(1), Arc::new(down));
        for packet in [&[9u8; NOTE][..], &[1u8; 3]] {
            descriptors::send_with(&up, packet, &[some_fd().as_fd()]).unwrap();
            assert!(depot.take_in(Slot(1), &lanes(0)).is_err());
        }
        descriptors::send_with(&up, &note(tag(64), false, 1), &[some_fd().as_fd()]).unwrap();
        depot.take_in(Slot(1), &lanes(0)).unwrap();
        assert_eq!(depot.held(), 1);
        let unsealed = memory::create("test", 4096).unwrap();
        descriptors::send_with(&up, &note(tag(128), true, 1), &[unsealed.as_fd()]).unwrap();
        assert!(depot.take_in(Slot(1), &lanes(0)).unwrap_err().contains("sealed"));
    }
}
