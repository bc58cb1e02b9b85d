// `crate` takes a path, not a string.
use rclust::cluster;

#[cluster::main(crate = "rclust")]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
