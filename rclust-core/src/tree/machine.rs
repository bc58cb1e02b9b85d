//! Handle an event, hand out actions, name the next wakeup.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::child::{Child, Life};
use super::event::{Action, CallId, End, Event, Notice, SpecView, State, Time};
use super::node::{Cause, Node, Phase};
use super::plan::{ChildKind, ChildPlan, PlanError, Restart, Shutdown, SupervisorPlan};
use super::rolling::{Retired, Rolling};
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};

/// The supervision tree.
///
/// Feed it with [`handle`](Tree::handle); after each event take what is to be done from
/// [`poll_action`](Tree::poll_action) until there is nothing left, and come back with [`Event::Wakeup`] at the time
/// that [`poll_wakeup`](Tree::poll_wakeup) names. Events that cannot be (of an incarnation that is no longer
/// there, a second exit) are ignored.
///
/// # Source
/// OTP's `supervisor`, as numbered in RULES.md; each part of this folder names the rules it follows.
#[derive(Debug)]
pub struct Tree {
    pub(super) now: Time,
    pub(super) children: BTreeMap<Slot, Child>,
    pub(super) next_slot: u32,
    pub(super) paths: HashMap<String, Slot>,
    pub(super) actions: VecDeque<Action>,
    /// What is left to do for the event in hand; empty between two events.
    pub(super) todo: VecDeque<Todo>,
    pub(super) timers: Timers,
    pub(super) rng: fastrand::Rng,
    /// Replaced incarnations that still live, at most one in a slot.
    pub(super) retired: BTreeMap<Slot, Retired>,
    pub(super) rolling: Option<Rolling>,
    pub(super) rollings: VecDeque<(CallId, Slot, u32)>,
    pub(super) ask_before_supervisors: bool,
    /// How the root ended; `End` is sent when the last retired incarnation is gone too.
    pub(super) end: Option<End>,
    /// `End` has been sent.
    pub(super) over: bool,
}

/// A step that the event in hand has made necessary. Steps instead of recursion: a chain of synchronous outcomes
/// through the tree stays flat, and each node finishes its own step before another one sees the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Todo {
    /// Let this node go on.
    Turn(Slot),
    /// Let the rolling replacement go on.
    Roll,
}

/// Deadlines in order; each slot has at most one of each kind.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Time, Slot, Timer)>,
    at: BTreeMap<(Slot, Timer), Time>,
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// The slot's start, stop, leave or backoff, whichever it is in.
    Life,
    /// The start of the incarnation that a reload brings up.
    Next,
    /// The end of the replaced one.
    Retired,
}

impl Timers {
    pub(super) fn set(&mut self, slot: Slot, timer: Timer, at: Time) {
        self.clear(slot, timer);
        self.order.insert((at, slot, timer));
        self.at.insert((slot, timer), at);
    }

    pub(super) fn clear(&mut self, slot: Slot, timer: Timer) -> Option<Time> {
        let at = self.at.remove(&(slot, timer))?;
        self.order.remove(&(at, slot, timer));
        Some(at)
    }

    pub(super) fn is_set(&self, slot: Slot, timer: Timer) -> bool {
        self.at.contains_key(&(slot, timer))
    }

    fn first(&self) -> Option<Time> {
        self.order.first().map(|(at, _, _)| *at)
    }

    fn pop_due(&mut self, now: Time) -> Option<(Slot, Timer)> {
        let (at, slot, timer) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.clear(slot, timer);
        Some((slot, timer))
    }
}

/// What is known of a slot beside its state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// `ingest/b`, `web[2]`; empty for the root.
    pub path: String,
    /// The name among its siblings; empty for the root.
    pub name: String,
    /// The supervisor node it is a child of; `None` for the root.
    pub supervisor: Option<Slot>,
    /// The pool's node, for a pool's member.
    pub pool: Option<Slot>,
    /// The place in the pool, the number of a dynamic copy, else 0.
    pub index: u32,
    /// Whether it is a supervisor node.
    pub is_supervisor: bool,
    /// What to run, for a worker.
    pub launch: Option<u32>,
}

impl Tree {
    /// Makes the tree of a plan; nothing starts before [`Event::Boot`].
    ///
    /// The root is slot 0, all others follow depth-first in the order of their lists. `seed` decides the jitter of
    /// the backoff and nothing else.
    ///
    /// # Errors
    /// The plan cannot be: see [`SupervisorPlan::check`].
    pub fn new(plan: SupervisorPlan, seed: u64) -> Result<Tree, PlanError> {
        plan.check()?;
        let root = ChildPlan {
            name: String::new(),
            restart: Restart::Temporary,
            shutdown: Shutdown::Infinity,
            significant: false,
            start_timeout: Duration::ZERO,
            backoff: None,
            kind: ChildKind::Supervisor(plan),
        };
        let mut tree = Tree {
            now: Time::ZERO,
            children: BTreeMap::new(),
            next_slot: 0,
            paths: HashMap::new(),
            actions: VecDeque::new(),
            todo: VecDeque::new(),
            timers: Timers::default(),
            rng: fastrand::Rng::with_seed(seed),
            retired: BTreeMap::new(),
            rolling: None,
            rollings: VecDeque::new(),
            ask_before_supervisors: false,
            end: None,
            over: false,
        };
        tree.plant(None, 0, String::new(), Arc::new(root));
        Ok(tree)
    }

    /// Has the machine ask, with `Action::StartSupervisor`, before each supervisor node but the root starts.
    ///
    /// Supervisor nodes have no start function of their own here, so nothing but a child can make their start
    /// fail; with this, a test can (`failnext` of the recorded scenarios).
    pub fn ask_before_supervisors(&mut self) {
        self.ask_before_supervisors = true;
    }

    /// Takes in what happened at `now`. Afterwards take the actions.
    ///
    /// A `now` before that of an earlier event counts as that. After [`Action::End`] nothing has an effect: no call
    /// is answered any more.
    pub fn handle(&mut self, now: Time, event: Event) {
        if self.over {
            return;
        }
        self.now = self.now.max(now);
        match event {
            Event::Boot => self.boot(),
            Event::Ready { worker } => self.on_ready(worker),
            Event::Exited { worker, reason } => self.on_exited(worker, reason),
            Event::Leave { worker } => self.on_leave(worker),
            Event::Wakeup => self.on_wakeup(),
            Event::Call { call, request } => self.on_call(call, request),
            Event::EndSupervisor { supervisor, reason } => self.end_supervisor(supervisor, reason),
            Event::Stop => {
                self.stop_node(Slot::SUPERVISOR, Cause::Ordered(ExitReason::Shutdown), StopReason::Shutdown);
            }
            Event::Kill => self.kill_all(),
            Event::Suspend { supervisor } => self.suspend(supervisor, true),
            Event::Resume { supervisor } => self.suspend(supervisor, false),
        }
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Turn(node) => self.turn(node),
                Todo::Roll => self.roll(),
            }
        }
        if self.retired.is_empty() {
            if let Some(end) = self.end.take() {
                self.over = true;
                self.actions.push_back(Action::End(end));
            }
        }
    }

    /// Gives the next thing to be done, in the order in which it was decided.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Says when the machine wants [`Event::Wakeup`] next; `None`: not before something else happens.
    #[must_use]
    pub fn poll_wakeup(&self) -> Option<Time> {
        if self.over { None } else { self.timers.first() }
    }

    /// Finds a slot by its path: `sum`, `ingest/b`, `web[2]`. The empty path is the root.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Slot> {
        self.paths.get(path).copied()
    }

    /// Tells what is known of a slot; `None`: never given, or forgotten.
    #[must_use]
    pub fn place(&self, slot: Slot) -> Option<Place> {
        let child = self.children.get(&slot)?;
        let pool = child.supervisor.filter(|node| self.node(*node).is_some_and(Node::is_pool));
        Some(Place {
            path: child.path.clone(),
            name: child.name.clone(),
            supervisor: child.supervisor,
            pool,
            index: child.index,
            is_supervisor: child.node.is_some(),
            launch: child.launch,
        })
    }

    /// Lists the children of a supervisor node in their order; empty for anything else.
    #[must_use]
    pub fn children(&self, slot: Slot) -> Vec<Slot> {
        self.node(slot).map(Node::slots).unwrap_or_default()
    }

    /// Says what describes the copies of a dynamic supervisor; `None` for anything else.
    #[must_use]
    pub fn template(&self, slot: Slot) -> Option<u32> {
        match self.node(slot)?.template.as_deref()?.kind {
            ChildKind::Worker { launch } => Some(launch),
            ChildKind::Supervisor(_) => None,
        }
    }

    /// Says what a slot is doing; `None`: never given, or forgotten.
    #[must_use]
    pub fn state(&self, slot: Slot) -> Option<State> {
        self.children.get(&slot).map(|child| child.state(self.now))
    }

    /// Names the incarnation of a slot that is there, or was last; `None`: never started, or forgotten.
    #[must_use]
    pub fn worker(&self, slot: Slot) -> Option<WorkerId> {
        self.children.get(&slot).map(Child::worker).filter(|worker| worker.incarnation.0 > 0)
    }

    /// Shows the specification of the child in this slot; `None`: never given, forgotten, or the root.
    #[must_use]
    pub fn spec(&self, slot: Slot) -> Option<SpecView> {
        let child = self.children.get(&slot)?;
        child.supervisor?;
        let ChildPlan { restart, shutdown, significant, .. } = *child.plan;
        Some(SpecView { restart, shutdown, significant })
    }

    /// Lists the slots of the workers, up or not, in the order of their numbers.
    pub fn workers(&self) -> impl Iterator<Item = Slot> + '_ {
        self.children.values().filter(|child| child.node.is_none()).map(|child| child.slot)
    }

    /// Counts how often supervision has started this slot again; starts by calls and reloads are not among them.
    #[must_use]
    pub fn restart_count(&self, slot: Slot) -> Option<u64> {
        self.children.get(&slot).map(|child| child.restarts)
    }

    fn boot(&mut self) {
        let Some(root) = self.children.get(&Slot::SUPERVISOR) else { return };
        let fresh = matches!(root.life, Life::Down) && root.issued.0 == 0;
        if fresh && self.end.is_none() {
            self.start(Slot::SUPERVISOR, super::child::StartWhy::Op);
        }
    }

    fn suspend(&mut self, slot: Slot, suspended: bool) {
        if let Some(node) = self.node_mut(slot) {
            node.suspended = suspended;
        }
        self.turn_later(slot);
    }

    fn on_wakeup(&mut self) {
        while let Some((slot, timer)) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Life => self.life_deadline(slot),
                Timer::Next => self.next_timed_out(slot),
                Timer::Retired => self.kill_retired(slot),
            }
        }
    }

    /// A start has taken too long, a stop has, or a backoff is over.
    fn life_deadline(&mut self, slot: Slot) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let worker = child.worker();
        match &mut child.life {
            Life::Starting { timed_out, .. } => {
                *timed_out = true;
                self.act(Action::Kill { worker });
            }
            Life::Stopping { killed, .. } => {
                *killed = true;
                if child.node.is_some() {
                    self.kill_node(slot, true);
                } else {
                    self.act(Action::Kill { worker });
                }
            }
            Life::Backoff { until } => {
                let until = *until;
                self.backoff_over(slot, until);
            }
            Life::Up => self.leave_deadline(slot),
            Life::Down | Life::Dead { .. } | Life::Restarting => {}
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.act(Action::Notice(notice));
    }

    pub(super) fn node(&self, slot: Slot) -> Option<&Node> {
        self.children.get(&slot)?.node.as_deref()
    }

    pub(super) fn node_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        self.children.get_mut(&slot)?.node.as_deref_mut()
    }

    /// The node that `slot` is a child of.
    pub(super) fn supervisor(&self, slot: Slot) -> Option<Slot> {
        self.children.get(&slot)?.supervisor
    }

    pub(super) fn phase(&self, node: Slot) -> Phase {
        self.node(node).map_or(Phase::Off, |node| node.phase)
    }

    /// Lets the node go on once the event in hand has been looked at.
    pub(super) fn turn_later(&mut self, node: Slot) {
        let todo = Todo::Turn(node);
        if self.todo.back() != Some(&todo) {
            self.todo.push_back(todo);
        }
    }

    /// Whether a worker was ever given this id.
    pub(super) fn was_issued(&self, worker: WorkerId) -> bool {
        match self.children.get(&worker.slot) {
            Some(child) => worker.incarnation.0 >= 1 && worker.incarnation <= child.issued,
            None => worker.slot.0 < self.next_slot,
        }
    }
}
