// A role is listed twice.
use rclust::cluster;

#[cluster::main(workers(Web, Web))]
async fn main() -> cluster::Result<()> {
    Ok(())
}

struct Web;

impl cluster::Worker for Web {
    type Msg = cluster::Never;
    type Args = ();
    async fn start(_: (), _cx: &mut cluster::Context<Self>) -> cluster::Result<Self> {
        Ok(Web)
    }
    async fn on_message(
        &mut self,
        msg: cluster::Never,
        _cx: &mut cluster::Context<Self>,
    ) -> cluster::Result<()> {
        match msg {}
    }
}
