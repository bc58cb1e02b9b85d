// With its feature, `threads` is an option, and a setting.
mod body {
    use rclust::cluster;

    #[cluster::main(workers = 4, threads = 2)]
    pub async fn main(cx: cluster::Context) -> cluster::Result<()> {
        cx.shutdown().await;
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = body::main;
    let _settings = rclust::Settings::new("shop").threads(2);
}
