//! Tokio's bounded channel within one process; `oneshot` is the way back. A worker is a task with a channel.

use anyhow::{Result, anyhow};
use tokio::sync::{mpsc, oneshot};

use super::drive::Peer;
use super::in_process;
use super::scenario::{Load, Tally};

const CAPACITY: usize = 1024;

enum Job {
    Put(Load),
    Echo { n: u64, reply: oneshot::Sender<u64> },
    Tally(oneshot::Sender<Tally>),
    Pass { count: u64, size: usize, done: oneshot::Sender<Result<Tally>> },
}

#[derive(Clone)]
struct Channels {
    receiver: mpsc::Sender<Job>,
    middle: mpsc::Sender<Job>,
}

/// `PLACES MILLISECONDS`
pub(crate) fn play(args: &[&str]) -> Result<()> {
    in_process::play(args, async |far| {
        let (receiver, jobs) = mpsc::channel(CAPACITY);
        far.spawn(work(jobs, None));
        let (middle, jobs) = mpsc::channel(CAPACITY);
        tokio::spawn(work(jobs, Some(receiver.clone())));
        Ok(Channels { receiver, middle })
    })
}

async fn work(mut jobs: mpsc::Receiver<Job>, next: Option<mpsc::Sender<Job>>) {
    let mut tally = Tally::default();
    while let Some(job) = jobs.recv().await {
        // An asker that is gone is no news.
        match job {
            Job::Put(load) => tally.add(&load),
            Job::Echo { n, reply } => drop(reply.send(n)),
            Job::Tally(reply) => drop(reply.send(tally.take())),
            Job::Pass { count, size, done } => drop(done.send(pass(next.as_ref(), count, size).await)),
        }
    }
}

async fn pass(next: Option<&mpsc::Sender<Job>>, count: u64, size: usize) -> Result<Tally> {
    let next = next.ok_or_else(|| anyhow!("the receiver passes nothing on"))?;
    for n in 0..count {
        put(next, Job::Put(Load::new(n, size))).await?;
    }
    ask(next, Job::Tally).await
}

async fn put(to: &mpsc::Sender<Job>, job: Job) -> Result<()> {
    to.send(job).await.map_err(|_| anyhow!("the receiver is gone"))
}

async fn ask<T>(to: &mpsc::Sender<Job>, make: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    put(to, make(reply)).await?;
    Ok(answer.await?)
}

impl Peer for Channels {
    async fn send(&self, load: Load) -> Result<()> {
        put(&self.receiver, Job::Put(load)).await
    }

    async fn echo(&self, n: u64) -> Result<u64> {
        ask(&self.receiver, |reply| Job::Echo { n, reply }).await
    }

    async fn tally(&self) -> Result<Tally> {
        ask(&self.receiver, Job::Tally).await
    }

    async fn pass(&self, count: u64, size: usize) -> Result<Tally> {
        ask(&self.middle, |done| Job::Pass { count, size, done }).await?
    }
}
