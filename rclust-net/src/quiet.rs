//! The end: a worker's, and the tree's. Nobody is told to stop while connections that it took have not begun.

use rclust_core::WorkerId;
use tokio::sync::oneshot;

use crate::house::{House, Intake};

impl House {
    /// Whether the tree is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The tree stops.
    pub(crate) fn be_quiet(&mut self, told: oneshot::Sender<()>) {
        self.quiet = Some(told);
        self.stopping = true;
        self.hurry.notify_waiters();
        self.wake_all();
        self.tell_if_quiet();
    }

    /// A worker is about to be told to stop.
    pub(crate) fn draining(&mut self, worker: WorkerId, quiet: oneshot::Sender<()>) {
        self.draining.push((worker, quiet));
        self.tell_drained();
    }

    pub(crate) fn gone(&mut self, worker: WorkerId) {
        self.draining.retain(|(draining, _)| *draining != worker);
        self.process_gone(worker);
    }

    /// Answers for the draining workers that have read from everything they took.
    pub(crate) fn tell_drained(&mut self) {
        let waiting = std::mem::take(&mut self.draining);
        for (worker, quiet) in waiting {
            if let Some(slot) = self.slots.get(&worker.slot.0) {
                slot.retired_as(worker).map_or(&slot.page, |retired| &retired.page).want();
            }
            if self.has_unread(worker) {
                self.draining.push((worker, quiet));
            } else {
                // The tree may have lost its patience.
                let _ = quiet.send(());
            }
        }
    }

    fn has_unread(&self, worker: WorkerId) -> bool {
        let Some(slot) = self.slots.get(&worker.slot.0) else { return false };
        if let Some(retired) = slot.retired_as(worker) {
            return retired.has_unread();
        }
        if slot.current != worker {
            return false;
        }
        self.listeners.iter().any(|(number, bound)| {
            let lane = bound.lanes.get(&worker.slot.0);
            lane.is_some_and(|lane| lane.load(slot.page.read(*number)).unread > 0)
        })
    }

    /// While stopping: whether every connection that was accepted is in a program's hands.
    pub(crate) fn tell_if_quiet(&mut self) {
        if self.quiet.is_none() {
            return;
        }
        self.want_all();
        let untaken = self.listeners.iter().any(|(number, bound)| {
            !bound.drained
                || !bound.held.is_empty()
                || bound.peeking > 0
                || matches!(&bound.intake, Intake::Kernel(kernel) if !kernel.is_quiet())
                || bound.lanes.iter().any(|(slot, lane)| {
                    let state = self.slots.get(slot).filter(|state| state.ready);
                    state.is_some_and(|state| lane.load(state.page.read(*number)).untaken > 0)
                })
        });
        if !untaken {
            if let Some(told) = self.quiet.take() {
                // The tree may have lost its patience.
                let _ = told.send(());
            }
        }
    }
}
