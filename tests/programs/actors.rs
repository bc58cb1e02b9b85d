//! Messages between processes: each scenario is a body that checks what arrives and fails loudly.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rclust::cluster::{
    self, AskError, Child, Cluster, Context, EventKind, ExitReason, Pool, Reply, Restart, SendError, Supervisor,
    WorkerRef,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Note(u64),
    Noted(Reply<Vec<u64>>),
    Pid(Reply<u32>),
    Bytes(#[serde(with = "blob")] Vec<u8>),
    Count(Reply<u64>),
    Drop(Reply<u64>),
    Keep(Reply<u64>),
    Sleep(u64),
    /// Answer, and never return.
    Stuck(Reply<u32>),
    Crash,
    /// Send these to that worker.
    Relay {
        to: WorkerRef<Job>,
        from: u64,
        count: u64,
    },
    /// Ask that worker, answer with its answer.
    Forward {
        to: WorkerRef<Job>,
        reply: Reply<u64>,
    },
    ForwardKeep {
        to: WorkerRef<Job>,
        reply: Reply<u64>,
    },
    Kept(Reply<usize>),
    /// Fill that worker's mailbox, then ask it so often.
    Cross {
        to: WorkerRef<Job>,
        asks: u64,
        reply: Reply<u64>,
    },
    Report(u64),
    Introduce(String, Reply<u64>),
    PoolSize(String, Reply<usize>),
    /// Send notes from there on to that worker, for ever.
    Flood(WorkerRef<Job>),
    /// Note who sent which.
    From {
        sender: u64,
        n: u64,
        slow: bool,
    },
    /// Send so many of these, numbered on from what it sent before.
    Send {
        to: WorkerRef<Job>,
        sender: u64,
        from: u64,
        count: u64,
    },
    Loop(u64, Reply<u64>),
}

/// Byte strings as one run of bytes.
mod blob {
    use serde::{Deserializer, Serializer, de::Visitor};
    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[derive(Default)]
struct Actor {
    noted: Vec<u64>,
    count: u64,
    kept: Vec<Reply<u64>>,
    loops: Option<(u64, Reply<u64>)>,
    pool: Option<cluster::PoolRef<Job>>,
}

impl cluster::Worker for Actor {
    type Msg = Job;
    type Args = String;

    async fn start(way: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        if way == "asks-too-early" {
            let answer = cx.supervisor::<Job>().ask(Job::Count).await;
            println!("too early: {answer:?}");
        }
        if way == "fails" && cx.id().incarnation.0 > 1 {
            let gate = std::env::var("GATE").unwrap_or_default();
            if cx.id().incarnation.0 <= gate.parse::<u32>().unwrap_or(0) {
                return Err("not yet".into());
            }
        }
        Ok(Actor::default())
    }

    async fn on_message(&mut self, job: Job, cx: &mut Context<Self>) -> cluster::Result<()> {
        match job {
            Job::Note(n) => self.noted.push(n),
            Job::Noted(reply) => reply.send(self.noted.clone()),
            Job::Pid(reply) => reply.send(std::process::id()),
            Job::Bytes(bytes) => self.count += bytes.len() as u64,
            Job::Count(reply) => reply.send(self.count),
            Job::Drop(reply) => drop(reply),
            Job::Keep(reply) => self.kept.push(reply),
            Job::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Job::Stuck(reply) => {
                reply.send(std::process::id());
                std::future::pending().await
            }
            Job::Crash => std::process::abort(),
            Job::Relay { to, from, count } => {
                for n in from..from + count {
                    to.send(Job::Note(n)).await?;
                }
            }
            Job::Forward { to, reply } => to.send(Job::Count(reply)).await?,
            Job::ForwardKeep { to, reply } => to.send(Job::Keep(reply)).await?,
            Job::Cross { to, asks, reply } => {
                cx.spawn(async move {
                    let mut answered = 0;
                    for _ in 0..asks {
                        while to.try_send(Job::Bytes(vec![1; 2000])).is_ok() {}
                        answered += u64::from(to.ask(Job::Count).await.is_ok());
                    }
                    reply.send(answered);
                });
            }
            Job::Kept(reply) => reply.send(self.kept.len()),
            Job::Report(n) => cx.supervisor().send(Job::Note(n)).await?,
            Job::Introduce(path, reply) => {
                let other = cx.worker::<Actor>(&path)?;
                let pid = other.ask(Job::Pid).await?;
                reply.send(pid.into());
            }
            Job::PoolSize(path, reply) => {
                if self.pool.is_none() {
                    self.pool = Some(cx.pool::<Actor>(&path)?);
                }
                reply.send(self.pool.as_ref().map_or(0, |pool| pool.len()));
            }
            Job::Flood(to) => {
                cx.spawn(async move {
                    // Until that worker, or this one, is gone.
                    while to.send(Job::Bytes(vec![1; 100])).await.is_ok() {}
                });
            }
            Job::From { sender, n, slow } => {
                if slow && n % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                cx.supervisor().send(Job::From { sender, n, slow }).await?;
            }
            Job::Send { to, sender, from, count } => {
                for n in from..from + count {
                    to.send(Job::From { sender, n, slow: n % 2 == 0 }).await?;
                }
            }
            Job::Loop(0, reply) => reply.send(self.count),
            Job::Loop(n, reply) => {
                self.count += 1;
                self.loops = None;
                cx.me().send(Job::Loop(n - 1, reply)).await?;
            }
        }
        Ok(())
    }
}

type Outcome = anyhow::Result<()>;

async fn tree(ways: &[(&str, &str)]) -> anyhow::Result<Cluster> {
    let mut tree = Supervisor::one_for_one().intensity(100_000, Duration::from_secs(1));
    for (name, way) in ways {
        tree = tree.child(Child::<Actor>::new(*name).args((*way).to_owned()));
    }
    Ok(tree.start().await?)
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// What waits in a mailbox when its worker is killed is handled by the next one, in order.
async fn waiting_survives_sigkill() -> Outcome {
    let cluster = tree(&[("a", "")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    for round in 0..20u64 {
        let pid = a.ask(Job::Stuck).await?;
        for n in 0..1000 {
            a.send(Job::Note(round * 1000 + n)).await?;
        }
        kill(pid);
        let noted = a.ask(Job::Noted).await?;
        let expected: Vec<u64> = (round * 1000..round * 1000 + 1000).collect();
        ensure!(noted == expected, "round {round}: {} notes, from {:?}", noted.len(), noted.first());
    }
    Ok(())
}

/// Failing starts eat nothing: messages wait in three lanes through a hundred of them.
async fn failing_starts_eat_nothing() -> Outcome {
    let cluster = tree(&[("target", "fails"), ("b", ""), ("c", "")]).await?;
    let target = cluster.worker::<Actor>("target")?;
    let (b, c) = (cluster.worker::<Actor>("b")?, cluster.worker::<Actor>("c")?);
    // Open all three lanes while it lives.
    for worker in [&b, &c] {
        worker.send(Job::Relay { to: target.clone(), from: 0, count: 1 }).await?;
        worker.ask(Job::Count).await?;
    }
    let pid = target.ask(Job::Pid).await?;
    kill(pid);
    for (lane, worker) in [(1, &b), (2, &c)] {
        worker.send(Job::Relay { to: target.clone(), from: lane * 1000, count: 300 }).await?;
        worker.ask(Job::Count).await?;
    }
    for n in 0..300 {
        target.send(Job::Note(3000 + n)).await?;
    }
    // Lanes have no order among each other: the question may be answered before the others' last messages.
    let mut noted = Vec::new();
    let begun = Instant::now();
    while noted.len() < 900 && begun.elapsed() < Duration::from_secs(10) {
        noted = target.ask(Job::Noted).await?;
        noted.retain(|n| *n >= 1000);
    }
    let mut lanes: HashMap<u64, Vec<u64>> = HashMap::new();
    for n in &noted {
        lanes.entry(n / 1000).or_default().push(n % 1000);
    }
    for lane in 1..=3 {
        let seen = lanes.remove(&lane).unwrap_or_default();
        ensure!(
            seen == (0..300).collect::<Vec<_>>(),
            "lane {lane}: {} of 300, in order: {}",
            seen.len(),
            seen.is_sorted()
        );
    }
    Ok(())
}

/// Random kills of a reader under load: nothing lost but what was in hand, nothing reordered, nothing twice.
async fn order_across_kills() -> Outcome {
    let cluster = tree(&[("sum", "")]).await?;
    let sum = cluster.worker::<Actor>("sum")?;
    let mut inbox = cluster.inbox::<Job>();
    let mut dead = cluster.dead_letters();
    let (total, kills) = (20_000u64, 30);
    let killer = sum.clone();
    let killing = tokio::spawn(async move {
        for _ in 0..kills {
            if let Ok(pid) = killer.ask(Job::Pid).timeout(Duration::from_secs(5)).await {
                kill(pid);
            }
        }
    });
    let sender = sum.clone();
    let sending = tokio::spawn(async move {
        for n in 0..total {
            if let Err(error) = sender.send(Job::Report(n)).await {
                return Err(anyhow::anyhow!("{error}"));
            }
        }
        Ok(())
    });
    let mut seen = Vec::new();
    let mut letters = Vec::new();
    while (seen.len() + letters.len()) < total as usize {
        tokio::select! {
            job = inbox.recv() => match job {
                Job::Note(n) => seen.push(n),
                other => anyhow::bail!("{other:?}"),
            },
            letter = dead.next() => if let Job::Report(n) = letter.decode()? {
                letters.push(n);
            },
            () = tokio::time::sleep(Duration::from_secs(20)) => {
                anyhow::bail!("{} reported, {} dead, of {total}", seen.len(), letters.len());
            }
        }
        // A dead letter may have been handled completely: then it is in both.
        letters.retain(|n| !seen.contains(n));
    }
    sending.await??;
    killing.await?;
    ensure!(seen.is_sorted(), "reordered");
    let mut all: Vec<u64> = seen.iter().chain(&letters).copied().collect();
    all.sort_unstable();
    all.dedup();
    ensure!(all == (0..total).collect::<Vec<_>>(), "lost: {} of {total} accounted for", all.len());
    Ok(())
}

/// Every way in which an ask ends.
async fn asks_end() -> Outcome {
    let cluster = tree(&[("a", ""), ("b", "")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    ensure!(a.ask(Job::Count).await == Ok(0));
    ensure!(matches!(a.ask(Job::Drop).await, Err(AskError::Dropped { .. })), "dropped");
    let begun = Instant::now();
    let timeout = a.ask(Job::Keep).timeout(Duration::from_millis(50)).await;
    ensure!(matches!(timeout, Err(AskError::Timeout { .. })) && begun.elapsed() < Duration::from_secs(5), "timeout");
    // Taken and kept, then death: also when the handler has returned.
    let kept = tokio::spawn(a.ask(Job::Keep));
    // The question is in the lane before the next one, whose answer shows that it was taken.
    tokio::task::yield_now().await;
    let pid = a.ask(Job::Pid).await?;
    kill(pid);
    match kept.await? {
        Err(AskError::Died { reason: ExitReason::Signal { signal: 9, .. }, .. }) => {}
        other => anyhow::bail!("{other:?}"),
    }
    // Not taken: answered by the next incarnation.
    a.send(Job::Crash).await?;
    let waiting = a.ask(Job::Pid).await?;
    ensure!(waiting != pid);
    // A port that is sent on is answered by another process.
    b.send(Job::Bytes(vec![0; 77])).await?;
    let forwarded = a.ask(|reply| Job::Forward { to: b.clone(), reply }).await;
    ensure!(forwarded == Ok(77), "{forwarded:?}");
    // Sent on, taken by a worker that dies: the asker hears of it at once, though it never spoke with that one.
    for round in 1..=5 {
        let begun = Instant::now();
        let asked = tokio::spawn(a.ask(|reply| Job::ForwardKeep { to: b.clone(), reply }));
        tokio::task::yield_now().await;
        while b.ask(Job::Kept).await? == 0 {
            ensure!(begun.elapsed() < Duration::from_secs(10), "it never came");
        }
        kill(b.ask(Job::Pid).await?);
        match asked.await? {
            Err(AskError::Died { reason: ExitReason::Signal { signal: 9, .. }, .. }) => {}
            other => anyhow::bail!("round {round}: {other:?}"),
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "round {round}");
    }
    // By name, from worker to worker.
    let pid = b.ask(Job::Pid).await?;
    ensure!(a.ask(|reply| Job::Introduce("b".into(), reply)).await == Ok(u64::from(pid)));
    // To oneself.
    ensure!(a.ask(|reply| Job::Loop(100, reply)).await == Ok(100));
    Ok(())
}

/// Two workers that ask each other with full mailboxes get their answers: those never wait behind messages.
async fn cross() -> Outcome {
    let cluster = tree(&[("a", ""), ("b", "")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let (to_a, to_b) = (a.clone(), b.clone());
    let first = a.ask(|reply| Job::Cross { to: to_b, asks: 200, reply });
    let second = b.ask(|reply| Job::Cross { to: to_a, asks: 200, reply });
    let (first, second) = tokio::join!(first, second);
    ensure!((&first, &second) == (&Ok(200), &Ok(200)), "{first:?} {second:?}");
    Ok(())
}

/// A question that is given up, before or after it was sent, costs no later one anything.
async fn cancelled() -> Outcome {
    use std::task::{Context, Waker};
    let cluster = tree(&[("a", "")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    drop(a.ask(|reply| Job::Loop(1, reply)));
    ensure!(a.ask(Job::Count).await == Ok(0), "it was sent before it was polled");
    // More than a lane has open questions; each polled once, and given up at whatever it waited for.
    for n in 0..5000u64 {
        let mut ask = std::pin::pin!(a.ask(Job::Count));
        let _ = ask.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if n % 500 == 0 {
            ensure!(a.ask(|reply| Job::Loop(0, reply)).await == Ok(0), "round {n}");
        }
    }
    // A handler's answer to a question that nobody waits for disturbs the next one as little.
    for n in 0..200u64 {
        let slow = a.ask(Job::Keep).timeout(Duration::from_micros(n));
        ensure!(matches!(slow.await, Err(AskError::Timeout { .. } | AskError::Dropped { .. })));
        ensure!(a.ask(Job::Kept).await.is_ok());
    }
    Ok(())
}

/// A full mailbox gives the message back, waits when it may, and stops can be stopped.
async fn full_mailbox() -> Outcome {
    let cluster = tree(&[("a", "")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    a.send(Job::Sleep(300)).await?;
    let mut sent = 0u64;
    let back = loop {
        match a.try_send(Job::Bytes(vec![7; 10_000])) {
            Ok(()) => sent += 10_000,
            Err(error) if error.is_full() => break error.into_message(),
            Err(error) => return Err(error.into()),
        }
        ensure!(sent < 10 << 20, "a mailbox without a bound");
    };
    ensure!(sent > 900_000, "only {sent} bytes fit");
    a.send(back).await?;
    ensure!(a.ask(Job::Count).await == Ok(sent + 10_000));
    const TOO_LARGE: usize = (64 << 20) + 1;
    match a.send(Job::Bytes(vec![0; TOO_LARGE])).await {
        Err(SendError::TooLarge { bytes, limit, message: Job::Bytes(message), .. }) => {
            ensure!(bytes > TOO_LARGE && limit == 64 << 20 && message.len() == TOO_LARGE);
        }
        other => anyhow::bail!("{other:?}"),
    }
    // A stop does not wait behind a full mailbox.
    a.send(Job::Sleep(60_000)).await?;
    while a.try_send(Job::Bytes(vec![7; 10_000])).is_ok() {}
    Ok(())
}

/// The supervisor's inbox hears workers; asking it from `start` fails at once.
async fn inbox() -> Outcome {
    let begun = Instant::now();
    let cluster = tree(&[("a", "asks-too-early")]).await?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "start waited for an answer that could not come");
    let a = cluster.worker::<Actor>("a")?;
    let mut inbox = cluster.inbox::<Job>();
    for n in 0..5000 {
        a.send(Job::Report(n)).await?;
    }
    for n in 0..5000 {
        let (from, job) = inbox.next().await;
        ensure!(from == a.slot() && matches!(job, Job::Note(m) if m == n), "{job:?} instead of {n}");
    }
    Ok(())
}

/// What a slot sent before it was forgotten is read afterwards.
async fn last_words() -> Outcome {
    let tree = Supervisor::one_for_one().child(Child::<Actor>::new("b").args(String::new()));
    let t = Child::<Actor>::new("t").args(String::new()).restart(Restart::Temporary);
    let cluster = tree.child(t).start().await?;
    let t = cluster.worker::<Actor>("t")?;
    for n in 0..100 {
        t.send(Job::Report(n)).await?;
    }
    t.send(Job::Crash).await?;
    while cluster.worker::<Actor>("t").is_ok() {
        tokio::task::yield_now().await;
    }
    let mut inbox = cluster.inbox::<Job>();
    for n in 0..100 {
        let job = tokio::time::timeout(Duration::from_secs(10), inbox.recv()).await.context("lost")?;
        ensure!(matches!(job, Job::Note(m) if m == n), "{job:?} instead of {n}");
    }
    Ok(())
}

/// After the end nothing is taken any more.
async fn after_the_end() -> Outcome {
    let cluster = tree(&[("a", ""), ("b", "")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    a.send(Job::Note(1)).await?;
    cluster.stop().await;
    ensure!(a.send(Job::Note(2)).await.is_err(), "a lane that was open");
    ensure!(b.send(Job::Note(2)).await.is_err(), "a lane that was not");
    ensure!(matches!(b.ask(Job::Count).await, Err(AskError::Closed { .. })));
    Ok(())
}

/// A forgotten slot fails its senders, also those that wait.
async fn gone() -> Outcome {
    let tree =
        Supervisor::one_for_one().child(Child::<Actor>::new("t").args(String::new()).restart(Restart::Temporary));
    let cluster = tree.child(Child::<Actor>::new("b").args(String::new())).start().await?;
    let t = cluster.worker::<Actor>("t")?;
    let pid = t.ask(Job::Stuck).await?;
    while t.try_send(Job::Bytes(vec![7; 10_000])).is_ok() {}
    let waiting = tokio::spawn({
        let t = t.clone();
        async move { t.send(Job::Bytes(vec![7; 10_000])).await.err().map(SendError::into_message) }
    });
    let asking = tokio::spawn(t.ask(Job::Count));
    tokio::task::yield_now().await;
    kill(pid);
    ensure!(matches!(waiting.await?, Some(Job::Bytes(_))));
    ensure!(matches!(asking.await?, Err(AskError::Closed { .. } | AskError::Died { .. })));
    ensure!(t.send(Job::Note(2)).await.is_err());
    ensure!(cluster.worker::<Actor>("t").is_err());
    Ok(())
}

/// Pools: in turn, by key, to all.
async fn pools() -> Outcome {
    let tree = Supervisor::one_for_one().child(Pool::<Actor>::new("p").size(3).args(String::new()));
    let cluster = tree.start().await?;
    let pool = cluster.pool::<Actor>("p")?;
    let mut pids = Vec::new();
    for _ in 0..6 {
        pids.push(pool.ask(Job::Pid).await?);
    }
    ensure!(pids[..3] == pids[3..] && pids[0] != pids[1], "{pids:?}");
    for n in 0..30 {
        pool.send_keyed("the same", Job::Note(n)).await?;
    }
    for outcome in pool.broadcast(|place| Job::Bytes(vec![0; place + 1])).await {
        outcome.1.context("broadcast")?;
    }
    let (mut counts, mut noted) = (Vec::new(), Vec::new());
    for member in pool.iter() {
        counts.push(member.ask(Job::Count).await?);
        noted.push(member.ask(Job::Noted).await?.len());
    }
    noted.sort_unstable();
    ensure!(counts == [1, 2, 3] && noted == [0, 0, 30], "{counts:?} {noted:?}");
    ensure!(cluster.worker::<Actor>("p").is_err() && cluster.pool::<Actor>("p[0]").is_err());
    ensure!(cluster.worker::<Actor>("p[2]").is_ok() && cluster.worker::<Actor>("p[3]").is_err());
    Ok(())
}

/// A pool's reference follows its size, here and in a worker; the least full member gets a message; a message may wait here first.
async fn pool_follows() -> Outcome {
    let tree = Supervisor::one_for_one()
        .child(Pool::<Actor>::new("p").size(2).args(String::new()))
        .child(Child::<Actor>::new("a").args(String::new()));
    let cluster = tree.start().await?;
    let (pool, a) = (cluster.pool::<Actor>("p")?, cluster.worker::<Actor>("a")?);
    let pids = async |count: u32| {
        let mut pids = Vec::new();
        for _ in 0..count {
            pids.push(pool.ask(Job::Pid).await?);
        }
        pids.sort_unstable();
        pids.dedup();
        anyhow::Ok(pids.len())
    };
    ensure!(a.ask(|reply| Job::PoolSize("p".to_owned(), reply)).await == Ok(2) && pids(6).await? == 2);
    cluster.supervisor("p")?.resize(5).await?;
    ensure!(pool.len() == 5 && pids(10).await? == 5, "{pool:?}");
    ensure!(a.ask(|reply| Job::PoolSize("p".to_owned(), reply)).await == Ok(5), "in a worker");
    cluster.supervisor("p")?.resize(1).await?;
    ensure!(pool.len() == 1 && pids(3).await? == 1);
    ensure!(a.ask(|reply| Job::PoolSize("p".to_owned(), reply)).await == Ok(1), "in a worker");
    // One member is stuck with a long message behind it: the others get the rest.
    cluster.supervisor("p")?.resize(3).await?;
    let members: Vec<_> = pool.iter().collect();
    members[1].ask(Job::Stuck).await?;
    members[1].send(Job::Bytes(vec![0; 1000])).await?;
    let least = pool.route(cluster::Route::LeastFull);
    for n in 0..10 {
        least.send(Job::Note(n)).await?;
    }
    let counts = (members[0].ask(Job::Noted).await?.len(), members[2].ask(Job::Noted).await?.len());
    ensure!(counts.0 + counts.1 == 10, "{counts:?}");
    // Later.
    let begun = Instant::now();
    let taken_back = a.send_after(Duration::from_millis(20), Job::Note(1));
    a.send_after(Duration::from_millis(40), Job::Note(2));
    taken_back.cancel();
    while a.ask(Job::Noted).await?.is_empty() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "it never came");
    }
    ensure!(begun.elapsed() >= Duration::from_millis(40));
    Ok(())
}

/// After 100 MB both sides idle: the test looks at how much of the ring is left, then says so on standard input.
async fn traffic() -> Outcome {
    let cluster = tree(&[("a", "")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    for _ in 0..10_000 {
        a.send(Job::Bytes(vec![1; 10_000])).await?;
    }
    ensure!(a.ask(Job::Count).await == Ok(100_000_000));
    println!("idle: {} and {}", std::process::id(), a.ask(Job::Pid).await?);
    cluster.run().await?;
    Ok(())
}

/// Traffic both ways with a reading inbox, then nothing: what idles makes no system call (`.ci/idle` looks).
async fn both_ways() -> Outcome {
    let cluster = tree(&[("a", ""), ("b", "")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let mut inbox = cluster.inbox::<Job>();
    tokio::spawn(async move {
        loop {
            inbox.recv().await;
        }
    });
    for n in 0..300 {
        a.send(Job::Bytes(vec![0; 1000])).await?;
        a.send(Job::Report(n)).await?;
    }
    a.send(Job::Relay { to: b.clone(), from: 0, count: 20_000 }).await?;
    for _ in 0..8000 {
        a.ask(Job::Count).await?;
    }
    ensure!(b.ask(Job::Noted).await?.len() == 20_000);
    println!("idle");
    cluster.run().await?;
    Ok(())
}

/// A sender that floods a worker starves nobody else who sends to it.
async fn flood() -> Outcome {
    let cluster = tree(&[("target", ""), ("flood", ""), ("other", "")]).await?;
    let target = cluster.worker::<Actor>("target")?;
    let (flooding, other) = (cluster.worker::<Actor>("flood")?, cluster.worker::<Actor>("other")?);
    flooding.send(Job::Flood(target.clone())).await?;
    while target.ask(Job::Count).await? < 1_000_000 {}
    // 200 questions one after the other, beside a lane that is never empty.
    let begun = Instant::now();
    for _ in 0..100 {
        target.ask(Job::Pid).await?;
        other.ask(|reply| Job::Forward { to: target.clone(), reply }).await?;
    }
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?} for 200 questions", begun.elapsed());
    Ok(())
}

/// A sender to a stopped worker waits in bounded memory: Node's grows by 203 MiB with these messages.
async fn stopped() -> Outcome {
    let cluster = tree(&[("a", "")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    let pid = a.ask(Job::Pid).await?;
    let process = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    let resident = || -> anyhow::Result<u64> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    rustix::process::kill_process(process, rustix::process::Signal::STOP)?;
    let before = resident()?;
    let sender = a.clone();
    let mut sending = tokio::spawn(async move {
        for _ in 0..100_000 {
            sender.send(Job::Bytes(vec![7; 1000])).await?;
        }
        anyhow::Ok(())
    });
    // Until it waits: then nothing more moves here.
    while a.try_send(Job::Note(0)).is_ok() {
        tokio::task::yield_now().await;
    }
    let grown = resident()?.saturating_sub(before);
    ensure!(grown < 4096, "the supervisor grew by {grown} KiB");
    ensure!(!sending.is_finished());
    rustix::process::kill_process(process, rustix::process::Signal::CONT)?;
    (&mut sending).await??;
    ensure!(a.ask(Job::Count).await? == 100_000_000);
    Ok(())
}

/// 200 kills of readers and writers under several writers, fast and slow handlers: every message once, in its sender's order; at
/// most the one in hand at a kill a second time, or a dead letter.
async fn kills() -> Outcome {
    const KILLS: usize = 200;
    let cluster = tree(&[("reader", ""), ("w1", ""), ("w2", "")]).await?;
    let reader = cluster.worker::<Actor>("reader")?;
    let writers = [cluster.worker::<Actor>("w1")?, cluster.worker::<Actor>("w2")?];
    let mut inbox = cluster.inbox::<Job>();
    let mut dead = cluster.dead_letters();
    let mut rng = fastrand::Rng::with_seed(42);
    let (mut killed, mut round) = (0, 0u64);
    let (mut events, mut pids) = (cluster.events(), HashMap::new());
    for worker in writers.iter().chain([&reader]) {
        pids.insert(worker.name().to_owned(), worker.ask(Job::Pid).await?);
    }
    // Sender 0 is this body; 1 and 2 are workers, whose messages say who caused them.
    let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut letters: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut orders = 0u64;
    while killed < KILLS {
        for n in round * 100..(round + 1) * 100 {
            reader.send(Job::From { sender: 0, n, slow: round % 2 == 0 }).await?;
        }
        for (n, writer) in writers.iter().enumerate() {
            let (sender, from) = (n as u64 + 1, round * 100);
            writer.send(Job::Send { to: reader.clone(), sender, from, count: 100 }).await?;
        }
        round += 1;
        for victim in [&reader, &writers[round as usize % 2]] {
            // The process id comes from the event stream, not from a question: that would wait behind the messages.
            let pid = current_pid(&mut events, &mut pids, victim.name()).await?;
            for _ in 0..rng.u32(0..200) {
                tokio::task::yield_now().await;
            }
            kill(pid);
            killed += 1;
        }
        collect(&mut inbox, &mut dead, &mut seen, &mut letters, &mut orders);
    }
    // What the writers died with in hand is an order: it was carried out in part. All others are complete.
    let begun = Instant::now();
    let all = |seen: &HashMap<u64, Vec<u64>>, letters: &HashMap<u64, Vec<u64>>| {
        let mut sent: Vec<u64> = seen.get(&0).into_iter().chain(letters.get(&0)).flatten().copied().collect();
        sent.sort_unstable();
        sent.dedup();
        sent.len() as u64
    };
    while all(&seen, &letters) < round * 100 {
        ensure!(begun.elapsed() < Duration::from_secs(30), "{} of {} came", all(&seen, &letters), round * 100);
        tokio::task::yield_now().await;
        collect(&mut inbox, &mut dead, &mut seen, &mut letters, &mut orders);
    }
    for (sender, seen) in &seen {
        let repeated = seen.windows(2).filter(|pair| pair[0] == pair[1]).count();
        ensure!(repeated == 0, "sender {sender}: {repeated} came twice");
        ensure!(seen.is_sorted(), "sender {sender}: reordered");
    }
    for sender in [1, 2] {
        // Between the first and the last of one order nothing is missing but what became a dead letter.
        let mut got: Vec<u64> = seen.get(&sender).into_iter().chain(letters.get(&sender)).flatten().copied().collect();
        got.sort_unstable();
        let missing = got.windows(2).filter(|pair| pair[1] - pair[0] > 1 && pair[1] % 100 != 0).count();
        ensure!(missing == 0, "sender {sender}: {missing} gaps inside orders");
    }
    let died = letters.values().map(Vec::len).sum::<usize>() + orders as usize;
    ensure!(died <= killed, "{died} dead letters after {killed} kills");
    println!("{killed} kills, {} messages, {died} dead letters", seen.values().map(Vec::len).sum::<usize>());
    Ok(())
}

/// Takes what has come, without waiting.
fn collect(
    inbox: &mut cluster::Inbox<Job>,
    dead: &mut cluster::DeadLetters,
    seen: &mut HashMap<u64, Vec<u64>>,
    letters: &mut HashMap<u64, Vec<u64>>,
    orders: &mut u64,
) {
    use std::task::{Context, Poll, Waker};
    loop {
        let mut next = std::pin::pin!(inbox.recv());
        let Poll::Ready(job) = next.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { break };
        if let Job::From { sender, n, .. } = job {
            seen.entry(sender).or_default().push(n);
        }
    }
    while let Some(letter) = dead.try_next() {
        match letter.decode::<Job>() {
            Ok(Job::From { sender, n, .. }) => letters.entry(sender).or_default().push(n),
            _ => *orders += 1,
        }
    }
}

/// The process of this name that is ready and was not killed yet, as the events tell.
async fn current_pid(events: &mut cluster::Events, pids: &mut HashMap<String, u32>, name: &str) -> anyhow::Result<u32> {
    loop {
        if let Some(pid) = pids.remove(name) {
            return Ok(pid);
        }
        let event =
            tokio::time::timeout(Duration::from_secs(10), events.next()).await.context("it does not come back")?;
        let event = event.context("the cluster has ended")??;
        if let (EventKind::Ready, Some(pid)) = (&event.kind, event.pid) {
            pids.insert(event.name, pid);
        }
    }
}

#[cluster::main(workers(Actor))]
async fn main() -> Outcome {
    let way = std::env::args().nth(1).unwrap_or_default();
    match way.as_str() {
        "waiting_survives_sigkill" => waiting_survives_sigkill().await?,
        "failing_starts_eat_nothing" => failing_starts_eat_nothing().await?,
        "order_across_kills" => order_across_kills().await?,
        "cross" => cross().await?,
        "cancelled" => cancelled().await?,
        "asks_end" => asks_end().await?,
        "full_mailbox" => full_mailbox().await?,
        "inbox" => inbox().await?,
        "gone" => gone().await?,
        "last_words" => last_words().await?,
        "after_the_end" => after_the_end().await?,
        "pools" => pools().await?,
        "pool_follows" => pool_follows().await?,
        "flood" => flood().await?,
        "stopped" => stopped().await?,
        "kills" => kills().await?,
        "traffic" => traffic().await?,
        "both_ways" => both_ways().await?,
        other => anyhow::bail!("no scenario `{other}`"),
    }
    println!("held");
    Ok(())
}
