//! Replace running incarnations slot by slot: the new one is ready before the old one is asked to go.
//!
//! A slot has at most one current incarnation and at most one retired one. A reload of a slot whose retired
//! incarnation still lives waits for that one's end (which its deadline brings; one without a deadline is killed). Reloads of
//! one slot follow each other, and so do rolling reloads of supervisor nodes.

use std::collections::VecDeque;

use super::child::{Life, StartWhy};
use super::event::{Action, Answer, CallId, Ending, Notice, Refusal};
use super::machine::{Timer, Todo, Tree};
use super::node::Phase;
use super::plan::Shutdown;
use crate::exit::ExitReason;
use crate::id::{Incarnation, Slot, WorkerId};

/// A replacement of the current incarnation that has not come to its end.
#[derive(Debug)]
pub(super) struct Reload {
    owner: Owner,
    /// The incarnation that is being started; `None`: it waits until the retired one is gone.
    pub(super) next: Option<Incarnation>,
    /// That one wants to leave, when it is the current one.
    pub(super) leaves: bool,
    timed_out: bool,
}

/// Who wants to know what became of a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Call(CallId),
    /// The rolling reload of a node, which has this call: the next worker follows.
    Rolling(CallId),
}

/// What became of a reload.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(WorkerId),
    /// There was nothing to replace, or not any more.
    Skipped(Refusal),
    Failed(ExitReason),
}

/// An incarnation that lives without being current.
#[derive(Debug)]
pub(super) struct Retired {
    incarnation: Incarnation,
    killed: bool,
    how: Ending,
}

/// A node's workers, one after the other, or `surge` at a time.
#[derive(Debug)]
pub(super) struct Rolling {
    call: CallId,
    left: VecDeque<Slot>,
    busy: u32,
    surge: u32,
    /// One has failed: its caller has heard of it, and no further one is begun.
    failed: bool,
}

impl Tree {
    pub(super) fn reload(&mut self, call: CallId, slot: Slot, surge: u32) {
        match self.children.get(&slot).map(|child| child.node.is_some()) {
            None => self.refuse(call, Refusal::NotFound),
            Some(false) => self.begin_reload(slot, Owner::Call(call)),
            Some(true) => match self.phase(slot) {
                Phase::Stopping => self.refuse(call, Refusal::Stopping),
                Phase::Off => self.refuse(call, Refusal::NotRunning),
                Phase::Asking | Phase::Booting | Phase::Running => {
                    self.rollings.push_back((call, slot, surge.max(1)));
                    self.todo.push_back(Todo::Roll);
                }
            },
        }
    }

    fn begin_reload(&mut self, slot: Slot, owner: Owner) {
        let Some(supervisor) = self.supervisor(slot) else {
            return self.reload_over(owner, Outcome::Skipped(Refusal::NotFound));
        };
        let stopping = self.phase(supervisor) == Phase::Stopping;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let refusal = match child.life {
            Life::Up if stopping => Refusal::Stopping,
            Life::Up if child.reload.is_some() => return child.reload_next.push_back(owner),
            Life::Up => {
                child.reload = Some(Reload { owner, next: None, leaves: false, timed_out: false });
                match self.retired.contains_key(&slot) {
                    true if self.timers.is_set(slot, Timer::Retired) => {}
                    true => self.kill_retired(slot),
                    false => self.start_next_incarnation(slot),
                }
                return;
            }
            Life::Starting { .. } | Life::Stopping { .. } => return child.reload_next.push_back(owner),
            Life::Down => Refusal::NotRunning,
            // A fresh incarnation is on its way.
            Life::Dead { .. } | Life::Restarting | Life::Backoff { .. } => Refusal::Restarting,
        };
        self.reload_over(owner, Outcome::Skipped(refusal));
    }

    /// Begins the reload that waited for the end of the last one, or of a start or stop.
    pub(super) fn next_reload(&mut self, slot: Slot) {
        while let Some(child) = self.children.get_mut(&slot) {
            if child.reload.is_some() || matches!(child.life, Life::Starting { .. } | Life::Stopping { .. }) {
                return;
            }
            let Some(owner) = child.reload_next.pop_front() else { return };
            self.begin_reload(slot, owner);
        }
    }

    fn start_next_incarnation(&mut self, slot: Slot) {
        let now = self.now;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let (Some(reload), Some(launch)) = (&mut child.reload, child.launch) else { return };
        child.issued = child.issued.next();
        reload.next = Some(child.issued);
        let worker = WorkerId { slot, incarnation: child.issued };
        let deadline = now.saturating_add(child.plan.start_timeout);
        let previous = child.previous.clone();
        self.timers.set(slot, Timer::Next, deadline);
        self.act(Action::Start { worker, launch, attempt: 0, previous });
    }

    /// The replacement can serve: it is current from now on.
    pub(super) fn next_is_ready(&mut self, worker: WorkerId) {
        let slot = worker.slot;
        let now = self.now;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(Reload { owner, next: Some(next), leaves, timed_out: false }) = child.reload else { return };
        if next != worker.incarnation || !matches!(child.life, Life::Up) {
            return;
        }
        let (old, was_killed) = (child.worker(), child.was_killed());
        child.reload = None;
        child.succeed(next, leaves);
        child.up_since = now;
        child.failures = 0;
        let deadline = match child.plan.shutdown {
            Shutdown::Timeout(limit) => Some(limit),
            Shutdown::Infinity => None,
            Shutdown::BrutalKill => Some(super::event::Time::ZERO),
        };
        let retired = Retired { incarnation: old.incarnation, killed: was_killed, how: Ending::Retired };
        self.retired.insert(slot, retired);
        self.timers.clear(slot, Timer::Next);
        if let Some(limit) = deadline {
            self.timers.set(slot, Timer::Retired, now.saturating_add(limit));
        }
        self.act(Action::Retire { worker: old, by: worker, deadline });
        self.notice(Notice::Up { worker });
        self.reload_over(owner, Outcome::Done(worker));
        self.settle(slot);
        self.let_leave(slot);
    }

    /// The replacement has ended before it was ready: the old one goes on untouched.
    pub(super) fn next_failed(&mut self, worker: WorkerId, reason: ExitReason) {
        let slot = worker.slot;
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(Reload { owner, next: Some(next), timed_out, .. }) = child.reload else { return };
        if next != worker.incarnation {
            return;
        }
        child.reload = None;
        let reason = if timed_out { ExitReason::StartTimeout(child.plan.start_timeout) } else { reason };
        self.timers.clear(slot, Timer::Next);
        self.notice(Notice::Ended { worker, reason: reason.clone(), how: Ending::StartFailed });
        self.reload_over(owner, Outcome::Failed(reason));
        self.settle(slot);
    }

    pub(super) fn next_timed_out(&mut self, slot: Slot) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(Reload { next: Some(next), timed_out, .. }) = &mut child.reload else { return };
        *timed_out = true;
        let worker = WorkerId { slot, incarnation: *next };
        self.act(Action::Kill { worker });
    }

    /// The current incarnation died while its replacement was starting: that one simply takes its place, no strategy
    /// is asked and nothing counted; should it fail, that is a failed restart. `false`: none is starting.
    pub(super) fn takeover(&mut self, slot: Slot, reason: &ExitReason) -> bool {
        let Some(child) = self.children.get_mut(&slot) else { return false };
        let Some(Reload { owner, next, leaves, timed_out }) = child.reload.take() else { return false };
        let Some(next) = next else {
            self.reload_over(owner, Outcome::Skipped(Refusal::Restarting));
            return false;
        };
        self.note_end(slot, reason, Ending::Died);
        let Some(child) = self.children.get_mut(&slot) else { return false };
        child.succeed(next, leaves);
        child.restarts += 1;
        child.life = Life::Starting { why: StartWhy::Takeover(owner), timed_out };
        if let Some(at) = self.timers.clear(slot, Timer::Next) {
            self.timers.set(slot, Timer::Life, at);
        }
        self.set_aside(slot, true);
        true
    }

    /// Gives a replacement up that is no longer wanted. Until its process is gone it counts as a retired one.
    pub(super) fn cancel_reload(&mut self, slot: Slot, refusal: Refusal) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(Reload { owner, next, timed_out, .. }) = child.reload.take() else { return };
        self.timers.clear(slot, Timer::Next);
        if let Some(incarnation) = next {
            self.retired.insert(slot, Retired { incarnation, killed: timed_out, how: Ending::Cancelled });
            self.kill_retired(slot);
        }
        self.reload_over(owner, Outcome::Skipped(refusal));
    }

    /// The slot is being forgotten.
    pub(super) fn drop_reloads(&mut self, slot: Slot) {
        self.cancel_reload(slot, Refusal::NotFound);
        let Some(child) = self.children.get_mut(&slot) else { return };
        for owner in std::mem::take(&mut child.reload_next) {
            self.reload_over(owner, Outcome::Skipped(Refusal::NotFound));
        }
    }

    pub(super) fn kill_retired(&mut self, slot: Slot) {
        let Some(retired) = self.retired.get_mut(&slot) else { return };
        if !retired.killed {
            retired.killed = true;
            let worker = WorkerId { slot, incarnation: retired.incarnation };
            self.timers.clear(slot, Timer::Retired);
            self.act(Action::Kill { worker });
        }
    }

    /// Whether this was a retired one; its end is nobody's death.
    pub(super) fn retired_is_gone(&mut self, worker: WorkerId, reason: &ExitReason) -> bool {
        let slot = worker.slot;
        if self.retired.get(&slot).is_none_or(|retired| retired.incarnation != worker.incarnation) {
            return false;
        }
        let Some(retired) = self.retired.remove(&slot) else { return false };
        self.timers.clear(slot, Timer::Retired);
        self.notice(Notice::Ended { worker, reason: reason.clone(), how: retired.how });
        let waiting = |reload: &Reload| reload.next.is_none();
        if self.children.get(&slot).and_then(|child| child.reload.as_ref()).is_some_and(waiting) {
            self.start_next_incarnation(slot);
        }
        true
    }

    pub(super) fn reload_over(&mut self, owner: Owner, outcome: Outcome) {
        let call = match (owner, &mut self.rolling) {
            (Owner::Call(call), _) => call,
            (Owner::Rolling(of), Some(rolling)) if rolling.call == of => {
                self.todo.push_back(Todo::Roll);
                rolling.busy -= 1;
                if !matches!(outcome, Outcome::Failed(_)) || rolling.failed {
                    return;
                }
                rolling.left.clear();
                rolling.failed = true;
                of
            }
            // That one was refused when its tree began to stop: whatever rolls now is another.
            (Owner::Rolling(_), _) => return,
        };
        let answer = match outcome {
            Outcome::Done(worker) => Answer::Started(worker),
            Outcome::Skipped(refusal) => Answer::Refused(refusal),
            Outcome::Failed(reason) => Answer::Refused(Refusal::Failed(reason)),
        };
        self.act(Action::Answer { call, answer });
    }

    /// Goes on with the next worker of the rolling reload, or with the next rolling reload.
    pub(super) fn roll(&mut self) {
        let Some(rolling) = &mut self.rolling else {
            if let Some((call, node, surge)) = self.rollings.pop_front() {
                let mut left = VecDeque::new();
                self.workers_below(node, &mut left);
                self.rolling = Some(Rolling { call, left, busy: 0, surge, failed: false });
                self.todo.push_back(Todo::Roll);
            }
            return;
        };
        if rolling.busy == rolling.surge {
            return;
        }
        match rolling.left.pop_front() {
            Some(slot) => {
                rolling.busy += 1;
                let owner = Owner::Rolling(rolling.call);
                self.todo.push_back(Todo::Roll);
                self.begin_reload(slot, owner);
            }
            None if rolling.busy > 0 => {}
            None => {
                let (call, failed) = (rolling.call, rolling.failed);
                self.rolling = None;
                if !failed {
                    self.act(Action::Answer { call, answer: Answer::Done });
                }
                self.todo.push_back(Todo::Roll);
            }
        }
    }

    fn workers_below(&self, node: Slot, found: &mut VecDeque<Slot>) {
        for slot in self.children(node) {
            match self.node(slot) {
                Some(_) => self.workers_below(slot, found),
                None => found.push_back(slot),
            }
        }
    }

    /// The tree stops.
    pub(super) fn refuse_rollings(&mut self) {
        let calls: Vec<CallId> = self
            .rolling
            .take()
            .filter(|rolling| !rolling.failed)
            .map(|rolling| rolling.call)
            .into_iter()
            .chain(std::mem::take(&mut self.rollings).into_iter().map(|(call, _, _)| call))
            .collect();
        for call in calls {
            self.refuse(call, Refusal::Stopping);
        }
    }
}
