// `main` is no method.
use rclust::cluster;

#[cluster::main]
async fn main(self) -> cluster::Result<()> {
    Ok(())
}
