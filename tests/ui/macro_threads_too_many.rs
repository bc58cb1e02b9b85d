// `threads` goes up to 1024.
use rclust::cluster;

#[cluster::main(threads = 1025)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
