//! The ring's protocols in every order that threads and memory allow: this is the code of `ring.rs`, on loom's memory.
//!
//! Run by `.ci/loom`. Each model is run once as it is, and once for each ordering or fence that it depends on, without it: then
//! it has to fail. See `sys/model.rs` for what loom can and cannot see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool as Plain, Ordering::Relaxed};

use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::*;
use crate::sys::model::{Without, live};

/// Two records of one word each fill it.
const PLACE: Place = Place { header: 0, data: HEADER, capacity: 32 };
/// Header words that one side writes, and those that both do.
const ONE: [usize; 3] = [TAIL, TAKEN, DONE];
const BOTH: [usize; 2] = [WAITING, SLEEPING];

/// Switches away from a thread that could go on, in one run; the ones below that must fail do so with one or two. `LOOM_MAX_PREEMPTIONS`
/// says otherwise.
const PREEMPTIONS: usize = 4;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}

/// A new ring, whose next record lies at `start`.
fn ring(without: Without, start: u64) -> (Arc<Mapping>, Writer, Reader) {
    let map = Arc::new(Mapping::model(&ONE, &BOTH, PLACE.data..PLACE.data + PLACE.span(), without));
    let mut writer = Writer::open(map.clone(), PLACE, 1 << 20).unwrap();
    let mut reader = Reader::open(map.clone(), PLACE).unwrap();
    while writer.tail() < start {
        writer.push(0, &[]).unwrap();
        reader.take(&mut Vec::new()).unwrap().unwrap();
        reader.done();
    }
    (map, writer, reader)
}

fn push(writer: &mut Writer, n: u8) -> Result<u64, PushError> {
    writer.push(u32::from(n), &[n; 8])
}

/// Takes a record, and checks that kind and bytes are one record's.
fn take(reader: &mut Reader) -> Option<u8> {
    let mut bytes = Vec::new();
    let kind = reader.take(&mut bytes).unwrap()?;
    assert_eq!(bytes, [kind as u8; 8], "a record that is not whole");
    Some(kind as u8)
}

/// A doorbell: like the socket pair, it keeps one ring for who is not there yet.
#[derive(Clone)]
struct Bell(Arc<AtomicBool>);

impl Bell {
    fn new() -> Bell {
        Bell(Arc::new(AtomicBool::new(false)))
    }

    fn ring(&self) {
        // Not a store: loom would let it be undone by an exchange that came before it.
        self.0.swap(true, Ordering::AcqRel);
    }

    /// Whether it was rung; with that it is quiet again.
    fn hush(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

mod whole_or_not_at_all {
    use super::*;

    /// Three records through a ring that holds two, the second across the end: no fence is involved.
    fn model(without: Without) {
        check(move || {
            let (_, mut writer, mut reader) = ring(without, 8);
            let writing = thread::spawn(move || (1..=3).take_while(|n| push(&mut writer, *n).is_ok()).count());
            let mut taken = Vec::new();
            for _ in 0..3 {
                taken.extend(take(&mut reader));
                reader.done();
            }
            let written = writing.join().unwrap();
            while let Some(n) = take(&mut reader) {
                taken.push(n);
            }
            assert!(written >= 2 && taken == [1, 2, 3][..written], "{taken:?} of {written}");
        });
    }

    #[test]
    fn holds() {
        model(Without::Nothing);
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_the_commit_releases_nothing() {
        model(Without::Release(TAIL));
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_the_look_acquires_nothing() {
        model(Without::Acquire(TAIL));
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_done_releases_nothing() {
        model(Without::Release(DONE));
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_the_look_for_room_acquires_nothing() {
        model(Without::Acquire(DONE));
    }
}

mod pages_are_given_back_when_nobody_reads_them {
    use super::*;

    fn model(without: Without) {
        check(move || {
            let (_, mut writer, mut reader) = ring(without, 0);
            push(&mut writer, 1).unwrap();
            let writing = thread::spawn(move || {
                let released = writer.release_if_empty().unwrap();
                push(&mut writer, 2).unwrap();
                released
            });
            let mut taken: Vec<u8> = take(&mut reader).into_iter().collect();
            reader.done();
            taken.extend(take(&mut reader));
            writing.join().unwrap();
            taken.extend(take(&mut reader));
            assert_eq!(taken, [1, 2]);
        });
    }

    #[test]
    fn holds() {
        model(Without::Nothing);
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_done_releases_nothing() {
        model(Without::Release(DONE));
    }

    #[test]
    #[should_panic = "Causality violation"]
    fn fails_when_the_look_acquires_nothing() {
        model(Without::Acquire(DONE));
    }
}

mod never_asleep_beside_a_record {
    use super::*;

    /// Takes until it would block. With a bell that was rung it goes on.
    fn read(reader: &mut Reader, bell: &Bell, without: Without) -> u8 {
        let mut last = 0;
        loop {
            while let Some(n) = take(reader) {
                assert_eq!(n, last + 1);
                last = n;
                reader.done();
            }
            if without.call("sleep", || reader.sleep()).unwrap() && !bell.hush() {
                return last;
            }
        }
    }

    fn model(without: Without) {
        check(move || {
            let (_, mut writer, mut reader) = ring(without, 0);
            let bell = Bell::new();
            let theirs = bell.clone();
            let writing = thread::spawn(move || {
                for n in 1..=2 {
                    push(&mut writer, n).unwrap();
                    if without.call("reader_sleeps", || writer.reader_sleeps()) {
                        theirs.ring();
                    }
                }
            });
            read(&mut reader, &bell, without);
            writing.join().unwrap();
            assert!(bell.hush() || reader.is_empty(), "the reader sleeps, there is a record, and nobody rang");
        });
    }

    #[test]
    fn holds() {
        model(Without::Nothing);
    }

    #[test]
    #[should_panic = "nobody rang"]
    fn fails_without_the_fence_of_the_writer() {
        model(Without::Fence("reader_sleeps"));
    }

    #[test]
    #[should_panic = "nobody rang"]
    fn fails_without_the_fence_of_the_reader() {
        model(Without::Fence("sleep"));
    }
}

mod never_waiting_beside_room {
    use super::*;

    /// Pushes until it would block, from `next` on up to `last`; returns the next one.
    fn write(writer: &mut Writer, bell: &Bell, without: Without, mut next: u8, last: u8) -> u8 {
        while next <= last {
            match push(writer, next) {
                Ok(_) => next += 1,
                Err(PushError::Full) => {
                    if !without.call("wait_for_room", || writer.wait_for_room(Need::plain(8))).unwrap() && !bell.hush()
                    {
                        break;
                    }
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        next
    }

    fn model(without: Without) {
        check(move || {
            let (_, mut writer, mut reader) = ring(without, 0);
            let bell = Bell::new();
            assert_eq!(write(&mut writer, &bell, Without::Nothing, 1, 2), 3);
            let theirs = bell.clone();
            let writing = thread::spawn(move || {
                let next = write(&mut writer, &theirs, without, 3, 4);
                (writer, next)
            });
            for n in 1..=2 {
                assert_eq!(take(&mut reader), Some(n));
                if reader.done() && without.call("writer_waits", || reader.writer_waits()) {
                    bell.ring();
                }
            }
            let (mut writer, next) = writing.join().unwrap();
            let waits = next <= 4 && !bell.hush();
            assert!(
                !waits || !writer.has_room_for(Need::plain(8)).unwrap(),
                "the writer waits, there is room, and nobody rang"
            );
        });
    }

    #[test]
    fn holds() {
        model(Without::Nothing);
    }

    #[test]
    #[should_panic = "nobody rang"]
    fn fails_without_the_fence_of_the_writer() {
        model(Without::Fence("wait_for_room"));
    }

    #[test]
    #[should_panic = "nobody rang"]
    fn fails_without_the_fence_of_the_reader() {
        model(Without::Fence("writer_waits"));
    }
}

mod a_writer_that_is_killed {
    use super::*;

    /// Killed after so many accesses to the memory. `false`: it had done all it had to before.
    fn model(accesses: usize) -> bool {
        let was_killed = Arc::new(Plain::new(false));
        let note = was_killed.clone();
        check(move || {
            // The second record runs across the ring's end.
            let (map, mut writer, mut reader) = ring(Without::Nothing, 8);
            let bell = Bell::new();
            let (theirs, note) = (bell.clone(), note.clone());
            let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counter = sent.clone();
            let writing = thread::spawn(move || {
                let life = live(accesses, || {
                    for n in 1..=2 {
                        push(&mut writer, n).unwrap();
                        counter.fetch_add(1, Relaxed);
                        if writer.reader_sleeps() {
                            theirs.ring();
                        }
                    }
                });
                note.store(life.is_none(), Relaxed);
                // The supervisor has seen the death, rings (the dead one may have taken that duty with it), and starts the next.
                drop(writer);
                theirs.ring();
                let mut next = Writer::open(map, PLACE, 1 << 20).unwrap();
                let committed = ((next.tail() - 8) / 16) as usize;
                if push(&mut next, 9).is_ok() && next.reader_sleeps() {
                    theirs.ring();
                }
                (next, committed)
            });
            let mut taken = Vec::new();
            loop {
                while let Some(n) = take(&mut reader) {
                    taken.push(n);
                    reader.done();
                }
                if reader.sleep().unwrap() && !bell.hush() {
                    break;
                }
            }
            let (_, committed) = writing.join().unwrap();
            assert!(bell.hush() || reader.is_empty(), "the reader sleeps, there is a record, and nobody rang");
            while let Some(n) = take(&mut reader) {
                taken.push(n);
            }
            let sent = sent.load(Relaxed);
            assert!(committed == sent || committed == sent + 1, "{sent} were sent, {committed} are committed");
            assert_eq!(taken[..committed], [1, 2][..committed]);
            assert!(taken[committed..] == [9] || (committed == 2 && taken.len() == 2), "{taken:?} of {committed}");
        });
        was_killed.load(Relaxed)
    }

    #[test]
    fn between_any_two_steps_leaves_what_it_committed_and_nothing_else() {
        // Two pushes of three accesses, and two looks at the flag.
        let steps = (0..).take_while(|accesses| model(*accesses)).count();
        assert!(steps >= 8, "it was killed at {steps} places only");
    }
}

/// `Receiver::rest`, `Receiver::try_next`, `Endpoint::activate` and the part of `answer_bell` that serves them, with the same
/// orderings, on the real ring: those functions stand on tokio and parking_lot, so their few lines are repeated here.
mod a_lane_that_was_rung_is_on_the_list {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Rest {
        /// First off the list, then the flag, then the last look.
        InOrder,
        /// The last look before the flag.
        LookFirst,
    }

    struct Lane {
        active: AtomicBool,
        list: loom::sync::Mutex<bool>,
    }

    impl Lane {
        fn activate(&self) {
            if !self.active.swap(true, Ordering::AcqRel) {
                *self.list.lock().unwrap() = true;
            }
        }

        /// The real one is a Release store: see `sys/model.rs`.
        fn deactivate(&self) {
            self.active.swap(false, Ordering::Release);
        }

        fn drain_active(&self) -> bool {
            std::mem::take(&mut *self.list.lock().unwrap())
        }

        fn rest(&self, reader: &mut Reader, order: Rest) -> bool {
            if order == Rest::InOrder {
                self.deactivate();
            }
            let sleeps = reader.sleep().unwrap();
            if order == Rest::LookFirst {
                self.deactivate();
            }
            !sleeps && !self.active.swap(true, Ordering::AcqRel)
        }

        /// Takes until there is no lane to look at.
        fn receive(&self, reader: &mut Reader, order: Rest) {
            let mut turn = false;
            loop {
                turn = turn || self.drain_active();
                if !turn {
                    return;
                }
                match take(reader) {
                    Some(_) => {
                        reader.done();
                    }
                    None => turn = self.rest(reader, order),
                }
            }
        }
    }

    fn model(order: Rest) {
        check(move || {
            let (_, mut writer, mut reader) = ring(Without::Nothing, 0);
            let bell = Bell::new();
            let lane = Arc::new(Lane { active: AtomicBool::new(true), list: loom::sync::Mutex::new(true) });
            let theirs = bell.clone();
            let writing = thread::spawn(move || {
                for n in 1..=2 {
                    push(&mut writer, n).unwrap();
                    if writer.reader_sleeps() {
                        theirs.ring();
                    }
                }
            });
            let (heard, served) = (bell.clone(), lane.clone());
            let answering = thread::spawn(move || {
                if heard.hush() {
                    served.activate();
                }
            });
            lane.receive(&mut reader, order);
            writing.join().unwrap();
            answering.join().unwrap();
            // The bell's task would go on.
            if bell.hush() {
                lane.activate();
            }
            assert!(lane.drain_active() || reader.is_empty(), "a record, and the lane is not on the list");
        });
    }

    #[test]
    fn holds() {
        model(Rest::InOrder);
    }

    #[test]
    #[should_panic = "not on the list"]
    fn fails_when_the_last_look_comes_before_the_flag() {
        model(Rest::LookFirst);
    }
}
