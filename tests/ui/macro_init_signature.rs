// `init` names a function that does not take the role; the compiler says so at its path.
use rclust::cluster;

#[cluster::main(init = setup)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    drop(cx);
    Ok(())
}

fn setup(port: u16) -> cluster::Result<()> {
    drop(port);
    Ok(())
}
