// An entry of the list of roles is not a worker.
use rclust::cluster::{self, Context, Never};

struct Web;

impl cluster::Worker for Web {
    type Msg = Never;
    type Args = ();
    async fn start(_args: (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Web)
    }
    async fn on_message(&mut self, msg: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match msg {}
    }
}

struct Config;

#[cluster::main(workers(Web, Config))]
async fn main() -> cluster::Result<()> {
    Ok(())
}
