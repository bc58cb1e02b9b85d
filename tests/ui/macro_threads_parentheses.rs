// `threads` is written with `=`.
use rclust::cluster;

#[cluster::main(threads(2))]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
