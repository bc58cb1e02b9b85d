// `main` is not async.
use rclust::cluster;

#[cluster::main]
fn main() -> cluster::Result<()> {
    Ok(())
}
