// `init` takes a path, not a call.
use rclust::cluster;

#[cluster::main(init = setup())]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}

fn setup() {}
