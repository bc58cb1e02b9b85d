//! The role of `reloads`, with other messages: what a reload must refuse.

use std::borrow::Cow;

use rclust::cluster::{self, Context};

struct Works;

impl cluster::Worker for Works {
    type Msg = u64;
    type Args = String;

    async fn start(_: String, _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Works)
    }

    async fn on_message(&mut self, _: u64, _: &mut Context<Self>) -> cluster::Result<()> {
        Ok(())
    }

    fn role() -> Cow<'static, str> {
        "reloads::Works".into()
    }
}

#[cluster::main(workers(Works))]
async fn main() -> cluster::Result<()> {
    Ok(())
}
