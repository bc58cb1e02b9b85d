// Options alone do not say which form is meant.
use rclust::cluster;

#[cluster::main(threads = 2)]
async fn main() -> cluster::Result<()> {
    Ok(())
}
