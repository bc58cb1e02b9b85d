// `crate` names a path that does not exist; the compiler says so at the path.
use rclust::cluster;

#[cluster::main(crate = missing::rclust)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
