// The body of a tree that starts nothing ends, and so does the program.
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
async fn main() -> cluster::Result<()> {
    Ok(())
}
