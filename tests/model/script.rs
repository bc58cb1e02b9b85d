//! Short stories about one tree: what happens, and what the tree does about it.

use std::collections::HashMap;
use std::time::Duration;

use rclust_core::tree::event::{Action, Answer, CallId, End, Event, Notice, Refusal, Request, State};
use rclust_core::tree::plan::{
    AutoShutdown, Backoff, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy, SupervisorKind, SupervisorPlan,
};
use rclust_core::{ExitReason, Slot, WorkerId};

use super::Model;

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn error() -> ExitReason {
    ExitReason::Error("broken".to_owned())
}

pub(crate) fn worker(name: &str, restart: Restart) -> ChildPlan {
    ChildPlan {
        name: name.to_owned(),
        restart,
        shutdown: Shutdown::Timeout(secs(5)),
        significant: false,
        start_timeout: secs(30),
        backoff: None,
        kind: ChildKind::Worker { launch: 0 },
    }
}

/// The plan, until it is started.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) plan: SupervisorPlan,
}

impl Script {
    fn new(strategy: Strategy, kind: SupervisorKind) -> Script {
        let intensity = Intensity::Limited { restarts: 3, within: secs(10) };
        let auto_shutdown = AutoShutdown::Never;
        Script { plan: SupervisorPlan { strategy, intensity, auto_shutdown, kind, children: Vec::new() } }
    }

    pub(crate) fn one_for_one() -> Script {
        Script::new(Strategy::OneForOne, SupervisorKind::Tree)
    }

    pub(crate) fn one_for_all() -> Script {
        Script::new(Strategy::OneForAll, SupervisorKind::Tree)
    }

    pub(crate) fn rest_for_one() -> Script {
        Script::new(Strategy::RestForOne, SupervisorKind::Tree)
    }

    pub(crate) fn dynamic(template: ChildPlan, max_children: u32) -> Script {
        let mut script = Script::new(Strategy::OneForOne, SupervisorKind::Dynamic { max_children });
        script.plan.children.push(template);
        script
    }

    /// A pool `web` of this size below the root.
    pub(crate) fn pool(size: u32) -> Script {
        let mut pool = Script::new(Strategy::OneForOne, SupervisorKind::Pool);
        pool.plan.children = worker("web", Restart::Permanent).members(size);
        Script::one_for_one().node("web", Restart::Permanent, pool)
    }

    pub(crate) fn intensity(mut self, restarts: u32, within: Duration) -> Script {
        self.plan.intensity = Intensity::Limited { restarts, within };
        self
    }

    pub(crate) fn failed_starts(mut self, failed_starts: u32) -> Script {
        self.plan.intensity = Intensity::FailedStarts { failed_starts };
        self
    }

    pub(crate) fn child(mut self, name: &str, restart: Restart) -> Script {
        self.plan.children.push(worker(name, restart));
        self
    }

    pub(crate) fn node(mut self, name: &str, restart: Restart, node: Script) -> Script {
        let kind = ChildKind::Supervisor(node.plan);
        self.plan.children.push(ChildPlan { shutdown: Shutdown::Infinity, kind, ..worker(name, restart) });
        self
    }

    /// Changes the child that was added last.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut ChildPlan)) -> Script {
        change(self.plan.children.last_mut().expect("a child comes first"));
        self
    }

    pub(crate) fn backoff(self, first: Duration, cap: Duration) -> Script {
        let backoff = Backoff { first, cap, healthy_after: secs(60), jitter: 0.0, after_ready: true };
        self.with(|child| child.backoff = Some(backoff))
    }

    /// Boots it, and waits for everybody.
    pub(crate) fn started(self) -> Story {
        let mut story = self.booting();
        while let Some(worker) = story.model.living.iter().find(|(_, p)| !p.ready).map(|(worker, _)| *worker) {
            story.model.ready(worker);
        }
        assert!(story.model.booted);
        story.sees();
        story
    }

    /// Boots it, and leaves the workers to the story.
    pub(crate) fn booting(self) -> Story {
        let mut story = Story { model: Model::new(self.plan, 1), seen: 0, names: HashMap::new(), call: None };
        story.model.boot();
        story
    }
}

/// A tree at work. Workers are named by their path.
pub(crate) struct Story {
    pub(crate) model: Model,
    seen: usize,
    names: HashMap<Slot, String>,
    call: Option<CallId>,
}

impl Story {
    /// Lets the clock show this, waking the tree where it wants to be woken.
    pub(crate) fn at(&mut self, time: Duration) -> &mut Story {
        while self.model.tree.poll_wakeup().is_some_and(|at| at <= time) {
            self.model.wakeup();
        }
        self.model.now = time;
        self
    }

    pub(crate) fn slot(&self, path: &str) -> Slot {
        self.model.tree.find(path).unwrap_or_else(|| panic!("there is no `{path}`"))
    }

    /// The newest living incarnation.
    pub(crate) fn worker(&self, path: &str) -> WorkerId {
        let slot = self.slot(path);
        let last = self.model.living.keys().rfind(|worker| worker.slot == slot);
        *last.unwrap_or_else(|| panic!("`{path}` does not live"))
    }

    pub(crate) fn ready(&mut self, path: &str) -> &mut Story {
        self.names();
        let worker = self.worker(path);
        self.model.ready(worker);
        self
    }

    pub(crate) fn exits(&mut self, path: &str, reason: ExitReason) -> &mut Story {
        self.names();
        let worker = self.worker(path);
        self.model.exits(worker, reason);
        self
    }

    pub(crate) fn happens(&mut self, event: Event) -> &mut Story {
        self.names();
        self.model.handle(event);
        self
    }

    pub(crate) fn calls(&mut self, request: Request) -> &mut Story {
        self.names();
        self.call = Some(self.model.call(request));
        self
    }

    pub(crate) fn terminate(&mut self, name: &str) -> &mut Story {
        self.calls(Request::TerminateChild { supervisor: Slot::SUPERVISOR, name: name.to_owned() })
    }

    pub(crate) fn restart(&mut self, name: &str) -> &mut Story {
        self.calls(Request::RestartChild { supervisor: Slot::SUPERVISOR, name: name.to_owned() })
    }

    /// The answer to the last call, if it has come.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.model.answers.get(&self.call.expect("a call was made"))
    }

    pub(crate) fn expect_refused(&self, refusal: Refusal) {
        assert_eq!(self.answer(), Some(&Answer::Refused(refusal)));
    }

    pub(crate) fn state(&self, path: &str) -> Option<State> {
        self.model.tree.state(self.model.tree.find(path)?)
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.model.end.as_ref()
    }

    pub(crate) fn gave_up(&self) -> Vec<Slot> {
        let gave_up = |notice: &Notice| match notice {
            Notice::GaveUp(why) => Some(why.supervisor),
            _ => None,
        };
        self.model.notices.iter().filter_map(gave_up).collect()
    }

    /// What the tree did since this was asked last: `start a`, `stop b`, `kill c`, ...
    pub(crate) fn sees(&mut self) -> Vec<String> {
        self.names();
        let fresh = self.model.effects.get(self.seen..).unwrap_or_default();
        self.seen = self.model.effects.len();
        let name = |slot: &Slot| self.names.get(slot).cloned().unwrap_or_else(|| slot.to_string());
        fresh
            .iter()
            .filter_map(|action| match action {
                Action::Start { worker, .. } => Some(format!("start {}", name(&worker.slot))),
                Action::Stop { worker, .. } => Some(format!("stop {}", name(&worker.slot))),
                Action::Kill { worker } => Some(format!("kill {}", name(&worker.slot))),
                Action::Retire { worker, .. } => Some(format!("retire {}", name(&worker.slot))),
                Action::Forget { slot } => Some(format!("forget {}", name(slot))),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn expect(&mut self, what: &[&str]) -> &mut Story {
        let seen = self.sees();
        assert_eq!(seen, what);
        self
    }

    pub(crate) fn expect_nothing(&mut self) -> &mut Story {
        self.expect(&[])
    }

    fn names(&mut self) {
        let mut slots = vec![Slot::SUPERVISOR];
        while let Some(slot) = slots.pop() {
            if let Some(place) = self.model.tree.place(slot) {
                self.names.insert(slot, place.path);
            }
            slots.extend(self.model.tree.children(slot));
        }
    }
}
