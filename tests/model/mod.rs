//! Processes that live only in a list, beneath a tree: what a performer would keep, and what must hold whatever happens.
#![allow(dead_code, missing_docs, reason = "each test uses a part of it")]

pub(crate) mod script;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rclust_core::tree::event::{Action, Answer, CallId, End, Event, Notice, Request, State, Time};
use rclust_core::tree::machine::Tree;
use rclust_core::tree::plan::{Intensity, SupervisorPlan};
use rclust_core::{ExitReason, Slot, WorkerId};

/// One process.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Process {
    pub(crate) ready: bool,
    pub(crate) retired: bool,
    pub(crate) stopped: bool,
    pub(crate) killed: bool,
}

/// A tree, and the processes it asked for. Every action is checked as it comes.
pub(crate) struct Model {
    pub(crate) tree: Tree,
    pub(crate) now: Time,
    pub(crate) living: BTreeMap<WorkerId, Process>,
    pub(crate) gone: Vec<WorkerId>,
    pub(crate) open: HashMap<CallId, ()>,
    pub(crate) answers: HashMap<CallId, Answer>,
    pub(crate) calls: u64,
    pub(crate) end: Option<End>,
    pub(crate) booted: bool,
    /// What was done, without notices and answers.
    pub(crate) effects: Vec<Action>,
    pub(crate) notices: Vec<Notice>,
    /// Check the order of starts and stops too: holds only if nobody calls, kills or reloads.
    pub(crate) ordered: bool,
    /// Supervisor nodes that were announced and not answered.
    pub(crate) asking: Vec<WorkerId>,
    started: HashSet<WorkerId>,
    ended: HashSet<WorkerId>,
    limits: HashMap<Slot, (u32, Duration)>,
    restarts: HashMap<Slot, Vec<Time>>,
}

impl Model {
    pub(crate) fn new(plan: SupervisorPlan, seed: u64) -> Model {
        let limit = plan.intensity;
        let tree = Tree::new(plan.clone(), seed).expect("the test's plan can be");
        let mut limits = HashMap::new();
        note_limit(&mut limits, Slot::SUPERVISOR, limit);
        let mut model = Model {
            tree,
            now: Time::ZERO,
            living: BTreeMap::new(),
            gone: Vec::new(),
            open: HashMap::new(),
            answers: HashMap::new(),
            calls: 0,
            end: None,
            booted: false,
            effects: Vec::new(),
            notices: Vec::new(),
            ordered: false,
            asking: Vec::new(),
            started: HashSet::new(),
            ended: HashSet::new(),
            limits,
            restarts: HashMap::new(),
        };
        model.learn_limits(Slot::SUPERVISOR, &plan);
        model
    }

    /// The limits of the nodes below, by slot: they are given depth-first.
    fn learn_limits(&mut self, node: Slot, plan: &SupervisorPlan) {
        use rclust_core::tree::plan::ChildKind;
        for (slot, child) in self.tree.children(node).into_iter().zip(&plan.children) {
            if let ChildKind::Supervisor(plan) = &child.kind {
                note_limit(&mut self.limits, slot, plan.intensity);
                self.learn_limits(slot, plan);
            }
        }
    }

    pub(crate) fn call(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        if self.end.is_none() {
            self.open.insert(call, ());
            self.handle(Event::Call { call, request });
        }
        call
    }

    pub(crate) fn boot(&mut self) {
        self.handle(Event::Boot);
    }

    pub(crate) fn ready(&mut self, worker: WorkerId) {
        if let Some(process) = self.living.get_mut(&worker) {
            process.ready = true;
        }
        self.handle(Event::Ready { worker });
    }

    pub(crate) fn exits(&mut self, worker: WorkerId, reason: ExitReason) {
        if self.living.remove(&worker).is_some() {
            self.gone.push(worker);
        }
        self.handle(Event::Exited { worker, reason });
    }

    pub(crate) fn wakeup(&mut self) -> bool {
        match self.tree.poll_wakeup() {
            Some(at) => {
                self.now = self.now.max(at);
                self.handle(Event::Wakeup);
                true
            }
            None => false,
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        if std::env::var_os("MODEL_LOG").is_some() {
            eprintln!("{:?} {event:?}", self.now);
        }
        self.tree.handle(self.now, event);
        while let Some(action) = self.tree.poll_action() {
            if std::env::var_os("MODEL_LOG").is_some() {
                eprintln!("    {action:?}");
            }
            assert!(self.end.is_none(), "{action:?} after the end");
            self.check(action);
        }
        for (slot, count) in self.living.keys().fold(HashMap::new(), |mut all: HashMap<Slot, u32>, worker| {
            *all.entry(worker.slot).or_default() += 1;
            all
        }) {
            assert!(count <= 2, "{count} processes in {slot}");
        }
        let mut current = HashMap::new();
        for (worker, process) in &self.living {
            if process.ready && !process.retired && !process.killed {
                let first = current.insert(worker.slot, worker);
                assert!(first.is_none(), "{first:?} and {worker} are both current");
            }
        }
    }

    fn check(&mut self, action: Action) {
        match &action {
            Action::Start { worker, .. } => {
                let others: Vec<_> = self.living.iter().filter(|(other, _)| other.slot == worker.slot).collect();
                if let Some((other, process)) = others.iter().find(|(_, p)| !p.retired && !p.killed) {
                    assert!(process.ready, "{worker} is started beside {other}, which is starting");
                    // A reload; the group may have begun to stop within the same event.
                    let state = self.tree.state(worker.slot);
                    let old = |state| matches!(state, Some(State::Up(w) | State::Stopping(w)) if w == **other);
                    assert!(old(state.clone()), "{worker}: no reload, but {state:?}");
                }
                assert!(!self.gone.contains(worker), "{worker} is started twice");
                self.check_start_order(*worker);
                self.living.insert(*worker, Process::default());
                self.started.insert(*worker);
            }
            Action::Stop { worker, .. } => {
                self.check_stop_order(*worker);
                let process = self.living.get_mut(worker).expect("who is asked to stop lives");
                assert!(!std::mem::replace(&mut process.stopped, true), "{worker} is asked twice");
            }
            Action::Kill { worker } => {
                let process = self.living.get_mut(worker).expect("who is killed lives");
                assert!(!std::mem::replace(&mut process.killed, true), "{worker} is killed twice");
            }
            Action::Retire { worker, by, .. } => {
                assert!(self.living.get(by).is_some_and(|process| process.ready), "{by} is ready");
                let process = self.living.get_mut(worker).expect("who is retired lives");
                assert!(!std::mem::replace(&mut process.retired, true));
            }
            Action::Answer { call, answer } => {
                assert!(self.open.remove(call).is_some(), "{call:?} is answered twice: {answer:?}");
                self.answers.insert(*call, answer.clone());
                return;
            }
            Action::Notice(notice) => {
                self.check_notice(notice);
                self.notices.push(notice.clone());
                return;
            }
            Action::Booted => assert!(!std::mem::replace(&mut self.booted, true), "booted twice"),
            Action::End(end) => {
                assert!(self.living.is_empty(), "{:?} live at the end", self.living);
                assert!(self.open.is_empty(), "{:?} are not answered", self.open);
                let untold: Vec<_> = self.started.difference(&self.ended).collect();
                assert!(untold.is_empty(), "nobody was told that these ended: {untold:?}");
                self.end = Some(end.clone());
            }
            Action::Forget { slot } => assert!(self.tree.state(*slot).is_none(), "{slot} is forgotten and there"),
            Action::StartSupervisor { supervisor } => self.asking.push(*supervisor),
        }
        self.effects.push(action);
    }

    fn check_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Restarting { slot, .. } => {
                let Some(node) = self.tree.place(*slot).and_then(|place| place.supervisor) else { return };
                let times = self.restarts.entry(node).or_default();
                times.push(self.now);
                if let Some((allowed, within)) = self.limits.get(&node) {
                    let recent = times.iter().filter(|at| self.now.saturating_sub(**at) < *within).count();
                    assert!(recent <= *allowed as usize, "{recent} restarts under {node} within {within:?}");
                }
            }
            Notice::Ended { worker, .. } => assert!(self.ended.insert(*worker), "{worker} ended twice"),
            Notice::SupervisorDown { supervisor, .. } => {
                self.restarts.remove(&supervisor.slot);
            }
            _ => {}
        }
    }

    /// Those before it in a group are ready, or have been and their end waits to be handled, or have declined.
    fn check_start_order(&self, worker: WorkerId) {
        // (The supervisor may have begun to stop within the same event.)
        let supervisor = self.tree.place(worker.slot).and_then(|place| place.supervisor);
        let runs = supervisor.and_then(|slot| self.tree.state(slot));
        if !self.ordered || !matches!(runs, Some(State::Up(_) | State::Starting(_))) {
            return;
        }
        for (other, _) in self.siblings(worker.slot).take_while(|(other, _)| *other != worker.slot) {
            let state = self.tree.state(other);
            if self.tree.place(other).is_some_and(|place| place.is_supervisor)
                && matches!(state, Some(State::Stopping(_)))
            {
                // It was ready, and ends by itself just now: its supervisor will come to that.
                continue;
            }
            assert!(
                matches!(state, Some(State::Up(_) | State::Down | State::Backoff(_) | State::Restarting)),
                "{worker} is started while {other} is {state:?}"
            );
        }
    }

    /// Those after it are down already.
    fn check_stop_order(&self, worker: WorkerId) {
        if !self.ordered {
            return;
        }
        for (other, _) in self.siblings(worker.slot).skip_while(|(other, _)| *other != worker.slot).skip(1) {
            let state = self.tree.state(other);
            let cancelled = self.living.iter().any(|(w, p)| w.slot == other && !p.ready);
            assert!(cancelled || matches!(state, Some(State::Down)), "{worker} is stopped while {other} is {state:?}");
        }
    }

    fn siblings(&self, slot: Slot) -> impl Iterator<Item = (Slot, usize)> + use<> {
        let supervisor = self.tree.place(slot).and_then(|place| place.supervisor).unwrap_or(Slot::SUPERVISOR);
        self.tree.children(supervisor).into_iter().zip(0..)
    }

    /// Lets everything that was asked to end do so, and time pass, until the tree has ended.
    pub(crate) fn drive_to_end(&mut self) {
        for _ in 0..10_000 {
            if self.end.is_some() {
                return;
            }
            let leaving = self.living.iter().find(|(_, p)| p.stopped || p.killed || p.retired).map(|(w, _)| *w);
            let starting = self.living.iter().find(|(_, p)| !p.ready).map(|(w, _)| *w);
            if let Some(worker) = leaving {
                self.exits(worker, ExitReason::Shutdown);
            } else if let Some(worker) = starting {
                self.ready(worker);
            } else if let Some(supervisor) = self.asking.pop() {
                self.handle(Event::Ready { worker: supervisor });
            } else if !self.wakeup() {
                break;
            }
        }
        assert!(self.end.is_some(), "it does not end; living: {:?}", self.living);
    }
}

fn note_limit(limits: &mut HashMap<Slot, (u32, Duration)>, slot: Slot, intensity: Intensity) {
    if let Intensity::Limited { restarts, within } = intensity {
        limits.insert(slot, (restarts, within));
    }
}
