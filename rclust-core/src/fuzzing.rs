//! What comes from a process that nobody vouches for: frames, control messages, rings.
//!
//! `fuzz/` runs each function under libFuzzer; the tests below run their corpora on any toolchain.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::Slot;
use crate::mailbox::lane::{Lane, Layout};
use crate::mailbox::ring::{HEADER, Need, Place, Reader, Writer};
use crate::mailbox::switchboard::{Fate, Switchboard};
use crate::sys::memory::{self, Mapping};
use crate::wire::control::{End, Part, ToSupervisor, ToWorker};
use crate::wire::frame::{self, Decoder, HEAD};

/// What may be beside the records of a ring here.
const MOST_LARGE: u64 = 1 << 20;

/// Takes an input apart; behind its end there are zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

type Pieces = (u32, String, Vec<u16>);

/// A stream of frames, in pieces of any size: the frames are those that one piece would have given, and no more is kept than the
/// limit allows.
pub fn frame(data: &[u8]) {
    const LIMIT: usize = 200;
    let mut input = Input(data);
    let sizes = [input.byte(), input.byte(), input.byte()].map(|size| usize::from(size).max(1));
    let stream = input.0;
    let whole = frames(std::iter::once(stream));
    let mut rest = stream;
    let pieces = (0..).map_while(|n| {
        let (piece, later) = rest.split_at(rest.len().min(sizes[n % 3]));
        rest = later;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(frames(pieces), whole);

    fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(Pieces, usize)>, Option<String>) {
        let mut decoder = Decoder::new(LIMIT);
        let mut seen = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next::<Pieces>() {
                    Ok(Some((value, descriptors))) => {
                        let bytes = frame::encode(&value, descriptors).expect("what was decoded can be encoded");
                        let mut again = Decoder::new(2 * LIMIT);
                        again.push(&bytes);
                        assert_eq!(again.next::<Pieces>().ok().flatten(), Some((value.clone(), descriptors)));
                        seen.push((value, descriptors));
                    }
                    Ok(None) => break,
                    Err(error) => return (seen, Some(error.to_string())),
                }
            }
            // A frame that is not whole, what was handed out and not yet dropped, the piece; and a vector's way to grow.
            assert!(decoder.held() <= 2 * (HEAD + LIMIT + (64 << 10) + piece.len()), "{} are held", decoder.held());
        }
        (seen, None)
    }
}

/// One control message, in a frame of its own or as the bytes of a link: refused, or the same one when it is said again.
pub fn control(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let mut stream = Vec::new();
    if how & 2 == 0 {
        stream.extend((input.0.len() as u32).to_le_bytes());
        stream.extend(frame::VERSION.to_le_bytes());
        stream.extend([0, 0]);
    }
    stream.extend(input.0);
    if how & 1 == 0 {
        hear::<ToSupervisor>(&stream, frame::LARGEST_UP);
    } else {
        hear::<ToWorker>(&stream, frame::LARGEST_DOWN);
    }

    fn hear<T: Debug + Serialize + DeserializeOwned>(stream: &[u8], limit: usize) {
        let mut decoder = Decoder::new(limit);
        decoder.push(stream);
        while let Ok(Some((message, descriptors))) = decoder.next::<T>() {
            let said = frame::encode(&message, descriptors).expect("what was decoded can be encoded");
            let mut again = Decoder::new(usize::MAX);
            again.push(&said);
            let (same, _) = again.next::<T>().expect("what was encoded can be decoded").expect("it is whole");
            assert_eq!(format!("{same:?}"), format!("{message:?}"));
        }
    }
}

thread_local! {
    /// Of four capacities; made once, because making one takes longer than everything else.
    static RINGS: [(Arc<Mapping>, Place); 4] = std::array::from_fn(|n| {
        let place = Place { header: 0, data: 4096, capacity: 4096 << n };
        let len = place.data + place.span();
        (Arc::new(Mapping::new(memory_of(len), len).expect("a mapping")), place)
    });
    static HOUSE: House = House::new();
}

fn memory_of(len: usize) -> Arc<OwnedFd> {
    Arc::new(memory::create("rclust-fuzz", len as u64).expect("a memfd"))
}

fn wipe(map: &Mapping, place: Place, data: usize) {
    map.write(place.data, &vec![0; data]);
    for word in (place.header..place.header + HEADER).step_by(8) {
        map.store(word, 0, Ordering::Relaxed);
    }
}

/// Writes positions as the input says, near each other or anywhere, and `bytes` where the reader will look for a record. Tells where.
fn scribble(map: &Mapping, place: Place, raw: bool, input: &mut Input<'_>, bytes: &[u8]) -> (usize, usize) {
    let done = input.word();
    let (taken, tail) = if raw {
        (input.word(), input.word())
    } else {
        let taken = done.wrapping_add(u64::from(input.half()) * 8);
        (taken, taken.wrapping_add(u64::from(input.half()) * 8))
    };
    for (at, word) in [(place.done_word(), done), (place.taken_word(), taken), (place.tail_word(), tail)] {
        map.store(at as usize, word, Ordering::Relaxed);
    }
    let at = place.at(taken & !7);
    let bytes = &bytes[..bytes.len().min(place.data + place.span() - at)];
    map.write(at, bytes);
    (at, bytes.len())
}

/// A ring with anything in it: opened by a reader, by a writer, or found so by those who had opened it before. Each call ends, with
/// an answer or a refusal, and after a repair the ring is one again.
pub fn ring(data: &[u8]) {
    let mut input = Input(data);
    let (how, sizes) = (input.byte(), [input.half(), input.half()].map(usize::from));
    RINGS.with(|rings| {
        let (map, place) = &rings[usize::from(how & 3)];
        let (raw, early, spoilt) = (how & 4 != 0, how & 8 != 0, how & 16 != 0);
        wipe(map, *place, place.span());
        // Those who were there before, with a record or two behind them and perhaps one in hand.
        let mut writer = Writer::open(map.clone(), *place, MOST_LARGE).expect("an empty ring");
        let mut reader = Reader::open(map.clone(), *place).expect("an empty ring");
        for n in 0..how >> 6 {
            writer.push(n.into(), &[n; 24]).expect("an empty ring has room");
            reader.take(&mut Vec::new()).expect("a record");
        }
        if how & 32 != 0 {
            reader.done();
        }
        let image = input.0.get(if raw { 24 } else { 12 }..).unwrap_or_default();
        scribble(map, *place, raw, &mut input, image);
        if !early {
            match Reader::open(map.clone(), *place) {
                Ok(opened) => reader = opened,
                Err(_) => return write(map, *place, sizes, spoilt),
            }
        }
        let mut bytes = Vec::new();
        let mut taken = 0;
        while let Ok(Some(_)) = reader.take(&mut bytes) {
            assert!(bytes.len() <= place.largest_payload(), "larger than a record can be");
            bytes.clear();
            taken += 1;
            assert!(taken <= place.capacity / 8, "more than a ring holds");
            if taken % 3 == 0 && reader.done() {
                reader.writer_waits();
            }
        }
        let _ = reader.sleep();
        reader.is_empty();
        reader.done();
        reader.worth_telling_idle();
        if early {
            for size in sizes {
                let _ = writer.wait_for_room(Need::plain(size % place.largest_payload()));
                let _ = writer.push(1, &vec![7; size % place.largest_payload()]);
                writer.reader_sleeps();
            }
            // One of the two is dead.
            if raw {
                writer.reassert(spoilt);
                if spoilt {
                    reader = Reader::open(map.clone(), *place).expect("the next reader of a repaired ring");
                }
            } else {
                reader.repair(spoilt);
                let next = Writer::open(map.clone(), *place, MOST_LARGE);
                writer = next.expect("the next writer of a repaired ring");
            }
            if spoilt {
                writer.push(9, &[9; 9]).expect("a repaired ring is empty");
                assert_eq!((reader.take(&mut bytes), &bytes[..]), (Ok(Some(9)), &[9; 9][..]));
            }
        }
        write(map, *place, sizes, spoilt);
    });
}

/// A writer that finds the ring as it is.
fn write(map: &Arc<Mapping>, place: Place, sizes: [usize; 2], spoilt: bool) {
    let Ok(mut writer) = Writer::open(map.clone(), place, MOST_LARGE) else { return };
    for size in sizes {
        let size = size % (place.largest_payload() + 1);
        let room = writer.has_room_for(Need::plain(size));
        let pushed = writer.push(1, &vec![7; size]);
        assert_eq!(room == Ok(true), pushed.is_ok());
        let _ = writer.wait_for_room(Need::plain(size));
        writer.reader_sleeps();
    }
    writer.release_if_empty().expect("pages to give back");
    writer.reassert(spoilt);
    if spoilt {
        let mut reader = Reader::open(map.clone(), place).expect("the next reader of a repaired ring");
        assert_eq!(reader.take(&mut Vec::new()), Ok(None));
    }
}

/// A lane of the supervisor's, as the switchboard keeps it.
struct House {
    board: Switchboard,
    layout: Layout,
    map: Mapping,
}

/// One that does as the supervisor does, in a lane as small as two workers', and a worker.
const STAYS: Slot = Slot(1);
const DIES: Slot = Slot(2);

impl House {
    fn new() -> House {
        let board = Switchboard::default();
        let (parts, _) = board.open(STAYS, DIES, Part::Whole).expect("a lane");
        let layout = Layout::new(parts.sizes).expect("a layout");
        House { board, layout, map: Mapping::new(parts.memory, layout.len()).expect("a mapping") }
    }

    fn lane(&self, me: Slot, peer: Slot) -> std::io::Result<Lane> {
        Lane::open(&self.board.open(me, peer, Part::Whole)?.0)
    }
}

/// A worker writes anything into the rings of its lane and dies: its cursors are settled, the supervisor repairs its own, and the
/// next incarnation can take part.
pub fn settle(data: &[u8]) {
    HOUSE.with(|house| {
        let House { board, layout, map } = house;
        let mut input = Input(data);
        let how = input.byte();
        let rings = [
            layout.messages_of(End::First),
            layout.messages_of(End::Second),
            layout.replies_of(End::First),
            layout.replies_of(End::Second),
        ];
        for place in rings {
            wipe(map, place, 256);
        }
        let stays = house.lane(STAYS, DIES).expect("a new lane");
        {
            // An honest beginning, perhaps with something in hand on both sides.
            let dies = house.lane(DIES, STAYS).expect("a new lane");
            for n in 0..how & 3 {
                stays.out.lock().writer.push(0, &[n; 20]).expect("room");
                dies.out.lock().writer.push(0, &[n; 20]).expect("room");
            }
            if how & 4 != 0 {
                stays.inbox.lock().take(&mut Vec::new()).expect("a sound ring");
            }
            if how & 8 != 0 {
                dies.inbox.lock().take(&mut Vec::new()).expect("a sound ring");
            }
        }
        let mut written = Vec::new();
        for place in rings {
            let kind = input.byte();
            if kind & 1 != 0 {
                let record = input.word().to_le_bytes();
                written.push(scribble(map, place, kind & 2 != 0, &mut input, &record));
            }
        }
        if how & 16 != 0 {
            stays.distrust();
        }
        let (again, empty) = (how & 32 != 0, how & 64 != 0);
        for left in board.process_died(DIES, true, Fate { again: &mut |_, _| again, empty }) {
            assert!(left.peer == STAYS && left.dead.iter().all(|dead| dead.bytes.len() <= rings[0].largest_payload()));
            assert!(left.dead.len() <= rings[0].capacity / 8, "more than a ring holds");
        }
        for place in [layout.messages_of(End::First), layout.replies_of(End::First)] {
            let word = |at| map.load(at as usize, Ordering::Acquire);
            assert_eq!(word(place.taken_word()), word(place.done_word()), "something is still in hand");
        }
        stays.repair(Part::Whole, true);
        let next = house.lane(DIES, STAYS).expect("the next incarnation's lane");
        let mut bytes = Vec::new();
        let mut taken = 0;
        while let Ok(Some(_)) = next.inbox.lock().take(&mut bytes) {
            bytes.clear();
            taken += 1;
            assert!(taken <= rings[0].capacity / 8, "more than a ring holds");
        }
        for (at, len) in written {
            map.write(at, &vec![0; len]);
        }
    });
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn frames_hold() {
        replay::corpus("frame", super::frame);
    }

    #[test]
    fn control_messages_hold() {
        replay::corpus("control", super::control);
    }

    #[test]
    fn rings_hold() {
        replay::corpus("ring", super::ring);
    }

    #[test]
    fn lanes_are_settled() {
        replay::corpus("settle", super::settle);
    }
}
