//! Management of a running tree: each scenario is a body that checks what the calls answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rclust::cluster::{
    self, AutoShutdown, Backoff, Child, Cluster, Context, Down, Dynamic, Error, EventKind, Events, ExitReason,
    ManageError, Pool, Refusal, Reply, Restart, Shutdown, SlotState, Supervisor, WorkerRef, WorkerState,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Msg {
    Pid(Reply<u32>),
    Way(Reply<String>),
    Watch(WorkerRef<Msg>),
    Downs(Reply<Vec<(String, u32)>>),
    End,
}

struct Life {
    way: String,
    downs: Vec<(String, u32)>,
}

impl cluster::Worker for Life {
    type Msg = Msg;
    type Args = String;

    async fn start(way: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let first = cx.id().incarnation.0 == 1;
        match way.as_str() {
            "hangs" => std::future::pending().await,
            "fails" => return Err("no".into()),
            "fails-again" if !first => return Err("not again".into()),
            "declines" => return Err(Error::decline()),
            "declines-again" if !first => return Err(Error::decline()),
            "forks" => {
                let child = std::process::Command::new("sleep").arg("600").spawn()?;
                println!("{}'s child is {}", cx.name(), child.id());
            }
            _ => {}
        }
        Ok(Life { way, downs: Vec::new() })
    }

    async fn on_message(&mut self, message: Msg, cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {
            Msg::Pid(reply) => reply.send(std::process::id()),
            Msg::Way(reply) => reply.send(self.way.clone()),
            Msg::Watch(worker) => drop(cx.monitor(&worker)),
            Msg::Downs(reply) => reply.send(self.downs.clone()),
            Msg::End => return Err(Error::shutdown()),
        }
        Ok(())
    }

    async fn on_down(&mut self, down: Down, _cx: &mut Context<Self>) -> cluster::Result<()> {
        self.downs.push((down.name, down.worker.incarnation.0));
        Ok(())
    }

    async fn on_stop(&mut self, _why: cluster::StopReason, _cx: &mut Context<Self>) -> cluster::Result<()> {
        if self.way == "slow" {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

type Outcome = anyhow::Result<()>;

const NEVER: Duration = Duration::from_secs(600);

fn life(name: &str, way: &str) -> Child<Life, cluster::Set> {
    Child::<Life>::new(name).args(way.to_owned())
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ManageError>) -> anyhow::Result<Refusal> {
    match outcome {
        Err(ManageError::Refused { refusal, .. }) => Ok(refusal),
        other => bail!("{other:?}"),
    }
}

async fn state(cluster: &Cluster, name: &str) -> anyhow::Result<SlotState> {
    let children = cluster.which_children().await?;
    match children.into_iter().find(|child| child.name == name) {
        Some(child) => Ok(child.state),
        None => bail!("no child {name}"),
    }
}

async fn table() -> Outcome {
    let inner = Supervisor::one_for_one().named("sub").child(life("x", ""));
    let cluster = Supervisor::one_for_one().child(life("a", "")).child(inner).start().await?;
    ensure!(matches!(refusal(cluster.start_child(life("a", "")).await)?, Refusal::AlreadyStarted(_)));
    ensure!(refusal(cluster.restart_child("a").await)? == Refusal::Running);
    ensure!(refusal(cluster.delete_child("a").await)? == Refusal::Running);
    ensure!(refusal(cluster.restart_child("nobody").await)? == Refusal::NotFound);
    cluster.terminate_child("a").await?;
    cluster.terminate_child("a").await?;
    ensure!(state(&cluster, "a").await? == SlotState::Down);
    ensure!(refusal(cluster.start_child(life("a", "")).await)? == Refusal::AlreadyPresent);
    ensure!(cluster.restart_child("a").await?.is_some());
    cluster.terminate_child("a").await?;
    cluster.delete_child("a").await?;
    ensure!(refusal(cluster.delete_child("a").await)? == Refusal::NotFound);
    ensure!(cluster.worker::<Life>("a").is_err(), "a deleted child has no mailbox");
    // Added at the end, also to a nested supervisor, and reachable.
    ensure!(cluster.start_child(life("b", "new")).await?.is_some());
    let sub = cluster.supervisor("sub")?;
    ensure!(sub.start_child(life("y", "nested")).await?.is_some());
    ensure!(cluster.worker::<Life>("sub/y")?.ask(Msg::Way).await? == "nested");
    let names: Vec<String> = sub.which_children().await?.into_iter().map(|child| child.name).collect();
    ensure!(names == ["y", "x"], "{names:?}");
    let counts = cluster.count_children().await?;
    ensure!((counts.specs, counts.active, counts.supervisors, counts.workers) == (2, 2, 1, 1), "{counts:?}");
    ensure!(cluster.child_spec("b").await?.restart == Restart::Permanent);
    ensure!(matches!(refusal(cluster.start_child(life("bad", "fails")).await)?, Refusal::Failed(ExitReason::Error(_))));
    ensure!(refusal(cluster.terminate_child("bad").await)? == Refusal::NotFound, "a failed start keeps nothing");
    ensure!(refusal(cluster.start_child(life("a/b", "")).await)? != Refusal::NotFound, "a name with a slash");
    Ok(())
}

async fn starting() -> Outcome {
    let cluster = Supervisor::one_for_one().child(life("a", "")).start().await?;
    let starter = cluster.clone();
    let start = tokio::spawn(async move { starter.start_child(life("late", "hangs")).await });
    while !matches!(state(&cluster, "late").await, Ok(SlotState::Starting(_))) {
        tokio::task::yield_now().await;
    }
    // Another child's calls do not wait for it.
    cluster.terminate_child("a").await?;
    ensure!(cluster.restart_child("a").await?.is_some());
    let begun = Instant::now();
    cluster.terminate_child("late").await?;
    ensure!(begun.elapsed() < Duration::from_secs(5));
    ensure!(refusal(start.await?)? == Refusal::Cancelled);
    Ok(())
}

async fn dynamic() -> Outcome {
    let copies = Dynamic::<Life>::new("copies").max_children(3).restart(Restart::Transient).intensity(10, NEVER);
    let cluster = Supervisor::one_for_one().child(copies).start().await?;
    let copies = cluster.dynamic::<Life>("copies")?;
    let (a, b) = (copies.start("a".into()).await?, copies.start("b".into()).await?);
    let c = copies.start("c".into()).await?;
    ensure!(refusal(copies.start("d".into()).await)? == Refusal::MaxChildren(3));
    let pid = b.ask(Msg::Pid).await?;
    kill(pid);
    // Transient, killed: started again, with its own arguments.
    ensure!(b.ask(Msg::Way).await? == "b" && b.ask(Msg::Pid).await? != pid);
    copies.terminate(&a).await?;
    ensure!(a.send(Msg::End).await.is_err(), "a terminated copy has no mailbox");
    c.send(Msg::End).await?;
    while copies.copies().await?.len() != 1 {
        tokio::task::yield_now().await;
    }
    ensure!(matches!(refusal(copies.start("fails".into()).await)?, Refusal::Failed(_)));
    let e = copies.start("e".into()).await?;
    ensure!(e.ask(Msg::Way).await? == "e" && e.state().await? == WorkerState::Ready);
    // By reference, whatever its name; then all that are left.
    e.disconnect().await?;
    ensure!(e.state().await? == WorkerState::Gone && copies.copies().await?.len() == 1);
    cluster.supervisor("copies")?.disconnect().await?;
    ensure!(copies.copies().await?.is_empty() && b.state().await? == WorkerState::Gone);
    ensure!(copies.start("f".into()).await?.ask(Msg::Way).await? == "f", "the supervisor of copies goes on");
    Ok(())
}

async fn resize() -> Outcome {
    let pool = Pool::<Life>::new("p").args(String::new()).size(2);
    let cluster = Supervisor::one_for_one().child(pool).start().await?;
    let node = cluster.supervisor("p")?;
    node.resize(5).await?;
    ensure!(cluster.pool::<Life>("p")?.len() == 5);
    let last = cluster.worker::<Life>("p[4]")?;
    last.ask(Msg::Pid).await?;
    node.resize(1).await?;
    ensure!(cluster.pool::<Life>("p")?.len() == 1 && node.count_children().await?.active == 1);
    ensure!(last.send(Msg::End).await.is_err());
    ensure!(node.resize(0).await.is_err() && node.resize(5000).await.is_err());
    node.resize(2).await?;
    cluster.worker::<Life>("p[1]")?.ask(Msg::Pid).await?;
    Ok(())
}

async fn parallel_stop() -> Outcome {
    let deadline = Duration::from_millis(400);
    let pool = Pool::<Life>::new("p").args("slow".to_owned()).size(20).shutdown(Shutdown::Timeout(deadline));
    let cluster = Supervisor::one_for_one().child(pool).start().await?;
    let begun = Instant::now();
    cluster.terminate_child("p").await?;
    ensure!(begun.elapsed() >= deadline && begun.elapsed() < deadline * 10, "stopped in {:?}", begun.elapsed());
    Ok(())
}

async fn until(
    events: &mut Events,
    mut last: impl FnMut(&cluster::Event) -> bool,
) -> anyhow::Result<Vec<cluster::Event>> {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), events.next()).await? {
            Some(Ok(event)) => {
                let done = last(&event);
                seen.push(event);
                if done {
                    return Ok(seen);
                }
            }
            other => bail!("{other:?} after {seen:?}"),
        }
    }
}

async fn events() -> Outcome {
    let cluster = Supervisor::one_for_one().intensity(10, NEVER).child(life("a", "")).start().await?;
    let mut events = cluster.events();
    let a = cluster.worker::<Life>("a")?;
    let pid = a.ask(Msg::Pid).await?;
    kill(pid);
    let seen = until(&mut events, |event| event.kind == EventKind::Ready).await?;
    let kinds: Vec<&EventKind> = seen.iter().map(|event| &event.kind).collect();
    let killed = ExitReason::Signal { signal: 9, core: false };
    let expected = [
        EventKind::Disconnected,
        EventKind::Exited { reason: killed, expected: false },
        EventKind::Restarting,
        EventKind::Forked,
        EventKind::Online,
        EventKind::Ready,
    ];
    ensure!(kinds == expected.iter().collect::<Vec<_>>(), "{kinds:?}");
    ensure!(
        seen[0].pid == Some(pid)
            && seen[5].pid.is_some_and(|new| new != pid)
            && seen.iter().all(|event| event.name == "a")
    );
    cluster.terminate_child("a").await?;
    let seen = until(&mut events, |event| matches!(event.kind, EventKind::Exited { .. })).await?;
    ensure!(matches!(&seen[1].kind, EventKind::Exited { reason: ExitReason::Shutdown, expected: true }), "{seen:?}");
    cluster.stop().await;
    ensure!(events.next().await.is_none(), "the stream ends with the cluster");
    Ok(())
}

async fn slow_reader() -> Outcome {
    let cluster = Supervisor::one_for_one().child(life("a", "")).start().await?;
    let mut events = cluster.events();
    // Four events each: more than the stream holds.
    for _ in 0..cluster::EVENTS / 4 {
        cluster.terminate_child("a").await?;
        cluster.restart_child("a").await?;
    }
    match events.next().await {
        Some(Err(cluster::Missed(missed))) => ensure!(missed > 0),
        other => bail!("{other:?}"),
    }
    ensure!(matches!(events.next().await, Some(Ok(_))));
    Ok(())
}

async fn monitors() -> Outcome {
    let tree = Supervisor::one_for_one().intensity(10, NEVER).child(life("a", "")).child(life("b", ""));
    let cluster = tree.child(life("c", "").restart(Restart::Temporary)).start().await?;
    let (a, b, c) = (cluster.worker::<Life>("a")?, cluster.worker::<Life>("b")?, cluster.worker::<Life>("c")?);
    a.send(Msg::Watch(b.clone())).await?;
    a.send(Msg::Watch(c.clone())).await?;
    ensure!(a.ask(Msg::Downs).await?.is_empty());
    for incarnation in 1..=2 {
        let pid = b.ask(Msg::Pid).await?;
        kill(pid);
        while b.ask(Msg::Pid).await.is_ok_and(|now| now == pid) {}
        let downs = a.ask(Msg::Downs).await?;
        ensure!(downs == [("b".to_owned(), 1)], "after death {incarnation}: {downs:?}");
    }
    // Two monitors of one worker, and one of nobody.
    a.send(Msg::Watch(b.clone())).await?;
    a.send(Msg::Watch(b.clone())).await?;
    a.ask(Msg::Downs).await?;
    cluster.terminate_child("b").await?;
    a.send(Msg::Watch(b)).await?;
    let begun = Instant::now();
    loop {
        let downs = a.ask(Msg::Downs).await?;
        if downs.len() == 4 {
            ensure!(downs[1..3] == [("b".to_owned(), 3), ("b".to_owned(), 3)] && downs[3].0 == "b", "{downs:?}");
            return Ok(());
        }
        ensure!(downs.len() < 5 && begun.elapsed() < Duration::from_secs(20), "{downs:?}");
    }
}

async fn backoff() -> Outcome {
    let child = life("a", "fails-again").backoff(Backoff::new(NEVER, NEVER));
    let cluster = Supervisor::one_for_one().intensity(10, NEVER).child(child).child(life("b", "")).start().await?;
    let a = cluster.worker::<Life>("a")?;
    kill(a.ask(Msg::Pid).await?);
    while !matches!(state(&cluster, "a").await?, SlotState::Backoff(_)) {
        tokio::task::yield_now().await;
    }
    let waits = a.state().await?;
    ensure!(matches!(waits, WorkerState::Restarting(delay) if delay > NEVER / 4) && waits.is_dead(), "{waits:?}");
    a.send(Msg::End).await?;
    // The others are not held up; the waiting one can be stopped by hand.
    ensure!(cluster.worker::<Life>("b")?.ask(Msg::Way).await.is_ok());
    let begun = Instant::now();
    cluster.terminate_child("a").await?;
    ensure!(a.state().await? == WorkerState::Dead);
    ensure!(state(&cluster, "a").await? == SlotState::Down && begun.elapsed() < Duration::from_secs(20));
    Ok(())
}

async fn declines() -> Outcome {
    let tree = Supervisor::one_for_one().intensity(0, NEVER).child(life("a", "declines")).child(life("b", ""));
    let cluster = tree.start().await?;
    ensure!(state(&cluster, "a").await? == SlotState::Down);
    ensure!(cluster.restart_child("a").await?.is_none());
    ensure!(cluster.worker::<Life>("b")?.ask(Msg::Way).await.is_ok());
    Ok(())
}

async fn significant() -> Outcome {
    let last = life("last", "").restart(Restart::Transient).significant(true);
    let cluster = Supervisor::one_for_one()
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(life("a", ""))
        .child(last)
        .start()
        .await?;
    cluster.worker::<Life>("last")?.send(Msg::End).await?;
    cluster.run().await?;
    Ok(())
}

async fn groups() -> Outcome {
    let tree = Supervisor::one_for_one().intensity(10, NEVER);
    let temporary = |name| life(name, "forks").restart(Restart::Temporary);
    let cluster = tree.child(temporary("killed").kill_group(true)).child(temporary("spared")).start().await?;
    cluster.run().await?;
    Ok(())
}

/// Copies that come and go leave nothing behind; after the end calls are refused, and a stream of events ends.
async fn copies_and_the_end() -> Outcome {
    let cluster = Supervisor::one_for_one().child(Dynamic::<Life>::new("copies")).child(life("a", "")).start().await?;
    let copies = cluster.dynamic::<Life>("copies")?;
    let mut open = Vec::new();
    for n in 0..200 {
        let copy = copies.start(n.to_string()).await?;
        ensure!(copy.ask(Msg::Way).await? == n.to_string());
        copies.terminate(&copy).await?;
        copies.terminate(&copy).await?;
        if n >= 20 {
            open.push(std::fs::read_dir("/proc/self/fd")?.count());
        }
    }
    let (first, last) = (open[0], open[open.len() - 1]);
    ensure!(last <= first + 4, "descriptors grow with every copy: {first} then {last}");
    let far = life("far", "").start_timeout(Duration::MAX).shutdown(Shutdown::Timeout(Duration::MAX));
    cluster.start_child(far).await?;
    cluster.terminate_child("far").await?;
    cluster.stop().await;
    ensure!(refusal(cluster.which_children().await)? == Refusal::Stopping);
    ensure!(refusal(cluster.restart_child("a").await)? == Refusal::Stopping);
    ensure!(copies.start(String::new()).await.is_err() && cluster.events().next().await.is_none());
    Ok(())
}

/// The program's own children are its own to wait for, whatever happens to workers meanwhile.
async fn children() -> Outcome {
    let cluster = Supervisor::one_for_one().intensity(10, NEVER).child(life("a", "")).start().await?;
    let mut child = std::process::Command::new("sh").arg("-c").arg("exit 7").spawn()?;
    let a = cluster.worker::<Life>("a")?;
    for _ in 0..3 {
        let pid = a.ask(Msg::Pid).await?;
        kill(pid);
        ensure!(a.ask(Msg::Way).await.is_ok());
    }
    ensure!(child.wait()?.code() == Some(7), "somebody else has waited for it");
    Ok(())
}

/// Descriptors and memory of the supervisor, and zombies, after a warm-up and after a thousand more incarnations.
async fn thousand() -> Outcome {
    let cluster =
        Supervisor::one_for_one().intensity(10_000, NEVER).child(life("a", "")).child(life("b", "")).start().await?;
    let a = cluster.worker::<Life>("a")?;
    cluster.worker::<Life>("b")?.send(Msg::Watch(a.clone())).await?;
    let mut marks = HashMap::new();
    for n in 0..1101 {
        let pid = a.ask(Msg::Pid).await;
        if let Ok(pid) = pid {
            kill(pid);
        }
        if n == 100 || n == 1100 {
            a.ask(Msg::Way).await.ok();
            let status = std::fs::read_to_string("/proc/self/status")?;
            let rss = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            marks.insert(n, (std::fs::read_dir("/proc/self/fd")?.count(), rss.unwrap_or(0)));
        }
    }
    let (before, after) = (marks[&100], marks[&1100]);
    println!("descriptors and kB after 100 and 1100 incarnations: {before:?} {after:?}");
    ensure!(after.0 <= before.0 + 2 && after.1 <= before.1 + 1024, "{before:?} {after:?}");
    let me = std::process::id();
    let zombies = rclust_tests::procfs::children(me)
        .into_iter()
        .filter(|pid| rclust_tests::procfs::status(*pid, "State").is_some_and(|state| state.starts_with('Z')));
    ensure!(zombies.count() <= 1, "zombies");
    Ok(())
}

#[cluster::main(workers(Life))]
async fn main() -> Outcome {
    let way = std::env::args().nth(1).unwrap_or_default();
    match way.as_str() {
        "table" => table().await?,
        "starting" => starting().await?,
        "dynamic" => dynamic().await?,
        "resize" => resize().await?,
        "parallel_stop" => parallel_stop().await?,
        "events" => events().await?,
        "slow_reader" => slow_reader().await?,
        "monitors" => monitors().await?,
        "backoff" => backoff().await?,
        "declines" => declines().await?,
        "significant" => significant().await?,
        "groups" => groups().await?,
        "copies_and_the_end" => copies_and_the_end().await?,
        "children" => children().await?,
        "thousand" => thousand().await?,
        other => bail!("no scenario `{other}`"),
    }
    println!("held");
    Ok(())
}
