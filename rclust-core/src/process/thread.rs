//! A worker that is a thread of this process (in-process mode): how it is told to end, and how its end is told.
//!
//! A thread cannot be killed. A kill fences it off instead: what it shares with others is taken away from it, and it is
//! reported as killed when it has returned, or a little later if it does not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::process::watch::Status;

/// How long a thread that was killed has to return before it is abandoned.
const PATIENCE: Duration = Duration::from_millis(200);

/// What takes something away from a thread.
type Fence = Box<dyn FnOnce() + Send>;

/// One thread that plays a worker.
pub(crate) struct Thread {
    progress: watch::Sender<Progress>,
    /// Put up when it ends, in this order. `None`: it has ended.
    fences: Mutex<Option<Vec<Fence>>>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// How it ended: the first word counts, as with a process.
    status: Option<Status>,
    /// It has returned.
    returned: bool,
}

impl Thread {
    /// Runs `play` on a thread of its own; what it returns is how the worker ended.
    pub(crate) fn start(
        name: String,
        play: impl FnOnce(&Arc<Thread>) -> Status + Send + 'static,
    ) -> io::Result<Arc<Thread>> {
        struct Returned(Arc<Thread>);
        impl Drop for Returned {
            fn drop(&mut self) {
                // It panicked in code of ours, or has ended already.
                self.0.end(Status::Unknown);
                self.0.progress.send_modify(|progress| progress.returned = true);
            }
        }
        let thread = Arc::new(Thread { progress: watch::Sender::default(), fences: Mutex::new(Some(Vec::new())) });
        let own = Returned(thread.clone());
        std::thread::Builder::new().name(name).spawn(move || {
            let status = play(&own.0);
            own.0.end(status);
        })?;
        Ok(thread)
    }

    /// Has `fence` put up when the worker ends; at once, if it has ended.
    pub(crate) fn at_end(&self, fence: impl FnOnce() + Send + 'static) {
        let mut fences = self.fences.lock();
        match &mut *fences {
            Some(fences) => fences.push(Box::new(fence)),
            None => {
                drop(fences);
                fence();
            }
        }
    }

    /// The worker has ended like this, whatever its thread still does. When this returns, it takes part in nothing any more.
    pub(crate) fn end(&self, status: Status) {
        // Held: who comes second must find the fences up too.
        let mut fences = self.fences.lock();
        for fence in fences.take().into_iter().flatten() {
            fence();
        }
        self.progress.send_modify(|progress| progress.status = progress.status.or(Some(status)));
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Status {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`.
        let status = progress.wait_for(|progress| progress.status.is_some()).await.ok().and_then(|now| now.status);
        let _ = tokio::time::timeout(PATIENCE, progress.wait_for(|progress| progress.returned)).await;
        status.unwrap_or(Status::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn the_first_word_counts_and_fences_are_up_when_it_is_told() {
        let (go, gone) = mpsc::channel::<()>();
        let (up, fenced) = mpsc::channel();
        let thread = Thread::start("test".to_owned(), move |own| {
            own.at_end(move || up.send("first").unwrap());
            // Blocked until the test lets it go, which is after it was abandoned.
            let _ = gone.recv();
            Status::Code(0)
        })
        .unwrap();
        let killed = Status::Signal { signal: 9, core: false };
        // The fence may be asked for before or after the kill: it is put up either way.
        thread.end(killed);
        assert_eq!(fenced.recv().unwrap(), "first");
        assert_eq!(thread.ended().await, killed);
        go.send(()).unwrap();
        assert_eq!(thread.ended().await, killed);
    }

    #[tokio::test]
    async fn a_thread_that_returns_or_panics_has_ended() {
        let returned = Thread::start("test".to_owned(), |_| Status::Code(3)).unwrap();
        assert_eq!(returned.ended().await, Status::Code(3));
        let panicked = Thread::start("test".to_owned(), |_| panic!("a bug of ours")).unwrap();
        assert_eq!(panicked.ended().await, Status::Unknown);
    }
}
