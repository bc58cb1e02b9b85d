// A field of the message type cannot be shared between threads.
use std::cell::Cell;

use rclust::cluster::{self, Context};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Job {
    amount: Cell<u64>,
}

struct Sum {
    n: u64,
}

impl cluster::Worker for Sum {
    type Msg = Job;
    type Args = ();
    async fn start(_args: (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Sum { n: 0 })
    }
    async fn on_message(&mut self, msg: Job, _cx: &mut Context<Self>) -> cluster::Result<()> {
        self.n += msg.amount.get();
        Ok(())
    }
}

fn main() {}
