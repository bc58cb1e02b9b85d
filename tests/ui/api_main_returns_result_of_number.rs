// The body of the supervisor returns a result whose value is no outcome.
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

#[cluster::main(workers(Web))]
async fn main() -> cluster::Result<u32> {
    Ok(7)
}
