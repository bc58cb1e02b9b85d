// The workers of a pool need arguments and the pool gives none.
use rclust::cluster::{self, Context, Pool, Reply, Supervisor};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Add(u64),
    Total(Reply<u64>),
}

struct Sum {
    n: u64,
}

impl cluster::Worker for Sum {
    type Msg = Job;
    type Args = u64;
    async fn start(from: u64, _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Sum { n: from })
    }
    async fn on_message(&mut self, msg: Job, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match msg {
            Job::Add(n) => self.n += n,
            Job::Total(reply) => reply.send(self.n),
        }
        Ok(())
    }
}

#[cluster::main(workers(Sum))]
async fn main() -> cluster::Result<()> {
    let cluster = Supervisor::one_for_one()
        .child(Pool::<Sum>::new("sums").size(2))
        .start()
        .await?;
    Ok(cluster.run().await?)
}
