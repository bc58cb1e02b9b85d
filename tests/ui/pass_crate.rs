// rclust can be reached through another crate or module.
mod program {
    mod library {
        pub use rclust;
    }
    use library::rclust::cluster;

    #[cluster::main(crate = library::rclust)]
    pub async fn main(cx: cluster::Context) -> cluster::Result<()> {
        cx.shutdown().await;
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
