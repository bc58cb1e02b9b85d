use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    cx.spawn_linked(async {
        loop {
            std::future::pending::<()>().await;
        }
    });
    cx.shutdown().await;
    Ok(())
}
