// The list of roles is empty.
use rclust::cluster;

#[cluster::main(workers())]
async fn main() -> cluster::Result<()> {
    Ok(())
}
