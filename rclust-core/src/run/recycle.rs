//! Workers that have reached a limit are replaced, one at a time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::background;
use crate::id::WorkerId;
use crate::recycle::Worn;
use crate::run::shared::Command;
use crate::run::supervise::Supervise;
use crate::supervisor_ref;
use crate::trace::Story;
use crate::tree::event::{Answer, Refusal, Request};

/// A worker that is worn sooner after it became ready waits until then: one that lies does not have processes made all the time.
const SOONEST: Duration = Duration::from_secs(1);

/// After this long a worker whose replacement has failed has its turn again.
const RETRY: Duration = Duration::from_secs(30);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Recycling {
    queue: VecDeque<WorkerId>,
    now: Option<WorkerId>,
}

impl Recycling {
    /// Whether a replacement of this worker's slot is no deploy: it runs what its restarts would run.
    pub(crate) fn is(&self, current: WorkerId) -> bool {
        self.now == Some(current)
    }
}

impl Supervise {
    /// A worker is ready: it has so long.
    pub(crate) fn ages(&self, worker: WorkerId) {
        let Some(age) = self.live.get(&worker).and_then(|live| live.age) else { return };
        let shared = self.shared.clone();
        background::spawn(async move {
            tokio::time::sleep(age).await;
            shared.command(Command::Worn { worker, what: Worn::Age });
        });
    }

    /// A worker has reached a limit.
    pub(crate) fn worn(&mut self, worker: WorkerId, what: Worn) {
        let Some(live) = self.live.get_mut(&worker) else { return };
        if !live.recycles {
            return self.distrust(worker, "it says that it is worn, and is not watched".to_owned());
        }
        let Some(ready_at) = live.ready_at else { return };
        if std::mem::replace(&mut live.worn, true) {
            return;
        }
        let name = live.name.clone();
        self.story(Story::Worn { worker, name, text: what.to_string() });
        let wait = SOONEST.saturating_sub(ready_at.elapsed());
        let shared = self.shared.clone();
        background::spawn(async move {
            tokio::time::sleep(wait).await;
            shared.command(Command::Recycle { worker });
        });
    }

    /// It has its turn, after those before it.
    pub(crate) fn recycle(&mut self, worker: WorkerId) {
        self.recycling.queue.push_back(worker);
        self.recycle_next();
    }

    pub(crate) fn recycle_next(&mut self) {
        while self.recycling.now.is_none() && !self.stopping && !self.reloads.deploys() {
            let Some(worker) = self.recycling.queue.pop_front() else { return };
            // It may have been replaced or have died meanwhile.
            if self.current(worker.slot) != Some(worker) {
                continue;
            }
            self.recycling.now = Some(worker);
            let (answer, told) = oneshot::channel();
            let shared = self.shared.clone();
            background::spawn(async move {
                let answer = told.await.ok();
                shared.command(Command::Recycled { worker, answer });
            });
            self.manage(Request::Reload { slot: worker.slot, surge: 1 }, Vec::new(), answer);
        }
    }

    /// What became of a worker's replacement.
    pub(crate) fn recycled(&mut self, worker: WorkerId, answer: Option<Answer>) {
        self.recycling.now = None;
        if let (Some(Answer::Refused(refusal)), Some(live)) = (answer, self.live.get(&worker)) {
            let name = live.name.clone();
            if refusal != Refusal::Stopping {
                let text = format!("it is not replaced yet: {}", supervisor_ref::words(&refusal));
                self.story(Story::Worn { worker, name, text });
                let shared = self.shared.clone();
                background::spawn(async move {
                    tokio::time::sleep(RETRY).await;
                    shared.command(Command::Recycle { worker });
                });
            }
        }
        self.recycle_next();
    }
}
