//! Where the workers live. The simulated world has no processes, and a clock that jumps.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rclust_core::tree::event::{Event, Time};
use rclust_core::{ExitReason, WorkerId};

use super::scenario::StopStyle;

/// How one incarnation's life begins.
#[derive(Clone, Debug)]
pub(crate) enum Birth {
    /// It becomes ready, and lives.
    Well,
    /// It becomes ready, and then ends at once with this reason.
    Doomed(ExitReason),
    /// It ends before it is ready, with this reason.
    Fails(ExitReason),
    /// It does neither until it is told to fail.
    Held,
}

/// What is beneath the tree: it does what the tree's actions say, and reports what comes of it.
///
/// Each call returns without waiting for the effect, except [`next`](World::next). Orders to a worker that is not
/// there are ignored.
pub(crate) trait World {
    /// The time since the world began.
    fn now(&self) -> Time;
    /// Starts a worker that takes a stop order in this way.
    fn start(&mut self, worker: WorkerId, stop: &StopStyle, birth: Birth);
    /// Asks a worker to stop.
    fn stop(&mut self, worker: WorkerId);
    /// Ends a worker.
    fn kill(&mut self, worker: WorkerId);
    /// Has a worker end by itself with this reason (a held one: fail to start).
    fn end(&mut self, worker: WorkerId, reason: ExitReason);
    /// Waits for what happens next, but not longer than `until`.
    ///
    /// `None`: nothing happened until then; without an `until`: nothing will happen.
    fn next(&mut self, until: Option<Time>) -> Option<Event>;
}

/// A world without processes.
#[derive(Debug, Default)]
pub(crate) struct Simulated {
    now: Time,
    living: HashMap<WorkerId, StopStyle>,
    /// By time, and by order of arrival for the same time.
    coming: BTreeMap<(Time, u64), Event>,
    arrivals: u64,
}

impl Simulated {
    fn schedule(&mut self, after: Duration, event: Event) {
        self.coming.insert((self.now + after, self.arrivals), event);
        self.arrivals += 1;
    }

    /// Plans the end of a worker; what happens first counts.
    fn ends(&mut self, worker: WorkerId, after: Duration, reason: ExitReason) {
        if self.living.contains_key(&worker) {
            self.schedule(after, Event::Exited { worker, reason });
        }
    }
}

impl World for Simulated {
    fn now(&self) -> Time {
        self.now
    }

    fn start(&mut self, worker: WorkerId, stop: &StopStyle, birth: Birth) {
        self.living.insert(worker, stop.clone());
        match birth {
            Birth::Well => self.schedule(Duration::ZERO, Event::Ready { worker }),
            Birth::Doomed(reason) => {
                self.schedule(Duration::ZERO, Event::Ready { worker });
                self.ends(worker, Duration::ZERO, reason);
            }
            Birth::Fails(reason) => self.ends(worker, Duration::ZERO, reason),
            Birth::Held => {}
        }
    }

    fn stop(&mut self, worker: WorkerId) {
        match self.living.get(&worker).cloned() {
            Some(StopStyle::Exit(reason)) => self.ends(worker, Duration::ZERO, reason),
            Some(StopStyle::Slow(after)) => self.ends(worker, after, ExitReason::Shutdown),
            Some(StopStyle::Ignore) | None => {}
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        self.ends(worker, Duration::ZERO, ExitReason::Signal { signal: 9, core: false });
    }

    fn end(&mut self, worker: WorkerId, reason: ExitReason) {
        self.ends(worker, Duration::ZERO, reason);
    }

    fn next(&mut self, until: Option<Time>) -> Option<Event> {
        while let Some(entry) = self.coming.first_entry() {
            let at = entry.key().0;
            if until.is_some_and(|until| at > until) {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(at);
            let lives = match &event {
                Event::Exited { worker, .. } => self.living.remove(worker).is_some(),
                Event::Ready { worker } => self.living.contains_key(worker),
                _ => true,
            };
            if lives {
                return Some(event);
            }
        }
        self.now = until.map_or(self.now, |until| self.now.max(until));
        None
    }
}
