// A spawned task borrows the context; take what it needs out of it first.
use rclust::cluster::{self, Context, Never};

struct Web;

impl cluster::Worker for Web {
    type Msg = Never;
    type Args = ();
    async fn start(_args: (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        cx.spawn_local(async move { cx.shutdown().await });
        Ok(Web)
    }
    async fn on_message(&mut self, msg: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match msg {}
    }
}

fn main() {}
