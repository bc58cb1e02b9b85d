//! Nested supervisors with two strategies. Kill any process from another terminal and watch what goes down with it.
//!
//!     cargo run --example tree
//!     pgrep -af 'example.*tree'                 the supervisor and five workers; `ps -o comm` shows their names
//!     kill -9 PID
//!
//! `clock` is alone: only it is replaced. In `store` (one_for_all) both go down together. In `ingest` (rest_for_one) the death of
//! `reader` takes `writer` with it, the death of `writer` takes nobody. Three deaths of one group in 10 s are too many.

use std::time::Duration;

use rclust::cluster::{self, Child, Context, Never, StopReason, Supervisor};

struct Idle;

impl cluster::Worker for Idle {
    type Msg = Never;
    type Args = ();

    async fn start((): (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        println!("{:<15} is process {}", cx.name(), std::process::id());
        Ok(Idle)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }

    async fn on_stop(&mut self, why: StopReason, cx: &mut Context<Self>) -> cluster::Result<()> {
        println!("{:<15} stops: {why:?}", cx.name());
        Ok(())
    }
}

#[cluster::main(workers(Idle))]
async fn main() -> cluster::Result<()> {
    let child = Child::<Idle>::new;
    let limit = Duration::from_secs(10);
    let cluster = Supervisor::one_for_one()
        .intensity(10, limit)
        .child(child("clock"))
        .child(Supervisor::one_for_all().named("store").intensity(2, limit).child(child("disk")).child(child("index")))
        .child(
            Supervisor::rest_for_one()
                .named("ingest")
                .intensity(2, limit)
                .child(child("reader"))
                .child(child("writer")),
        )
        .start()
        .await?;
    println!("the supervisor  is process {}", std::process::id());
    Ok(cluster.run().await?)
}
