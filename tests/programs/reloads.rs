//! Workers that are replaced while they work: each scenario is a body that checks what arrives and fails loudly. Built twice, so that
//! a reload can find another program at its path.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rclust::cluster::{
    self, AskError, Child, Cluster, Context, EventKind, ExitReason, Inbox, Incarnation, Pool, Reply, Shutdown, Socket,
    Supervisor, WorkerId, WorkerRef,
};
use serde::{Deserialize, Serialize};

/// Which of the two programs this is.
const BUILD: &str = env!("CARGO_BIN_NAME");

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    /// Tell the supervisor who handled which.
    Note(u64),
    /// The same, with something beside it.
    Heavy(u64, Vec<u8>, Socket<std::fs::File>),
    /// Send notes from..to to that worker.
    Send(WorkerRef<Job>, u64, u64),
    Who(Reply<(WorkerId, u32, String)>),
    Sleep(u64),
    /// Answer from a task, so much later.
    Later(u64, Reply<WorkerId>),
    /// Never answer, and drain so long.
    Never(u64, Reply<WorkerId>),
    /// Ask that worker when a drain has begun, and answer with its answer.
    Drained(WorkerRef<Job>, Reply<WorkerId>),
    Crash,
}

/// Who handled which.
#[derive(Debug, Serialize, Deserialize)]
struct Done(WorkerId, u64);

struct Works;

impl cluster::Worker for Works {
    type Msg = Job;
    type Args = String;

    async fn start(greets: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        if let Ok(text) = std::env::var("START_FAILS") {
            if std::fs::exists(&text)? {
                return Err(format!("{text} is there").into());
            }
        }
        if !greets.is_empty() {
            // A replacement can ask and send before it is current.
            let greeted = cx.worker::<Works>(&greets)?;
            let (who, ..) = greeted.ask(Job::Who).await?;
            greeted.send(Job::Note(1_000_000 + u64::from(who.incarnation.0))).await?;
        }
        Ok(Works)
    }

    async fn on_message(&mut self, job: Job, cx: &mut Context<Self>) -> cluster::Result<()> {
        let me = cx.id();
        match job {
            Job::Note(n) => cx.supervisor().send(Done(me, n)).await?,
            Job::Heavy(n, bytes, file) => {
                let metadata = file.into_inner().metadata()?;
                if bytes.iter().any(|byte| *byte != n as u8) || !metadata.is_file() {
                    return Err(format!("heavy {n} was spoilt").into());
                }
                cx.supervisor().send(Done(me, n)).await?;
            }
            Job::Send(to, from, until) => {
                cx.spawn(async move {
                    for n in from..until {
                        to.send(Job::Note(n)).await.expect("a mailbox that outlives its workers");
                    }
                });
            }
            Job::Who(reply) => reply.send((me, std::process::id(), BUILD.to_owned())),
            Job::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Job::Later(ms, reply) => {
                cx.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    reply.send(me);
                });
            }
            Job::Never(ms, reply) => {
                let shutdown = cx.shutdown();
                cx.spawn(async move {
                    shutdown.await;
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    // As a crash would.
                    std::mem::forget(reply);
                });
            }
            Job::Drained(to, reply) => {
                let draining = cx.draining();
                cx.spawn(async move {
                    draining.await;
                    let (who, ..) = to.ask(Job::Who).await.expect("who drains can ask");
                    reply.send(who);
                });
            }
            Job::Crash => std::process::abort(),
        }
        Ok(())
    }

    fn role() -> std::borrow::Cow<'static, str> {
        // The same in both programs.
        "reloads::Works".into()
    }
}

fn works(name: &str) -> Child<Works, cluster::Set> {
    Child::<Works>::new(name).args(String::new()).shutdown(Shutdown::Timeout(Duration::from_secs(5)))
}

async fn pair() -> anyhow::Result<Cluster> {
    let tree = Supervisor::one_for_one().intensity(100, MINUTE).child(works("a")).child(works("b"));
    Ok(tree.start().await?)
}

/// What incarnations did must be a whole: each in order, and every number once, by one incarnation after the other.
async fn whole(inbox: &mut Inbox<Done>, until: u64) -> anyhow::Result<BTreeMap<u32, Vec<u64>>> {
    let mut by: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for seen in 0..until {
        let Done(who, n) = tokio::time::timeout(MINUTE, inbox.recv())
            .await
            .with_context(|| format!("{seen} of {until} came, the last of each: {:?}", ends(&by)))?;
        by.entry(who.incarnation.0).or_default().push(n);
    }
    let all: Vec<u64> = by.values().flatten().copied().collect();
    let odd = all.iter().enumerate().find(|(at, n)| *at as u64 != **n);
    ensure!(odd.is_none(), "position and number {odd:?} of {:?}", ends(&by));
    Ok(by)
}

fn ends(by: &BTreeMap<u32, Vec<u64>>) -> BTreeMap<u32, (Option<&u64>, Option<&u64>)> {
    by.iter().map(|(who, list)| (*who, (list.first(), list.last()))).collect()
}

async fn who(worker: &WorkerRef<Job>) -> anyhow::Result<WorkerId> {
    Ok(worker.ask(Job::Who).await?.0)
}

/// Waits until this one reads its slot's messages: a reload is done when it is ready, and its predecessor may still read then.
async fn reads(worker: &WorkerRef<Job>, new: WorkerId) -> anyhow::Result<()> {
    let deadline = Instant::now() + MINUTE;
    loop {
        let reader = who(worker).await?;
        if reader == new {
            return Ok(());
        }
        ensure!(
            reader.incarnation.0 + 1 == new.incarnation.0 && Instant::now() < deadline,
            "{reader} reads, not {new}"
        );
    }
}

/// Messages from the supervisor while one worker is replaced again and again.
async fn order() -> anyhow::Result<()> {
    const MESSAGES: u64 = 30_000;
    let cluster = pair().await?;
    let a = cluster.worker::<Works>("a")?;
    let mut inbox = cluster.inbox::<Done>();
    let file = std::env::temp_dir().join(format!("rclust-reloads-{}", std::process::id()));
    std::fs::write(&file, "a file")?;
    let path = file.clone();
    let sender = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let heavy = n % 1000 == 500;
            let size = if n % 2000 == 500 { 1 << 20 } else { 10 };
            let job = match heavy {
                true => Job::Heavy(n, vec![n as u8; size], Socket::new(std::fs::File::open(&path)?)),
                false => Job::Note(n),
            };
            a.send(job).await?;
        }
        anyhow::Ok(())
    });
    let reloads = {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let mut reloads = 0;
            for _ in 0..8 {
                cluster.reload_child("a").await?;
                reloads += 1;
            }
            anyhow::Ok(reloads)
        })
    };
    let by = whole(&mut inbox, MESSAGES).await?;
    sender.await??;
    ensure!(reloads.await?? == 8);
    ensure!(by.len() > 2, "one incarnation after the other: {:?}", ends(&by));
    std::fs::remove_file(&file)?;
    cluster.stop().await;
    Ok(())
}

/// Two workers, one sending to the other, both replaced all the time. Incarnations of the sender send side by side.
async fn both() -> anyhow::Result<()> {
    const EACH: u64 = 4_000;
    let cluster = pair().await?;
    let (a, b) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("b")?);
    let mut inbox = cluster.inbox::<Done>();
    let mut sends = 0;
    for turn in 0..6 {
        a.send(Job::Send(b.clone(), turn * EACH, (turn + 1) * EACH)).await?;
        sends += EACH;
        cluster.reload_by(1 + turn as usize % 2).await?;
    }
    let mut last: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    let mut seen = vec![false; sends as usize];
    for count in 0..sends {
        let Done(who, n) =
            tokio::time::timeout(MINUTE, inbox.recv()).await.with_context(|| format!("{count} of {sends} came"))?;
        ensure!(!std::mem::replace(&mut seen[n as usize], true), "{n} twice");
        let before = last.insert((n / EACH, who.incarnation.0), n);
        ensure!(before.is_none_or(|before| before < n), "{before:?} before {n}");
    }
    reads(&a, WorkerId { incarnation: Incarnation(7), ..who(&a).await? }).await?;
    reads(&b, WorkerId { incarnation: Incarnation(7), ..who(&b).await? }).await?;
    cluster.stop().await;
    Ok(())
}

/// Each sends to the other while both are replaced at once; what comes of that is seen later than a moment after.
async fn pals() -> anyhow::Result<()> {
    const EACH: u64 = 3_000;
    let cluster = pair().await?;
    let (a, b) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("b")?);
    let mut inbox = cluster.inbox::<Done>();
    let mut sends = 0;
    for _ in 0..4 {
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.send(Job::Send(to.clone(), sends, sends + EACH)).await?;
            sends += EACH;
        }
        cluster.reload_by(2).await?;
    }
    // A doorbell that nobody renewed would be found out within two seconds of a predecessor's end.
    let until = Instant::now() + Duration::from_secs(4);
    let mut seen = vec![false; 1 << 20];
    let mut count = 0;
    while count < sends || Instant::now() < until {
        if count == sends {
            for (from, to) in [(&a, &b), (&b, &a)] {
                from.send(Job::Send(to.clone(), sends, sends + 20)).await?;
                sends += 20;
            }
        }
        let came = tokio::time::timeout(MINUTE, inbox.recv()).await;
        let Done(_, n) = came.with_context(|| format!("{count} of {sends} came"))?;
        ensure!(!std::mem::replace(&mut seen[n as usize], true), "{n} twice");
        count += 1;
    }
    for worker in [&a, &b] {
        reads(worker, WorkerId { incarnation: Incarnation(5), ..who(worker).await? }).await?;
    }
    cluster.stop().await;
    Ok(())
}

/// Who was asked before it was replaced answers, or its asker hears of its end; the rest is answered by the next one.
async fn asks() -> anyhow::Result<()> {
    let cluster = pair().await?;
    let (a, b) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("b")?);
    for round in 1..=3 {
        let old = who(&a).await?;
        let later = tokio::spawn(a.ask(|reply| Job::Later(300, reply)));
        let never = tokio::spawn(a.ask(|reply| Job::Never(200, reply)));
        let drained = tokio::spawn({
            let b = b.clone();
            a.ask(|reply| Job::Drained(b, reply)).into_future()
        });
        // They are taken when this is answered.
        ensure!(who(&a).await? == old);
        let new = cluster.reload_child("a").await?;
        ensure!(new.incarnation.0 == old.incarnation.0 + 1, "round {round}");
        reads(&a, new).await?;
        ensure!(later.await?? == old, "the old one answers what it took");
        ensure!(drained.await?? == who(&b).await?, "and asks others while it drains");
        match never.await? {
            Err(AskError::Died { reason: ExitReason::Shutdown, .. }) => {}
            other => anyhow::bail!("round {round}: {other:?}"),
        }
        ensure!(who(&a).await? == new, "its successor goes on");
        if round == 2 {
            // A crash after a reload: the next incarnation has what the dead one had.
            a.send(Job::Crash).await?;
            ensure!(who(&a).await?.incarnation.0 == new.incarnation.0 + 1);
        }
    }
    cluster.stop().await;
    Ok(())
}

/// The message in hand is finished first; and if it does not end, its worker does.
async fn in_hand() -> anyhow::Result<()> {
    let hung = works("hung").shutdown(Shutdown::Timeout(Duration::from_millis(400)));
    let tree = Supervisor::one_for_one().intensity(100, MINUTE).child(works("a")).child(hung);
    let cluster = tree.start().await?;
    let (a, hung) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("hung")?);
    let mut inbox = cluster.inbox::<Done>();
    a.send(Job::Sleep(300)).await?;
    a.send(Job::Note(0)).await?;
    let began = Instant::now();
    let new = cluster.reload_child("a").await?;
    ensure!(began.elapsed() < Duration::from_millis(250), "a reload does not wait for it: {:?}", began.elapsed());
    let Done(who, 0) = inbox.recv().await else { anyhow::bail!("another note") };
    ensure!(who == new && began.elapsed() >= Duration::from_millis(250), "{who} after {:?}", began.elapsed());

    let mut dead = cluster.dead_letters();
    hung.send(Job::Sleep(60_000)).await?;
    hung.send(Job::Note(1)).await?;
    let new = cluster.reload_child("hung").await?;
    let Done(who, 1) = inbox.recv().await else { anyhow::bail!("another note") };
    ensure!(who == new, "{who}");
    let letter = tokio::time::timeout(MINUTE, dead.next()).await.context("a dead letter")?;
    ensure!(letter.to.incarnation.0 == 1, "{letter:?}");
    cluster.stop().await;
    Ok(())
}

/// Deaths in the middle of a reload.
async fn deaths() -> anyhow::Result<()> {
    let cluster = pair().await?;
    let (a, b) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("b")?);
    let mut inbox = cluster.inbox::<Done>();
    let mut sent = 0;
    for round in 0..10 {
        for n in sent..sent + 500 {
            a.send(Job::Note(n)).await?;
        }
        sent += 500;
        let (old, pid, _) = b.ask(Job::Who).await?;
        let (_, pid_of_a, _) = a.ask(Job::Who).await?;
        let reload = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.reload_child("a").await }
        });
        if round % 2 == 0 {
            // The one that is being replaced, or has just been, is killed. Whoever comes takes its place.
            let pid = rustix::process::Pid::from_raw(pid_of_a as i32).context("a pid")?;
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let reloaded = reload.await?;
        ensure!(round % 2 == 0 || reloaded.is_ok(), "{reloaded:?}");
        ensure!(b.ask(Job::Who).await?.1 == pid && who(&b).await? == old, "others are left alone");
    }
    // In hand at a kill: a dead letter. All else once.
    let mut seen = 0;
    let mut dead = 0;
    let mut letters = cluster.dead_letters();
    let mut last: Option<u64> = None;
    while seen + dead < sent {
        tokio::select! {
            Done(who, n) = inbox.recv() => {
                ensure!(last.is_none_or(|last| last != n), "{n} twice, by {who}");
                last = Some(n);
                seen += 1;
            }
            _ = letters.next() => {
                dead += 1;
            }
            () = tokio::time::sleep(MINUTE) => anyhow::bail!("{seen} came and {dead} are dead, of {sent}"),
        }
    }
    ensure!(dead <= 5, "{dead} dead letters for five kills");
    cluster.stop().await;
    Ok(())
}

/// One that does not become ready ends the reload, and nothing is changed.
async fn fails() -> anyhow::Result<()> {
    let mark = std::env::var("START_FAILS")?;
    let pool = Pool::<Works>::new("pool").args(String::new()).size(3);
    let cluster = Supervisor::one_for_one().child(works("first")).child(pool).start().await?;
    let pool = cluster.pool::<Works>("pool")?;
    let before: Vec<WorkerId> = everybody(&pool).await?;
    std::fs::write(&mark, "")?;
    let error = pool.reload().await.expect_err("the new ones cannot start").to_string();
    ensure!(error.contains("is there"), "{error}");
    let error = cluster.reload().await.expect_err("the new ones cannot start").to_string();
    ensure!(error.contains("is there"), "{error}");
    ensure!(everybody(&pool).await? == before, "the old ones go on");
    std::fs::remove_file(&mark)?;
    pool.reload().await?;
    for (member, before) in pool.iter().zip(before) {
        let deadline = Instant::now() + MINUTE;
        while who(&member).await? == before {
            ensure!(Instant::now() < deadline, "{before} reads still");
        }
    }
    ensure!(cluster.reload_child("nobody").await.is_err());
    cluster.stop().await;
    Ok(())
}

async fn everybody(pool: &cluster::PoolRef<Job>) -> anyhow::Result<Vec<WorkerId>> {
    let mut all = Vec::new();
    for member in pool.iter() {
        all.push(who(&member).await?);
    }
    Ok(all)
}

/// A replacement asks and sends before it is current.
async fn greets() -> anyhow::Result<()> {
    let greeter = Child::<Works>::new("greeter").args("a".to_owned());
    let cluster = Supervisor::one_for_one().child(works("a")).child(greeter).start().await?;
    let mut inbox = cluster.inbox::<Done>();
    for incarnation in 1..=4 {
        let Done(by, n) = tokio::time::timeout(MINUTE, inbox.recv()).await?;
        ensure!(n == 1_000_001, "{n} by {by}");
        if incarnation < 4 {
            cluster.reload_child("greeter").await?;
        }
    }
    // Its own mailbox works across its incarnations.
    let greeter = cluster.worker::<Works>("greeter")?;
    reads(&greeter, WorkerId { incarnation: Incarnation(4), ..who(&greeter).await? }).await?;
    cluster.stop().await;
    Ok(())
}

/// Descriptors and memory stay what they are.
async fn many() -> anyhow::Result<()> {
    let cluster = pair().await?;
    let (a, b) = (cluster.worker::<Works>("a")?, cluster.worker::<Works>("b")?);
    let mut inbox = cluster.inbox::<Done>();
    let mut sent = 0;
    let mut round = async |sent: &mut u64| -> anyhow::Result<()> {
        let new = cluster.reload_child("a").await?;
        a.send(Job::Send(b.clone(), *sent, *sent + 1)).await?;
        let Done(_, n) = tokio::time::timeout(MINUTE, inbox.recv()).await?;
        ensure!(n == *sent, "{n}, not {sent}");
        reads(&a, new).await?;
        *sent += 1;
        Ok(())
    };
    for _ in 0..20 {
        round(&mut sent).await?;
    }
    let mut go = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
    println!("warm");
    go.recv().await;
    for n in 1..=980 {
        round(&mut sent).await?;
        if n % 70 == 0 {
            println!("{n} reloads");
        }
    }
    go.recv().await;
    cluster.stop().await;
    Ok(())
}

/// Goes on until it is told to stop; says who is ready as which program, and reloads by signal.
async fn serves() -> anyhow::Result<()> {
    let pool = Pool::<Works>::new("pool").args(String::new()).size(2).intensity(100, MINUTE);
    let cluster = Supervisor::one_for_one().child(pool).start().await?;
    let mut events = cluster.events();
    let workers = cluster.pool::<Works>("pool")?;
    for worker in workers.iter() {
        let (who, pid, build) = worker.ask(Job::Who).await?;
        println!("{} {pid} {build}", who.incarnation.0);
    }
    println!("serving");
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let (EventKind::Ready, Some(new)) = (&event.kind, event.worker) else { continue };
            let Some(worker) = workers.iter().find(|worker| worker.slot() == new.slot) else { continue };
            while let Ok((who, pid, build)) = worker.ask(Job::Who).await {
                // Its predecessor may still read.
                if who == new {
                    println!("now {} {pid} {build}", who.incarnation.0);
                    break;
                }
            }
        }
    });
    Ok(cluster.run().await?)
}

#[cluster::main(workers(Works))]
pub(crate) async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("order") => order().await?,
        Some("both") => both().await?,
        Some("pals") => pals().await?,
        Some("asks") => asks().await?,
        Some("in_hand") => in_hand().await?,
        Some("deaths") => deaths().await?,
        Some("fails") => fails().await?,
        Some("greets") => greets().await?,
        Some("many") => many().await?,
        Some("serves") => serves().await?,
        other => anyhow::bail!("no scenario {other:?}"),
    }
    println!("all is well");
    Ok(())
}
