// A number of workers is written with `=`.
use rclust::cluster;

#[cluster::main(workers(4))]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
