//! The memory of a ring as loom sees it, for `mailbox/ring/models.rs`: the same methods as `memory::Mapping` has.
//!
//! Header words are loom's atomics. Every word of data is a cell that loom watches: a read that no Release/Acquire pair
//! separates from a write of the other side fails the model, in either direction, whatever the value is. On x86_64 such
//! a race would never be seen.
//!
//! [`Without`] takes one ordering or one fence out of the code under test, so that a model can show that it would notice.
//!
//! What loom does not do (0.7):
//! - It lets a SeqCst fence synchronise with every earlier one; the standard orders them, and no more. So a missing Release or
//!   Acquire is looked for in models that have no fence.
//! - It lets an exchange overwrite a store that another thread made later, which would undo that store: false alarms. So a store
//!   to a word that both sides write is an exchange here, whose order with the others is the order of execution.
//! - No load returns what a later store writes. Of a race in the data this hides nothing: that is found by who knew of whom.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;

use crate::sys::shared::Ordering;

/// What is taken out of the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// Nothing: the model has to hold.
    Nothing,
    /// The fence of this method.
    Fence(&'static str),
    /// The ordering of the stores to this header word.
    Release(usize),
    /// The ordering of the loads from this header word.
    Acquire(usize),
}

loom::thread_local! {
    static NO_FENCE: Cell<bool> = Cell::new(false);
    static STEPS: Cell<Option<usize>> = Cell::new(None);
}

/// `std`'s fence, unless [`Without::call`] takes it out.
pub(crate) fn fence(order: Ordering) {
    if !NO_FENCE.with(Cell::get) {
        loom::sync::atomic::fence(order);
    }
}

impl Without {
    /// Calls a method of the ring, without its fence if that is what is taken out.
    pub(crate) fn call<R>(self, method: &'static str, call: impl FnOnce() -> R) -> R {
        NO_FENCE.with(|flag| flag.set(self == Without::Fence(method)));
        let result = call();
        NO_FENCE.with(|flag| flag.set(false));
        result
    }

    fn release(self, at: usize, order: Ordering) -> Ordering {
        if self == Without::Release(at) { Ordering::Relaxed } else { order }
    }

    fn acquire(self, at: usize, order: Ordering) -> Ordering {
        if self == Without::Acquire(at) { Ordering::Relaxed } else { order }
    }
}

/// How a process ends that is killed between two accesses to the memory.
struct Killed;

/// Runs `life` for so many accesses of this thread to the memory. `None`: it was killed after them.
pub(crate) fn live<R>(accesses: usize, life: impl FnOnce() -> R) -> Option<R> {
    STEPS.with(|steps| steps.set(Some(accesses)));
    let end = catch_unwind(AssertUnwindSafe(life));
    STEPS.with(|steps| steps.set(None));
    match end {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

fn step() {
    STEPS.with(|steps| match steps.get() {
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(left) => steps.set(Some(left - 1)),
        None => {}
    });
}

/// Who reads and writes a word of data. The bytes are elsewhere, so that no pointer is needed.
#[derive(Debug)]
struct Access(UnsafeCell<()>);

// SAFETY: there is nothing inside to share; loom's record of accesses is its own, and it runs one thread at a time.
unsafe impl Sync for Access {}

#[derive(Debug)]
struct Word {
    value: AtomicU64,
    /// Both sides write it, so that a store has to come before or after every exchange.
    both: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mapping {
    words: BTreeMap<usize, Word>,
    data: Range<usize>,
    access: Vec<Access>,
    bytes: Mutex<Vec<u8>>,
    without: Without,
}

impl Mapping {
    /// Memory, all zero: header words that one side alone writes, those that both sides write, and data.
    pub(crate) fn model(one: &[usize], both: &[usize], data: Range<usize>, without: Without) -> Mapping {
        assert!(data.start % 8 == 0 && data.len() % 8 == 0, "data is whole words");
        Mapping {
            words: one
                .iter()
                .map(|at| (*at, false))
                .chain(both.iter().map(|at| (*at, true)))
                .map(|(at, both)| (at, Word { value: AtomicU64::new(0), both }))
                .collect(),
            access: (0..data.len() / 8).map(|_| Access(UnsafeCell::new(()))).collect(),
            bytes: Mutex::new(vec![0; data.len()]),
            data,
            without,
        }
    }

    /// Lanes map descriptors; there are no lanes in models.
    pub(crate) fn new(_: Arc<OwnedFd>, _: usize) -> std::io::Result<Mapping> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn word(&self, at: usize) -> &Word {
        self.words.get(&at).unwrap_or_else(|| panic!("the model was told of no header word at {at}"))
    }

    /// Loads a word; of the data, it is an ordinary read.
    pub(crate) fn load(&self, at: usize, order: Ordering) -> u64 {
        if self.data.contains(&at) {
            let mut bytes = Vec::new();
            self.read(at, 8, &mut bytes);
            return bytes.try_into().map(u64::from_ne_bytes).expect("eight bytes were read");
        }
        step();
        self.word(at).value.load(self.without.acquire(at, order))
    }

    pub(crate) fn store(&self, at: usize, value: u64, order: Ordering) {
        step();
        let (word, order) = (self.word(at), self.without.release(at, order));
        if word.both {
            word.value.swap(value, order);
        } else {
            word.value.store(value, order);
        }
    }

    pub(crate) fn swap(&self, at: usize, value: u64, order: Ordering) -> u64 {
        step();
        self.word(at).value.swap(value, order)
    }

    /// Words `at..at + len` touches, as offsets into the bytes; the process may be killed before each.
    fn pieces(&self, at: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
        assert!(
            at >= self.data.start && at + len <= self.data.end && at % 8 == 0,
            "an access inside the data, by words"
        );
        let from = at - self.data.start;
        (from..from + len).step_by(8).map(move |start| {
            step();
            start..(start + 8).min(from + len)
        })
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in self.pieces(at, bytes.len()) {
            let (now, later) = rest.split_at(piece.len());
            rest = later;
            self.access[piece.start / 8].0.with_mut(|_| ());
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner)[piece].copy_from_slice(now);
        }
    }

    pub(crate) fn read(&self, at: usize, len: usize, into: &mut Vec<u8>) {
        for piece in self.pieces(at, len) {
            self.access[piece.start / 8].0.with(|_| ());
            into.extend_from_slice(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)[piece]);
        }
    }

    /// The pages read as zero afterwards: a write like any other.
    pub(crate) fn release(&self, at: usize, len: usize) -> std::io::Result<()> {
        self.write(at, &vec![0; len]);
        Ok(())
    }
}
