// The parameter is not the context; the compiler says so at its type.
use rclust::cluster;

#[cluster::main]
async fn main(_port: u16) -> cluster::Result<()> {
    Ok(())
}
