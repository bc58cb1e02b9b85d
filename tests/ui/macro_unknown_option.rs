// `worker_threads` is an option of tokio, not of rclust.
use rclust::cluster;

#[cluster::main(worker_threads = 2)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
