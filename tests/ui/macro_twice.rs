// `#[cluster::main]` is written twice.
use rclust::cluster;

#[cluster::main]
#[cluster::main(threads = 2)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
