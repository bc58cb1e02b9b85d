//! Reload: for a while two incarnations of a slot live. The new one has queues and a page of its own, so that what each of them has
//! taken is known; when it takes the old one's place, what waits in the old queues is dispatched anew.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rclust_core::WorkerId;

use crate::house::{Bound, House, Intake, Lane, Slot};
use crate::load::{Load, Page};

/// An incarnation that is being started, while another is current.
pub(crate) struct Next {
    pub(crate) worker: WorkerId,
    pub(crate) page: Page,
    pub(crate) memory: Arc<OwnedFd>,
    pub(crate) most: u64,
    /// Its queue at each listener that it has bound.
    pub(crate) lanes: BTreeMap<u32, Lane>,
}

/// An incarnation that was replaced and has connections yet.
pub(crate) struct Retired {
    worker: WorkerId,
    pub(crate) page: Page,
    lanes: BTreeMap<u32, Lane>,
}

impl Next {
    pub(crate) fn new(worker: WorkerId) -> io::Result<Next> {
        let (page, memory) = Page::create()?;
        Ok(Next { worker, page, memory, most: u64::MAX, lanes: BTreeMap::new() })
    }
}

impl Retired {
    /// How its connections of a listener stand.
    pub(crate) fn load(&self, listener: u32) -> Option<Load> {
        self.lanes.get(&listener).map(|lane| lane.load(self.page.read(listener)))
    }

    /// Whether it has connections that it has not read from.
    pub(crate) fn has_unread(&self) -> bool {
        self.lanes.iter().any(|(number, lane)| lane.load(self.page.read(*number)).unread > 0)
    }
}

impl Slot {
    /// The incarnation that was replaced, if it is this one.
    pub(crate) fn retired_as(&self, worker: WorkerId) -> Option<&Retired> {
        self.retired.as_ref().filter(|retired| retired.worker == worker)
    }

    /// The incarnation that is being started, if it is this one.
    pub(crate) fn next_as(&mut self, worker: WorkerId) -> Option<&mut Next> {
        self.next.as_mut().filter(|next| next.worker == worker)
    }
}

impl House {
    /// An incarnation is started while another is current.
    pub(crate) fn succeeds(&mut self, worker: WorkerId) {
        let Some(slot) = self.slots.get_mut(&worker.slot.0) else { return };
        match Next::new(worker) {
            Ok(next) => slot.next = Some(next),
            // Its binds are refused, with a reason of their own.
            Err(error) => {
                let text = format!("slot {} has none: {error}", worker.slot.0);
                self.supervisor.troubled("load page".to_owned(), text);
            }
        }
    }

    /// An incarnation has taken another's place, and is ready.
    pub(crate) fn replaced(&mut self, old: WorkerId, by: WorkerId) {
        if self.is_current(old) {
            self.promote(by, true);
        }
    }

    /// The incarnation that was being started is current.
    fn promote(&mut self, worker: WorkerId, alive: bool) {
        let number = worker.slot.0;
        let Some(slot) = self.slots.get_mut(&number) else { return };
        if slot.next_as(worker).is_none() {
            return;
        }
        let Some(mut next) = slot.next.take() else { return };
        let old_page = std::mem::replace(&mut slot.page, next.page);
        let old = std::mem::replace(&mut slot.current, worker);
        (slot.memory, slot.most, slot.ready, slot.alive) = (next.memory, next.most, alive, true);
        let mut retired = Retired { worker: old, page: old_page, lanes: BTreeMap::new() };
        let mut dropped = Vec::new();
        for (listener, bound) in &mut self.listeners {
            let before = bound.lanes.remove(&number).map(|mut lane| {
                bound.hold(lane.read_back(&retired.page, *listener, alive));
                lane.keep_taken(&retired.page, *listener);
                lane
            });
            match (next.lanes.remove(listener), &before) {
                (Some(mut lane), before) => {
                    lane.total = before.as_ref().map_or(0, |before| before.total);
                    bound.lanes.insert(number, lane);
                }
                (None, Some(before)) => {
                    // The new one does not listen there.
                    bound.handed_before += before.total;
                    dropped.push(*listener);
                }
                (None, None) => {}
            }
            retired.lanes.extend(before.map(|lane| (*listener, lane)));
        }
        if let Some(slot) = self.slots.get_mut(&number).filter(|_| alive) {
            slot.retired = Some(retired);
        }
        for listener in dropped {
            self.left(number, listener);
        }
        self.tell_ready(number, alive);
    }

    /// A slot has a listener no more, which closes if nobody has it.
    pub(crate) fn left(&mut self, slot: u32, listener: u32) {
        if let Some(bound) = self.listeners.get_mut(&listener) {
            bound.leave(slot, &self.slots);
        }
        self.remove_unbound(listener);
    }

    /// An incarnation that is being started has dropped a listener, of which it was given no connection yet.
    pub(crate) fn next_closes(&mut self, worker: WorkerId, listener: u32) {
        let Some(next) = self.slots.get_mut(&worker.slot.0).and_then(|slot| slot.next_as(worker)) else { return };
        if next.lanes.get_mut(&listener).is_some_and(Lane::dropped_one) {
            next.lanes.remove(&listener);
            self.remove_unbound(listener);
        }
    }

    /// Closes a listener that nobody has any more.
    pub(crate) fn remove_unbound(&mut self, listener: u32) {
        let is_unbound = |bound: &Bound| bound.lanes.is_empty();
        let awaited = |slot: &Slot| slot.next.as_ref().is_some_and(|next| next.lanes.contains_key(&listener));
        if self.listeners.get(&listener).is_some_and(is_unbound) && !self.slots.values().any(awaited) {
            self.remove(listener);
        }
    }

    /// The kernel's own dispatch hears whether a slot takes connections.
    pub(crate) fn tell_ready(&mut self, number: u32, ready: bool) {
        for bound in self.listeners.values_mut() {
            if let (Intake::Kernel(kernel), true) = (&mut bound.intake, bound.lanes.contains_key(&number)) {
                kernel.set_ready(number, ready, Instant::now());
                kernel.steer(|slot| self.slots.get(&slot).is_some_and(|state| state.ready));
            }
        }
        self.wake_all();
    }

    /// A process is gone: one that was being started, one that was replaced, or the current one, whose place is then for the one
    /// that is being started.
    pub(crate) fn process_gone(&mut self, worker: WorkerId) {
        let Some(slot) = self.slots.get_mut(&worker.slot.0) else { return };
        if slot.next_as(worker).is_some() {
            let next = slot.next.take();
            for listener in next.into_iter().flat_map(|next| next.lanes.into_keys()) {
                self.remove_unbound(listener);
            }
        } else if slot.retired_as(worker).is_some() {
            slot.retired = None;
        } else if slot.current == worker {
            slot.alive = false;
            if let Some(next) = slot.next.as_ref().map(|next| next.worker) {
                self.promote(next, false);
            }
        }
    }

    /// How a replaced incarnation's connections of a listener stand, in all slots.
    pub(crate) fn still_open(&self, listener: u32) -> u64 {
        let retired = self.slots.values().filter_map(|slot| slot.retired.as_ref()?.load(listener));
        retired.map(|load| load.open).fold(0, u64::saturating_add)
    }
}
