//! The smallest cluster: the body of `main` is the worker, and every worker serves the same port.
//!
//!     cargo run --example hello                (WEB_CONCURRENCY=4 for four workers, else one for each CPU)
//!     curl http://127.0.0.1:3000               in another terminal, a few times
//!
//! You see a line for each worker that starts and is ready, and `curl` prints who answered. Kill one (`kill -9 PID`): it is
//! replaced within milliseconds, and the port never closes. Ctrl-C ends the cluster in order.

use axum::{Router, routing::get};
use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    let hello = format!("hello from {}, process {}\n", cx.name(), std::process::id());
    let app = Router::new().route("/", get(|| async { hello }));
    let listener = cluster::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()).await?;
    Ok(())
}
