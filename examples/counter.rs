//! Typed messages, questions, and a crash: what waits in a mailbox outlives the process that was to read it.
//!
//!     cargo run --example counter
//!
//! You see a worker count, crash on request with messages waiting behind the one that killed it, and its successor go on with
//! them: none is lost but the one in hand, which is a dead letter.

use std::time::Duration;

use rclust::cluster::{self, Child, Context, Reply, Supervisor};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Add(u64),
    Crash,
    Total(Reply<u64>),
}

struct Sum {
    n: u64,
}

impl cluster::Worker for Sum {
    type Msg = Job;
    type Args = u64;

    async fn start(from: u64, cx: &mut Context<Self>) -> cluster::Result<Self> {
        println!("process {} counts from {from}; before it: {:?}", std::process::id(), cx.previous());
        Ok(Sum { n: from })
    }

    async fn on_message(&mut self, job: Job, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match job {
            Job::Add(n) => self.n += n,
            Job::Crash => std::process::abort(),
            Job::Total(reply) => reply.send(self.n),
        }
        Ok(())
    }
}

#[cluster::main(workers(Sum))]
async fn main() -> cluster::Result<()> {
    let cluster = Supervisor::one_for_one().child(Child::<Sum>::new("sum").args(100)).start().await?;
    let sum = cluster.worker::<Sum>("sum")?;
    sum.send(Job::Add(1)).await?;
    println!("the total is {}", sum.ask(Job::Total).await?);

    sum.send(Job::Crash).await?;
    for _ in 0..10 {
        sum.send(Job::Add(1)).await?;
    }
    let total = sum.ask(Job::Total).timeout(Duration::from_secs(5)).await?;
    println!("after the crash, with the ten that waited: {total}");
    println!("dead: {:?}", cluster.dead_letters().next().await.reason);
    cluster.stop().await;
    Ok(())
}
