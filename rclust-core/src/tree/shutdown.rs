//! Reverse order, deadlines, kill.

use std::time::Duration;

use super::child::{Life, StartWhy, StopWhy};
use super::event::{Action, Answer, End, Ending, Notice, Refusal};
use super::machine::{Timer, Tree};
use super::node::{Cause, Item, Op, Phase, Then};
use super::plan::Shutdown;
use super::rolling::Outcome;
use crate::exit::{ExitReason, StopReason};
use crate::id::Slot;

/// What a killed node ends with (RULES 47).
const KILLED: ExitReason = ExitReason::Signal { signal: 9, core: false };

impl Tree {
    /// Stops a node from wherever it is: booting, restarting, idle. All reasons lead to the same stop (RULES 44).
    /// Calls in its queue are refused, retries and backoffs dropped, starts under way cancelled.
    pub(super) fn stop_node(&mut self, slot: Slot, cause: Cause, reason: StopReason) {
        let Some(node) = self.node_mut(slot) else { return };
        match node.phase {
            Phase::Stopping => return,
            Phase::Off if slot == Slot::SUPERVISOR => {
                // Never booted: there is nothing to stop.
                self.end.get_or_insert(End::Stopped);
                return;
            }
            Phase::Off => return,
            Phase::Asking | Phase::Booting | Phase::Running => {}
        }
        let parallel = node.is_pool() || node.is_dynamic();
        node.cause = Some(cause);
        node.stop_reason = reason;
        self.refuse_calls(slot);
        if parallel {
            self.stop_all(slot, reason);
        } else {
            let children = self.node(slot).map(|node| node.slots()).unwrap_or_default();
            for child in children {
                // A supervisor node that is starting has its turn in the order; a worker that is not ready has not
                // started for anybody yet.
                let starting = self.children.get(&child).is_some_and(|c| matches!(c.life, Life::Starting { .. }));
                if starting && self.node(child).is_none() {
                    self.cancel_start(child, StopWhy::Op);
                }
            }
            if let Some(node) = self.node_mut(slot) {
                node.op = Op::Stop { from: 0, below: u64::MAX, then: Then::End };
            }
        }
        self.turn_later(slot);
    }

    /// All at once: pools, and copies of a template (RULES 40).
    fn stop_all(&mut self, slot: Slot, reason: StopReason) {
        let children = self.node(slot).map(|node| node.slots()).unwrap_or_default();
        let mut left = 0;
        for child in children {
            left += usize::from(!self.take_down(child, StopWhy::Op, reason));
        }
        if let Some(node) = self.node_mut(slot) {
            node.op = Op::StopAll { left };
        }
    }

    /// Stops one child whatever it is doing. `true`: it is down already.
    pub(super) fn take_down(&mut self, slot: Slot, why: StopWhy, reason: StopReason) -> bool {
        let Some(child) = self.children.get(&slot) else { return true };
        match &child.life {
            Life::Down => true,
            Life::Dead { reason } => {
                // Found dead: its end is part of the stop and triggers nothing more (RULES 31).
                let reason = reason.clone();
                self.note_end(slot, &reason, Ending::Stopped);
                self.set_life(slot, Life::Down);
                true
            }
            Life::Restarting | Life::Backoff { .. } => {
                self.timers.clear(slot, Timer::Life);
                self.set_life(slot, Life::Down);
                true
            }
            Life::Up => {
                self.stop_child(slot, why, reason);
                false
            }
            Life::Starting { .. } => {
                self.cancel_start(slot, why);
                false
            }
            Life::Stopping { .. } => false,
        }
    }

    /// Goes on with a stop in order: the last one that is not down (RULES 40). `true`: something follows at once.
    pub(super) fn stop_next(&mut self, slot: Slot, from: u64, below: u64, then: Then) -> bool {
        let mut below = below;
        loop {
            let Some(node) = self.node_mut(slot) else { return false };
            let reason = if node.phase == Phase::Stopping { node.stop_reason } else { StopReason::Group };
            node.op = Op::Stop { from, below, then };
            let Some((order, child)) = node.last_between(from, below) else { break };
            let was_dead = self.children.get(&child).is_some_and(|child| matches!(child.life, Life::Dead { .. }));
            if !self.take_down(child, StopWhy::Op, reason) {
                return false;
            }
            if was_dead && self.phase(slot) == Phase::Running && self.is_temporary(child) {
                self.stays_down(child);
            }
            below = order;
        }
        match then {
            Then::End => return self.node_ended(slot),
            Then::Start => {
                if let Some(node) = self.node_mut(slot) {
                    node.op = Op::Start { at: None, next: from };
                }
            }
            Then::Wait { slot: child, until } => {
                if let Some(node) = self.node_mut(slot) {
                    node.op = Op::Idle;
                }
                self.wait_until(child, until);
            }
        }
        true
    }

    fn is_temporary(&self, slot: Slot) -> bool {
        self.children.get(&slot).is_some_and(super::child::Child::is_temporary)
    }

    /// Stops a child that is up, in the way its specification says (RULES 39, 43).
    pub(super) fn stop_child(&mut self, slot: Slot, why: StopWhy, reason: StopReason) {
        self.cancel_reload(slot, Refusal::Cancelled);
        let now = self.now;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let shutdown = child.plan.shutdown;
        let worker = child.worker();
        let is_node = child.node.is_some();
        let (was_asked, was_killed) = (child.was_asked(), child.was_killed());
        child.life = Life::Stopping { why, ready: true, killed: was_killed || shutdown == Shutdown::BrutalKill };
        // Its deadline is this one from now on, also if it was leaving.
        self.timers.clear(slot, Timer::Life);
        if let (Shutdown::Timeout(limit), false) = (shutdown, was_killed) {
            self.timers.set(slot, Timer::Life, now.saturating_add(limit));
        }
        match shutdown {
            Shutdown::BrutalKill if is_node => self.kill_node(slot, true),
            _ if was_killed => {}
            Shutdown::BrutalKill => self.act(Action::Kill { worker }),
            Shutdown::Timeout(_) | Shutdown::Infinity if is_node => {
                self.stop_node(slot, Cause::Ordered(ExitReason::Shutdown), reason);
            }
            Shutdown::Timeout(_) | Shutdown::Infinity if was_asked => {}
            Shutdown::Timeout(limit) => self.act(Action::Stop { worker, why: reason, deadline: Some(limit) }),
            Shutdown::Infinity => self.act(Action::Stop { worker, why: reason, deadline: None::<Duration> }),
        }
        if matches!(why, StopWhy::Call(_)) {
            self.set_aside(slot, true);
        }
    }

    /// Ends a start that is no longer wanted. A worker is killed: nobody has seen it yet. No failure is counted.
    pub(super) fn cancel_start(&mut self, slot: Slot, why: StopWhy) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Life::Starting { why: started, timed_out } = child.life else { return };
        child.life = Life::Stopping { why, ready: false, killed: true };
        let worker = child.worker();
        let above = self.supervisor(slot).and_then(|node| self.node(node)).filter(|node| node.phase == Phase::Stopping);
        let (refusal, reason) = match above {
            Some(node) => (Refusal::Stopping, node.stop_reason),
            None => (Refusal::Cancelled, StopReason::Terminated),
        };
        match started {
            StartWhy::Call(call, _) => self.act(Action::Answer { call, answer: Answer::Refused(refusal) }),
            StartWhy::Takeover(owner) => self.reload_over(owner, Outcome::Skipped(refusal)),
            StartWhy::Grow if why != StopWhy::Shrink => self.resize_progress(self.supervisor(slot), None),
            StartWhy::Op | StartWhy::Member | StartWhy::Grow => {}
        }
        self.timers.clear(slot, Timer::Life);
        if self.node(slot).is_some() {
            self.stop_node(slot, Cause::Ordered(ExitReason::Shutdown), reason);
        } else if !timed_out {
            self.act(Action::Kill { worker });
        }
    }

    /// Ends a node from outside (see [`Event::EndSupervisor`](super::event::Event::EndSupervisor)).
    pub(super) fn end_supervisor(&mut self, slot: Slot, reason: ExitReason) {
        if self.phase(slot) != Phase::Running {
            return;
        }
        if matches!(reason, ExitReason::Signal { signal: 9, .. }) {
            self.kill_node(slot, false);
        } else {
            self.stop_node(slot, Cause::Ordered(reason), StopReason::Group);
        }
    }

    /// Kills a node: its workers die at once, its supervisor hears of it when nothing is left (RULES 47, and "Where
    /// ours differs": no successor runs beside the remains). Nodes below notice that their parent is gone and stop
    /// in order (RULES 13, 45), unless `all`: then they are killed too.
    pub(super) fn kill_node(&mut self, slot: Slot, all: bool) {
        let Some(node) = self.node_mut(slot) else { return };
        if node.phase == Phase::Off {
            return;
        }
        node.killed = true;
        node.cause.get_or_insert(Cause::Ordered(KILLED));
        self.refuse_calls(slot);
        let children = self.node(slot).map(|node| node.slots()).unwrap_or_default();
        let mut left = 0;
        for slot in children {
            self.cancel_reload(slot, Refusal::Stopping);
            self.kill_retired(slot);
            let is_node = self.node(slot).is_some();
            if is_node && !all {
                let Some(child) = self.children.get_mut(&slot) else { continue };
                match child.life {
                    Life::Up => {
                        child.life = Life::Stopping { why: StopWhy::Op, ready: true, killed: false };
                        self.stop_node(slot, Cause::Ordered(KILLED), StopReason::Group);
                        left += 1;
                    }
                    Life::Starting { .. } => {
                        self.cancel_start(slot, StopWhy::Op);
                        left += 1;
                    }
                    Life::Stopping { .. } => left += 1,
                    _ => {
                        self.take_down(slot, StopWhy::Op, StopReason::Group);
                    }
                }
                continue;
            }
            left += usize::from(self.kill_child(slot));
        }
        if let Some(node) = self.node_mut(slot) {
            node.op = Op::StopAll { left };
        }
        self.turn_later(slot);
    }

    /// Kills one child. `false`: it is down.
    fn kill_child(&mut self, slot: Slot) -> bool {
        let Some(child) = self.children.get_mut(&slot) else { return false };
        let worker = child.worker();
        let (is_node, was_killed) = (child.node.is_some(), child.was_killed());
        match &mut child.life {
            Life::Starting { .. } => self.cancel_start(slot, StopWhy::Op),
            Life::Up => {
                child.life = Life::Stopping { why: StopWhy::Op, ready: true, killed: true };
                self.timers.clear(slot, Timer::Life);
                if !is_node && !was_killed {
                    self.act(Action::Kill { worker });
                }
            }
            Life::Stopping { killed, .. } => {
                let again = !std::mem::replace(killed, true);
                if again && !is_node {
                    self.act(Action::Kill { worker });
                }
                self.timers.clear(slot, Timer::Life);
            }
            Life::Down | Life::Dead { .. } | Life::Restarting | Life::Backoff { .. } => {
                return !self.take_down(slot, StopWhy::Op, StopReason::Group);
            }
        }
        if is_node {
            self.kill_node(slot, true);
        }
        true
    }

    /// Kills everything that lives; whatever starts later has no chance to.
    pub(super) fn kill_all(&mut self) {
        if self.phase(Slot::SUPERVISOR) == Phase::Off {
            self.end.get_or_insert(End::Stopped);
        } else {
            self.kill_node(Slot::SUPERVISOR, true);
        }
        let retired: Vec<Slot> = self.retired.keys().copied().collect();
        for slot in retired {
            self.kill_retired(slot);
        }
    }

    /// Empties the queue of a node that ends.
    pub(super) fn refuse_calls(&mut self, slot: Slot) {
        let Some(node) = self.node_mut(slot) else { return };
        node.phase = Phase::Stopping;
        let (mut calls, mut reloads) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut node.queue) {
            if let Item::Call(call, _) = item {
                calls.push(call);
            }
        }
        calls.extend(node.resize.take().map(|resize| resize.call));
        calls.extend(std::mem::take(&mut node.resizes).into_iter().map(|(call, _)| call));
        let children = node.slots();
        for child in children {
            let Some(child) = self.children.get_mut(&child) else { continue };
            calls.extend(std::mem::take(&mut child.waiters).into_iter().map(|(call, _)| call));
            reloads.extend(std::mem::take(&mut child.reload_next));
        }
        for owner in reloads {
            self.reload_over(owner, Outcome::Skipped(Refusal::Stopping));
        }
        for call in calls {
            self.act(Action::Answer { call, answer: Answer::Refused(Refusal::Stopping) });
        }
        if slot == Slot::SUPERVISOR {
            self.refuse_rollings();
        }
    }

    /// The last child is down: the node ends, and its own supervisor hears of it (RULES 45, 48).
    pub(super) fn node_ended(&mut self, slot: Slot) -> bool {
        let Some(child) = self.children.get(&slot) else { return false };
        let was_up = !matches!(child.life, Life::Starting { .. } | Life::Stopping { ready: false, .. });
        let supervisor = child.worker();
        for child in self.node(slot).map(|node| node.slots()).unwrap_or_default() {
            let Some(child) = self.children.get_mut(&child) else { continue };
            if child.entry.is_none() || child.removing || child.is_temporary() {
                let slot = child.slot;
                self.forget(slot);
            } else {
                child.failures = 0;
                child.strikes = 0;
            }
        }
        let Some(node) = self.node_mut(slot) else { return false };
        node.phase = Phase::Off;
        node.op = Op::Idle;
        node.suspended = false;
        node.window.clear();
        let cause = node.cause.take().unwrap_or(Cause::Ordered(ExitReason::Shutdown));
        let killed = node.killed;
        let (reason, end) = match cause {
            _ if killed && slot != Slot::SUPERVISOR => (KILLED, End::Stopped),
            Cause::Ordered(reason) => (reason, End::Stopped),
            Cause::GaveUp(why) => (ExitReason::Shutdown, End::GaveUp(why)),
            Cause::Auto { slot } => (ExitReason::Shutdown, End::AutoShutdown { slot }),
            Cause::StartFailed { slot, reason } => (reason.clone(), End::StartFailed { slot, reason }),
        };
        if was_up {
            self.notice(Notice::SupervisorDown { supervisor, reason: reason.clone() });
        }
        if slot == Slot::SUPERVISOR {
            self.set_life(slot, Life::Down);
            self.end = Some(end);
        } else {
            self.ended(slot, reason);
        }
        false
    }
}
