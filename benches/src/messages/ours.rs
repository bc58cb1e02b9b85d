//! Ours: the body of the supervisor sends and asks, one worker receives, and another one, beside it, can send to it.

use std::process::ExitCode;

use anyhow::Context as _;
use rclust::cluster::{Child, Context, Reply, Result, SendError, Supervisor, Worker, WorkerRef};
use rclust::{ProcessRole, Role, Settings};
use serde::{Deserialize, Serialize};

use super::drive::{Peer, Refused, drive};
use super::scenario::{Load, Orders, Places, SCENARIOS, Side, Tally};
use crate::web;

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Put(Load),
    Echo { n: u64, reply: Reply<u64> },
    Tally(Reply<Tally>),
    Pass { to: WorkerRef<Job>, count: u64, size: usize, done: Reply<Tally> },
}

struct Counter {
    tally: Tally,
}

impl Worker for Counter {
    type Msg = Job;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> Result<Self> {
        Ok(Counter { tally: Tally::default() })
    }

    async fn on_message(&mut self, job: Job, _cx: &mut Context<Self>) -> Result<()> {
        match job {
            Job::Put(load) => self.tally.add(&load),
            Job::Echo { n, reply } => reply.send(n),
            Job::Tally(reply) => reply.send(self.tally.take()),
            Job::Pass { to, count, size, done } => {
                for n in 0..count {
                    to.send(Job::Put(Load::new(n, size))).await?;
                }
                done.send(to.ask(Job::Tally).await?);
            }
        }
        Ok(())
    }
}

/// The receiver's name; the other worker, which stands on the sending side, is `middle`.
const RECEIVER: &str = "receiver";

/// `PLACES MILLISECONDS`
pub(crate) fn play(args: &[&str]) -> ExitCode {
    let Ok(orders) = Orders::read(args) else { return ExitCode::from(2) };
    let settings = Settings::new("messages").init(init);
    rclust::boot(settings, rclust::tree(vec![Role::of::<Counter>()], move || all(orders)))
}

/// Before any thread is started, so that all inherit the place.
fn init(role: &ProcessRole) -> Result<()> {
    let places: Places = std::env::args().nth(3).unwrap_or_default().parse()?;
    places.take(match role {
        ProcessRole::Worker { name, .. } if name == RECEIVER => Side::Receiver,
        _ => Side::Sender,
    })?;
    web::init(role)
}

async fn all(orders: Orders) -> Result<()> {
    let tree = Supervisor::one_for_one().child(Child::<Counter>::new(RECEIVER)).child(Child::<Counter>::new("middle"));
    let cluster = tree.start().await?;
    let workers =
        Workers { receiver: cluster.worker::<Counter>(RECEIVER)?, middle: cluster.worker::<Counter>("middle")? };
    drive(&workers, &SCENARIOS, orders.budget).await?;
    cluster.stop().await;
    Ok(())
}

#[derive(Clone)]
struct Workers {
    receiver: WorkerRef<Job>,
    middle: WorkerRef<Job>,
}

impl Peer for Workers {
    async fn send(&self, load: Load) -> anyhow::Result<()> {
        self.receiver.send(Job::Put(load)).await.map_err(|error| match error {
            SendError::TooLarge { .. } => Refused(error.to_string()).into(),
            error => anyhow::anyhow!("{error}"),
        })
    }

    async fn echo(&self, n: u64) -> anyhow::Result<u64> {
        Ok(self.receiver.ask(|reply| Job::Echo { n, reply }).await?)
    }

    async fn tally(&self) -> anyhow::Result<Tally> {
        Ok(self.receiver.ask(Job::Tally).await?)
    }

    async fn pass(&self, count: u64, size: usize) -> anyhow::Result<Tally> {
        let to = self.receiver.clone();
        self.middle.ask(|done| Job::Pass { to, count, size, done }).await.context("the worker between")
    }
}
