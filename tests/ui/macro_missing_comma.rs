// Options are separated by commas.
use rclust::cluster;

#[cluster::main(workers = 2 threads = 2)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
