// `main` cannot be `extern`.
use rclust::cluster;

#[cluster::main]
async extern "C" fn main(cx: cluster::Context) -> cluster::Result<()> {
    Ok(())
}
