//! ipc-channel: this process sends, a child of it receives, and another child can send to that one. Calls block, so
//! writers and askers are threads; its channels are sockets, and a writer waits while one is full.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use super::drive::{Peer, drive};
use super::scenario::{Kind, Load, Orders, SCENARIOS, Side, Tally, take_cpu};
use crate::process::{self, System};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Put(Load),
    /// The way back travels in the question, because channels can: a socket pair for each.
    Echo {
        n: u64,
        reply: IpcSender<u64>,
    },
    /// The way back of an asker, for all its questions.
    Open {
        asker: u64,
        reply: IpcSender<u64>,
    },
    EchoTo {
        n: u64,
        asker: u64,
    },
    Tally(IpcSender<Tally>),
    Pass {
        to: IpcSender<Job>,
        count: u64,
        size: usize,
        done: IpcSender<Tally>,
    },
}

/// What a child tells first: where it can be reached.
type Hello = IpcSender<Job>;

#[derive(Clone)]
struct Channels {
    receiver: IpcSender<Job>,
    middle: IpcSender<Job>,
    /// Whether askers keep their way back.
    kept: bool,
}

/// `fresh|kept PLACES MILLISECONDS`
pub(crate) fn lead(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [ways @ ("fresh" | "kept"), args @ ..] = args else { bail!("fresh|kept PLACES MILLISECONDS") };
    let Orders { places, budget } = Orders::read(args)?;
    places.take(Side::Sender)?;
    let (_receiver, receiver) = child(&places.cpu(Side::Receiver))?;
    let (_middle, middle) = child(&places.cpu(Side::Sender))?;
    let channels = Channels { receiver, middle, kept: *ways == "kept" };
    // One way the two are the same.
    let scenarios =
        SCENARIOS.into_iter().filter(|scenario| !channels.kept || matches!(scenario.kind, Kind::Ask { .. }));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drive(&channels, &scenarios.collect::<Vec<_>>(), budget))
}

fn child(cpu: &str) -> Result<(System, IpcSender<Job>)> {
    let (server, name) = IpcOneShotServer::<Hello>::new()?;
    let child = System::beside(&["ipc-channel-worker", cpu, &name])?;
    let (_, jobs) = server.accept()?;
    Ok((child, jobs))
}

/// `CPU NAME`: the child.
pub(crate) fn work(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::KILL)?;
    let [cpu, name] = args else { bail!("CPU NAME") };
    take_cpu(cpu)?;
    let (sender, jobs) = ipc::channel()?;
    IpcSender::<Hello>::connect((*name).to_owned())?.send(sender)?;
    let mut tally = Tally::default();
    let mut askers = HashMap::new();
    // Until the one who leads is gone.
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Put(load) => tally.add(&load),
            Job::Echo { n, reply } => reply.send(n)?,
            Job::Open { asker, reply } => drop(askers.insert(asker, reply)),
            Job::EchoTo { n, asker } => askers.get(&asker).context("an asker that is not known")?.send(n)?,
            Job::Tally(reply) => reply.send(tally.take())?,
            Job::Pass { to, count, size, done } => {
                for n in 0..count {
                    to.send(Job::Put(Load::new(n, size)))?;
                }
                done.send(ask(&to, Job::Tally)?)?;
            }
        }
    }
    Ok(())
}

fn ask<T>(to: &IpcSender<Job>, make: impl FnOnce(IpcSender<T>) -> Job) -> Result<T>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let (reply, answer) = ipc::channel()?;
    to.send(make(reply))?;
    Ok(answer.recv()?)
}

thread_local! {
    /// This thread as an asker: its number and its answers.
    static ASKER: OnceCell<(u64, IpcReceiver<u64>)> = const { OnceCell::new() };
}

fn ask_as_before(to: &IpcSender<Job>, n: u64) -> Result<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    ASKER.with(|known| {
        if known.get().is_none() {
            let (reply, answers) = ipc::channel()?;
            let asker = NEXT.fetch_add(1, Ordering::Relaxed);
            to.send(Job::Open { asker, reply })?;
            // It was empty, and only this thread sees it.
            let _ = known.set((asker, answers));
        }
        let (asker, answers) = known.get().context("an asker")?;
        to.send(Job::EchoTo { n, asker: *asker })?;
        Ok(answers.recv()?)
    })
}

impl Peer for Channels {
    async fn send(&self, load: Load) -> Result<()> {
        Ok(self.receiver.send(Job::Put(load))?)
    }

    async fn echo(&self, n: u64) -> Result<u64> {
        match self.kept {
            true => ask_as_before(&self.receiver, n),
            false => ask(&self.receiver, |reply| Job::Echo { n, reply }),
        }
    }

    async fn tally(&self) -> Result<Tally> {
        ask(&self.receiver, Job::Tally)
    }

    async fn pass(&self, count: u64, size: usize) -> Result<Tally> {
        ask(&self.middle, |done| Job::Pass { to: self.receiver.clone(), count, size, done })
    }

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::task::spawn_blocking(|| Handle::current().block_on(task))
    }
}
