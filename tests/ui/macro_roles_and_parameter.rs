// A list of roles together with a parameter.
use rclust::cluster;

#[cluster::main(workers(Web))]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
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
