//! The ring beside a queue, step by step; and the ring beside a process that writes anything anywhere.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What may be beside the records.
const MOST_LARGE: u64 = 1 << 20;

fn map(place: Place) -> Arc<Mapping> {
    let len = place.data + place.span();
    Arc::new(Mapping::new(Arc::new(crate::sys::memory::create("ring-test", len as u64).unwrap()), len).unwrap())
}

/// 4 KiB to 64 KiB.
fn places() -> impl Strategy<Value = Place> {
    (12..=16u32).prop_map(|bits| Place { header: 0, data: 4096, capacity: 1 << bits })
}

/// How large a payload is.
#[derive(Clone, Copy, Debug)]
enum Size {
    Bytes(usize),
    /// So many 1/255 of the largest.
    Part(u8),
}

impl Size {
    fn of(self, place: Place) -> usize {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Part(part) => place.largest_payload() * usize::from(part) / 255,
        }
    }
}

fn sizes() -> impl Strategy<Value = Size> {
    prop_oneof![
        1 => Just(Size::Bytes(0)),
        2 => Just(Size::Part(255)),
        4 => (0..100usize).prop_map(Size::Bytes),
        4 => any::<u8>().prop_map(Size::Part),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(Size),
    Fill(Size),
    Take,
    TakeAll,
    Done,
    HasRoom(Size),
    WaitForRoom(Size),
    WriterWaits,
    Sleep,
    ReaderSleeps,
    ReopenWriter,
    ReopenReader,
    Release,
    /// The supervisor's look after a death, when nothing is wrong.
    Reassert,
    Repair,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => sizes().prop_map(Step::Push),
        1 => sizes().prop_map(Step::Fill),
        8 => Just(Step::Take),
        1 => Just(Step::TakeAll),
        6 => Just(Step::Done),
        1 => sizes().prop_map(Step::HasRoom),
        2 => sizes().prop_map(Step::WaitForRoom),
        2 => Just(Step::WriterWaits),
        2 => Just(Step::Sleep),
        2 => Just(Step::ReaderSleeps),
        1 => Just(Step::ReopenWriter),
        1 => Just(Step::ReopenReader),
        1 => Just(Step::Release),
        1 => Just(Step::Reassert),
        1 => Just(Step::Repair),
    ]
}

/// What a ring is to its users.
#[derive(Debug)]
struct Queue {
    place: Place,
    records: VecDeque<(u32, Vec<u8>)>,
    written: u64,
    taken: u64,
    done: u64,
    waiting: bool,
    sleeping: bool,
}

impl Queue {
    fn room(&self, payload: usize) -> bool {
        self.written - self.done + Place::record(payload) as u64 <= self.place.capacity as u64
    }

    fn push(&mut self, writer: &mut Writer, kind: u32, len: usize) -> bool {
        let payload: Vec<u8> = (0..len).map(|n| (n as u32).wrapping_mul(31).wrapping_add(kind) as u8).collect();
        let room = self.room(len);
        match writer.push(kind, &payload) {
            Ok(position) => {
                assert!(room, "pushed without room");
                self.written += Place::record(len) as u64;
                assert_eq!(position, self.written);
                self.records.push_back((kind, payload));
            }
            Err(PushError::Full) => assert!(!room, "full in spite of room"),
            Err(PushError::Corrupt(corrupt)) => panic!("{corrupt}"),
        }
        assert_eq!(writer.tail(), self.written);
        room
    }

    fn take(&mut self, reader: &mut Reader) -> bool {
        // It is appended to what is there.
        let mut bytes = vec![1, 2, 3];
        let kind = reader.take(&mut bytes).unwrap();
        let expected = self.records.pop_front();
        assert_eq!(bytes[..3], [1, 2, 3]);
        assert_eq!(kind.map(|kind| (kind, bytes[3..].to_vec())), expected);
        if let Some((_, payload)) = &expected {
            self.taken += Place::record(payload.len()) as u64;
        }
        expected.is_some()
    }
}

fn play(place: Place, steps: &[Step]) {
    let map = map(place);
    let mut writer = Writer::open(map.clone(), place, MOST_LARGE).unwrap();
    let mut reader = Reader::open(map.clone(), place).unwrap();
    let records = VecDeque::new();
    let mut queue = Queue { place, records, written: 0, taken: 0, done: 0, waiting: false, sleeping: false };
    for (kind, step) in (0..).zip(steps) {
        match *step {
            Step::Push(size) => {
                queue.push(&mut writer, kind, size.of(place));
            }
            Step::Fill(size) => while queue.push(&mut writer, kind, size.of(place)) {},
            Step::Take => {
                queue.take(&mut reader);
            }
            Step::TakeAll => while queue.take(&mut reader) {},
            Step::Done => {
                reader.done();
                queue.done = queue.taken;
            }
            Step::HasRoom(size) => {
                assert_eq!(writer.has_room_for(Need::plain(size.of(place))).unwrap(), queue.room(size.of(place)));
            }
            Step::WaitForRoom(size) => {
                queue.waiting = true;
                assert_eq!(writer.wait_for_room(Need::plain(size.of(place))).unwrap(), queue.room(size.of(place)));
            }
            Step::WriterWaits => assert_eq!(reader.writer_waits(), std::mem::take(&mut queue.waiting)),
            Step::Sleep => {
                queue.sleeping = true;
                assert_eq!(reader.sleep().unwrap(), queue.records.is_empty());
            }
            Step::ReaderSleeps => assert_eq!(writer.reader_sleeps(), std::mem::take(&mut queue.sleeping)),
            Step::ReopenWriter => writer = Writer::open(map.clone(), place, MOST_LARGE).unwrap(),
            // With something in hand the supervisor comes first.
            Step::ReopenReader if queue.taken == queue.done => {
                reader = Reader::open(map.clone(), place).unwrap();
            }
            Step::ReopenReader => {
                assert!(Reader::open(map.clone(), place).is_err(), "opened with a record in hand");
            }
            Step::Release => {
                let empty = queue.done == queue.written;
                assert_eq!(writer.release_if_empty().unwrap(), empty);
                let mut data = Vec::new();
                map.read(place.data, if empty { place.span() } else { 0 }, &mut data);
                assert!(data.iter().all(|byte| *byte == 0), "given back, and still there");
            }
            Step::Reassert => writer.reassert(false),
            Step::Repair => reader.repair(false),
        }
        assert_eq!(reader.is_empty(), queue.records.is_empty());
    }
    while queue.take(&mut reader) {}
    reader.done();
    assert!(writer.has_room_for(Need::plain(place.capacity - RECORD_HEAD)).unwrap(), "an empty ring is all room");
}

/// A word that somebody wrote who should not have.
#[derive(Clone, Copy, Debug)]
enum Word {
    Any(u64),
    /// Of a plausible size.
    Small(u16),
    /// What was there, and a bit.
    Near(i16),
}

fn words() -> impl Strategy<Value = Word> {
    prop_oneof![
        (any::<u64>(), 0..64u32).prop_map(|(word, shift)| Word::Any(word >> shift)),
        any::<u16>().prop_map(Word::Small),
        (-600..600i16).prop_map(|by| Word::Near(by * 8)),
        any::<i16>().prop_map(Word::Near),
        // Around the end of all positions.
        (0..100u64).prop_map(|n| Word::Any((n * 8).wrapping_sub(400))),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Step(Step),
    Header(usize, Word),
    /// Both cursors of the reader, so that it can be opened.
    Cursors(Word),
    /// All three positions.
    Positions(Word),
    Data(u16, Word),
    /// The head of the record that the next `take` would read.
    Head(Word),
    Spoilt,
}

fn turns() -> impl Strategy<Value = Turn> {
    prop_oneof![
        8 => steps().prop_map(Turn::Step),
        2 => (0..5usize, words()).prop_map(|(n, word)| Turn::Header([TAIL, WAITING, TAKEN, DONE, SLEEPING][n], word)),
        1 => words().prop_map(Turn::Cursors),
        1 => words().prop_map(Turn::Positions),
        1 => (any::<u16>(), words()).prop_map(|(at, word)| Turn::Data(at, word)),
        2 => words().prop_map(Turn::Head),
        1 => Just(Turn::Spoilt),
    ]
}

fn scribble(map: &Mapping, at: usize, word: Word) -> u64 {
    let value = match word {
        Word::Any(value) => value,
        Word::Small(value) => value.into(),
        Word::Near(by) => map.load(at, Ordering::Relaxed).wrapping_add_signed(by.into()),
    };
    map.store(at, value, Ordering::Relaxed);
    value
}

/// Whatever is in the memory, each call ends, with an answer or with `Corrupt`; the memory's bounds are `Mapping`'s to assert.
fn suffer(place: Place, turns: &[Turn]) {
    let map = map(place);
    let mut writer = Writer::open(map.clone(), place, MOST_LARGE).unwrap();
    let mut reader = Reader::open(map.clone(), place).unwrap();
    let mut bytes = Vec::new();
    for turn in turns {
        bytes.clear();
        match *turn {
            Turn::Header(at, word) => {
                scribble(&map, place.header + at, word);
            }
            Turn::Cursors(word) => {
                let value = scribble(&map, place.header + DONE, word);
                map.store(place.header + TAKEN, value, Ordering::Relaxed);
            }
            Turn::Positions(word) => {
                let value = scribble(&map, place.header + DONE, word);
                map.store(place.header + TAKEN, value, Ordering::Relaxed);
                map.store(place.header + TAIL, value, Ordering::Relaxed);
            }
            Turn::Data(at, word) => {
                scribble(&map, place.data + usize::from(at) * 8 % place.span(), word);
            }
            Turn::Head(word) => {
                scribble(&map, place.at(reader.taken), word);
            }
            Turn::Spoilt => {
                // The dead one's rings as the supervisor repairs them: they are usable again, by both sides.
                writer.reassert(true);
                reader = Reader::open(map.clone(), place).unwrap();
                assert_eq!(reader.take(&mut bytes), Ok(None));
                assert!(writer.push(7, b"again").is_ok());
                assert_eq!((reader.take(&mut bytes), &bytes[..]), (Ok(Some(7)), &b"again"[..]));
                reader.done();
                scribble(&map, place.header + TAIL, Word::Near(24));
                reader.repair(true);
                writer = Writer::open(map.clone(), place, MOST_LARGE).unwrap();
                assert!(writer.push(8, b"").is_ok());
                assert_eq!(reader.take(&mut bytes), Ok(Some(8)));
                reader.done();
            }
            Turn::Step(step) => match step {
                Step::Push(size) => {
                    let _ = writer.push(1, &vec![9; size.of(place)]);
                }
                Step::Fill(size) => {
                    let mut pushed = 0;
                    while writer.push(1, &vec![9; size.of(place)]).is_ok() {
                        pushed += 1;
                        // A cursor that is ahead of the tail is one when the tail has come there.
                        assert!(pushed <= 2 * place.capacity / RECORD_HEAD, "more than there was room for");
                    }
                }
                Step::Take => {
                    let _ = reader.take(&mut bytes);
                    assert!(bytes.len() <= place.largest_payload());
                }
                Step::TakeAll => {
                    let mut taken = 0;
                    while let Ok(Some(_)) = reader.take(&mut bytes) {
                        assert!(bytes.len() <= place.largest_payload());
                        bytes.clear();
                        taken += 1;
                        // As much as was seen before, and as much again.
                        assert!(taken <= 2 * place.capacity / RECORD_HEAD, "taken more than was there");
                    }
                }
                Step::Done => {
                    reader.done();
                }
                Step::HasRoom(size) => {
                    let _ = writer.has_room_for(Need::plain(size.of(place)));
                }
                Step::WaitForRoom(size) => {
                    let _ = writer.wait_for_room(Need::plain(size.of(place)));
                }
                Step::WriterWaits => {
                    reader.writer_waits();
                    reader.worth_telling_idle();
                }
                Step::Sleep => {
                    let _ = reader.sleep();
                }
                Step::ReaderSleeps => {
                    writer.reader_sleeps();
                }
                Step::ReopenWriter => {
                    if let Ok(next) = Writer::open(map.clone(), place, MOST_LARGE) {
                        writer = next;
                    }
                }
                Step::ReopenReader => {
                    if let Ok(next) = Reader::open(map.clone(), place) {
                        reader = next;
                    }
                }
                Step::Release => {
                    writer.release_if_empty().unwrap();
                }
                Step::Reassert => writer.reassert(false),
                Step::Repair => reader.repair(false),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_is_a_queue(place in places(), steps in prop::collection::vec(steps(), 1..300)) {
        play(place, &steps);
    }

    #[test]
    fn a_ring_survives_what_is_written_into_it(place in places(), turns in prop::collection::vec(turns(), 1..300)) {
        suffer(place, &turns);
    }
}
