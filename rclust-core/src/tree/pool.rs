//! Make a pool larger or smaller.
//!
//! A grown pool keeps its size when its node is restarted: the size is a setting, not a child added by hand.

use super::child::{Life, StartWhy, StopWhy};
use super::event::{Action, Answer, CallId, Ending, Refusal};
use super::machine::{Timer, Tree};
use super::node::Phase;
use super::plan::{ChildPlan, member_name};
use crate::exit::{ExitReason, StopReason};
use crate::id::Slot;

/// A change of size that has not come to its end.
#[derive(Debug)]
pub(super) struct Resize {
    pub(super) call: CallId,
    /// The size to go back to if a new member does not start.
    from: usize,
    /// Members that are being started, or being stopped.
    left: usize,
    failed: Option<ExitReason>,
}

impl Tree {
    pub(super) fn resize(&mut self, call: CallId, slot: Slot, size: u32) {
        let Some(node) = self.node_mut(slot) else { return self.refuse(call, Refusal::NotFound) };
        if !node.is_pool() {
            return self.refuse(call, Refusal::Bad("only a pool can be resized".to_owned()));
        }
        if size == 0 {
            return self.refuse(call, Refusal::Bad("a pool needs at least one member".to_owned()));
        }
        if node.resize.is_some() {
            return node.resizes.push_back((call, size));
        }
        let from = node.boot.len();
        let to = usize::try_from(size).unwrap_or(usize::MAX);
        node.resize = Some(Resize { call, from, left: 0, failed: None });
        if to > from {
            self.grow(slot, from, size);
        } else {
            self.shrink(slot, to);
        }
        self.resize_checked(slot);
    }

    fn grow(&mut self, slot: Slot, from: usize, size: u32) {
        let Some(first) = self.node(slot).and_then(|node| node.boot.first()) else { return };
        let template = ChildPlan::clone(&first.plan);
        let base = template.name.split('[').next().unwrap_or_default().to_owned();
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let mut members = Vec::new();
        for index in from..size {
            let plan = ChildPlan { name: member_name(&base, index), ..template.clone() };
            members.extend(self.append_entry(slot, plan));
        }
        if let Some(resize) = self.node_mut(slot).and_then(|node| node.resize.as_mut()) {
            resize.left = members.len();
        }
        for member in members {
            self.start(member, StartWhy::Grow);
        }
    }

    /// Takes the newest members down, all at once, and forgets each as soon as it is gone.
    fn shrink(&mut self, slot: Slot, to: usize) {
        let Some(node) = self.node_mut(slot) else { return };
        let from = node.boot.len();
        let members: Vec<Slot> = node.boot.iter().skip(to).rev().filter_map(|entry| entry.slot).collect();
        node.boot.truncate(to);
        node.next_order = node.next_order.max(from as u64);
        let mut left = 0;
        for member in members {
            let Some(child) = self.children.get_mut(&member) else { continue };
            child.entry = None;
            child.removing = true;
            if let Life::Dead { reason } = &child.life {
                let reason = reason.clone();
                self.note_end(member, &reason, Ending::Stopped);
                self.set_life(member, Life::Down);
            }
            if self.take_down(member, StopWhy::Shrink, StopReason::Resize) {
                self.timers.clear(member, Timer::Life);
                self.forget(member);
            } else {
                left += 1;
            }
        }
        if let Some(resize) = self.node_mut(slot).and_then(|node| node.resize.as_mut()) {
            resize.left = left;
        }
    }

    /// One of the members in question is up, or gone, or (`failed`) did not start: then the pool goes back to the
    /// size it had.
    pub(super) fn resize_progress(&mut self, slot: Option<Slot>, failed: Option<ExitReason>) {
        let Some(slot) = slot else { return };
        let Some(resize) = self.node_mut(slot).and_then(|node| node.resize.as_mut()) else { return };
        if let (Some(reason), None) = (failed, &resize.failed) {
            resize.failed = Some(reason);
            let from = resize.from;
            self.shrink(slot, from);
        } else {
            resize.left = resize.left.saturating_sub(1);
        }
        self.resize_checked(slot);
    }

    fn resize_checked(&mut self, slot: Slot) {
        let Some(node) = self.node_mut(slot) else { return };
        if node.phase != Phase::Running || node.resize.as_ref().is_none_or(|resize| resize.left > 0) {
            return;
        }
        let Some(resize) = node.resize.take() else { return };
        let next = node.resizes.pop_front();
        let answer = match resize.failed {
            None => Answer::Done,
            Some(reason) => Answer::Refused(Refusal::Failed(reason)),
        };
        self.act(Action::Answer { call: resize.call, answer });
        if let Some((call, size)) = next {
            self.resize(call, slot, size);
        }
    }
}
