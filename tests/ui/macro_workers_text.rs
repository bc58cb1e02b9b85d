// The only text that `workers` accepts is "auto".
use rclust::cluster;

#[cluster::main(workers = "many")]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
