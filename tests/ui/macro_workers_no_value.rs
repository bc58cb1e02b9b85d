// `workers` has no value.
use rclust::cluster;

#[cluster::main(workers)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
