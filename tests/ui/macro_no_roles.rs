// Neither a parameter nor a list of roles.
use rclust::cluster;

#[cluster::main]
async fn main() -> cluster::Result<()> {
    Ok(())
}
