// A spawned task holds an `Rc`; `spawn` needs `Send`, `spawn_local` does not.
use std::rc::Rc;

use rclust::cluster;

#[cluster::main]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    let count = Rc::new(1);
    let shutdown = cx.shutdown();
    cx.spawn(async move {
        shutdown.await;
        println!("{count}");
    });
    Ok(())
}
