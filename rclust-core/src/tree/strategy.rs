//! Who goes down with whom, in which order; boot, deaths, restarts and retries of one node.

use std::time::Duration;

use super::child::{Life, StartWhy};
use super::event::{Ending, GiveUp, Notice, Time};
use super::machine::{Timer, Tree};
use super::node::{Cause, Item, Op, Phase, Then};
use super::plan::{AutoShutdown, Intensity, Strategy};
use super::restart::{Verdict, verdict};
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};

impl Tree {
    /// Begins a node's boot list from its start (RULES 7, 48); a pool's members all at once.
    pub(super) fn boot_node(&mut self, slot: Slot) {
        self.fill_boot_list(slot);
        let Some(node) = self.node_mut(slot) else { return };
        node.phase = Phase::Booting;
        node.killed = false;
        node.failed_at = None;
        if node.is_pool() {
            let members = node.slots();
            node.op = Op::StartAll { left: members.len() };
            for member in members {
                self.start(member, StartWhy::Member);
            }
        } else {
            node.op = Op::Start { at: None, next: 0 };
        }
        self.turn_later(slot);
    }

    /// Lets a node go on with what it is in the middle of, and then with its queue, until it has to wait.
    pub(super) fn turn(&mut self, slot: Slot) {
        loop {
            let Some(node) = self.node(slot) else { return };
            let more = match node.op {
                Op::Start { at, next } => self.start_next(slot, at, next),
                Op::Stop { from, below, then } => self.stop_next(slot, from, below, then),
                Op::StopAll { left: 0 } => self.node_ended(slot),
                Op::StartAll { left: 0 } => self.booted(slot),
                Op::StopAll { .. } | Op::StartAll { .. } | Op::One { .. } => false,
                Op::Idle => self.serve_next(slot),
            };
            if !more {
                return;
            }
        }
    }

    /// Starts the next of a group, once the one before is up (or has declined). Down ones are started too: those
    /// that had ended normally, were terminated, or had declined (RULES 29).
    fn start_next(&mut self, slot: Slot, at: Option<Slot>, next: u64) -> bool {
        let waits = at.and_then(|at| self.children.get(&at));
        if waits.is_some_and(|child| matches!(child.life, Life::Starting { .. } | Life::Stopping { .. })) {
            return false;
        }
        let Some(node) = self.node_mut(slot) else { return false };
        let Some((order, child)) = node.first_from(next) else { return self.booted(slot) };
        node.op = Op::Start { at: Some(child), next: order + 1 };
        if self.children.get(&child).is_some_and(|child| matches!(child.life, Life::Down)) {
            self.start(child, StartWhy::Op);
        }
        true
    }

    /// The last one is up.
    fn booted(&mut self, slot: Slot) -> bool {
        let Some(node) = self.node_mut(slot) else { return false };
        node.op = Op::Idle;
        if node.phase == Phase::Booting {
            node.phase = Phase::Running;
            self.came_up(slot);
        }
        true
    }

    /// Handles what is at the head of the queue. Restarts wait for a call's start or stop that is under way, as
    /// they do in OTP (RULES 14); calls among themselves do not, and in a pool nothing waits for anything.
    fn serve_next(&mut self, slot: Slot) -> bool {
        let Some(node) = self.node_mut(slot) else { return false };
        if node.phase != Phase::Running || node.suspended {
            return false;
        }
        let waits = node.aside > 0 && !node.is_pool();
        if waits && !matches!(node.queue.front(), Some(Item::Call(..))) {
            return false;
        }
        match node.queue.pop_front() {
            Some(Item::Death(worker)) => self.death(slot, worker),
            Some(Item::Retry(child)) => self.retry(slot, child),
            Some(Item::Due(child, until)) => {
                let due = |life: &Life| matches!(life, Life::Backoff { until: at } if *at == until);
                if self.children.get(&child).is_some_and(|child| due(&child.life)) {
                    self.restart(slot, child, Duration::ZERO);
                }
            }
            Some(Item::Call(call, request)) => self.serve(call, request),
            None => return false,
        }
        true
    }

    /// A child has ended by itself (RULES 11, 12).
    fn death(&mut self, node: Slot, worker: WorkerId) {
        let slot = worker.slot;
        let now = self.now;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Life::Dead { reason } = &child.life else { return };
        if child.worker() != worker {
            return;
        }
        let reason = reason.clone();
        let healthy = child.is_healthy(now);
        if healthy {
            child.strikes = 0;
        }
        let verdict = verdict(child.plan.restart, &reason);
        let significant = child.plan.significant;
        let early = !healthy && child.plan.backoff.is_some_and(|backoff| backoff.after_ready);
        self.note_end(slot, &reason, Ending::Died);
        match verdict {
            Verdict::Restart => {
                self.set_life(slot, Life::Down);
                if !self.count(node, slot, &reason) {
                    return;
                }
                let delay = if early { self.strike(slot) } else { Duration::ZERO };
                self.announce_restart(slot, delay);
                self.restart(node, slot, delay);
            }
            Verdict::Down | Verdict::Forget => {
                self.stays_down(slot);
                if significant {
                    self.significant_ended(node, slot);
                }
                self.settle(slot);
            }
        }
    }

    /// The retry of a failed start. It does nothing if its subject no longer waits for it (RULES 35).
    fn retry(&mut self, node: Slot, slot: Slot) {
        let Some(child) = self.children.get(&slot) else { return };
        if !matches!(child.life, Life::Restarting) {
            return;
        }
        let reason = child.previous.clone().unwrap_or(ExitReason::Unknown);
        if self.count(node, slot, &reason) {
            self.announce_restart(slot, Duration::ZERO);
            self.restart(node, slot, Duration::ZERO);
        }
    }

    /// A restart of this child has failed (RULES 32). Without a backoff the retry goes to the end of the queue and
    /// counts when its turn comes (RULES 19); with one it is decided now, so that a node that gives up does so at once.
    pub(super) fn restart_failed(&mut self, slot: Slot, reason: ExitReason) {
        let Some(supervisor) = self.supervisor(slot) else { return };
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.failures = child.failures.saturating_add(1);
        let (failures, worker) = (child.failures, child.worker());
        let intensity = self.node(supervisor).map(|node| node.intensity);
        match intensity {
            Some(Intensity::FailedStarts { failed_starts }) if failures >= failed_starts => {
                return self.give_up(supervisor, slot, failed_starts, None, reason);
            }
            _ => {}
        }
        let delay = self.strike(slot);
        if !delay.is_zero() && !self.count(supervisor, slot, &reason) {
            return;
        }
        if delay.is_zero() {
            self.set_life(slot, Life::Restarting);
            self.settle(slot);
            self.enqueue(slot, Item::Retry(slot));
        } else {
            self.announce_restart(slot, delay);
            self.wait_until(worker.slot, self.now.saturating_add(delay));
        }
    }

    /// Starts the child again with all that its death takes along, after `delay`.
    ///
    /// # Source
    /// RULES 24 to 27, 33, 34. With a delay the group goes down at once and waits with the child.
    fn restart(&mut self, node: Slot, slot: Slot, delay: Duration) {
        let Some(order) = self.children.get(&slot).map(|child| child.order) else { return };
        let until = self.now.saturating_add(delay);
        let Some(supervisor) = self.node_mut(node) else { return };
        let from = match supervisor.strategy {
            Strategy::OneForAll if supervisor.is_group() => 0,
            Strategy::RestForOne if supervisor.is_group() => order,
            _ => {
                if delay.is_zero() {
                    let pool = supervisor.is_pool();
                    if !pool {
                        supervisor.op = Op::One { at: slot };
                    }
                    self.start(slot, if pool { StartWhy::Member } else { StartWhy::Op });
                } else {
                    self.wait_until(slot, until);
                }
                return;
            }
        };
        let then = if delay.is_zero() { Then::Start } else { Then::Wait { slot, until } };
        supervisor.op = Op::Stop { from, below: u64::MAX, then };
        self.turn_later(node);
    }

    pub(super) fn wait_until(&mut self, slot: Slot, until: Time) {
        self.set_life(slot, Life::Backoff { until });
        self.timers.set(slot, Timer::Life, until);
        self.settle(slot);
    }

    pub(super) fn backoff_over(&mut self, slot: Slot, until: Time) {
        self.enqueue(slot, Item::Due(slot, until));
    }

    /// One more failure in a row: the delay that follows from it.
    fn strike(&mut self, slot: Slot) -> Duration {
        let Some(child) = self.children.get_mut(&slot) else { return Duration::ZERO };
        child.strikes = child.strikes.saturating_add(1);
        child.delay(&mut self.rng)
    }

    fn announce_restart(&mut self, slot: Slot, delay: Duration) {
        let attempt = self.children.get(&slot).map_or(0, |child| child.failures);
        self.notice(Notice::Restarting { slot, delay, attempt });
    }

    /// Counts a restart before it is made; one too many, and the node gives up instead (RULES 15 to 18).
    fn count(&mut self, node: Slot, slot: Slot, reason: &ExitReason) -> bool {
        let now = self.now;
        let Some(supervisor) = self.node_mut(node) else { return false };
        let Intensity::Limited { restarts, within } = supervisor.intensity else { return true };
        if supervisor.window.note(now, restarts, within) {
            return true;
        }
        self.give_up(node, slot, restarts, Some(within), reason.clone());
        false
    }

    fn give_up(&mut self, node: Slot, child: Slot, restarts: u32, within: Option<Duration>, reason: ExitReason) {
        let why = GiveUp { supervisor: node, child, restarts, within, reason };
        self.notice(Notice::GaveUp(why.clone()));
        self.stop_node(node, Cause::GaveUp(why), StopReason::Group);
    }

    /// A significant child has ended by itself and is not restarted (RULES 49 to 53). The decision is made before
    /// anything else in the queue is looked at.
    fn significant_ended(&mut self, slot: Slot, child: Slot) {
        let Some(node) = self.node(slot) else { return };
        let stops = match node.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => !node
                .children
                .values()
                .filter_map(|slot| self.children.get(slot))
                .any(|other| other.slot != child && other.plan.significant && other.counts_as_alive()),
        };
        if stops {
            self.stop_node(slot, Cause::Auto { slot: child }, StopReason::Group);
        }
    }
}
