// `#[tokio::main]` stands on the same function.
use rclust::cluster;

#[cluster::main]
#[tokio::main(flavor = "current_thread")]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
