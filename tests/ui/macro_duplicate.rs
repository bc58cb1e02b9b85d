// An option is given twice.
use rclust::cluster;

#[cluster::main(threads = 2, name = "a", threads = 3)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
