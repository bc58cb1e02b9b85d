// A name cannot be empty.
use rclust::cluster;

#[cluster::main(name = "")]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
