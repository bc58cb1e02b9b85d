// Every option of the parameter form but `threads`, with a trailing comma.
mod program {
    use rclust::cluster;

    mod setup {
        pub fn limits(_role: &rclust::ProcessRole) -> rclust::cluster::Result<()> {
            Ok(())
        }
    }

    #[cluster::main(workers = 4, name = "shop", init = setup::limits, crate = ::rclust,)]
    pub async fn main(cx: cluster::Context) -> cluster::Result<()> {
        cx.shutdown().await;
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
