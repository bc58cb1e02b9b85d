//! A `main` of the user's own that calls boot, and a body that is the worker.

use std::process::ExitCode;

use rclust::cluster;

fn main() -> ExitCode {
    // Before boot: runs in every process.
    let way = std::env::args().nth(1).unwrap_or_default();
    let settings = rclust::Settings::new("embedded").workers(2);
    rclust::boot(settings, rclust::body(move |cx| body(way, cx)))
}

async fn body(way: String, cx: cluster::Context) -> cluster::Result<()> {
    match way.as_str() {
        "returns-at-once" => return Ok(()),
        "fails-later" if cx.id().incarnation.0 > 1 && cx.slot() == 0 => return Err("no more".into()),
        _ => cx.ready(),
    }
    println!("{} is {}", cx.name(), std::process::id());
    cx.shutdown().await;
    Ok(())
}
