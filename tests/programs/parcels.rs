//! Sockets and large payloads in messages, and what deaths do to them: each scenario checks what arrives and fails loudly.

use std::fs::File;
use std::future::poll_fn;
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rclust::cluster::{
    self, AskError, Child, Cluster, Context, DeadReason, ExitReason, Mailbox, Reply, Restart, SendError, Socket,
    Supervisor, WorkerRef,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

type Blob = serde_bytes::ByteBuf;

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Pid(Reply<u32>),
    /// Answer, and never return.
    Stuck(Reply<u32>),
    Crash,
    /// Say who it is on each stream.
    Greet {
        streams: Vec<(String, Socket<TcpStream>)>,
        also: Option<Socket<TcpStream>>,
    },
    /// Read what is in the file, send it to the address from the socket, and pass the pipe on.
    Others {
        file: Socket<File>,
        udp: Socket<UdpSocket>,
        to: SocketAddr,
        any: Socket<OwnedFd>,
        reply: Reply<String>,
    },
    /// Give it to that worker.
    PassOn {
        to: WorkerRef<Job>,
        stream: Socket<TcpStream>,
    },
    /// Give it to the supervisor.
    Return {
        stream: Socket<TcpStream>,
    },
    Blob(Blob),
    Sum(Reply<(usize, u64)>),
    /// Send so large a message there.
    SendBlob {
        to: WorkerRef<Job>,
        size: usize,
    },
    Echo {
        blob: Blob,
        reply: Reply<Blob>,
    },
    Connect(SocketAddr, Reply<Socket<TcpStream>>),
    /// Die at the first deliveries.
    Poison {
        deaths: u32,
    },
    PoisonAsk {
        deaths: u32,
        reply: Reply<u32>,
    },
    Note(u64),
    Noted(Reply<Vec<u64>>),
    Descriptors(Reply<usize>),
}

#[derive(Default)]
struct Actor {
    blobs: usize,
    sum: u64,
    noted: Vec<u64>,
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What they are, for a failure.
fn described() -> String {
    let Ok(all) = std::fs::read_dir("/proc/self/fd") else { return String::new() };
    let mut kinds: Vec<String> = all
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .map(|target| target.split('[').next().unwrap_or_default().to_owned())
        .collect();
    kinds.sort();
    kinds.join(" ")
}

fn blob(size: usize) -> Blob {
    Blob::from((0..size).map(|n| (n / 7) as u8).collect::<Vec<u8>>())
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

impl cluster::Worker for Actor {
    type Msg = Job;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Actor::default())
    }

    async fn on_message(&mut self, job: Job, cx: &mut Context<Self>) -> cluster::Result<()> {
        match job {
            Job::Pid(reply) => reply.send(std::process::id()),
            Job::Stuck(reply) => {
                reply.send(std::process::id());
                std::future::pending().await
            }
            Job::Crash => std::process::abort(),
            Job::Greet { streams, also } => {
                let all = streams.into_iter().chain(also.map(|stream| ("also".to_owned(), stream)));
                for (name, stream) in all {
                    let mut stream = stream.into_inner();
                    stream.write_all(format!("{name} {} {}\n", cx.name(), std::process::id()).as_bytes()).await?;
                }
            }
            Job::Others { file, udp, to, any, reply } => {
                let mut text = String::new();
                file.into_inner().read_to_string(&mut text)?;
                udp.into_inner().send_to(text.as_bytes(), to).await?;
                File::from(any.into_inner()).write_all(text.as_bytes())?;
                reply.send(text);
            }
            Job::PassOn { to, stream } => {
                to.send(Job::Greet { streams: vec![("passed".to_owned(), stream)], also: None }).await?;
            }
            Job::Return { stream } => cx.supervisor().send(Job::Return { stream }).await?,
            Job::Blob(blob) => {
                self.blobs += 1;
                self.sum += sum(&blob);
            }
            Job::Sum(reply) => reply.send((self.blobs, self.sum)),
            Job::SendBlob { to, size } => to.send(Job::Blob(blob(size))).await?,
            Job::Echo { blob, reply } => reply.send(blob),
            Job::Connect(to, reply) => reply.send(TcpStream::connect(to).await?.into()),
            Job::Poison { deaths } => {
                self.noted.push(u64::from(cx.delivery()) + 1000);
                if cx.delivery() <= deaths {
                    std::process::abort();
                }
            }
            Job::PoisonAsk { deaths, reply } => {
                if cx.delivery() <= deaths {
                    std::process::abort();
                }
                reply.send(cx.delivery());
            }
            Job::Note(n) => self.noted.push(n),
            Job::Noted(reply) => reply.send(self.noted.clone()),
            Job::Descriptors(reply) => reply.send(descriptors()),
        }
        Ok(())
    }
}

type Outcome = anyhow::Result<()>;

async fn tree(children: Vec<Child<Actor>>) -> anyhow::Result<Cluster> {
    let mut tree = Supervisor::one_for_one().intensity(100_000, Duration::from_secs(1));
    for child in children {
        tree = tree.child(child);
    }
    Ok(tree.start().await?)
}

fn child(name: &str) -> Child<Actor> {
    Child::<Actor>::new(name)
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Both ends of a connection.
async fn connection() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    Ok((client, listener.accept().await?.0))
}

/// What a client hears until the other end is closed.
async fn heard(mut client: TcpStream) -> anyhow::Result<String> {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(10), client.read_to_string(&mut text)).await.context("no end")??;
    Ok(text)
}

async fn sockets() -> Outcome {
    let cluster = tree(vec![child("a"), child("b")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let (pid_a, pid_b) = (a.ask(Job::Pid).await?, b.ask(Job::Pid).await?);
    // From the supervisor, several, at depth. Their copies here are closed: the client sees the end.
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    for n in 0..20 {
        let (client, server) = connection().await?;
        clients.push(client);
        streams.push((format!("s{n}"), Socket::new(server)));
    }
    let (other, server) = connection().await?;
    a.send(Job::Greet { streams, also: Some(server.into()) }).await?;
    for (n, client) in clients.into_iter().enumerate() {
        ensure!(heard(client).await? == format!("s{n} a {pid_a}\n"), "client {n}");
    }
    ensure!(heard(other).await? == format!("also a {pid_a}\n"));
    // From worker to worker, mid-stream.
    let (mut client, mut server) = connection().await?;
    client.write_all(b"already read").await?;
    server.read_exact(&mut [0; 12]).await?;
    a.send(Job::PassOn { to: b.clone(), stream: server.into() }).await?;
    ensure!(heard(client).await? == format!("passed b {pid_b}\n"));
    // From worker to supervisor.
    let mut inbox = cluster.inbox::<Job>();
    let (client, server) = connection().await?;
    a.send(Job::Return { stream: server.into() }).await?;
    match inbox.recv().await {
        Job::Return { stream } => stream.into_inner().write_all(b"back").await?,
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(heard(client).await? == "back");
    // To oneself, by way of a reference.
    let (client, server) = connection().await?;
    a.send(Job::PassOn { to: a.clone(), stream: server.into() }).await?;
    ensure!(heard(client).await? == format!("passed a {pid_a}\n"));
    // Other kinds.
    let path = std::env::temp_dir().join(format!("rclust-parcels-{}", std::process::id()));
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(b"in the file")?;
    file.rewind()?;
    let (udp, hears) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    let to = hears.local_addr()?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut reader = File::from(reader);
    let (file, udp, any) = (file.into(), udp.into(), writer.into());
    let text = a.ask(|reply| Job::Others { file, udp, to, any, reply }).await?;
    let mut datagram = [0; 100];
    let (n, _) = tokio::time::timeout(Duration::from_secs(10), hears.recv_from(&mut datagram)).await??;
    let mut piped = String::new();
    reader.read_to_string(&mut piped)?;
    ensure!(text == "in the file" && &datagram[..n] == b"in the file" && piped == "in the file");
    Ok(())
}

async fn waiting_sockets() -> Outcome {
    let cluster = tree(vec![child("a"), child("b")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let mut dead = cluster.dead_letters();
    for round in 0..10 {
        let pid_a = a.ask(Job::Pid).await?;
        let pid_b = b.ask(Job::Stuck).await?;
        let mut clients = Vec::new();
        for n in 0..8 {
            let (client, server) = connection().await?;
            // Half of them straight, half of them through the other worker, which dies afterwards.
            if n % 2 == 0 {
                b.send(Job::Greet { streams: vec![("x".to_owned(), server.into())], also: None }).await?;
            } else {
                a.send(Job::PassOn { to: b.clone(), stream: server.into() }).await?;
            }
            clients.push(client);
        }
        ensure!(a.ask(Job::Pid).await? == pid_a, "all were passed on");
        kill(pid_a);
        kill(pid_b);
        for (n, client) in clients.into_iter().enumerate() {
            let text = heard(client).await?;
            ensure!(text.contains(" b "), "round {round}, client {n}: `{text}`");
        }
    }
    // The one in hand goes with its worker, and its client sees that.
    let (client, server) = connection().await?;
    let (keeps, other) = connection().await?;
    let crash = Job::Greet { streams: vec![("x".to_owned(), server.into())], also: Some(other.into()) };
    let pid = b.ask(Job::Stuck).await?;
    b.send(crash).await?;
    b.send(Job::Crash).await?;
    kill(pid);
    ensure!(heard(client).await?.starts_with("x b "));
    ensure!(heard(keeps).await?.starts_with("also b "));
    while !matches!(dead.next().await.decode::<Job>(), Ok(Job::Crash)) {}
    Ok(())
}

async fn come_back() -> Outcome {
    let cluster =
        tree(vec![child("a").mailbox(Mailbox::new().lane(4096)), child("t").restart(Restart::Temporary)]).await?;
    let (a, t) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("t")?);
    let greet = |server: TcpStream| Job::Greet { streams: vec![], also: Some(server.into()) };
    let inner = |job: Job| match job {
        Job::Greet { also: Some(stream), .. } => stream.into_inner(),
        other => panic!("{other:?}"),
    };
    // A slot that is gone.
    let pid = t.ask(Job::Pid).await?;
    kill(pid);
    while cluster.worker::<Actor>("t").is_ok() {
        tokio::task::yield_now().await;
    }
    let (client, server) = connection().await?;
    let Err(SendError::Closed { message, .. }) = t.send(greet(server)).await else { anyhow::bail!("it was sent") };
    let mut server = inner(message);
    server.write_all(b"still here").await?;
    drop(server);
    ensure!(heard(client).await? == "still here");
    // A mailbox that is full, first of bytes, then of sockets.
    let pid = a.ask(Job::Stuck).await?;
    let before = descriptors();
    while a.try_send(Job::Note(1)).is_ok() {}
    let (client, server) = connection().await?;
    let Err(full) = a.try_send(greet(server)) else { anyhow::bail!("it was sent") };
    ensure!(full.is_full());
    // A send that is cancelled while it waits gives nothing back, and leaks nothing: the client sees the end.
    let mut sending = Box::pin(a.send(full.into_message()));
    let first = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_pending())).await;
    ensure!(first, "there was room");
    drop(sending);
    ensure!(heard(client).await?.is_empty());
    ensure!(descriptors() == before, "{} descriptors, {before} before", descriptors());
    kill(pid);
    a.ask(Job::Pid).await?;
    let pid = a.ask(Job::Stuck).await?;
    let mut clients = Vec::new();
    let server = loop {
        let (client, server) = connection().await?;
        match a.try_send(greet(server)) {
            Ok(()) => clients.push(client),
            Err(error) => break inner(error.into_message()),
        }
        ensure!(clients.len() <= 1000, "sockets without a bound");
    };
    ensure!(clients.len() > 50, "only {} sockets wait", clients.len());
    drop(server);
    kill(pid);
    for client in clients {
        ensure!(heard(client).await?.starts_with("also a"));
    }
    // One that is not in a message.
    let (_client, server) = connection().await?;
    ensure!(postcard::to_allocvec(&Socket::new(server)).is_err(), "a socket outside a message");
    Ok(())
}

async fn no_leak() -> Outcome {
    let cluster = tree(vec![child("a"), child("b")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    // Everything that is made at first use is made.
    let (client, server) = connection().await?;
    a.send(Job::PassOn { to: b.clone(), stream: server.into() }).await?;
    heard(client).await?;
    b.ask(Job::Pid).await?;
    let (kinds, before) =
        (described(), (descriptors(), a.ask(Job::Descriptors).await?, b.ask(Job::Descriptors).await?));
    let mut served = 0;
    for round in 0..20 {
        let mut clients = Vec::new();
        for _ in 0..50 {
            let (client, server) = connection().await?;
            clients.push(tokio::spawn(heard(client)));
            a.send(Job::PassOn { to: b.clone(), stream: server.into() }).await?;
        }
        let victim = if round % 2 == 0 { &a } else { &b };
        if let Ok(pid) = victim.ask(Job::Pid).await {
            kill(pid);
        }
        for client in clients {
            served += usize::from(!client.await?.unwrap_or_default().is_empty());
        }
    }
    // Those in hand at a kill are lost with their worker; that is at most one message a lane and kill.
    ensure!(served >= 1000 - 40, "only {served} of 1000 were served");
    for worker in [&a, &b] {
        worker.ask(Job::Pid).await?;
    }
    let (client, server) = connection().await?;
    a.send(Job::PassOn { to: b.clone(), stream: server.into() }).await?;
    heard(client).await?;
    // The supervisor lets go of what the dead had a moment after their successors are ready.
    let mut after = (0, 0, 0);
    for _ in 0..1000 {
        after = (descriptors(), a.ask(Job::Descriptors).await?, b.ask(Job::Descriptors).await?);
        if before == after {
            return Ok(());
        }
    }
    anyhow::bail!("descriptors before {before:?}, after {after:?}\nthen: {kinds}\nnow:  {}", described())
}

async fn large() -> Outcome {
    let limits = Mailbox::new().largest(3 << 20).waiting(6 << 20);
    let cluster = tree(vec![child("a"), child("b").mailbox(limits)]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let mut expected = (0, 0);
    for size in [100, 40_000, 524_000, 524_288, 600_000, (3 << 20) - 100] {
        b.send(Job::Blob(blob(size))).await?;
        a.send(Job::SendBlob { to: b.clone(), size }).await?;
        expected = (expected.0 + 2, expected.1 + 2 * sum(&blob(size)));
        // Lanes have no order among each other: the question may overtake the other worker's message.
        let begun = std::time::Instant::now();
        loop {
            let seen = b.ask(Job::Sum).await?;
            if seen == expected {
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(10), "{size} bytes: {seen:?}, not {expected:?}");
        }
    }
    match b.send(Job::Blob(blob(3 << 20))).await {
        Err(SendError::TooLarge { bytes, limit, message: Job::Blob(blob), .. }) => {
            ensure!(bytes > 3 << 20 && limit == 3 << 20 && blob.len() == 3 << 20);
        }
        other => anyhow::bail!("{:?}", other.err().map(|error| error.to_string())),
    }
    // What waits is bounded, and waiting ends.
    let pid = b.ask(Job::Stuck).await?;
    let mut waiting = 0;
    while b.try_send(Job::Blob(blob(1 << 20))).is_ok() {
        waiting += 1;
    }
    ensure!(waiting == 5, "{waiting} large messages wait (1 MiB and some bytes each, 6 MiB in all)");
    let held: u64 = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok())
        .filter(|file| file.len() == (1 << 20) + 5 || file.len() == (1 << 20) + 4)
        .count() as u64;
    ensure!(held == waiting, "{held} payloads are held, {waiting} wait");
    let sending = tokio::spawn({
        let b = b.clone();
        async move { b.send(Job::Blob(blob(1 << 20))).await.is_ok() }
    });
    tokio::task::yield_now().await;
    ensure!(!sending.is_finished(), "there was room");
    kill(pid);
    ensure!(sending.await?);
    ensure!(b.ask(Job::Sum).await? == (6, 6 * sum(&blob(1 << 20))));
    Ok(())
}

async fn large_deaths() -> Outcome {
    let cluster = tree(vec![child("a"), child("b")]).await?;
    let (a, b) = (cluster.worker::<Actor>("a")?, cluster.worker::<Actor>("b")?);
    let mut dead = cluster.dead_letters();
    let (pid_a, pid_b) = (a.ask(Job::Pid).await?, b.ask(Job::Stuck).await?);
    b.send(Job::Blob(blob(2 << 20))).await?;
    a.send(Job::SendBlob { to: b.clone(), size: 3 << 20 }).await?;
    ensure!(a.ask(Job::Pid).await? == pid_a, "it was sent on");
    kill(pid_a);
    kill(pid_b);
    let expected = (2, sum(&blob(2 << 20)) + sum(&blob(3 << 20)));
    while b.ask(Job::Sum).await? != expected {
        tokio::task::yield_now().await;
    }
    // In hand, it is a whole dead letter.
    let echo = b.ask(|reply| Job::Echo { blob: blob(1 << 20), reply });
    ensure!(echo.await? == blob(1 << 20));
    let pid = b.ask(Job::Stuck).await?;
    b.send(Job::PoisonAsk { deaths: 1, reply: Reply::pair().0 }).await?;
    kill(pid);
    loop {
        let letter = dead.next().await;
        match letter.decode::<Job>()? {
            Job::Stuck(_) => {}
            Job::PoisonAsk { deaths: 1, .. } => break,
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

async fn answers() -> Outcome {
    let cluster = tree(vec![child("a")]).await?;
    let a = cluster.worker::<Actor>("a")?;
    for size in [0, 1000, 1 << 20, 3 << 20] {
        let back = a.ask(|reply| Job::Echo { blob: blob(size), reply }).await?;
        ensure!(back == blob(size), "{size}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = listener.local_addr()?;
    let stream = a.ask(|reply| Job::Connect(to, reply)).await?;
    let mut stream = stream.into_inner();
    let (server, _) = listener.accept().await?;
    stream.write_all(b"made by a worker").await?;
    drop(stream);
    ensure!(heard(server).await? == "made by a worker");
    Ok(())
}

async fn redelivery() -> Outcome {
    let cluster = tree(vec![child("a").redeliver(2)]).await?;
    let a = cluster.worker::<Actor>("a")?;
    let mut dead = cluster.dead_letters();
    // Twice it kills, the third time it does not: handled, and before what was sent after it.
    a.send(Job::Poison { deaths: 2 }).await?;
    a.send(Job::Note(1)).await?;
    ensure!(a.ask(Job::Noted).await? == [1003, 1], "{:?}", a.ask(Job::Noted).await?);
    ensure!(dead.try_next().is_none());
    // It kills as often as it may: it is quarantined, and the next ones are handled.
    a.send(Job::Poison { deaths: 9 }).await?;
    a.send(Job::Note(2)).await?;
    ensure!(a.ask(Job::Noted).await? == [2]);
    let letter = dead.next().await;
    match &letter.reason {
        DeadReason::Quarantined { deliveries: 3, last: ExitReason::Signal { signal: 6, .. } } => {}
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(matches!(letter.decode()?, Job::Poison { deaths: 9 }));
    // A large one is whole every time; one with a socket is not delivered again.
    a.send(Job::Crash).await?;
    ensure!(matches!(dead.next().await.reason, DeadReason::Quarantined { .. }));
    let pid = a.ask(Job::Stuck).await;
    ensure!(pid.is_ok());
    Ok(())
}

async fn asked_again() -> Outcome {
    let cluster = tree(vec![child("a").redeliver(3)]).await?;
    let a = cluster.worker::<Actor>("a")?;
    ensure!(a.ask(|reply| Job::PoisonAsk { deaths: 2, reply }).await == Ok(3));
    match a.ask(|reply| Job::PoisonAsk { deaths: 9, reply }).await {
        Err(AskError::Died { reason: ExitReason::Signal { signal: 6, .. }, .. }) => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn empty_mailbox() -> Outcome {
    let cluster = tree(vec![child("a").empty_mailbox(true)]).await?;
    let a = cluster.worker::<Actor>("a")?;
    let mut dead = cluster.dead_letters();
    let pid = a.ask(Job::Stuck).await?;
    for n in 0..10 {
        a.send(Job::Note(n)).await?;
    }
    let waiting = tokio::spawn(a.ask(Job::Pid));
    tokio::task::yield_now().await;
    kill(pid);
    ensure!(matches!(waiting.await?, Err(AskError::Died { .. })));
    ensure!(a.ask(Job::Noted).await?.is_empty());
    let mut reasons = Vec::new();
    for _ in 0..12 {
        reasons.push(dead.next().await.reason);
    }
    ensure!(matches!(reasons[0], DeadReason::Died(_)), "{reasons:?}");
    ensure!(reasons[1..].iter().all(|reason| matches!(reason, DeadReason::Discarded(_))), "{reasons:?}");
    Ok(())
}

async fn closed() -> Outcome {
    let cluster = tree(vec![child("keep"), child("t").restart(Restart::Temporary)]).await?;
    let t = cluster.worker::<Actor>("t")?;
    let mut dead = cluster.dead_letters();
    let pid = t.ask(Job::Stuck).await?;
    let (client, server) = connection().await?;
    for n in 0..3 {
        t.send(Job::Note(n)).await?;
    }
    t.send(Job::Greet { streams: vec![], also: Some(server.into()) }).await?;
    kill(pid);
    ensure!(matches!(dead.next().await.reason, DeadReason::Died(_)));
    for n in 0..3 {
        let letter = dead.next().await;
        ensure!(
            letter.reason == DeadReason::Closed && matches!(letter.decode(), Ok(Job::Note(m)) if m == n),
            "{letter:?}"
        );
    }
    let letter = dead.next().await;
    ensure!(letter.reason == DeadReason::Closed && letter.decode::<Job>().is_err(), "its socket is gone: {letter:?}");
    ensure!(heard(client).await?.is_empty());
    Ok(())
}

#[cluster::main(workers(Actor))]
async fn main() -> Outcome {
    let way = std::env::args().nth(1).unwrap_or_default();
    match way.as_str() {
        "sockets" => sockets().await?,
        "waiting_sockets" => waiting_sockets().await?,
        "come_back" => come_back().await?,
        "no_leak" => no_leak().await?,
        "large" => large().await?,
        "large_deaths" => large_deaths().await?,
        "answers" => answers().await?,
        "redelivery" => redelivery().await?,
        "asked_again" => asked_again().await?,
        "empty_mailbox" => empty_mailbox().await?,
        "closed" => closed().await?,
        other => anyhow::bail!("no scenario `{other}`"),
    }
    println!("held");
    Ok(())
}
