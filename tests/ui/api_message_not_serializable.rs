// The message type does not derive serde's traits.
use rclust::cluster::{self, Context};

enum Job {
    Add(u64),
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
        }
        Ok(())
    }
}

fn main() {}
