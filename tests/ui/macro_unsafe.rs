// `main` cannot be `unsafe`.
use rclust::cluster;

#[cluster::main]
async unsafe fn main(cx: cluster::Context) -> cluster::Result<()> {
    Ok(())
}
