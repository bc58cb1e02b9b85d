//! How much a slot's mailbox holds.

use crate::id::Slot;
use crate::wire::control::Sizes;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How much a slot's mailbox holds. A mailbox has a lane for each process that sends to it; lanes are made at first use, and an
/// idle one gives its pages back, so that these are bounds, not costs.
///
/// | | unless said otherwise |
/// |---|---|
/// | [`lane`](Mailbox::lane): what waits between this worker and the supervisor, each way | 1 MiB |
/// | [`peer_lane`](Mailbox::peer_lane): what waits from one other worker | 64 KiB |
/// | [`largest`](Mailbox::largest): the largest message | 64 MiB |
/// | [`waiting`](Mailbox::waiting): what waits of one sender's large messages | 128 MiB |
///
/// A message of more than half a lane is *large*: it travels in memory of its own (a sealed memfd) and takes 24 bytes of the lane.
///
/// ```
/// # use rclust_core::{Mailbox, Child, Worker};
/// # fn f<W: Worker<Args = ()>>() {
/// let child = Child::<W>::new("thumbnails").mailbox(Mailbox::new().largest(8 << 20).waiting(32 << 20));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Mailbox {
    lane: usize,
    peer_lane: usize,
    largest: usize,
    waiting: usize,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox::new()
    }
}

impl Mailbox {
    /// The usual one.
    pub const fn new() -> Mailbox {
        Mailbox { lane: MIB, peer_lane: 64 * KIB, largest: 64 * MIB, waiting: 128 * MIB }
    }

    /// Bytes that wait between this worker and the supervisor, each way: rounded up to a power of two, 4 KiB to 256 MiB.
    pub fn lane(mut self, bytes: usize) -> Mailbox {
        self.lane = bytes;
        self
    }

    /// Bytes that wait from one other worker: rounded up to a power of two, 4 KiB to 256 MiB.
    pub fn peer_lane(mut self, bytes: usize) -> Mailbox {
        self.peer_lane = bytes;
        self
    }

    /// The largest message, in encoded bytes; larger ones are refused with `TooLarge`. At most 1 GiB.
    pub fn largest(mut self, bytes: usize) -> Mailbox {
        self.largest = bytes;
        self
    }

    /// Bytes of large messages of one sender that wait or are in hand; a sender waits for more room. One message always has room.
    pub fn waiting(mut self, bytes: usize) -> Mailbox {
        self.waiting = bytes;
        self
    }
}

/// A ring's capacity.
fn ring(bytes: usize) -> u32 {
    bytes.clamp(4 * KIB, 256 * MIB).next_power_of_two() as u32
}

/// The sizes of the lane between two slots, the lower one first: what the reader of each direction has room for.
pub(crate) fn sizes((first, second): (Slot, Slot), first_has: &Mailbox, second_has: &Mailbox) -> Sizes {
    let messages = if first == Slot::SUPERVISOR {
        [ring(second_has.lane); 2]
    } else if first == second {
        [ring(first_has.peer_lane); 2]
    } else {
        [ring(second_has.peer_lane), ring(first_has.peer_lane)]
    };
    let largest = |reader: &Mailbox| reader.largest.min(1024 * MIB) as u64;
    let waiting = |reader: &Mailbox| largest(reader).max(reader.waiting as u64);
    Sizes {
        messages,
        replies: messages[0].max(messages[1]),
        largest: [largest(second_has), largest(first_has)],
        waiting: [waiting(second_has), waiting(first_has)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_as_large_as_its_reader_says() {
        let usual = Mailbox::new();
        let small = Mailbox::new().lane(5000).peer_lane(1).largest(100).waiting(10);
        let with_supervisor = sizes((Slot::SUPERVISOR, Slot(3)), &usual, &small);
        assert_eq!(with_supervisor.messages, [8192; 2]);
        assert_eq!((with_supervisor.largest, with_supervisor.waiting), ([100, 64 << 20], [100, 128 << 20]));
        let between = sizes((Slot(2), Slot(3)), &usual, &small);
        assert_eq!((between.messages, between.replies), ([4096, 64 << 10], 64 << 10));
    }
}
