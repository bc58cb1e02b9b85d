//! Places come and go: giving slots out, forgetting them, filling a node's boot list again.

use std::sync::Arc;

use super::child::{Child, Life};
use super::event::{Action, CallId, Request};
use super::machine::{Timer, Tree};
use super::node::{Entry, Item};
use super::plan::{ChildPlan, child_path};
use crate::id::Slot;

impl Tree {
    /// Gives a slot to a child, and depth-first to all below it. `None`: there are no numbers left.
    ///
    /// Numbers are not reused, so what refers to a forgotten slot can never mean another one.
    pub(super) fn plant(
        &mut self,
        supervisor: Option<Slot>,
        order: u64,
        name: String,
        plan: Arc<ChildPlan>,
    ) -> Option<Slot> {
        let slot = Slot(self.next_slot);
        self.next_slot = self.next_slot.checked_add(1)?;
        let path = match supervisor.and_then(|node| self.children.get(&node)) {
            Some(Child { path, node: Some(node), .. }) => child_path(path, node.kind, &name),
            _ => name.clone(),
        };
        self.paths.insert(path.clone(), slot);
        if let Some(node) = supervisor.and_then(|node| self.node_mut(node)) {
            node.children.insert(order, slot);
            node.names.insert(name.clone(), slot);
            node.next_order = node.next_order.max(order + 1);
        }
        self.children.insert(slot, Child::new(slot, supervisor, order, name, path, plan));
        self.fill_boot_list(slot);
        Some(slot)
    }

    /// Gives slots to those of the boot list that have none (RULES 48: what was deleted is back).
    pub(super) fn fill_boot_list(&mut self, node: Slot) {
        let Some(boot) = self.node(node).map(|node| &node.boot) else { return };
        let missing: Vec<(usize, Arc<ChildPlan>)> = boot
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.slot.is_none())
            .map(|(at, entry)| (at, Arc::clone(&entry.plan)))
            .collect();
        for (at, plan) in missing {
            let slot = self.plant(Some(node), at as u64, plan.name.clone(), plan);
            let pool = self.node(node).is_some_and(|node| node.is_pool());
            if let Some(child) = slot.and_then(|slot| self.children.get_mut(&slot)) {
                child.entry = Some(at);
                child.index = if pool { u32::try_from(at).unwrap_or(u32::MAX) } else { 0 };
            }
            if let Some(entry) = self.node_mut(node).and_then(|node| node.boot.get_mut(at)) {
                entry.slot = slot;
            }
        }
        if let Some(node) = self.node_mut(node) {
            node.next_order = node.boot.len() as u64;
        }
    }

    /// Appends a child at run time (RULES 57): it comes after all others, and is gone with its node (RULES 48).
    pub(super) fn append(&mut self, node: Slot, name: String, plan: Arc<ChildPlan>) -> Option<Slot> {
        let order = self.node(node)?.next_order;
        self.plant(Some(node), order, name, plan)
    }

    /// Appends an entry to the boot list of a pool, and the member that fills it.
    pub(super) fn append_entry(&mut self, node: Slot, plan: ChildPlan) -> Option<Slot> {
        let entries = &mut self.node_mut(node)?.boot;
        entries.push(Entry { plan: Arc::new(plan), slot: None });
        let at = entries.len() - 1;
        self.fill_boot_list(node);
        self.node(node)?.boot.get(at)?.slot
    }

    /// Forgets a child that has no process, and all below it. Calls that waited for it are answered now: it is
    /// unknown.
    pub(super) fn forget(&mut self, slot: Slot) {
        let mut waiters = Vec::new();
        self.uproot(slot, &mut waiters);
        for (call, request) in waiters {
            self.on_call(call, request);
        }
    }

    fn uproot(&mut self, slot: Slot, waiters: &mut Vec<(CallId, Request)>) {
        let below = self.node(slot).map(|node| node.slots()).unwrap_or_default();
        for child in below.into_iter().rev() {
            self.uproot(child, waiters);
        }
        self.set_aside(slot, false);
        self.drop_reloads(slot);
        let Some(mut child) = self.children.remove(&slot) else { return };
        waiters.append(&mut child.waiters);
        self.timers.clear(slot, Timer::Life);
        self.paths.remove(&child.path);
        if let Some(node) = child.supervisor.and_then(|node| self.node_mut(node)) {
            node.children.remove(&child.order);
            node.names.remove(&child.name);
            if let Some(entry) = child.entry.and_then(|at| node.boot.get_mut(at)) {
                entry.slot = None;
            }
        }
        self.act(Action::Forget { slot });
    }

    /// Notes whether a call has this child started or stopped just now.
    pub(super) fn set_aside(&mut self, slot: Slot, aside: bool) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        if child.aside == aside {
            return;
        }
        child.aside = aside;
        let Some(node) = child.supervisor.and_then(|node| self.node_mut(node)) else { return };
        node.aside = if aside { node.aside + 1 } else { node.aside.saturating_sub(1) };
    }

    /// A start or a stop of this child has come to its end: those who waited for it have their turn, before
    /// anything that is queued from now on.
    pub(super) fn settle(&mut self, slot: Slot) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        for (call, request) in std::mem::take(&mut child.waiters) {
            self.on_call(call, request);
        }
        self.next_reload(slot);
    }

    /// Puts something at the end of the queue of the node that `slot` is a child of.
    pub(super) fn enqueue(&mut self, slot: Slot, item: Item) {
        let Some(supervisor) = self.supervisor(slot) else { return };
        if let Some(node) = self.node_mut(supervisor) {
            node.queue.push_back(item);
        }
        self.turn_later(supervisor);
    }

    pub(super) fn set_life(&mut self, slot: Slot, life: Life) {
        if let Some(child) = self.children.get_mut(&slot) {
            child.life = life;
        }
    }
}
