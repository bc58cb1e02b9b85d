//! One slot's states: down, starting, up, dead, stopping, restarting, waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::event::{CallId, Request, State, Time};
use super::node::{Node, Phase};
use super::plan::{ChildKind, ChildPlan, Restart};
use super::rolling::{Owner, Reload};
use crate::exit::ExitReason;
use crate::id::{Incarnation, Slot, WorkerId};

/// One place of the tree: a worker's, or a supervisor node's.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) slot: Slot,
    /// The node it is a child of; `None`: the root.
    pub(super) supervisor: Option<Slot>,
    /// Its place among the children of that node: the list's order, then the order of arrival (RULES 27).
    pub(super) order: u64,
    /// Which entry of the node's boot list it fills; `None`: added at run time, gone with its node (RULES 48).
    pub(super) entry: Option<usize>,
    /// Place in the pool, or number of the copy.
    pub(super) index: u32,
    pub(super) path: String,
    pub(super) name: String,
    pub(super) plan: Arc<ChildPlan>,
    pub(super) launch: Option<u32>,

    pub(super) life: Life,
    /// The incarnation that `life` is about.
    pub(super) current: Incarnation,
    /// The last number handed out; ahead of `current` only during a reload.
    pub(super) issued: Incarnation,
    pub(super) previous: Option<ExitReason>,
    pub(super) up_since: Time,
    /// The last one that has said that it goes.
    pub(super) leaving: Option<Leaving>,
    /// Failed starts in a row.
    pub(super) failures: u32,
    /// Failed starts and early deaths in a row: the exponent of the backoff.
    pub(super) strikes: u32,
    /// Starts that supervision decided on, the first one not counted.
    pub(super) restarts: u64,
    /// A call has it started or stopped; the node's queue waits meanwhile (RULES 14).
    pub(super) aside: bool,
    /// Its pool has become smaller: forget it as soon as it is gone.
    pub(super) removing: bool,
    /// Calls that wait until a start or a stop of this child has come to its end.
    pub(super) waiters: Vec<(CallId, Request)>,
    pub(super) reload: Option<Reload>,
    pub(super) reload_next: VecDeque<Owner>,
    /// What it is a supervisor of, if it is one.
    pub(super) node: Option<Box<Node>>,
}

/// What a slot is doing.
#[derive(Debug)]
pub(super) enum Life {
    Down,
    /// Not ready yet. `timed_out`: it was killed for that, its end is awaited.
    Starting {
        why: StartWhy,
        timed_out: bool,
    },
    Up,
    /// Ended; its supervisor has not come to it yet (RULES 14).
    Dead {
        reason: ExitReason,
    },
    /// `ready`: it was up before; otherwise its start was cancelled. `killed`: no deadline is left.
    Stopping {
        why: StopWhy,
        ready: bool,
        killed: bool,
    },
    /// The last start failed and a retry is in the node's queue (RULES 32).
    Restarting,
    /// The next start comes at `until`.
    Backoff {
        until: Time,
    },
}

/// An incarnation that goes by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) incarnation: Incarnation,
    /// It was asked to stop: nobody asks again.
    pub(super) asked: bool,
    /// It did not in time.
    pub(super) killed: bool,
}

/// On whose behalf a child is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StartWhy {
    /// Its node's operation: boot, group start, the restart of this child.
    Op,
    /// A member of a pool: these do not wait for each other.
    Member,
    /// A call, which wants an answer.
    Call(CallId, Keep),
    /// The pool grows.
    Grow,
    /// It was started by a reload, and the one to be replaced died first.
    Takeover(Owner),
}

/// What stays of a child whose start by a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// `restart_child`: the specification, down (RULES 58).
    Spec,
    /// `start_child` and copies: nothing (RULES 57).
    Nothing,
}

/// On whose behalf a child is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StopWhy {
    /// Its node's operation.
    Op,
    /// A call, which wants an answer.
    Call(CallId),
    /// The pool shrinks.
    Shrink,
}

impl Child {
    pub(super) fn new(
        slot: Slot,
        supervisor: Option<Slot>,
        order: u64,
        name: String,
        path: String,
        plan: Arc<ChildPlan>,
    ) -> Child {
        let (launch, node) = match &plan.kind {
            ChildKind::Worker { launch } => (Some(*launch), None),
            ChildKind::Supervisor(plan) => (None, Some(Box::new(Node::new(plan)))),
        };
        Child {
            slot,
            supervisor,
            order,
            entry: None,
            index: 0,
            path,
            name,
            plan,
            launch,
            life: Life::Down,
            current: Incarnation(0),
            issued: Incarnation(0),
            previous: None,
            up_since: Time::ZERO,
            leaving: None,
            failures: 0,
            strikes: 0,
            restarts: 0,
            aside: false,
            removing: false,
            waiters: Vec::new(),
            reload: None,
            reload_next: VecDeque::new(),
            node,
        }
    }

    /// The current incarnation, or the last one.
    pub(super) fn worker(&self) -> WorkerId {
        WorkerId { slot: self.slot, incarnation: self.current }
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.plan.restart == Restart::Temporary
    }

    /// Whether a process (or the children of a node) may still be there, or a restart is to come: what keeps
    /// `all_significant` from taking effect (RULES 51).
    pub(super) fn counts_as_alive(&self) -> bool {
        !matches!(self.life, Life::Down)
    }

    /// Up for long enough to have no history.
    pub(super) fn is_healthy(&self, now: Time) -> bool {
        self.plan.backoff.is_none_or(|backoff| now.saturating_sub(self.up_since) >= backoff.healthy_after)
    }

    /// The delay after this many `strikes`: doubling, capped, less a random part. Zero without a backoff.
    pub(super) fn delay(&self, rng: &mut fastrand::Rng) -> Duration {
        let Some(backoff) = self.plan.backoff else { return Duration::ZERO };
        let doublings = self.strikes.saturating_sub(1);
        let factor = 1u32.checked_shl(doublings).filter(|_| doublings < 31);
        let full = factor.and_then(|factor| backoff.first.checked_mul(factor)).unwrap_or(backoff.cap).min(backoff.cap);
        // Between 0.0 and 1.0, as the plan was checked: the product cannot overflow.
        full.mul_f64((1.0 - backoff.jitter * rng.f64()).clamp(0.0, 1.0))
    }

    /// What the outside is told about it.
    pub(super) fn state(&self, now: Time) -> State {
        match &self.life {
            Life::Down | Life::Dead { .. } => State::Down,
            Life::Starting { .. } => State::Starting(self.worker()),
            Life::Up if self.node.as_ref().is_some_and(|node| node.phase == Phase::Stopping) => {
                State::Stopping(self.worker())
            }
            Life::Up => State::Up(self.worker()),
            Life::Stopping { .. } => State::Stopping(self.worker()),
            Life::Restarting => State::Restarting,
            Life::Backoff { until } => State::Backoff(until.saturating_sub(now)),
        }
    }
}
