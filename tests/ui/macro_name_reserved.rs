// A name cannot contain the characters that separate names.
use rclust::cluster;

#[cluster::main(name = "web/a[0]")]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}
