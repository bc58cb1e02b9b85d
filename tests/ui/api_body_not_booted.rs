// The body itself is returned from `main`, instead of what `boot` makes of it.
use rclust::cluster;

async fn serve(cx: cluster::Context) -> cluster::Result<()> {
    cx.shutdown().await;
    Ok(())
}

fn main() -> std::process::ExitCode {
    rclust::boot(rclust::Settings::new("app"), serve)
}
