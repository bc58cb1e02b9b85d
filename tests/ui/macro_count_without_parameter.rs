// A number of workers, but a body that is not the worker.
use rclust::cluster;

#[cluster::main(workers = 4)]
async fn main() -> cluster::Result<()> {
    Ok(())
}
