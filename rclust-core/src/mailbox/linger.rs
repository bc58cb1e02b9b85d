//! Looking a little longer before going to sleep.
//!
//! To sleep and be woken costs some six system calls between two processes, and on another core of a virtual machine 60 us. What
//! comes within some microseconds is cheaper to wait for awake, as locks do it: a record for at most [`LIMIT`], with the processor
//! offered to whoever else wants it (on one core that is the process that is waited for), an answer for at most [`ANSWER`]. It
//! is tried where it was worth it lately, and now and then elsewhere.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a reader looks, holding its thread, unless the processor is given to somebody else meanwhile.
const LIMIT: Duration = Duration::from_micros(10);

/// How long an asker looks, while other tasks of its thread have their turn: longer than it takes to wake who is asked, so that
/// both are awake from then on.
const ANSWER: Duration = Duration::from_micros(100);

/// How long it holds its thread for that at a time.
const MOMENT: Duration = Duration::from_micros(5);

/// Pauses between two looks: every look takes the cache line from the process that writes there.
const PAUSES: u32 = 24;

/// After so many vain tries in a row, it is tried rarely.
const PATIENCE: u32 = 4;

/// That rarely: once in so many chances.
const RARELY: u32 = 64;

/// Whether it was worth it lately.
#[derive(Debug, Default)]
pub(crate) struct Luck {
    /// Vain tries in a row, and then chances that were let pass.
    vain: AtomicU32,
}

impl Luck {
    /// Whether it is worth a try.
    fn is_good(&self) -> bool {
        let vain = self.vain.load(Ordering::Relaxed);
        if vain < PATIENCE {
            return true;
        }
        // Threads that count at the same time only make it more or less rare.
        self.vain.store(if vain >= PATIENCE + RARELY { PATIENCE - 1 } else { vain + 1 }, Ordering::Relaxed);
        false
    }

    fn learn(&self, found: bool) {
        let vain = if found { 0 } else { self.vain.load(Ordering::Relaxed).saturating_add(1) };
        self.vain.store(vain, Ordering::Relaxed);
    }

    /// Looks until `found` says yes, for a bounded time; or not at all, where that has been in vain.
    pub(crate) fn linger(&self, mut found: impl FnMut() -> bool) -> bool {
        if !self.is_good() {
            return false;
        }
        let begun = Instant::now();
        let found = loop {
            // On one core this runs the process that is waited for.
            std::thread::yield_now();
            if found() {
                break true;
            }
            if begun.elapsed() >= LIMIT {
                break false;
            }
            pause();
        };
        self.learn(found);
        found
    }

    /// Looks again and again for an answer; in between, other tasks of this thread and other processes have their turn.
    ///
    /// # Cancel safety
    /// Dropped before completion, it was in vain.
    pub(crate) async fn linger_for_answer(&self, mut look: impl FnMut() -> bool) -> bool {
        if !self.is_good() {
            return false;
        }
        let begun = Instant::now();
        let found = loop {
            if look() {
                break true;
            }
            if begun.elapsed() >= ANSWER {
                break false;
            }
            tokio::task::yield_now().await;
        };
        self.learn(found);
        found
    }
}

/// Looks for a moment, holding its thread.
pub(crate) fn look(mut found: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    // On one core this runs the process that is waited for.
    std::thread::yield_now();
    loop {
        if found() {
            return true;
        }
        if begun.elapsed() >= MOMENT {
            return false;
        }
        pause();
    }
}

fn pause() {
    for _ in 0..PAUSES {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_is_tried_rarely_and_what_succeeds_always() {
        let luck = Luck::default();
        let mut tries = 0;
        for _ in 0..1000 {
            let mut tried = false;
            luck.linger(|| {
                tried = true;
                false
            });
            tries += u32::from(tried);
        }
        assert!((10..=30).contains(&tries), "{tries} tries in 1000 vain chances");
        while !luck.linger(|| true) {}
        let mut looks = 0;
        assert!((0..1000).all(|_| luck.linger(|| {
            looks += 1;
            true
        })));
        assert_eq!(looks, 1000);
    }
}
