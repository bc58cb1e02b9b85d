//! A start and its outcome, an end and what hangs on it.

use super::child::{Child, Keep, Life, StartWhy, StopWhy};
use super::event::{Action, Answer, Ending, Notice, Refusal};
use super::machine::{Timer, Tree};
use super::node::{Cause, Item, Op, Phase};
use super::rolling::Outcome;
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};

impl Tree {
    /// Starts the next incarnation of a child that has none.
    pub(super) fn start(&mut self, slot: Slot, why: StartWhy) {
        let running = self.supervisor(slot).is_some_and(|node| self.phase(node) == Phase::Running);
        let now = self.now;
        // A backoff that is cut short by hand.
        self.timers.clear(slot, Timer::Life);
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.issued = child.issued.next();
        child.current = child.issued;
        child.life = Life::Starting { why, timed_out: false };
        let by_supervision = matches!(why, StartWhy::Op | StartWhy::Member);
        child.restarts += u64::from(running && by_supervision);
        let worker = child.worker();
        match child.launch {
            Some(launch) => {
                let action =
                    Action::Start { worker, launch, attempt: child.failures, previous: child.previous.clone() };
                let deadline = now.saturating_add(child.plan.start_timeout);
                self.timers.set(slot, Timer::Life, deadline);
                self.act(action);
            }
            None => self.start_node(slot, worker),
        }
        if matches!(why, StartWhy::Call(..) | StartWhy::Takeover(_)) {
            self.set_aside(slot, true);
        }
    }

    fn start_node(&mut self, slot: Slot, supervisor: WorkerId) {
        if self.ask_before_supervisors && slot != Slot::SUPERVISOR {
            if let Some(node) = self.node_mut(slot) {
                node.phase = Phase::Asking;
            }
            self.act(Action::StartSupervisor { supervisor });
        } else {
            self.boot_node(slot);
        }
    }

    pub(super) fn on_ready(&mut self, worker: WorkerId) {
        let Some(child) = self.children.get(&worker.slot) else { return };
        if child.node.is_some() {
            if child.current == worker.incarnation && self.phase(worker.slot) == Phase::Asking {
                self.boot_node(worker.slot);
            }
        } else if child.current == worker.incarnation {
            self.came_up(worker.slot);
        } else {
            self.next_is_ready(worker);
        }
    }

    pub(super) fn on_exited(&mut self, worker: WorkerId, reason: ExitReason) {
        if self.retired_is_gone(worker, &reason) {
            return;
        }
        let Some(child) = self.children.get(&worker.slot) else { return };
        if child.node.is_some() {
            if child.current == worker.incarnation && self.phase(worker.slot) == Phase::Asking {
                self.refuse_calls(worker.slot);
                if let Some(node) = self.node_mut(worker.slot) {
                    node.phase = Phase::Off;
                }
                self.ended(worker.slot, reason);
            }
        } else if child.current == worker.incarnation {
            self.ended(worker.slot, reason);
        } else {
            self.next_failed(worker, reason);
        }
    }

    /// The child is ready: a worker's own word, or all children of the node are up.
    pub(super) fn came_up(&mut self, slot: Slot) {
        let now = self.now;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Life::Starting { why, timed_out: false } = child.life else { return };
        child.life = Life::Up;
        child.failures = 0;
        child.up_since = now;
        let (worker, supervisor) = (child.worker(), child.supervisor);
        self.timers.clear(slot, Timer::Life);
        self.set_aside(slot, false);
        let is_node = self.node(slot).is_some();
        self.notice(if is_node { Notice::SupervisorUp { supervisor: worker } } else { Notice::Up { worker } });
        match why {
            StartWhy::Op | StartWhy::Member => self.op_start_is_over(slot),
            StartWhy::Call(call, _) => self.act(Action::Answer { call, answer: Answer::Started(worker) }),
            StartWhy::Grow => self.resize_progress(supervisor, None),
            StartWhy::Takeover(owner) => self.reload_over(owner, Outcome::Done(worker)),
        }
        self.settle(slot);
        match supervisor {
            Some(node) => self.turn_later(node),
            None => self.act(Action::Booted),
        }
        self.let_leave(slot);
    }

    /// The child's process is gone, or the node has ended.
    pub(super) fn ended(&mut self, slot: Slot, reason: ExitReason) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        match &child.life {
            Life::Starting { why, timed_out } => {
                let why = *why;
                let reason = if *timed_out { ExitReason::StartTimeout(child.plan.start_timeout) } else { reason };
                self.start_failed(slot, why, reason);
            }
            Life::Up => {
                if self.takeover(slot, &reason) {
                    return;
                }
                let Some(child) = self.children.get_mut(&slot) else { return };
                let worker = child.worker();
                child.life = Life::Dead { reason };
                self.enqueue(slot, Item::Death(worker));
            }
            Life::Stopping { why, ready, .. } => {
                let (why, ready) = (*why, *ready);
                self.stopped(slot, why, ready, reason);
            }
            Life::Down | Life::Dead { .. } | Life::Restarting | Life::Backoff { .. } => {}
        }
    }

    /// Says that the supervisor has handled this end, and remembers the reason for the next incarnation.
    pub(super) fn note_end(&mut self, slot: Slot, reason: &ExitReason, how: Ending) {
        let orphaned = self.supervisor(slot).and_then(|node| self.node(node)).is_some_and(|node| node.killed);
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.previous = Some(reason.clone());
        let worker = child.worker();
        self.timers.clear(slot, Timer::Life);
        let how = if orphaned { Ending::Orphaned } else { how };
        self.notice(Notice::Ended { worker, reason: reason.clone(), how });
    }

    /// An incarnation has ended before it was ready.
    ///
    /// # Source
    /// RULES 8 to 10 (boot), 30 (ignore), 32 (failed restarts), 57 and 58 (calls).
    fn start_failed(&mut self, slot: Slot, why: StartWhy, reason: ExitReason) {
        self.note_end(slot, &reason, Ending::StartFailed);
        self.set_life(slot, Life::Down);
        let Some(supervisor) = self.supervisor(slot) else { return };
        self.set_aside(slot, false);
        let declined = reason == ExitReason::Ignored;
        let phase = self.phase(supervisor);
        match why {
            // A node that was starting while its supervisor came to stop: there is nothing to retry.
            StartWhy::Op | StartWhy::Member if phase == Phase::Stopping => {}
            StartWhy::Op | StartWhy::Member if declined => {
                self.op_start_is_over(slot);
                self.stays_down(slot);
            }
            StartWhy::Op | StartWhy::Member if phase == Phase::Booting => self.boot_failed(supervisor, slot, reason),
            StartWhy::Op | StartWhy::Member => {
                if let Some(node) = self.node_mut(supervisor) {
                    node.op = Op::Idle;
                }
                self.restart_failed(slot, reason);
            }
            StartWhy::Call(call, keep) => {
                let answer = if declined { Answer::Declined } else { Answer::Refused(Refusal::Failed(reason)) };
                self.act(Action::Answer { call, answer });
                if declined {
                    self.stays_down(slot);
                } else if keep == Keep::Nothing {
                    self.forget(slot);
                }
            }
            StartWhy::Grow if declined => {
                self.stays_down(slot);
                self.resize_progress(Some(supervisor), None);
            }
            StartWhy::Grow => self.resize_progress(Some(supervisor), Some(reason)),
            StartWhy::Takeover(owner) => {
                self.reload_over(owner, Outcome::Failed(reason.clone()));
                if declined || self.children.get(&slot).is_some_and(Child::is_temporary) {
                    self.stays_down(slot);
                } else {
                    self.restart_failed(slot, reason);
                }
            }
        }
        self.settle(slot);
        self.turn_later(supervisor);
    }

    /// The boot of a node fails with its first failure, whatever its intensity (RULES 9). The innermost worker is
    /// remembered for the error that the program sees.
    fn boot_failed(&mut self, supervisor: Slot, slot: Slot, reason: ExitReason) {
        let innermost = self.node_mut(slot).and_then(|node| node.failed_at.take()).unwrap_or(slot);
        if let Some(node) = self.node_mut(supervisor) {
            node.failed_at = Some(innermost);
        }
        self.stop_node(supervisor, Cause::StartFailed { slot: innermost, reason }, StopReason::Group);
    }

    /// A start that the node itself had made is over, well or declined or cancelled. (The order of a group start
    /// goes on in [`Tree::turn`], which looks at the child.)
    fn op_start_is_over(&mut self, slot: Slot) {
        let Some(node) = self.supervisor(slot).and_then(|node| self.node_mut(node)) else { return };
        match &mut node.op {
            Op::One { at } if *at == slot => node.op = Op::Idle,
            Op::StartAll { left } => *left = left.saturating_sub(1),
            _ => {}
        }
    }

    /// No process, and none is to come by itself: kept, or forgotten if it is temporary or a copy (RULES 10, 11, 62).
    pub(super) fn stays_down(&mut self, slot: Slot) {
        let in_dynamic = self.supervisor(slot).and_then(|node| self.node(node)).is_some_and(|node| node.is_dynamic());
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.life = Life::Down;
        let gone = child.is_temporary() || in_dynamic;
        self.timers.clear(slot, Timer::Life);
        self.notice(Notice::Down { slot });
        if gone {
            self.forget(slot);
        }
    }

    /// A child that was being stopped is gone. Whatever its reason, the stop has succeeded (RULES 41, 42).
    fn stopped(&mut self, slot: Slot, why: StopWhy, ready: bool, reason: ExitReason) {
        self.note_end(slot, &reason, if ready { Ending::Stopped } else { Ending::Cancelled });
        let Some(supervisor) = self.supervisor(slot) else { return };
        self.set_aside(slot, false);
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.life = Life::Down;
        let (removing, temporary) = (child.removing, child.is_temporary());
        let Some(node) = self.node_mut(supervisor) else { return };
        let ending = node.phase == Phase::Stopping;
        match &mut node.op {
            Op::StopAll { left } => *left = left.saturating_sub(1),
            Op::StartAll { left } if !ready => *left = left.saturating_sub(1),
            // A start that was cancelled ends what it was part of, as a cancelled retry does (RULES 35, 36); but a
            // boot goes on without the child.
            Op::One { at } if *at == slot => node.op = Op::Idle,
            Op::Start { at: Some(at), .. } if *at == slot && node.phase == Phase::Running => node.op = Op::Idle,
            _ => {}
        }
        if let StopWhy::Call(call) = why {
            self.act(Action::Answer { call, answer: Answer::Done });
        }
        if removing {
            self.forget(slot);
            self.resize_progress(Some(supervisor), None);
        } else if !ending && (temporary || matches!(why, StopWhy::Call(_))) {
            // Temporary bystanders of a group stop are forgotten (RULES 28).
            self.stays_down(slot);
        }
        self.settle(slot);
        self.turn_later(supervisor);
    }
}
