// The smallest program: the parameter says that the body is the worker.
mod program {
    use rclust::cluster;

    #[cluster::main]
    pub async fn main(cx: cluster::Context) -> cluster::Result<()> {
        cx.shutdown().await;
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
