//! Plays a scenario on the tree, with a world beneath it, and writes the trace.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use rclust_core::tree::event::{Action, Answer, CallId, End, Event as Input, State, Time};
use rclust_core::tree::machine::Tree;
use rclust_core::{ExitReason, Slot, WorkerId};

use super::scenario::{Event, Member, Mode, Role, Scenario, StartStyle};
use super::terms;
use super::world::{Birth, Simulated, World};

/// Plays a scenario in the simulated world. The trace has no `oracle` line.
pub(crate) fn play(scenario: &Scenario) -> String {
    play_in(scenario, Simulated::default())
}

/// Plays a scenario in the given world.
pub(crate) fn play_in<W: World>(scenario: &Scenario, world: W) -> String {
    let mut out = format!("scenario {}\n", scenario.name);
    let mut refused = HashMap::new();
    let note = &mut |id: &str, term: String| {
        refused.insert(id.to_owned(), term);
    };
    let built = terms::supervisor(scenario, scenario.top(), note)
        .and_then(|plan| Tree::new(plan, 0).map_err(|error| error.to_string()));
    match built {
        Ok(tree) => Player::new(scenario, tree, world, refused).run(&mut out),
        Err(term) => out.push_str(&format!("boot error {term}\nend not-started\n")),
    }
    out
}

pub(super) struct Player<'a, W> {
    pub(super) scenario: &'a Scenario,
    pub(super) tree: Tree,
    pub(super) world: W,
    /// Supervisors that OTP refuses when they are started, and the term.
    pub(super) refused: HashMap<String, String>,

    /// What the tree wants done and the world has not been told.
    pub(super) effects: VecDeque<Action>,
    /// Exits that were ordered and have not come.
    pub(super) awaited: HashSet<WorkerId>,
    /// Supervisors that are to crash as soon as they are up, and those that are up now.
    pub(super) doomed: HashMap<WorkerId, ExitReason>,
    pub(super) crashing: VecDeque<(Slot, ExitReason)>,
    pub(super) answers: HashMap<CallId, Answer>,
    pub(super) calls: u64,
    pub(super) end: Option<End>,
    /// The reason that the top supervisor ends with.
    pub(super) end_reason: ExitReason,

    /// The trace of the event in hand.
    pub(super) lines: Vec<String>,
    pub(super) orphans: BTreeSet<String>,
    /// A killed supervisor's exit is handled before what happens below it.
    pub(super) killed: Option<(WorkerId, usize)>,
    /// A run of parallel stops under this supervisor began at this line.
    pub(super) parallel: Option<(Slot, usize)>,

    /// `ID` of each slot that was ever started.
    pub(super) labels: HashMap<Slot, String>,
    /// The supervisor of each of them (the tree may have forgotten it by the time it is asked for).
    pub(super) supervisors: HashMap<Slot, Slot>,
    /// The dynamic supervisor of each copy.
    pub(super) copy_of: HashMap<Slot, Slot>,
    /// The label of the copy that is being spawned.
    pub(super) spawning: Option<String>,
    /// How many good starts each label has had.
    pub(super) instances: HashMap<String, u32>,
    /// `ID#N` of each incarnation that came up.
    pub(super) names: HashMap<WorkerId, String>,
    /// The last incarnation of each label that came up.
    pub(super) latest: HashMap<String, WorkerId>,

    pub(super) fail_next: HashMap<String, (u32, Mode)>,
    pub(super) crash_loop: HashMap<String, (u32, ExitReason)>,
    /// The next start of this label is to be held.
    pub(super) hold: Option<String>,
    pub(super) held: Option<WorkerId>,
    /// In which way a start was meant to fail.
    pub(super) meant: HashMap<WorkerId, Mode>,
    /// The error term of the last failed start of each label.
    pub(super) terms: HashMap<String, String>,
    /// Which child's failure made the boot of a supervisor fail.
    pub(super) failed_child: HashMap<Slot, (String, String)>,
}

impl<'a, W: World> Player<'a, W> {
    fn new(scenario: &'a Scenario, mut tree: Tree, world: W, refused: HashMap<String, String>) -> Self {
        tree.ask_before_supervisors();
        Player {
            scenario,
            tree,
            world,
            refused,
            effects: VecDeque::new(),
            awaited: HashSet::new(),
            doomed: HashMap::new(),
            crashing: VecDeque::new(),
            answers: HashMap::new(),
            calls: 0,
            end: None,
            end_reason: ExitReason::Shutdown,
            lines: Vec::new(),
            orphans: BTreeSet::new(),
            killed: None,
            parallel: None,
            labels: HashMap::new(),
            supervisors: HashMap::new(),
            copy_of: HashMap::new(),
            spawning: None,
            instances: HashMap::new(),
            names: HashMap::new(),
            latest: HashMap::new(),
            fail_next: HashMap::new(),
            crash_loop: HashMap::new(),
            hold: None,
            held: None,
            meant: HashMap::new(),
            terms: HashMap::new(),
            failed_child: HashMap::new(),
        }
    }

    fn run(mut self, out: &mut String) {
        self.tell(Input::Boot);
        self.settle();
        if self.end.is_some() {
            out.push_str(&format!("boot error {}\n", self.boot_failure(Slot::SUPERVISOR)));
            self.flush(out);
            out.push_str("end not-started\n");
            return;
        }
        out.push_str("boot ok\n");
        self.flush(out);
        self.print_states(out);
        let scenario = self.scenario;
        for (number, (text, event)) in (1..).zip(&scenario.events) {
            out.push_str(&format!("event {number} {text}\n"));
            if let Some(result) = self.play_event(event) {
                out.push_str(&format!(" result {result}\n"));
            }
            self.flush(out);
            if self.end.is_some() {
                out.push_str(&format!("end exit {}\n", terms::reason(&self.end_reason)));
                return;
            }
            self.print_states(out);
        }
        out.push_str("end alive\nteardown\n");
        self.tell(Input::Stop);
        self.settle();
        self.flush(out);
        out.push_str(&format!("exit {}\n", terms::reason(&self.end_reason)));
    }

    // Events.

    /// Plays one event until nothing moves any more; the result, for those that have one.
    pub(super) fn play_event(&mut self, event: &Event) -> Option<String> {
        let result = match event {
            Event::Crash(x, reason) => self.crash(x, reason),
            Event::FailNext(x, n, mode) => {
                self.fail_next.insert(x.clone(), (*n, *mode));
                None
            }
            Event::CrashLoop(x, n, reason) => {
                self.crash_loop.insert(x.clone(), (*n, reason.clone()));
                None
            }
            Event::Together(sup, all, reason) => self.together(sup, all, reason),
            Event::During(x, event) => return self.during(x, event),
            Event::Wait(time) => {
                let until = self.world.now().saturating_add(*time);
                while self.step(Some(until)) {}
                None
            }
            Event::Stop => {
                self.tell(Input::Stop);
                None
            }
            call => {
                let pending = self.call(call);
                self.settle();
                return Some(self.result(call, pending));
            }
        };
        self.settle();
        result
    }

    /// Has `x` end by itself.
    pub(super) fn crash(&mut self, x: &str, reason: &ExitReason) -> Option<String> {
        let Some(State::Up(worker)) = self.state(x) else { return Some("not-running".to_owned()) };
        if !self.scenario.member(x).is_some_and(Member::is_sup) {
            self.awaited.insert(worker);
            self.world.end(worker, reason.clone());
            return None;
        }
        if worker.slot == Slot::SUPERVISOR {
            self.end_reason = reason.clone();
        }
        if matches!(reason, ExitReason::Signal { .. }) {
            self.killed = Some((worker, self.lines.len()));
        }
        self.tell(Input::EndSupervisor { supervisor: worker.slot, reason: reason.clone() });
        None
    }

    /// Has several children of one supervisor end before it looks at the first.
    pub(super) fn together(&mut self, sup: &str, all: &[String], reason: &ExitReason) -> Option<String> {
        let Some(State::Up(supervisor)) = self.state(sup) else { return Some("not-running".to_owned()) };
        let supervisor = supervisor.slot;
        self.tell(Input::Suspend { supervisor });
        for x in all {
            self.crash(x, reason);
            while matches!(self.state(x), Some(State::Up(_) | State::Stopping(_))) && self.step(None) {}
        }
        self.tell(Input::Resume { supervisor });
        None
    }

    /// Plays `event` while the first restart of `x` is pending; then that restart fails.
    pub(super) fn during(&mut self, x: &str, event: &Event) -> Option<String> {
        self.hold = Some(x.to_owned());
        if let Some(result) = self.crash(x, &ExitReason::Error("error".to_owned())) {
            self.hold = None;
            return Some(result);
        }
        while self.held.is_none() && !self.is_quiet() && self.step(None) {}
        self.hold = None;
        let begin = self.lines.len();
        let pending = match event {
            Event::Stop => {
                self.tell(Input::Stop);
                None
            }
            call => self.call(call),
        };
        if let Some(worker) = self.held.take() {
            // In OTP the attempt fails before the call is looked at. Ours looks at once: a supervisor without children
            // stops while we are still asking.
            let mut lines = self.lines.split_off(begin);
            self.fail_held(worker);
            lines.extend(self.lines.drain(begin..));
            let failure = format!(" ! {x} ");
            if let Some(at) = lines.iter().position(|line| line.starts_with(&failure)) {
                let line = lines.remove(at);
                lines.insert(0, line);
            }
            self.lines.extend(lines);
        }
        self.settle();
        match event {
            Event::Stop => None,
            call => Some(self.result(call, pending)),
        }
    }

    /// The held start fails; nothing else is done before the tree has heard of it.
    pub(super) fn fail_held(&mut self, worker: WorkerId) {
        let reason = terms::failure_reason(Mode::Error);
        let is_sup = self.tree.place(worker.slot).is_some_and(|place| place.is_supervisor);
        if is_sup {
            return self.tell(Input::Exited { worker, reason });
        }
        self.world.end(worker, reason);
        let mut others = Vec::new();
        while let Some(event) = self.world.next(None) {
            let is_it = matches!(&event, Input::Exited { worker: gone, .. } if *gone == worker);
            if is_it {
                self.tell(event);
                break;
            }
            others.push(event);
        }
        for event in others {
            self.tell(event);
        }
    }

    // The tree and the world.

    pub(super) fn tell(&mut self, event: Input) {
        if let Input::Exited { worker, .. } = &event {
            self.awaited.remove(worker);
        }
        self.tree.handle(self.world.now(), event);
        while let Some(action) = self.tree.poll_action() {
            match action {
                Action::Notice(notice) => self.note(notice),
                Action::Answer { call, answer } => {
                    self.answers.insert(call, answer);
                }
                Action::End(end) => self.end = Some(end),
                Action::Booted | Action::Forget { .. } => {}
                Action::Start { worker, .. } | Action::StartSupervisor { supervisor: worker } => {
                    self.label(worker.slot);
                    self.effects.push_back(action);
                }
                effect => self.effects.push_back(effect),
            }
        }
    }

    /// Goes on until nothing moves any more.
    pub(super) fn settle(&mut self) {
        while !self.is_quiet() && self.step(None) {}
    }

    /// Does one thing: an effect, or what happens next. `false`: nothing will happen (until then).
    pub(super) fn step(&mut self, until: Option<Time>) -> bool {
        if let Some(effect) = self.effects.pop_front() {
            self.perform(effect);
            return true;
        }
        if let Some((supervisor, reason)) = self.crashing.pop_front() {
            self.tell(Input::EndSupervisor { supervisor, reason });
            return true;
        }
        let wakeup = self.tree.poll_wakeup();
        let target = match (wakeup, until) {
            (Some(wakeup), Some(until)) => Some(wakeup.min(until)),
            (one, other) => one.or(other),
        };
        match self.world.next(target) {
            Some(event) => self.tell(event),
            None if wakeup.is_some_and(|wakeup| wakeup <= self.world.now()) => self.tell(Input::Wakeup),
            None => return false,
        }
        true
    }

    /// Nothing is to be done, nothing ordered to come, every slot up or down.
    pub(super) fn is_quiet(&self) -> bool {
        let at_rest = |state: Option<State>| matches!(state, None | Some(State::Up(_) | State::Down));
        let mut slots = vec![Slot::SUPERVISOR];
        while let Some(slot) = slots.pop() {
            if !at_rest(self.tree.state(slot)) {
                return false;
            }
            slots.extend(self.tree.children(slot));
        }
        self.effects.is_empty() && self.crashing.is_empty() && self.awaited.is_empty()
    }

    pub(super) fn perform(&mut self, effect: Action) {
        match effect {
            Action::Start { worker, launch, .. } => {
                let Some(member) = self.scenario.members.get(launch as usize) else { return };
                let Role::Worker { stop, start } = &member.role else { return };
                let birth = self.birth(worker, *start);
                if matches!(birth, Birth::Doomed(_)) {
                    self.awaited.insert(worker);
                }
                self.world.start(worker, stop, birth);
            }
            Action::StartSupervisor { supervisor: worker } => {
                let refused = self.labels.get(&worker.slot).and_then(|label| self.refused.get(label)).cloned();
                let birth = self.birth(worker, StartStyle::Ok);
                match (birth, refused) {
                    (Birth::Held, _) => {}
                    (Birth::Fails(reason), _) => self.tell(Input::Exited { worker, reason }),
                    (_, Some(term)) => {
                        self.meant.insert(worker, Mode::Error);
                        self.tell(Input::Exited { worker, reason: ExitReason::Error(term) });
                    }
                    (birth, None) => {
                        if let Birth::Doomed(reason) = birth {
                            self.doomed.insert(worker, reason);
                        }
                        self.tell(Input::Ready { worker });
                    }
                }
            }
            Action::Stop { worker, .. } => self.world.stop(worker),
            Action::Kill { worker } => self.world.kill(worker),
            _ => {}
        }
    }

    /// How the next start of this slot goes.
    pub(super) fn birth(&mut self, worker: WorkerId, start: StartStyle) -> Birth {
        let label = self.labels.get(&worker.slot).cloned().unwrap_or_default();
        if self.hold.as_ref() == Some(&label) {
            self.hold = None;
            self.held = Some(worker);
            self.meant.insert(worker, Mode::Error);
            return Birth::Held;
        }
        let mode = match (self.fail_next.get_mut(&label), start) {
            (Some((n, mode)), _) if *n > 0 => {
                *n -= 1;
                Some(*mode)
            }
            (_, StartStyle::Fail(mode)) => Some(mode),
            _ => None,
        };
        if let Some(mode) = mode {
            self.meant.insert(worker, mode);
            return Birth::Fails(terms::failure_reason(mode));
        }
        match self.crash_loop.get_mut(&label) {
            Some((n, reason)) if *n > 0 => {
                *n -= 1;
                Birth::Doomed(reason.clone())
            }
            _ => Birth::Well,
        }
    }
}
