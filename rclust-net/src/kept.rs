//! What a worker keeps beside its listeners: its binds so far, and how its connections stand, for its drain.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rclust_core::extension::Here;
use tokio::sync::Notify;

use crate::bind::Counter;
use crate::drain::{self, Drain, Look};
use crate::handoff::take::Reader;
use crate::load::Page;

/// No order to stop has come.
const SERVING: u8 = 0;
/// Nothing new comes, and traffic is noted.
const LAST_CALLS: u8 = 1;
/// What is still open is at its end.
const CUT: u8 = 2;
/// No order to stop has come, and traffic is of interest: this worker's memory is watched.
const WATCHED: u8 = 3;

/// See the module. One for each worker.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) binds: Mutex<Counter>,
    phase: AtomicU8,
    /// The worker, if its memory is watched.
    watched: OnceLock<Here>,
    /// Connections that count for this worker, of all its listeners, and those that it adopted.
    open: AtomicU64,
    /// When the drain began.
    began: OnceLock<Instant>,
    /// When one of them last had traffic, in nanoseconds since then.
    last: AtomicU64,
    /// The longest quiet window that a listener asked for, in nanoseconds; 0: none has asked.
    quiet: AtomicU64,
    held: AtomicBool,
    /// While it drains: none is open any more.
    ended: Notify,
    /// The drain has begun.
    pub(crate) draining: Notify,
    /// Connections are cut: each that waits for its client waits for this too.
    pub(crate) cut: Arc<Notify>,
    /// How many it has adopted, and where the supervisor sees that.
    adopted: Mutex<Adopted>,
    /// Who reads which queue: two who looked at the same packet would both hand it out.
    readers: Mutex<Vec<Weak<Reader>>>,
}

#[derive(Debug, Default)]
struct Adopted {
    count: u64,
    page: Option<Arc<Page>>,
}

impl Kept {
    /// What this worker keeps. From the first call on its close waits for its connections.
    pub(crate) fn of(here: &Here) -> Arc<Kept> {
        let kept = here.kept::<Kept>();
        if !kept.held.swap(true, Ordering::AcqRel) {
            if here.watches_memory() {
                let _ = kept.watched.set(here.clone());
                kept.watch();
            }
            let own = kept.clone();
            here.before_close(move |deadline, close| own.drain(deadline, close));
        }
        kept
    }

    /// A listener wants so long a quiet window.
    pub(crate) fn wants_quiet(&self, window: Duration) {
        self.quiet.fetch_max(nanos(window).max(1), Ordering::Relaxed);
    }

    /// The slot's page has come, with a listener.
    pub(crate) fn has_page(&self, here: &Here, page: &Arc<Page>) {
        let mut adopted = self.adopted();
        if adopted.page.is_none() {
            adopted.page = Some(page.clone());
            adopted.tell(here);
        }
    }

    /// Who reads this queue of the worker's.
    pub(crate) fn reader(&self, queue: &Arc<OwnedFd>, page: &Arc<Page>, listener: u32) -> Arc<Reader> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        if let Some(known) = readers.iter().filter_map(Weak::upgrade).find(|reader| reader.reads(queue)) {
            return known;
        }
        let reader = Arc::new(Reader::new(queue.clone(), Some((page.clone(), listener))));
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// A connection may be taken in this moment: until it counts, this does, so that a close that begins meanwhile does not overlook it.
    /// `None`: nothing is taken any more.
    pub(crate) fn taking(self: &Arc<Self>) -> Option<Taking> {
        self.opened();
        let taking = Taking(self.clone());
        // Either the drain sees that we count, or we see that it has begun.
        (!self.is_draining()).then_some(taking)
    }

    /// A connection counts for this worker.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// It does so no more.
    pub(crate) fn closed(&self) {
        // Either the drain sees that none is open, or we see that it waits.
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_draining() {
            self.ended.notify_one();
        }
    }

    /// The same for one that is no listener's of the supervisor.
    pub(crate) fn adopt(&self, here: &Here) {
        self.opened();
        let mut adopted = self.adopted();
        adopted.count += 1;
        adopted.tell(here);
    }

    /// It ended, or was moved on.
    pub(crate) fn give_up(&self, here: &Here) {
        let mut adopted = self.adopted();
        adopted.count -= 1;
        adopted.tell(here);
        drop(adopted);
        self.closed();
    }

    fn adopted(&self) -> std::sync::MutexGuard<'_, Adopted> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next traffic is of interest, unless a drain has begun.
    fn watch(&self) {
        let _ = self.phase.compare_exchange(SERVING, WATCHED, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// A connection had traffic. One load, unless the worker drains or its memory is watched.
    #[inline]
    pub(crate) fn traffic(&self) {
        if self.phase.load(Ordering::Relaxed) != SERVING {
            self.note_traffic();
        }
    }

    #[cold]
    fn note_traffic(&self) {
        if let (WATCHED, Some(here)) = (self.phase.load(Ordering::Relaxed), self.watched.get()) {
            // One of the traffics of a second is enough, and of those before it is `active` that keeps count.
            here.active();
            return;
        }
        if let Some(began) = self.began.get() {
            self.last.store(nanos(began.elapsed()), Ordering::Relaxed);
        }
    }

    /// Whether the worker takes no connection any more.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.phase.load(Ordering::SeqCst), LAST_CALLS | CUT)
    }

    /// Whether its connections are cut.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == CUT
    }

    /// Begins last calls; what comes of it lasts to the close, and where there is no deadline, to the cut.
    /// The drop of `close` is the close.
    fn drain<C: Send>(self: Arc<Self>, deadline: Option<Duration>, close: C) -> impl Future<Output = ()> + Send {
        let quiet = match self.quiet.load(Ordering::Relaxed) {
            0 => drain::QUIET,
            nanos => Duration::from_nanos(nanos),
        };
        let drain = Drain::new(Instant::now(), quiet, deadline);
        // There is one order.
        let _ = self.began.set(drain.began());
        self.phase.store(LAST_CALLS, Ordering::SeqCst);
        self.draining.notify_waiters();
        async move {
            loop {
                let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
                match drain.look(Instant::now(), self.open.load(Ordering::SeqCst), last) {
                    Look::Close => break,
                    Look::Until(at) => self.wait(at).await,
                }
            }
            drop(close);
            let Some(at) = drain.cut() else { return };
            while Instant::now() < at {
                self.wait(at).await;
            }
            self.phase.store(CUT, Ordering::SeqCst);
            self.cut.notify_waiters();
        }
    }

    /// Until then, or until none is open.
    async fn wait(&self, at: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = self.ended.notified() => {}
        }
    }
}

/// See [`Kept::taking`].
#[derive(Debug)]
pub(crate) struct Taking(Arc<Kept>);

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.closed();
    }
}

impl Adopted {
    fn tell(&self, here: &Here) {
        let Some(page) = &self.page else { return };
        // The page is the slot's: after this worker's death its successor counts.
        if here.while_alive(|| page.adopted(self.count)) == Some(true) {
            here.room();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(600));

    /// Polls a drain once; whether it has closed.
    async fn has_closed(drain: std::pin::Pin<&mut impl Future<Output = ()>>, close: &Arc<()>) -> bool {
        tokio::select! {
            biased;
            () = drain => {}
            () = std::future::ready(()) => {}
        }
        Arc::strong_count(close) == 1
    }

    #[tokio::test]
    async fn a_connection_that_is_being_taken_when_the_drain_begins_is_waited_for() {
        let (kept, close) = (Arc::new(Kept::default()), Arc::new(()));
        let taking = kept.taking().expect("it does not drain");
        let mut drain = Box::pin(kept.clone().drain(LONG, close.clone()));
        assert!(!has_closed(drain.as_mut(), &close).await);
        // Nothing comes after it.
        assert!(kept.taking().is_none());
        assert!(!has_closed(drain.as_mut(), &close).await);
        kept.opened();
        drop(taking);
        assert!(!has_closed(drain.as_mut(), &close).await);
        kept.closed();
        assert!(has_closed(drain.as_mut(), &close).await);
    }

    #[tokio::test]
    async fn where_nothing_was_found_there_is_nothing_to_wait_for() {
        let (kept, close) = (Arc::new(Kept::default()), Arc::new(()));
        drop(kept.taking());
        let mut drain = Box::pin(kept.clone().drain(LONG, close.clone()));
        assert!(kept.is_draining() && has_closed(drain.as_mut(), &close).await);
    }
}
