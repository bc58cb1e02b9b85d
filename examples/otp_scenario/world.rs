//! Where the workers live. The simulated world has no processes, and a clock that jumps; `processes` has a real one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rclust_core::tree::event::{Event, Time};
use rclust_core::{ExitReason, WorkerId};
use serde::{Deserialize, Serialize};

use super::scenario::StopStyle;

/// How one incarnation's life begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub(super) now: Time,
    pub(super) living: HashMap<WorkerId, StopStyle>,
    /// By time, and by order of arrival for the same time.
    pub(super) coming: BTreeMap<(Time, u64), Event>,
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

    /// What comes next, and when.
    pub(super) fn due(&mut self) -> Option<(Time, Event)> {
        while let Some((&(at, _), event)) = self.coming.first_key_value() {
            let lives = match event {
                Event::Exited { worker, .. } | Event::Ready { worker } => self.living.contains_key(worker),
                _ => true,
            };
            if lives {
                return Some((at, event.clone()));
            }
            self.coming.pop_first();
        }
        None
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
        if let Some((at, event)) = self.due().filter(|(at, _)| until.is_none_or(|until| *at <= until)) {
            self.coming.pop_first();
            self.now = self.now.max(at);
            if let Event::Exited { worker, .. } = &event {
                self.living.remove(worker);
            }
            return Some(event);
        }
        self.now = until.map_or(self.now, |until| self.now.max(until));
        None
    }
}
