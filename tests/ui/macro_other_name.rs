// The attribute is on a function that is not `main`.
use rclust::cluster;

#[cluster::main]
async fn serve(_cx: cluster::Context) -> cluster::Result<()> {
    Ok(())
}

fn main() {
    drop(serve);
}
