//! Tests as a user writes them: the tree of a program with a thread per worker (`cluster::testing`).

use std::future::Future;
use std::time::Duration;

use rclust::cluster::net::TcpListener;
use rclust::cluster::testing::{self, TestCluster};
use rclust::cluster::{
    self, AskError, Child, Context, DeadReason, Down, Event, EventKind, Events, ExitReason, Inbox, ManageError, Never,
    Output, Pool, Process, Refusal, Reply, Restart, RunError, Shutdown, Signal, Socket, StartError, Stdin, StopReason,
    Supervisor, WorkerId, WorkerRef, WorkerState,
};
use rclust_tests::DEADLINE;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An event that comes, or a test that fails.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

async fn up(tree: Supervisor) -> TestCluster {
    soon("a tree that is up", testing::start(tree)).await.expect("a tree")
}

/// The next end of a worker of this name.
async fn exit(events: &mut Events, name: &str) -> (ExitReason, bool) {
    loop {
        let event = soon("an exit", events.next()).await.expect("a running tree").expect("few events");
        if let Event { kind: EventKind::Exited { reason, expected }, .. } = event {
            if event.name == name {
                return (reason, expected);
            }
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Seen {
    Note { by: String, incarnation: u32, note: u64 },
    Stops { by: String, why: StopReason },
    Down { name: String, reason: ExitReason },
}

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Note(u64),
    Who(Reply<(String, u32)>),
    Previous(Reply<Option<ExitReason>>),
    Add { to: String, n: u64, reply: Reply<u64> },
    Watch(String),
    Panic,
    Fail,
    Block,
    Hang,
    Quiet,
    Leave,
    Kill(String, Reply<String>),
}

/// Does what it is told, and shows it to a probe.
struct Actor {
    shows: WorkerRef<Seen>,
    sum: u64,
}

impl cluster::Worker for Actor {
    type Msg = Job;
    type Args = WorkerRef<Seen>;

    async fn start(shows: WorkerRef<Seen>, _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Actor { shows, sum: 0 })
    }

    async fn on_message(&mut self, job: Job, cx: &mut Context<Self>) -> cluster::Result<()> {
        let (by, incarnation) = (cx.name().to_owned(), cx.id().incarnation.0);
        match job {
            Job::Note(note) => self.shows.send(Seen::Note { by, incarnation, note }).await?,
            Job::Who(reply) => reply.send((by, incarnation)),
            Job::Previous(reply) => reply.send(cx.previous().cloned()),
            Job::Add { to, n, reply } if to.is_empty() => {
                self.sum += n;
                reply.send(self.sum);
            }
            // A reply port travels on, to another worker.
            Job::Add { to, n, reply } => {
                cx.worker::<Actor>(&to)?.send(Job::Add { to: String::new(), n, reply }).await?;
            }
            Job::Watch(name) => {
                cx.monitor(&cx.worker::<Actor>(&name)?);
                self.shows.send(Seen::Note { by, incarnation, note: 0 }).await?;
            }
            Job::Panic => panic!("as told"),
            Job::Fail => return Err("as told".into()),
            Job::Block | Job::Hang => {
                self.shows.send(Seen::Note { by, incarnation, note: 0 }).await?;
                self.shows.flush();
                if let Job::Block = job {
                    loop {
                        std::thread::park();
                    }
                }
                std::future::pending().await
            }
            Job::Quiet => return Err(cluster::Error::shutdown()),
            Job::Leave => cx.leave(),
            Job::Kill(name, reply) => {
                let refused = cx.worker::<Actor>(&name)?.kill(Signal::KILL).await;
                reply.send(refused.expect_err("a refusal").to_string());
            }
        }
        Ok(())
    }

    async fn on_down(&mut self, down: Down, _cx: &mut Context<Self>) -> cluster::Result<()> {
        Ok(self.shows.send(Seen::Down { name: down.name, reason: down.reason }).await?)
    }

    async fn on_stop(&mut self, why: StopReason, cx: &mut Context<Self>) -> cluster::Result<()> {
        Ok(self.shows.send(Seen::Stops { by: cx.name().to_owned(), why }).await?)
    }
}

fn actor(name: &str, shows: &WorkerRef<Seen>) -> Child<Actor, cluster::Set> {
    Child::<Actor>::new(name).args(shows.clone())
}

async fn who(worker: &WorkerRef<Job>) -> u32 {
    worker.ask(Job::Who).await.expect("an answer").1
}

async fn notes(inbox: &mut Inbox<Seen>, count: usize) -> Vec<(u32, u64)> {
    let mut notes = Vec::new();
    while notes.len() < count {
        if let Seen::Note { incarnation, note, .. } = soon("a note", inbox.recv()).await {
            notes.push((incarnation, note));
        }
    }
    notes
}

#[tokio::test]
async fn messages_and_questions_reach_workers_and_what_they_hand_on() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe)).child(actor("b", &probe))).await;
    let (a, b) = (cluster.worker::<Actor>("a").unwrap(), cluster.worker::<Actor>("b").unwrap());
    for n in 0..100 {
        a.send(Job::Note(n)).await.unwrap();
    }
    assert_eq!(notes(&mut seen, 100).await, (0..100).map(|n| (1, n)).collect::<Vec<_>>());
    for n in 1..=3 {
        let sum = a.ask(|reply| Job::Add { to: "b".into(), n, reply }).timeout(DEADLINE).await.unwrap();
        assert_eq!(sum, (1..=n).sum::<u64>());
    }
    assert_eq!(b.ask(Job::Who).await.unwrap(), ("b".to_owned(), 1));
    soon("the end", cluster.stop()).await;
    assert!(a.send(Job::Note(0)).await.is_err());
    cluster.run().await.unwrap();
}

#[cfg_attr(feature = "threads", tokio::test(flavor = "multi_thread", worker_threads = 2))]
#[cfg_attr(not(feature = "threads"), tokio::test)]
async fn a_panic_is_a_death_and_what_waited_is_handled_by_the_next_incarnation_in_order() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe))).await;
    let (a, mut events) = (cluster.worker::<Actor>("a").unwrap(), cluster.events());
    // One batch: nothing of it is rung before it is whole.
    a.try_send(Job::Panic).unwrap();
    for n in 0..20 {
        a.try_send(Job::Note(n)).unwrap();
    }
    let (reason, expected) = exit(&mut events, "a").await;
    let ExitReason::Panic { message, location: Some(location), .. } = reason.clone() else { panic!("{reason}") };
    assert!(message == "as told" && location.contains("in_process.rs") && !expected, "{message} at {location}");
    assert_eq!(notes(&mut seen, 20).await, (0..20).map(|n| (2, n)).collect::<Vec<_>>());
    assert_eq!(a.ask(Job::Previous).await.unwrap(), Some(reason.clone()));
    let mut letters = cluster.dead_letters();
    let dead = soon("a dead letter", letters.next()).await;
    assert!(dead.reason == DeadReason::Died(reason) && letters.try_next().is_none(), "{dead:?}");
}

#[tokio::test]
async fn a_reload_passes_the_mailbox_over_and_no_strategy_applies() {
    let (shows, mut seen) = testing::probe::<Seen>();
    let tree = Supervisor::one_for_all()
        .intensity(0, DEADLINE)
        .child(Child::<Actor>::new("a").args(shows.clone()))
        .child(Child::<Actor>::new("b").args(shows));
    let cluster = up(tree).await;
    let a = cluster.worker::<Actor>("a").unwrap();
    for n in 0..300 {
        a.send(Job::Note(n)).await.unwrap();
        if n % 100 == 50 {
            soon("a reload", cluster.reload_child("a")).await.unwrap();
        }
    }
    let mut all = Vec::new();
    while all.len() < 300 {
        if let Seen::Note { by, incarnation, note } = soon("a note", seen.recv()).await {
            assert_eq!(by, "a");
            all.push((incarnation, note));
        }
    }
    // Incarnations show side by side; each in its order, and nothing twice or never.
    all.sort_unstable();
    let in_order: Vec<u64> = all.iter().map(|(_, note)| *note).collect();
    assert_eq!(in_order, (0..300).collect::<Vec<u64>>(), "{all:?}");
    soon("the fourth reads", async { while who(&a).await != 4 {} }).await;
    assert_eq!(who(&cluster.worker::<Actor>("b").unwrap()).await, 1);
    soon("the end", cluster.stop()).await;
}

#[tokio::test]
async fn an_error_is_a_death_and_a_question_that_waits_survives_a_crash() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().intensity(3, DEADLINE).child(actor("a", &probe))).await;
    let (a, mut events) = (cluster.worker::<Actor>("a").unwrap(), cluster.events());
    a.send(Job::Fail).await.unwrap();
    let (reason, _) = exit(&mut events, "a").await;
    assert!(matches!(&reason, ExitReason::Error(text) if text.starts_with("as told (at ")), "{reason}");
    // What follows waits behind the message that hangs, until the worker crashes.
    a.send(Job::Hang).await.unwrap();
    let asked = tokio::spawn(a.ask(Job::Who));
    assert_eq!(notes(&mut seen, 1).await, [(2, 0)]);
    assert_eq!(soon("a crash", cluster.crash("a")).await.unwrap().unwrap().incarnation.0, 2);
    assert_eq!(exit(&mut events, "a").await, (ExitReason::Signal { signal: 9, core: false }, false));
    // It was not in hand: the next incarnation answers.
    assert_eq!(soon("an answer", asked).await.unwrap().unwrap().1, 3);
    assert!(matches!(cluster.crash("nobody").await, Err(cluster::LookupError::NotFound { .. })));
}

/// Takes a question and never answers it.
struct Mute;

impl cluster::Worker for Mute {
    type Msg = Reply<()>;
    type Args = WorkerRef<()>;
    async fn start(_: WorkerRef<()>, _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Mute)
    }
    async fn on_message(&mut self, reply: Reply<()>, cx: &mut Context<Self>) -> cluster::Result<()> {
        cx.spawn_local(async move {
            let _kept = reply;
            std::future::pending::<()>().await;
        });
        Ok(())
    }
}

#[tokio::test]
async fn an_ask_ends_with_the_reason_of_the_worker_that_had_taken_it() {
    let (probe, _inbox) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(Child::<Mute>::new("mute").args(probe))).await;
    let mute = cluster.worker::<Mute>("mute").unwrap();
    let first = mute.ask(|reply| reply).timeout(Duration::from_millis(1)).await;
    assert!(matches!(first, Err(AskError::Timeout { .. })), "{first:?}");
    let asked = tokio::spawn(mute.ask(|reply| reply));
    let crashed = async {
        loop {
            tokio::task::yield_now().await;
            if asked.is_finished() || cluster.crash("mute").await.unwrap().is_some_and(|who| who.incarnation.0 > 1) {
                return;
            }
        }
    };
    // Whichever of them had it: it ends, and says why.
    soon("a crash", crashed).await;
    let outcome = soon("an end of the question", asked).await.unwrap();
    assert!(
        matches!(
            outcome,
            Err(AskError::Died { reason: ExitReason::Signal { signal: 9, .. }, .. } | AskError::Closed { .. })
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn each_strategy_takes_down_whom_it_says() {
    for (strategy, expected) in [
        (Supervisor::one_for_one(), [1, 2, 1]),
        (Supervisor::one_for_all(), [2, 2, 2]),
        (Supervisor::rest_for_one(), [1, 2, 2]),
    ] {
        let (probe, mut seen) = testing::probe();
        let tree = strategy.child(actor("a", &probe)).child(actor("b", &probe)).child(actor("c", &probe));
        let cluster = up(tree).await;
        let mut events = cluster.events();
        cluster.crash("b").await.unwrap();
        let mut ready = 0;
        while ready < expected.iter().filter(|incarnation| **incarnation > 1).count() {
            let event = soon("ready again", events.next()).await.unwrap().unwrap();
            ready += usize::from(event.kind == EventKind::Ready);
        }
        let mut found = Vec::new();
        for name in ["a", "b", "c"] {
            found.push(who(&cluster.worker::<Actor>(name).unwrap()).await);
        }
        assert_eq!(found, expected);
        soon("the end", cluster.stop()).await;
        // On their way to the probe two workers' words have no order; their ends have.
        let mut stops = Vec::new();
        while stops.len() < 3 {
            match soon("a stop", seen.recv()).await {
                Seen::Stops { by, why: StopReason::Shutdown } => stops.push(by),
                Seen::Stops { why: StopReason::Group, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        stops.sort();
        assert_eq!(stops, ["a", "b", "c"]);
        for name in ["c", "b", "a"] {
            // Those of the group's restart come first.
            while exit(&mut events, name).await != (ExitReason::Shutdown, true) {}
        }
    }
}

#[tokio::test]
async fn a_tree_that_gives_up_ends_run_with_the_reason() {
    let (probe, _seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one()
        .intensity(0, DEADLINE)
        .child(Supervisor::one_for_one().named("inner").intensity(1, DEADLINE).child(actor("a", &probe))))
    .await;
    let a = cluster.worker::<Actor>("inner/a").unwrap();
    a.send(Job::Panic).await.unwrap();
    a.send(Job::Panic).await.unwrap();
    match soon("the end", cluster.run()).await {
        Err(RunError::GaveUp { child, give_up }) => {
            assert_eq!((child.as_str(), give_up.restarts), ("inner/a", 1));
            assert!(matches!(&give_up.reason, ExitReason::Panic { message, .. } if message == "as told"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_transient_worker_that_ends_in_order_stays_down() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one()
        .child(actor("watcher", &probe))
        .child(actor("a", &probe).restart(Restart::Transient)))
    .await;
    cluster.worker::<Actor>("watcher").unwrap().send(Job::Watch("a".into())).await.unwrap();
    notes(&mut seen, 1).await;
    cluster.worker::<Actor>("a").unwrap().send(Job::Quiet).await.unwrap();
    let down = soon("news of its end", seen.recv()).await;
    assert_eq!(down, Seen::Down { name: "a".into(), reason: ExitReason::Shutdown });
    assert_eq!(cluster.crash("a").await.unwrap(), None);
    assert_eq!(cluster.count_children().await.unwrap().active, 1);
    cluster.restart_child("a").await.unwrap();
    assert_eq!(who(&cluster.worker::<Actor>("a").unwrap()).await, 2);
}

#[tokio::test]
async fn a_worker_leaves_is_disconnected_and_killed_and_shows_how_it_stands() {
    let (probe, mut seen) = testing::probe();
    let tree = Supervisor::one_for_one().intensity(9, DEADLINE).child(actor("a", &probe).restart(Restart::Transient));
    let cluster = up(tree.child(Pool::<Actor>::new("web").args(probe).size(2))).await;
    let mut events = cluster.events();
    let (a, web) = (cluster.worker::<Actor>("a").unwrap(), cluster.worker::<Actor>("web[1]").unwrap());
    let status = a.status().await.unwrap();
    assert_eq!((status.state, status.pid), (WorkerState::Ready, Some(std::process::id())));
    assert!(a.is_connected().await.unwrap() && !a.is_dead().await.unwrap());

    // By itself: in order, and a transient one is not replaced.
    a.send(Job::Leave).await.unwrap();
    assert_eq!(soon("its stop", seen.recv()).await, Seen::Stops { by: "a".into(), why: StopReason::Leave });
    assert_eq!(exit(&mut events, "a").await, (ExitReason::Shutdown, true));
    assert_eq!(a.state().await.unwrap(), WorkerState::Dead);
    assert!(!a.is_connected().await.unwrap() && a.is_dead().await.unwrap());
    a.disconnect().await.unwrap();
    let refused = a.kill(Signal::KILL).await;
    assert!(matches!(refused, Err(ManageError::Refused { refusal: Refusal::NotRunning, .. })), "{refused:?}");

    // By order: not replaced, though it is permanent.
    web.disconnect().await.unwrap();
    assert_eq!(web.state().await.unwrap(), WorkerState::Dead);
    cluster.supervisor("web").unwrap().restart_child("web[1]").await.unwrap();
    assert_eq!(who(&web).await, 2);

    // Killed: replaced. Other signals need a process.
    let refused = web.kill(Signal::TERM).await.unwrap_err();
    assert!(refused.to_string().contains("SIGTERM could not be sent"), "{refused}");
    assert_eq!(web.kill(Signal::KILL).await.unwrap().incarnation.0, 2);
    assert_eq!(who(&web).await, 3);

    // All, and the cluster goes on.
    cluster.disconnect().await.unwrap();
    assert_eq!(web.state().await.unwrap(), WorkerState::Dead);
    cluster.restart_child("web").await.unwrap();
    assert_eq!(who(&web).await, 4);
}

#[tokio::test]
async fn a_worker_looks_after_nobody() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe)).child(actor("b", &probe))).await;
    let text: String = cluster.worker::<Actor>("a").unwrap().ask(|reply| Job::Kill("b".into(), reply)).await.unwrap();
    assert!(text.contains("`b` is looked after by the supervisor's program"), "{text}");
    cluster.worker::<Actor>("b").unwrap().send(Job::Note(7)).await.unwrap();
    assert_eq!(notes(&mut seen, 1).await, [(1, 7)]);
}

#[tokio::test]
async fn a_broadcast_reaches_each_member_of_a_pool() {
    let (probe, mut seen) = testing::probe::<Seen>();
    let cluster = up(Supervisor::one_for_one().child(Pool::<Actor>::new("pool").args(probe).size(4))).await;
    let sent = cluster.pool::<Actor>("pool").unwrap().broadcast(|place| Job::Note(place as u64)).await;
    assert!(sent.len() == 4 && sent.iter().all(|(_, outcome)| outcome.is_ok()), "{sent:?}");
    let mut by = Vec::new();
    while by.len() < 4 {
        match soon("a note", seen.recv()).await {
            Seen::Note { by: name, note, .. } => by.push((note, name)),
            other => panic!("{other:?}"),
        }
    }
    by.sort();
    assert_eq!(by, (0..4).map(|n| (n, format!("pool[{n}]"))).collect::<Vec<_>>());
    cluster.supervisor("pool").unwrap().resize(2).await.unwrap();
    assert_eq!(cluster.pool::<Actor>("pool").unwrap().len(), 2);
    assert!(matches!(cluster.crash("pool").await, Err(cluster::LookupError::IsPool { .. })));
}

#[tokio::test]
async fn a_stop_waits_for_its_deadline_and_then_gives_a_blocked_thread_up() {
    let (probe, mut seen) = testing::probe();
    let stubborn = |name| actor(name, &probe).shutdown(Shutdown::Timeout(Duration::from_millis(50)));
    let tree =
        Supervisor::one_for_one().child(actor("good", &probe)).child(stubborn("blocks")).child(stubborn("hangs"));
    let cluster = up(tree).await;
    let mut events = cluster.events();
    cluster.worker::<Actor>("blocks").unwrap().send(Job::Block).await.unwrap();
    cluster.worker::<Actor>("hangs").unwrap().send(Job::Hang).await.unwrap();
    notes(&mut seen, 2).await;
    soon("the end", cluster.stop()).await;
    let killed = (ExitReason::Signal { signal: 9, core: false }, true);
    assert_eq!(exit(&mut events, "hangs").await, killed);
    assert_eq!(exit(&mut events, "blocks").await, killed);
    assert_eq!(exit(&mut events, "good").await, (ExitReason::Shutdown, true));
    assert_eq!(seen.recv().await, Seen::Stops { by: "good".into(), why: StopReason::Shutdown });
    let mut letters = cluster.dead_letters();
    assert_eq!(std::iter::from_fn(|| letters.try_next()).count(), 2);
}

#[tokio::test]
async fn a_blocked_thread_that_crashed_is_replaced_and_takes_nothing_of_its_successors() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe))).await;
    let a = cluster.worker::<Actor>("a").unwrap();
    a.send(Job::Block).await.unwrap();
    for n in 0..10 {
        a.send(Job::Note(n)).await.unwrap();
    }
    assert_eq!(notes(&mut seen, 1).await, [(1, 0)]);
    soon("a crash", cluster.crash("a")).await.unwrap();
    for n in 10..1000 {
        a.send(Job::Note(n)).await.unwrap();
    }
    assert_eq!(notes(&mut seen, 1000).await, (0..1000).map(|n| (2, n)).collect::<Vec<_>>());
}

/// Never ready.
struct Slow;

impl cluster::Worker for Slow {
    type Msg = Never;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        std::future::pending().await
    }
    async fn on_message(&mut self, message: Never, _: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

#[tokio::test]
async fn a_start_that_takes_too_long_fails_by_name() {
    let (probe, mut seen) = testing::probe();
    let limit = Duration::from_millis(50);
    let tree =
        Supervisor::one_for_one().child(actor("a", &probe)).child(Child::<Slow>::new("slow").start_timeout(limit));
    match soon("a failed start", testing::start(tree)).await {
        Err(StartError::Child { child, reason }) => {
            assert_eq!((child.as_str(), reason), ("slow", ExitReason::StartTimeout(limit)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(soon("a stop", seen.recv()).await, Seen::Stops { .. }));
}

#[tokio::test]
async fn settings_that_need_a_process_are_refused_by_name() {
    let (probe, _seen) = testing::probe();
    let stdin = Supervisor::one_for_one().named("x").child(actor("tty", &probe).stdin(Stdin::Inherit));
    let group =
        Supervisor::one_for_one().child(Pool::<Actor>::new("group").args(probe.clone()).size(1).kill_group(true));
    for (tree, name, what) in [
        (Supervisor::one_for_one().child(stdin), "x/tty", "stdin(Stdin::Inherit)"),
        (group, "group/group[0]", "kill_group(true)"),
        (
            Supervisor::one_for_one().child(actor("nice", &probe).process(Process::new().nice(1))),
            "nice",
            "process(nice)",
        ),
        (
            Supervisor::one_for_one().child(actor("made", &probe).process_with(|_, _| Process::new())),
            "made",
            "process_with(..)",
        ),
    ] {
        match testing::start(tree).await {
            Err(StartError::NeedsProcess { child, setting }) => assert_eq!((child.as_str(), setting), (name, what)),
            other => panic!("{other:?}"),
        }
    }
    let settings = rclust::Settings::new("x").init(|_| Ok(()));
    let refused = testing::start_with(settings, Supervisor::one_for_one()).await;
    assert!(matches!(refused, Err(StartError::NeedsProcess { setting: "init(..)", .. })), "{refused:?}");
    let settings = rclust::Settings::new("x").workers(1).process(Process::new().output(Output::Log));
    let refused = testing::body_with(settings, |cx| async move { cx.shutdown().await }).await;
    assert!(matches!(refused, Err(StartError::NeedsProcess { setting: "process(stdout)", .. })), "{refused:?}");
    let cluster = up(Supervisor::one_for_one()).await;
    let refused = cluster.start_child(actor("tty", &probe).stdin(Stdin::Inherit)).await;
    assert!(matches!(refused, Err(ManageError::Child(StartError::NeedsProcess { .. }))), "{refused:?}");
    cluster.start_child(actor("later", &probe)).await.unwrap();
    assert_eq!(who(&cluster.worker::<Actor>("later").unwrap()).await, 1);
}

/// Wants a socket as its argument, which no restart could give it again.
struct Greedy;

impl cluster::Worker for Greedy {
    type Msg = Never;
    type Args = Socket<std::net::TcpListener>;

    async fn start(_: Self::Args, _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Greedy)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

#[tokio::test]
async fn a_socket_among_the_arguments_is_refused_with_the_way_that_there_is() {
    let bind = || Socket::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let refused = testing::start(Supervisor::one_for_one().child(Child::<Greedy>::new("g").args(bind()))).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("child `g`") && said.contains("send it in a message"), "{said}");
    let each = Child::<Greedy>::new("g").args_with(move |_| bind());
    let said = testing::start(Supervisor::one_for_one().child(each)).await.unwrap_err().to_string();
    assert!(said.contains("child `g`") && said.contains("send it in a message"), "{said}");
}

/// Encodes, and cannot be decoded: postcard does not describe itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

/// The same, deep inside.
#[derive(Debug, Serialize, Deserialize)]
enum Hides {
    Plain(u8),
    Deep(Vec<Option<(u8, Untagged)>>),
}

/// And with fields whose names would have to be there.
#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u64>,
}

struct Unread<M>(std::marker::PhantomData<M>);

impl<M: cluster::Message> cluster::Worker for Unread<M> {
    type Msg = M;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Unread(std::marker::PhantomData))
    }
    async fn on_message(&mut self, _: M, _: &mut Context<Self>) -> cluster::Result<()> {
        Err("nothing can be sent".into())
    }
}

#[tokio::test]
async fn a_message_type_that_no_process_could_decode_is_refused_at_the_start() {
    let outer = testing::start(Supervisor::one_for_one().child(Child::<Unread<Untagged>>::new("never"))).await;
    let inner = testing::start(Supervisor::one_for_one().child(Child::<Unread<Hides>>::new("never"))).await;
    let flat = testing::start(Supervisor::one_for_one().child(Child::<Unread<Flat>>::new("never"))).await;
    for refused in [outer, inner, flat] {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("child `never`") && said.contains("`untagged`") && said.contains("as text"), "{said}");
    }
}

/// Encodes, and refuses what it is given when it is decoded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "u64")]
enum Refuses {
    Number(u64),
}

impl TryFrom<u64> for Refuses {
    type Error = String;
    fn try_from(number: u64) -> Result<Refuses, String> {
        Err(format!("{number} is not for me"))
    }
}

struct Reader;

impl cluster::Worker for Reader {
    type Msg = Refuses;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Reader)
    }
    async fn on_message(&mut self, _: Refuses, _: &mut Context<Self>) -> cluster::Result<()> {
        Err("it was decoded".into())
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_a_dead_letter_here_too() {
    let cluster = up(Supervisor::one_for_one().child(Child::<Reader>::new("reader"))).await;
    let reader = cluster.worker::<Reader>("reader").unwrap();
    reader.send(Refuses::Number(1)).await.unwrap();
    reader.send(Refuses::Number(2)).await.unwrap();
    let mut letters = cluster.dead_letters();
    for _ in 0..2 {
        let dead = soon("a dead letter", letters.next()).await;
        assert!(matches!(dead.reason, DeadReason::Undecodable(_)), "{dead:?}");
    }
}

#[tokio::test]
async fn clusters_with_equal_names_do_not_meet() {
    let (probes, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| testing::probe()).unzip();
    let mut clusters = Vec::new();
    for probe in &probes {
        clusters.push(up(Supervisor::one_for_one().child(actor("a", probe)).child(actor("b", probe))).await);
    }
    for round in 0..50 {
        for (n, cluster) in (0..).zip(&clusters) {
            let a = cluster.worker::<Actor>("a").unwrap();
            a.send(Job::Note(100 * n + round)).await.unwrap();
            let sum = a.ask(|reply| Job::Add { to: "b".into(), n, reply }).timeout(DEADLINE).await.unwrap();
            assert_eq!(sum, n * (round + 1));
        }
    }
    clusters[0].crash("a").await.unwrap();
    drop(clusters.remove(0));
    for (n, mut inbox) in (0..).zip(inboxes) {
        assert_eq!(notes(&mut inbox, 50).await, (0..50).map(|round| (1, 100 * n + round)).collect::<Vec<_>>());
    }
    assert_eq!(who(&clusters[0].worker::<Actor>("a").unwrap()).await, 1);
}

#[tokio::test]
async fn a_dropped_cluster_is_stopped_in_order() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe)).child(actor("b", &probe))).await;
    let mut events = cluster.events();
    drop(cluster);
    for name in ["b", "a"] {
        assert_eq!(exit(&mut events, name).await, (ExitReason::Shutdown, true));
    }
    assert!(matches!(soon("a stop", seen.recv()).await, Seen::Stops { why: StopReason::Shutdown, .. }));
    soon("the end of the events", async { while events.next().await.is_some() {} }).await;
}

/// What the probe is asked, and what a worker tells its supervisor.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Double(u64, Reply<u64>),
    CallBack(WorkerRef<Answerer>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answerer {
    Begin { of: WorkerRef<Question>, supervisor: bool },
    Doubled(Reply<Option<u64>>),
    Watch(WorkerRef<Question>),
    WasDown(Reply<Option<ExitReason>>),
}

#[derive(Default)]
struct Asker {
    doubled: Option<u64>,
    down: Option<ExitReason>,
    waits: Option<Reply<Option<ExitReason>>>,
}

impl cluster::Worker for Asker {
    type Msg = Answerer;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Asker::default())
    }
    async fn on_message(&mut self, message: Answerer, cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {
            Answerer::Begin { of, supervisor } => {
                let of = if supervisor { cx.supervisor() } else { of };
                self.doubled = Some(of.ask(|reply| Question::Double(21, reply)).timeout(DEADLINE).await?);
                of.send(Question::CallBack(cx.me())).await?;
            }
            Answerer::Doubled(reply) => reply.send(self.doubled),
            Answerer::Watch(probe) => {
                cx.monitor(&probe);
                // The supervisor answers this when it has heard the other.
                cx.worker::<Asker>(cx.name())?;
            }
            Answerer::WasDown(reply) => match &self.down {
                Some(reason) => reply.send(Some(reason.clone())),
                None => self.waits = Some(reply),
            },
        }
        Ok(())
    }
    async fn on_down(&mut self, down: Down, _: &mut Context<Self>) -> cluster::Result<()> {
        if let Some(reply) = self.waits.take() {
            reply.send(Some(down.reason.clone()));
        }
        self.down = Some(down.reason);
        Ok(())
    }
}

#[tokio::test]
async fn a_probe_is_asked_answers_and_follows_references_and_so_does_the_body() {
    let (probe, mut asked) = testing::probe::<Question>();
    let cluster = up(Supervisor::one_for_one().child(Child::<Asker>::new("asker"))).await;
    let asker = cluster.worker::<Asker>("asker").unwrap();
    let mut body = cluster.inbox::<Question>();
    for supervisor in [false, true] {
        asker.send(Answerer::Begin { of: probe.clone(), supervisor }).await.unwrap();
        let inbox = if supervisor { &mut body } else { &mut asked };
        match soon("a question", inbox.recv()).await {
            Question::Double(n, reply) => reply.send(2 * n),
            other => panic!("{other:?}"),
        }
        match soon("a reference", inbox.recv()).await {
            Question::CallBack(back) => {
                assert_eq!(back.ask(Answerer::Doubled).await.unwrap(), Some(42));
                assert_eq!(back.state().await.unwrap(), WorkerState::Ready, "the test is the supervisor's program");
            }
            other => panic!("{other:?}"),
        }
    }
    // A test may use its own reference too.
    probe.send(Question::CallBack(asker.clone())).await.unwrap();
    assert!(matches!(soon("its own message", asked.recv()).await, Question::CallBack(_)));
    asker.send(Answerer::Watch(probe)).await.unwrap();
    let down = tokio::spawn(asker.ask(Answerer::WasDown));
    assert_eq!(asker.ask(Answerer::Doubled).await.unwrap(), Some(42));
    drop(asked);
    assert_eq!(soon("the probe's end", down).await.unwrap().unwrap(), Some(ExitReason::Normal));
}

#[tokio::test]
async fn a_worker_whose_probe_is_gone_finds_it_closed() {
    let (probe, mut seen) = testing::probe();
    let cluster = up(Supervisor::one_for_one().child(actor("a", &probe))).await;
    let (a, mut events) = (cluster.worker::<Actor>("a").unwrap(), cluster.events());
    a.send(Job::Note(1)).await.unwrap();
    notes(&mut seen, 1).await;
    drop(seen);
    // Until the cluster has heard of it, the probe is a mailbox that nobody reads.
    let sending = async {
        loop {
            let _ = a.send(Job::Note(2)).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = sending => {}
        (reason, _) = exit(&mut events, "a") => {
            assert!(matches!(&reason, ExitReason::Error(text) if text.contains("is closed")), "{reason}");
        }
    }
}

/// What does not fit into a ring, or is no bytes.
#[derive(Debug, Serialize, Deserialize)]
enum Parcel {
    Large(String, Reply<String>),
    Pass(Socket<tokio::net::TcpStream>, WorkerRef<Parcel>),
    Crash(Vec<u8>),
}

struct Carrier;

impl cluster::Worker for Carrier {
    type Msg = Parcel;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Carrier)
    }
    async fn on_message(&mut self, parcel: Parcel, cx: &mut Context<Self>) -> cluster::Result<()> {
        match parcel {
            Parcel::Large(text, reply) => reply.send(text + "!"),
            Parcel::Pass(socket, to) => to.send(Parcel::Pass(socket, cx.me())).await?,
            // Delivered again, it is handled.
            Parcel::Crash(_) if cx.delivery() == 1 => panic!("with a large message in hand"),
            Parcel::Crash(_) => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn sockets_and_large_messages_travel_and_are_delivered_again() {
    let (probe, mut inbox) = testing::probe();
    let carrier = Child::<Carrier>::new("carrier").redeliver(1);
    let cluster = up(Supervisor::one_for_one().child(carrier)).await;
    let (carrier, mut events) = (cluster.worker::<Carrier>("carrier").unwrap(), cluster.events());
    let text = "x".repeat(3 << 20);
    let answer = carrier.ask(|reply| Parcel::Large(text.clone(), reply)).timeout(DEADLINE).await.unwrap();
    assert!(answer.len() == text.len() + 1 && answer.ends_with("x!"));
    // From the test to a worker to the probe, which passes it on, through its own lane, to itself.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (served, _) = listener.accept().await.unwrap();
    carrier.send(Parcel::Pass(Socket::new(served.into_inner()), probe.clone())).await.unwrap();
    let Parcel::Pass(served, by) = soon("a socket", inbox.recv()).await else { panic!("no socket") };
    probe.send(Parcel::Pass(served, by)).await.unwrap();
    let Parcel::Pass(served, by) = soon("a socket", inbox.recv()).await else { panic!("no socket") };
    served.into_inner().write_all(b"well travelled").await.unwrap();
    let mut read = String::new();
    soon("what was written", client.read_to_string(&mut read)).await.unwrap();
    assert_eq!(read, "well travelled");
    // By the reference that came with it.
    by.send(Parcel::Crash(vec![7; 2 << 20])).await.unwrap();
    assert!(matches!(exit(&mut events, "carrier").await, (ExitReason::Panic { .. }, false)));
    carrier.ask(|reply| Parcel::Large(String::new(), reply)).timeout(DEADLINE).await.unwrap();
    assert!(cluster.dead_letters().try_next().is_none());
}

/// Serves one line on a shared port, from wherever it is told to bind.
async fn serve(cx: Context) -> cluster::Result<()> {
    let first = TcpListener::bind("127.0.0.1:0").await?;
    let second = cx.spawn(async { TcpListener::bind("127.0.0.1:0").await }).join().await.ok_or("a panic")??;
    let third = cx.spawn_local(async { TcpListener::bind("127.0.0.1:0").await }).join().await.ok_or("a panic")??;
    let runtime = tokio::runtime::Handle::current();
    let bind = move || runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let fourth = tokio::task::spawn_blocking(bind).await??;
    assert!([&first, &second, &third, &fourth].iter().all(|listener| listener.is_shared()));
    let ports = [&first, &second, &third, &fourth].map(|listener| listener.local_addr().unwrap().port());
    let answer = format!("{} {ports:?}\n", cx.slot());
    loop {
        let (mut stream, _) = tokio::select! {
            accepted = first.accept() => accepted?,
            accepted = fourth.accept() => accepted?,
            () = cx.shutdown() => return Ok(()),
        };
        let answer = answer.clone();
        cx.spawn(async move {
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    }
}

async fn get(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"x").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// The addresses that the successor of this worker listens on.
async fn listening(events: &mut Events, crashed: WorkerId, count: usize) -> Vec<String> {
    let mut addresses = Vec::new();
    while addresses.len() < count {
        match soon("a listener", events.next()).await.unwrap().unwrap() {
            Event { kind: EventKind::Listening(address), worker: Some(worker), .. }
                if worker.slot == crashed.slot && worker != crashed =>
            {
                addresses.push(address);
            }
            _ => {}
        }
    }
    addresses
}

async fn two_workers_share_ports(settings: rclust::Settings) {
    let settings = settings.workers(2);
    let (one, other) =
        tokio::join!(async { soon("workers", testing::body_with(settings.clone(), serve)).await.unwrap() }, async {
            soon("workers", testing::body(2, serve)).await.unwrap()
        },);
    // A body is ready with its first listener; a replaced worker binds the same ports again.
    let mut ports = Vec::new();
    for cluster in [&one, &other] {
        let mut events = cluster.events();
        let name = if std::ptr::eq(cluster, &one) { "web[0]" } else { "body[0]" };
        let crashed = cluster.crash(name).await.unwrap().expect("a worker");
        let bound = listening(&mut events, crashed, 4).await;
        let mut answers = std::collections::HashSet::new();
        soon("answers of both workers", async {
            while answers.len() < 2 {
                answers.insert(get(&bound[0]).await);
                answers.insert(get(&bound[3]).await);
            }
        })
        .await;
        let own: Vec<&str> = answers.iter().map(|answer| answer.split_once(' ').unwrap().1).collect();
        assert_eq!(own[0], own[1], "two workers have the same four ports");
        ports.push(own[0].to_owned());
    }
    assert_ne!(ports[0], ports[1], "two clusters have each its own");
    // The test's own body is no worker.
    assert!(!TcpListener::bind("127.0.0.1:0").await.unwrap().is_shared());
    tokio::join!(one.stop(), other.stop());
}

#[tokio::test]
async fn workers_with_one_thread_share_ports() {
    two_workers_share_ports(rclust::Settings::new("web")).await;
}

#[cfg(feature = "threads")]
#[tokio::test]
async fn workers_with_three_threads_share_ports() {
    two_workers_share_ports(rclust::Settings::new("web").threads(3)).await;
}

#[tokio::test]
async fn last_calls_come_before_the_close() {
    const WINDOW: Duration = Duration::from_millis(300);
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let cluster = testing::body(1, move |cx: Context| {
        let sender = sender.clone();
        async move {
            let listener = TcpListener::builder().quiet(WINDOW).bind("127.0.0.1:0").await?;
            sender.send(listener.local_addr()?.to_string())?;
            let (mut stream, _) = listener.accept().await?;
            assert_eq!(stream.read_u8().await?, b'1');
            cx.draining().await;
            assert!(!cx.shutdown().is_set());
            // Traffic during last calls puts the close off.
            assert_eq!(stream.read_u8().await?, b'2');
            let began = tokio::time::Instant::now();
            cx.shutdown().await;
            sender.send(format!("{}", began.elapsed().as_millis()))?;
            assert!(stream.read_u8().await.is_err());
            Ok::<(), cluster::Error>(())
        }
    });
    let cluster = soon("a worker", cluster).await.unwrap();
    let address = soon("an address", told.recv()).await.unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"1").await.unwrap();
    let stop = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.stop().await }
    });
    // It is read by a worker that drains, or before: in both cases the window begins after it.
    client.write_all(b"2").await.unwrap();
    let ms: u128 = soon("the close", told.recv()).await.unwrap().parse().unwrap();
    // Its clock begins a little after the traffic. Half of the deadline is 5 s.
    assert!((WINDOW.as_millis() / 2..4000).contains(&ms), "{ms} ms");
    drop(client);
    soon("the end", stop).await.unwrap();
    cluster.run().await.unwrap();
}

#[tokio::test]
async fn a_body_that_fails_and_one_that_returns_a_code_are_replaced() {
    let (sender, mut previous) = tokio::sync::mpsc::unbounded_channel();
    let cluster = testing::body(2, move |cx: Context| {
        let sender = sender.clone();
        async move {
            cx.ready();
            match cx.previous() {
                None if cx.slot() == 0 => return Ok(std::process::ExitCode::from(42)),
                None => return Err("no more"),
                Some(reason) => sender.send((cx.slot(), reason.clone())).expect("a test that waits"),
            }
            cx.shutdown().await;
            Ok(std::process::ExitCode::SUCCESS)
        }
    });
    let cluster = soon("workers", cluster).await.unwrap();
    let mut ends = [soon("one", previous.recv()).await.unwrap(), soon("another", previous.recv()).await.unwrap()];
    ends.sort_by_key(|(slot, _)| *slot);
    assert_eq!(ends, [(0, ExitReason::Code(42)), (1, ExitReason::Error("\"no more\"".into()))]);
    soon("the end", cluster.stop()).await;
    cluster.run().await.unwrap();
}

#[tokio::test]
async fn a_worker_under_test_starts_no_tree() {
    let started = testing::body(1, async |cx: Context| {
        let outcome = Supervisor::one_for_one().start().await;
        assert!(matches!(outcome, Err(StartError::InWorker)), "{outcome:?}");
        cx.ready();
        cx.shutdown().await;
    });
    soon("a worker", started).await.unwrap();
    assert!(matches!(Supervisor::one_for_one().start().await, Err(StartError::NotBooted)));
}
