// The body of a worker returns something that is no outcome.
use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> u32 {
    cx.shutdown().await;
    7
}
