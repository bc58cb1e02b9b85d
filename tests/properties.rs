//! What holds whatever happens: random trees, random events, stale and impossible ones among them.

mod model;

use std::time::Duration;

use model::Model;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rclust_core::tree::event::{Answer, Event, Request, State};
use rclust_core::tree::plan::{
    AutoShutdown, Backoff, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy as Group, SupervisorKind,
    SupervisorPlan,
};
use rclust_core::{ExitReason, Incarnation, Slot, WorkerId};

const START_TIMEOUT: Duration = Duration::from_millis(700);

/// Numbers from which a tree is made.
#[derive(Clone, Debug)]
enum Seed {
    Worker(u8, u8),
    Node(u8, u8, u8, Vec<Seed>),
}

fn seeds() -> impl Strategy<Value = Seed> {
    let leaf = (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Seed::Worker(a, b));
    leaf.prop_recursive(3, 14, 4, |inner| {
        (any::<u8>(), any::<u8>(), any::<u8>(), prop::collection::vec(inner, 0..4))
            .prop_map(|(a, b, c, children)| Seed::Node(a, b, c, children))
    })
}

fn roots(kinds: u8) -> impl Strategy<Value = SupervisorPlan> {
    (any::<u8>(), any::<u8>(), 0..kinds, prop::collection::vec(seeds(), 1..5))
        .prop_map(move |(a, b, c, children)| node("", a, b, c, &children, kinds))
}

/// `kinds`: 4 for trees only, 6 for pools and dynamic nodes too.
fn node(name: &str, a: u8, b: u8, c: u8, children: &[Seed], kinds: u8) -> SupervisorPlan {
    let strategy = [Group::OneForOne, Group::OneForAll, Group::RestForOne][usize::from(a % 3)];
    let intensity = match b % 6 {
        5 => Intensity::FailedStarts { failed_starts: u32::from(b % 4) },
        n => Intensity::Limited { restarts: u32::from(n * 2), within: Duration::from_millis(300) },
    };
    let auto_shutdown =
        [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant][usize::from(a / 3 % 3)];
    let template = || child("x", &Seed::Worker(c, b), AutoShutdown::Never, kinds);
    match c % kinds {
        4 => {
            let base = ChildPlan { name: if name.is_empty() { "p".into() } else { name.into() }, ..template() };
            let children = base.members(u32::from(b % 4) + 1);
            let auto_shutdown = AutoShutdown::Never;
            SupervisorPlan {
                strategy: Group::OneForOne,
                intensity,
                auto_shutdown,
                kind: SupervisorKind::Pool,
                children,
            }
        }
        5 => {
            let kind = SupervisorKind::Dynamic { max_children: 3 };
            let auto_shutdown = AutoShutdown::Never;
            SupervisorPlan { strategy: Group::OneForOne, intensity, auto_shutdown, kind, children: vec![template()] }
        }
        _ => {
            let named = children.iter().enumerate();
            let children = named.map(|(at, seed)| child(&format!("c{at}"), seed, auto_shutdown, kinds)).collect();
            SupervisorPlan { strategy, intensity, auto_shutdown, kind: SupervisorKind::Tree, children }
        }
    }
}

fn child(name: &str, seed: &Seed, auto: AutoShutdown, kinds: u8) -> ChildPlan {
    let (a, b) = match seed {
        Seed::Worker(a, b) | Seed::Node(a, b, ..) => (*a, *b),
    };
    let restart = [Restart::Permanent, Restart::Transient, Restart::Temporary][usize::from(a % 3)];
    let timeout = Shutdown::Timeout(Duration::from_millis(u64::from(b)));
    let shutdown = [timeout, timeout, Shutdown::Infinity, Shutdown::BrutalKill][usize::from(b % 4)];
    let backoff = (kinds > 4 && a % 4 == 3).then_some(Backoff {
        first: Duration::from_millis(20),
        cap: Duration::from_millis(200),
        healthy_after: Duration::from_millis(100),
        jitter: 0.3,
        after_ready: b % 2 == 0,
    });
    let kind = match seed {
        Seed::Worker(..) => ChildKind::Worker { launch: 7 },
        Seed::Node(a, b, c, children) => ChildKind::Supervisor(node(name, *a, *b, *c, children, kinds)),
    };
    ChildPlan {
        name: name.into(),
        restart,
        shutdown,
        significant: auto != AutoShutdown::Never && restart != Restart::Permanent && b % 3 == 0,
        start_timeout: START_TIMEOUT,
        backoff,
        kind,
    }
}

fn reason(n: u8) -> ExitReason {
    match n % 7 {
        0 => ExitReason::Normal,
        1 => ExitReason::Shutdown,
        2 => ExitReason::Ignored,
        3 => ExitReason::Signal { signal: 9, core: false },
        4 => ExitReason::ShutdownWith("x".into()),
        _ => ExitReason::Error("x".into()),
    }
}

/// One random step: what, to whom, how.
type Step = (u8, u8, u8);

fn pick<T: Copy>(from: &[T], n: u8) -> Option<T> {
    if from.is_empty() { None } else { from.get(usize::from(n) % from.len()).copied() }
}

/// What processes and clocks do.
fn live(model: &mut Model, (what, whom, how): Step) {
    let workers: Vec<WorkerId> = model.living.keys().copied().collect();
    let starting: Vec<WorkerId> = model.living.iter().filter(|(_, p)| !p.ready).map(|(w, _)| *w).collect();
    if what % 4 == 1 {
        // In any order, those among them that nobody waits for any more.
        let at = usize::from(whom) % model.asking.len().max(1);
        if at < model.asking.len() {
            let worker = model.asking.swap_remove(at);
            let event =
                if how % 4 == 0 { Event::Exited { worker, reason: reason(how / 4) } } else { Event::Ready { worker } };
            return model.handle(event);
        }
    }
    match what % 8 {
        0..=3 => {
            if let Some(worker) = pick(&starting, whom) {
                model.ready(worker);
            }
        }
        4 | 5 => {
            if let Some(worker) = pick(&workers, whom) {
                model.exits(worker, reason(how));
            }
        }
        6 => {
            model.wakeup();
        }
        _ => model.now += Duration::from_millis(u64::from(how)),
    }
}

/// What an operator does, and what cannot be.
fn meddle(model: &mut Model, (what, whom, how): Step) {
    let mut nodes = vec![Slot::SUPERVISOR];
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(node) = nodes.get(at).copied() {
        at += 1;
        for slot in model.tree.children(node) {
            all.push(slot);
            if model.tree.place(slot).is_some_and(|place| place.is_supervisor) {
                nodes.push(slot);
            }
        }
    }
    let supervisor = pick(&nodes, whom).unwrap_or(Slot::SUPERVISOR);
    let children = model.tree.children(supervisor);
    let place = pick(&children, how).and_then(|slot| model.tree.place(slot));
    let name = place.map_or("nobody".to_owned(), |place| place.name);
    let any_worker = WorkerId { slot: Slot(u32::from(whom % 16)), incarnation: Incarnation(u32::from(how % 5)) };
    let request = match what % 17 {
        0 => Request::RestartChild { supervisor, name },
        1 => Request::TerminateChild { supervisor, name },
        2 => Request::DeleteChild { supervisor, name },
        3 => Request::StartCopy { supervisor, launch: 9 },
        4 => Request::Resize { supervisor, size: u32::from(how % 5) },
        5 => Request::Reload { slot: pick(&all, how).unwrap_or(Slot::SUPERVISOR), surge: 1 },
        6 => Request::Reload { slot: supervisor, surge: u32::from(how % 3) },
        7 => {
            let seed = Seed::Node(how, what, whom, vec![Seed::Worker(whom, how)]);
            let child = child(["new", "c0"][usize::from(how % 2)], &seed, AutoShutdown::Never, 6);
            Request::StartChild { supervisor, child }
        }
        8 => {
            let child = child("worker", &Seed::Worker(whom, how), AutoShutdown::Never, 6);
            Request::StartChild { supervisor, child }
        }
        9 => Request::TerminateWorker { supervisor, worker: any_worker },
        10 => Request::WhichChildren { supervisor },
        11 => Request::CountChildren { supervisor: Slot(u32::from(how)) },
        12 => return model.handle(Event::Ready { worker: any_worker_dead(model, any_worker) }),
        13 => {
            let worker = any_worker_dead(model, any_worker);
            return model.handle(Event::Exited { worker, reason: reason(how) });
        }
        14 => return model.handle(Event::EndSupervisor { supervisor, reason: reason(how) }),
        15 => {
            let living: Vec<WorkerId> = model.living.keys().copied().collect();
            let worker = if how % 4 == 0 { any_worker } else { pick(&living, how).unwrap_or(any_worker) };
            return model.handle(Event::Leave { worker });
        }
        _ => return model.handle(Event::Boot),
    };
    model.call(request);
}

/// Somebody who is not there: long gone, never there, or a supervisor node.
fn any_worker_dead(model: &Model, worker: WorkerId) -> WorkerId {
    let nobody = WorkerId { slot: Slot(4_000), incarnation: Incarnation(1) };
    let gone = model.gone.last().copied().unwrap_or(nobody);
    if worker.incarnation.0 % 2 == 0 || model.living.contains_key(&worker) { gone } else { worker }
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..count)
}

proptest! {
    #![proptest_config(config())]

    /// One current incarnation in a slot, no action for the dead, one answer for each call, restarts within the
    /// intensity (the model checks all that), and an end that comes, once and last.
    #[test]
    fn whatever_happens_an_accepted_stop_ends(plan in roots(6), seed in any::<u64>(), all in steps(120), stop in any::<u8>()) {
        let mut model = Model::new(plan, seed);
        if seed % 3 == 0 {
            model.tree.ask_before_supervisors();
        }
        model.boot();
        for (at, step) in all.iter().enumerate() {
            if step.0 % 5 == 0 { meddle(&mut model, (step.0 / 5, step.1, step.2)) } else { live(&mut model, *step) }
            if step.0 % 19 == 0 {
                let supervisor = Slot(u32::from(step.1 % 8));
                model.handle(if step.2 % 2 == 0 { Event::Suspend { supervisor } } else { Event::Resume { supervisor } });
            }
            if at == usize::from(stop) {
                model.handle(if step.1 % 3 == 0 { Event::Kill } else { Event::Stop });
            }
        }
        model.handle(Event::Stop);
        model.drive_to_end();
        model.handle(Event::Boot);
    }

    /// A kill needs no patience: nothing more is started, and all that live are to die at once.
    #[test]
    fn a_kill_spares_nobody(plan in roots(6), seed in any::<u64>(), all in steps(80)) {
        let mut model = Model::new(plan, seed);
        model.boot();
        for step in &all {
            if step.0 % 5 == 0 { meddle(&mut model, (step.0 / 5, step.1, step.2)) } else { live(&mut model, *step) }
        }
        let before = model.effects.len();
        model.handle(Event::Kill);
        prop_assert!(model.living.values().all(|process| process.killed), "{:?}", model.living);
        while let Some(worker) = model.living.keys().next().copied() {
            model.exits(worker, ExitReason::Signal { signal: 9, core: false });
        }
        prop_assert!(model.end.is_some());
        let started = |action: &rclust_core::tree::event::Action| matches!(action, rclust_core::tree::event::Action::Start { .. });
        prop_assert!(!model.effects[before..].iter().any(started));
    }

    /// Nobody is started before those before it, nobody stopped before those after it (the model looks at each).
    #[test]
    fn starts_go_forward_and_stops_backward(plan in roots(4), seed in any::<u64>(), all in steps(120)) {
        let mut model = Model::new(plan, seed);
        model.ordered = true;
        model.boot();
        for step in &all {
            live(&mut model, *step);
        }
        model.handle(Event::Stop);
        model.drive_to_end();
    }

    /// When every process does what it is asked and nobody calls, everything comes to rest: up or down, with every
    /// call answered.
    #[test]
    fn left_alone_the_tree_comes_to_rest(plan in roots(6), seed in any::<u64>(), all in steps(100)) {
        let mut model = Model::new(plan, seed);
        if seed % 3 == 0 {
            model.tree.ask_before_supervisors();
        }
        model.boot();
        for step in &all {
            if step.0 % 4 == 0 { meddle(&mut model, (step.0 / 4, step.1, step.2)) } else { live(&mut model, *step) }
        }
        for _ in 0..10_000 {
            let leaving = model.living.iter().find(|(_, p)| p.stopped || p.killed || p.retired).map(|(w, _)| *w);
            let starting = model.living.iter().find(|(_, p)| !p.ready).map(|(w, _)| *w);
            match (leaving, starting) {
                (Some(worker), _) => model.exits(worker, ExitReason::Shutdown),
                (None, Some(worker)) => model.ready(worker),
                (None, None) => match model.asking.pop() {
                    Some(worker) => model.handle(Event::Ready { worker }),
                    None => if !model.wakeup() { break },
                },
            }
        }
        prop_assert!(model.open.is_empty(), "not answered: {:?}", model.open);
        if model.end.is_none() {
            prop_assert!(model.tree.poll_wakeup().is_none());
            let mut slots = model.tree.children(Slot::SUPERVISOR);
            while let Some(slot) = slots.pop() {
                let state = model.tree.state(slot);
                prop_assert!(matches!(state, Some(State::Up(_) | State::Down)), "{slot}: {state:?}");
                slots.extend(model.tree.children(slot));
            }
            let call = model.call(Request::CountChildren { supervisor: Slot::SUPERVISOR });
            prop_assert!(matches!(model.answers.get(&call), Some(Answer::Counts(_))));
        }
    }
}

/// The same cases at every run, so that what fails is a change's own doing. To look for more:
/// `PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=$RANDOM cargo test --release -p rclust-tests --test properties`.
fn config() -> ProptestConfig {
    let said = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    ProptestConfig {
        cases: said("PROPTEST_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(2_000),
        rng_seed: RngSeed::Fixed(said("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
