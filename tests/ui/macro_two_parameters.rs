// `main` takes at most one parameter.
use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context, port: u16) -> cluster::Result<()> {
    Ok(())
}
