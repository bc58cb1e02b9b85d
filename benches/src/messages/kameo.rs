//! Kameo's actors within one process, with bounded mailboxes: `tell` waits while one is full, `ask` waits for the
//! answer.

use std::convert::Infallible;

use anyhow::{Context as _, Result, anyhow};
use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::mailbox;
use kameo::message::{Context, Message};

use super::drive::Peer;
use super::in_process;
use super::scenario::{Load, Tally};

/// As tokio's channel beside it; kameo's own default is 64.
const CAPACITY: usize = 1024;

/// The receiver, and the actor that sends to it.
struct Counter {
    tally: Tally,
    next: Option<ActorRef<Counter>>,
}

impl Actor for Counter {
    type Args = Counter;
    type Error = Infallible;

    async fn on_start(counter: Counter, _me: ActorRef<Counter>) -> Result<Counter, Infallible> {
        Ok(counter)
    }
}

struct Echo(u64);

struct Count;

struct Pass {
    count: u64,
    size: usize,
}

impl Message<Load> for Counter {
    type Reply = ();

    async fn handle(&mut self, load: Load, _cx: &mut Context<Self, ()>) {
        self.tally.add(&load);
    }
}

impl Message<Echo> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Echo(n): Echo, _cx: &mut Context<Self, u64>) -> u64 {
        n
    }
}

impl Message<Count> for Counter {
    type Reply = Result<Tally, Infallible>;

    async fn handle(&mut self, _count: Count, _cx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(self.tally.take())
    }
}

impl Message<Pass> for Counter {
    type Reply = Result<Tally>;

    async fn handle(&mut self, pass: Pass, _cx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let next = self.next.as_ref().context("the receiver passes nothing on")?;
        for n in 0..pass.count {
            next.tell(Load::new(n, pass.size)).await?;
        }
        Ok(next.ask(Count).await?)
    }
}

#[derive(Clone)]
struct Actors {
    receiver: ActorRef<Counter>,
    middle: ActorRef<Counter>,
}

/// `PLACES MILLISECONDS`
pub(crate) fn play(args: &[&str]) -> Result<()> {
    in_process::play(args, async |far| {
        let receiver = far.spawn(async { spawn(None) }).await?;
        let middle = spawn(Some(receiver.clone()));
        Ok(Actors { receiver, middle })
    })
}

/// Where it is called, there the actor runs.
fn spawn(next: Option<ActorRef<Counter>>) -> ActorRef<Counter> {
    Counter::spawn_with_mailbox(Counter { tally: Tally::default(), next }, mailbox::bounded(CAPACITY))
}

impl Peer for Actors {
    async fn send(&self, load: Load) -> Result<()> {
        Ok(self.receiver.tell(load).await?)
    }

    async fn echo(&self, n: u64) -> Result<u64> {
        Ok(self.receiver.ask(Echo(n)).await?)
    }

    async fn tally(&self) -> Result<Tally> {
        Ok(self.receiver.ask(Count).await?)
    }

    async fn pass(&self, count: u64, size: usize) -> Result<Tally> {
        self.middle.ask(Pass { count, size }).await.map_err(|error| anyhow!("{error}"))
    }
}
