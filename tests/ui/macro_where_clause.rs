// `main` cannot have a `where` clause.
use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> cluster::Result<()>
where
    u8: Copy,
{
    Ok(())
}
