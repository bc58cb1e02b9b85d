// `auto` must be quoted.
use rclust::cluster;

#[cluster::main(workers = auto)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
