// Without its feature, `threads` says what is missing.
use rclust::cluster;

#[cluster::main(threads = 2)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    cx.shutdown().await;
    Ok(())
}
