//! A running cluster to which a scenario adds workers, and what is seen of it.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rclust::cluster::{
    self, Child, Cluster, Event, EventKind, Events, ExitReason, Inbox, Restart, Shutdown, Slot, Supervisor, WorkerRef,
    WorkerState,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::serve::{At, Refused};
use crate::worker::{Do, Said, Twin};

pub(crate) type Outcome = anyhow::Result<()>;

pub(crate) const NEVER: Duration = Duration::from_secs(600);

const DEADLINE: Duration = Duration::from_secs(20);

/// An event that comes, or a scenario that fails.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> anyhow::Result<F::Output> {
    tokio::time::timeout(DEADLINE, future).await.with_context(|| format!("not within {DEADLINE:?}: {what}"))
}

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) inbox: Inbox<Said>,
    events: Events,
    /// All events so far.
    pub(crate) seen: Vec<Event>,
}

/// A worker as Node's are: when it ends it is gone, unless the scenario says otherwise.
pub(crate) fn twin(name: &str, manner: &str) -> Child<Twin, cluster::Set> {
    Child::<Twin>::new(name).args(manner.to_owned()).restart(Restart::Temporary).shutdown(Shutdown::Infinity)
}

impl Scene {
    pub(crate) async fn new() -> anyhow::Result<Scene> {
        let cluster = Supervisor::one_for_one().intensity(1000, NEVER).start().await?;
        Ok(Scene { inbox: cluster.inbox(), events: cluster.events(), cluster, seen: Vec::new() })
    }

    /// A scene with these workers, which do nothing on their own.
    pub(crate) async fn with<const N: usize>(names: [&str; N]) -> anyhow::Result<(Scene, [WorkerRef<Do>; N])> {
        let scene = Scene::new().await?;
        let mut workers = Vec::new();
        for name in names {
            workers.push(scene.fork(name, "").await?);
        }
        Ok((scene, workers.try_into().map_err(|_| anyhow::anyhow!("as many workers as names"))?))
    }

    /// Starts a worker.
    pub(crate) async fn fork(&self, name: &str, manner: &str) -> anyhow::Result<WorkerRef<Do>> {
        self.add(twin(name, manner)).await?;
        self.worker(name)
    }

    pub(crate) async fn add(&self, child: Child<Twin, cluster::Set>) -> Outcome {
        soon("a start", self.cluster.start_child(child)).await??;
        Ok(())
    }

    pub(crate) fn worker(&self, name: &str) -> anyhow::Result<WorkerRef<Do>> {
        Ok(self.cluster.worker::<Twin>(name)?)
    }

    /// Has each of the workers listen there; where that is, which is the same for all.
    pub(crate) async fn listen(&self, workers: &[WorkerRef<Do>], at: &At) -> anyhow::Result<String> {
        let mut addresses = Vec::new();
        for worker in workers {
            addresses.push(listen(worker, at).await?.map_err(|refused| anyhow::anyhow!("{refused}"))?);
        }
        addresses.dedup();
        ensure!(addresses.len() == 1, "{addresses:?}");
        Ok(addresses.remove(0))
    }

    /// The next event like this.
    pub(crate) async fn until(&mut self, what: &str, like: impl Fn(&Event) -> bool) -> anyhow::Result<Event> {
        loop {
            match soon(what, self.events.next()).await? {
                Some(Ok(event)) => {
                    self.seen.push(event.clone());
                    if like(&event) {
                        return Ok(event);
                    }
                }
                other => bail!("{other:?} while waiting for {what}, after {:?}", self.seen),
            }
        }
    }

    pub(crate) async fn kind(&mut self, name: &str, kind: &EventKind) -> anyhow::Result<Event> {
        self.until(&format!("{kind:?} of {name}"), |event| event.name == name && event.kind == *kind).await
    }

    /// The end of a worker: why, and Node's `exitedAfterDisconnect`.
    pub(crate) async fn exit(&mut self, name: &str) -> anyhow::Result<(ExitReason, bool)> {
        self.exit_of(name, 1).await
    }

    /// The same of one of its incarnations.
    pub(crate) async fn exit_of(&mut self, name: &str, incarnation: u32) -> anyhow::Result<(ExitReason, bool)> {
        let is_exit = |event: &Event| {
            let meant = event.worker.is_some_and(|worker| worker.incarnation.0 == incarnation);
            meant && event.name == name && event.exited_after_disconnect().is_some()
        };
        let event = match self.seen.iter().find(|event| is_exit(event)) {
            Some(event) => event.clone(),
            None => self.until(&format!("the end of {name}"), is_exit).await?,
        };
        match (event.exited_after_disconnect(), event.kind) {
            (Some(flag), EventKind::Exited { reason, .. }) => Ok((reason, flag)),
            other => bail!("{other:?}"),
        }
    }

    /// How often a worker was seen to do this.
    pub(crate) fn count(&self, name: &str, like: impl Fn(&EventKind) -> bool) -> usize {
        self.seen.iter().filter(|event| event.name == name && like(&event.kind)).count()
    }

    /// Ends it. Each of these workers has then been disconnected and has exited exactly once.
    pub(crate) async fn ends_once(&mut self, names: &[&str]) -> Outcome {
        soon("the end of the cluster", self.cluster.stop()).await?;
        while let Some(event) = soon("the last event", self.events.next()).await? {
            self.seen.push(event?);
        }
        for name in names {
            let disconnected = self.count(name, |kind| *kind == EventKind::Disconnected);
            let exited = self.count(name, |kind| matches!(kind, EventKind::Exited { .. }));
            ensure!((disconnected, exited) == (1, 1), "{name}: {:?}", self.seen);
        }
        Ok(())
    }

    /// The next thing that a worker says.
    pub(crate) async fn said(&mut self) -> anyhow::Result<Said> {
        Ok(soon("word of a worker", self.inbox.next()).await?.1)
    }

    /// The next note, and which slot says so.
    pub(crate) async fn note(&mut self) -> anyhow::Result<(Slot, String, String)> {
        match soon("a note", self.inbox.next()).await? {
            (slot, Said::Note { by, text }) => Ok((slot, by, text)),
            other => bail!("no note: {other:?}"),
        }
    }

    /// The next stream.
    pub(crate) async fn stream(&mut self) -> anyhow::Result<(String, Option<TcpStream>)> {
        match self.said().await? {
            Said::Stream { text, stream } => Ok((text, stream.map(|stream| stream.into_inner()))),
            other => bail!("no stream: {other:?}"),
        }
    }

    /// The names of the workers that there are (Node's `cluster.workers`).
    pub(crate) async fn names(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.cluster.which_children().await?.into_iter().map(|child| child.name).collect())
    }
}

/// Has a worker listen there.
pub(crate) async fn listen(worker: &WorkerRef<Do>, at: &At) -> anyhow::Result<Result<String, Refused>> {
    Ok(worker.ask(|reply| Do::Listen(at.clone(), reply)).await?)
}

/// Waits until a worker is in this state, which no event tells.
pub(crate) async fn comes_to(worker: &WorkerRef<Do>, state: WorkerState) -> Outcome {
    let coming = async {
        while worker.state().await? != state {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    soon(&format!("{state:?} of {}", worker.name()), coming).await?
}

/// A client of the line service.
pub(crate) struct Client<S>(BufReader<S>);

impl Client<TcpStream> {
    pub(crate) async fn connect(address: impl ToSocketAddrs) -> anyhow::Result<Client<TcpStream>> {
        Ok(Client::over(soon("a connection", TcpStream::connect(address)).await??))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Client<S> {
        Client(BufReader::new(stream))
    }

    /// Whose connection it is.
    pub(crate) async fn who(&mut self) -> anyhow::Result<String> {
        self.0.get_mut().write_all(b"who\n").await?;
        let line = self.line().await?;
        let name = line.split_whitespace().next().context("the connection was closed")?;
        Ok(name.to_owned())
    }

    /// The next line; empty at the end.
    pub(crate) async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        soon("a line", self.0.read_line(&mut line)).await??;
        Ok(line)
    }
}

/// An address that is free, for a port that is named.
pub(crate) fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Whether a process is there, and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    rclust_tests::procfs::status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}
