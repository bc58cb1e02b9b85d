// A bare value where an option is expected.
use rclust::cluster;

#[cluster::main(4)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
