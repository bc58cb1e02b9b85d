// `!` cannot be written as the type of a result on stable Rust.
use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> ! {
    loop {
        cx.shutdown().await;
    }
}
