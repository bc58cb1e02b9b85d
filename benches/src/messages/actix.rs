//! Actix's actors within one process, with bounded mailboxes; an arbiter, which is a thread, for each side.

use actix::prelude::*;
use anyhow::{Result, anyhow};
use rustix::process::Signal;

use super::drive::{Peer, drive};
use super::scenario::{Load, Orders, SCENARIOS, Side, Tally};
use crate::process;

/// As tokio's channel beside it; actix' own default is 16.
const CAPACITY: usize = 1024;

/// The receiver, and the actor that sends to it.
struct Counter {
    tally: Tally,
    next: Option<Addr<Counter>>,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, cx: &mut Self::Context) {
        cx.set_mailbox_capacity(CAPACITY);
    }
}

struct Echo(u64);

struct Count;

struct Pass {
    count: u64,
    size: usize,
}

impl Message for Load {
    type Result = ();
}

impl Message for Echo {
    type Result = u64;
}

impl Message for Count {
    type Result = Result<Tally>;
}

impl Message for Pass {
    type Result = Result<Tally>;
}

impl Handler<Load> for Counter {
    type Result = ();

    fn handle(&mut self, load: Load, _cx: &mut Self::Context) {
        self.tally.add(&load);
    }
}

impl Handler<Echo> for Counter {
    type Result = u64;

    fn handle(&mut self, Echo(n): Echo, _cx: &mut Self::Context) -> u64 {
        n
    }
}

impl Handler<Count> for Counter {
    type Result = Result<Tally>;

    fn handle(&mut self, _count: Count, _cx: &mut Self::Context) -> Result<Tally> {
        Ok(self.tally.take())
    }
}

impl Handler<Pass> for Counter {
    type Result = ResponseFuture<Result<Tally>>;

    fn handle(&mut self, Pass { count, size }: Pass, _cx: &mut Self::Context) -> Self::Result {
        let next = self.next.clone();
        Box::pin(async move {
            let next = next.ok_or_else(|| anyhow!("the receiver passes nothing on"))?;
            for n in 0..count {
                put(&next, Load::new(n, size)).await?;
            }
            next.send(Count).await?
        })
    }
}

/// `send` waits until the message is handled, which is more than one way asks for, and `do_send` knows no bound. So:
/// `try_send`, and where the mailbox is full, `send`.
async fn put(to: &Addr<Counter>, load: Load) -> Result<()> {
    match to.try_send(load) {
        Ok(()) => Ok(()),
        Err(SendError::Full(load)) => Ok(to.send(load).await?),
        Err(SendError::Closed(_)) => Err(anyhow!("the receiver is gone")),
    }
}

#[derive(Clone)]
struct Actors {
    receiver: Addr<Counter>,
    middle: Addr<Counter>,
}

/// `PLACES MILLISECONDS`
pub(crate) fn play(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let Orders { places, budget } = Orders::read(args)?;
    places.take(Side::Sender)?;
    System::new().block_on(async move {
        let counter = Counter { tally: Tally::default(), next: None };
        let receiver = if places.are_same() {
            counter.start()
        } else {
            let far = Arbiter::new();
            let (tell, told) = tokio::sync::oneshot::channel();
            // The one who waits for it is below.
            far.spawn_fn(move || drop(tell.send(places.take(Side::Receiver))));
            told.await??;
            Counter::start_in_arbiter(&far.handle(), |_| counter)
        };
        let middle = Counter { tally: Tally::default(), next: Some(receiver.clone()) }.start();
        drive(&Actors { receiver, middle }, &SCENARIOS, budget).await
    })
}

impl Peer for Actors {
    async fn send(&self, load: Load) -> Result<()> {
        put(&self.receiver, load).await
    }

    async fn echo(&self, n: u64) -> Result<u64> {
        Ok(self.receiver.send(Echo(n)).await?)
    }

    async fn tally(&self) -> Result<Tally> {
        self.receiver.send(Count).await?
    }

    async fn pass(&self, count: u64, size: usize) -> Result<Tally> {
        self.middle.send(Pass { count, size }).await?
    }
}
