// `workers` must be at least 1.
use rclust::cluster;

#[cluster::main(workers = 0)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
