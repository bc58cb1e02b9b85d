// A number has no unit.
use rclust::cluster;

#[cluster::main(threads = 4k)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
