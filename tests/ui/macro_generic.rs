// `main` cannot be generic.
use rclust::cluster;

#[cluster::main]
async fn main<T>(cx: cluster::Context) -> cluster::Result<()> {
    Ok(())
}
