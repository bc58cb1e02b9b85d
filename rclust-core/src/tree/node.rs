//! What one supervisor node knows: its children, its queue, what it is in the middle of.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::event::{CallId, GiveUp, Request, Time};
use super::intensity::Window;
use super::plan::{AutoShutdown, ChildPlan, Intensity, Strategy, SupervisorKind, SupervisorPlan};
use super::pool::Resize;
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};

/// A supervisor node; it behaves as one OTP supervisor process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) strategy: Strategy,
    pub(super) intensity: Intensity,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) kind: SupervisorKind,
    /// What every (re)start of the node begins with (RULES 48).
    pub(super) boot: Vec<Entry>,
    /// Dynamic nodes: what is copied.
    pub(super) template: Option<Arc<ChildPlan>>,

    /// By [`Child::order`](super::child::Child::order).
    pub(super) children: BTreeMap<u64, Slot>,
    pub(super) names: HashMap<String, Slot>,
    pub(super) next_order: u64,
    /// Copies made so far: their numbers are not given twice.
    pub(super) copies: u32,

    pub(super) phase: Phase,
    pub(super) op: Op,
    /// Deaths, retries and calls that wait for their turn (RULES 14, 32).
    pub(super) queue: VecDeque<Item>,
    /// Its queue stands still (a test's doing).
    pub(super) suspended: bool,
    /// How many children are [`aside`](super::child::Child::aside).
    pub(super) aside: usize,
    pub(super) window: Window,
    /// Why it is stopping.
    pub(super) cause: Option<Cause>,
    /// What its workers are told when they are stopped.
    pub(super) stop_reason: StopReason,
    /// It was killed: its children are orphans (RULES 47).
    pub(super) killed: bool,
    /// The worker whose failed start made the last boot of this node fail.
    pub(super) failed_at: Option<Slot>,
    pub(super) resize: Option<Resize>,
    pub(super) resizes: VecDeque<(CallId, u32)>,
}

/// One line of the boot list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) plan: Arc<ChildPlan>,
    /// The slot it has; a forgotten child gets a new one when the node boots again.
    pub(super) slot: Option<Slot>,
}

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Off,
    /// It waits for the answer to `Action::StartSupervisor`.
    Asking,
    Booting,
    Running,
    Stopping,
}

/// What a node is in the middle of; its queue waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Idle,
    /// One child after the other, from `next` on; `at` is being started.
    Start {
        at: Option<Slot>,
        next: u64,
    },
    /// A pool boots: so many members are not ready yet.
    StartAll {
        left: usize,
    },
    /// The restart of one child alone.
    One {
        at: Slot,
    },
    /// One child after the other, from the last below `below` down to `from`.
    Stop {
        from: u64,
        below: u64,
        then: Then,
    },
    /// All at once: so many live.
    StopAll {
        left: usize,
    },
}

/// What follows when the group is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// The node ends.
    End,
    /// The group is started.
    Start,
    /// This child waits until then, and the group with it.
    Wait { slot: Slot, until: Time },
}

/// What waits in a node's queue.
#[derive(Debug)]
pub(super) enum Item {
    /// This child ended.
    Death(WorkerId),
    /// Try the failed start again (RULES 32).
    Retry(Slot),
    /// The backoff that ends at this time has ended.
    Due(Slot, Time),
    Call(CallId, Request),
}

/// Why a node stops.
#[derive(Debug)]
pub(super) enum Cause {
    /// It was ordered to (RULES 45).
    Ordered(ExitReason),
    GaveUp(GiveUp),
    /// A significant child's end (RULES 50, 51).
    Auto {
        slot: Slot,
    },
    /// Its boot failed (RULES 9), in the end because of this worker.
    StartFailed {
        slot: Slot,
        reason: ExitReason,
    },
}

impl Node {
    pub(super) fn new(plan: &SupervisorPlan) -> Node {
        let mut entries = plan.children.iter().map(|child| Arc::new(child.clone()));
        let (template, boot) = match plan.kind {
            SupervisorKind::Dynamic { .. } => (entries.next(), Vec::new()),
            SupervisorKind::Tree | SupervisorKind::Pool => {
                (None, entries.map(|plan| Entry { plan, slot: None }).collect())
            }
        };
        Node {
            strategy: plan.strategy,
            intensity: plan.intensity,
            auto_shutdown: plan.auto_shutdown,
            kind: plan.kind,
            boot,
            template,
            children: BTreeMap::new(),
            names: HashMap::new(),
            next_order: 0,
            copies: 0,
            phase: Phase::Off,
            op: Op::Idle,
            queue: VecDeque::new(),
            suspended: false,
            aside: 0,
            window: Window::default(),
            cause: None,
            stop_reason: StopReason::Shutdown,
            killed: false,
            failed_at: None,
            resize: None,
            resizes: VecDeque::new(),
        }
    }

    pub(super) fn is_pool(&self) -> bool {
        self.kind == SupervisorKind::Pool
    }

    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self.kind, SupervisorKind::Dynamic { .. })
    }

    /// Whether its children go down together: then calls wait for their turn, as in OTP.
    pub(super) fn is_group(&self) -> bool {
        self.kind == SupervisorKind::Tree && self.strategy != Strategy::OneForOne
    }

    /// Whether a group of children (or all) is being started or stopped.
    pub(super) fn is_in_group_action(&self) -> bool {
        !matches!(self.op, Op::Idle | Op::One { .. })
    }

    /// The last child whose place is in this range.
    pub(super) fn last_between(&self, from: u64, below: u64) -> Option<(u64, Slot)> {
        if from >= below {
            return None;
        }
        self.children.range(from..below).next_back().map(|(order, slot)| (*order, *slot))
    }

    /// The first child from this place on.
    pub(super) fn first_from(&self, next: u64) -> Option<(u64, Slot)> {
        self.children.range(next..).next().map(|(order, slot)| (*order, *slot))
    }

    /// All children, in order.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.children.values().copied().collect()
    }
}
