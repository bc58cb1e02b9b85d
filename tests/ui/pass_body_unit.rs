// `main` may return nothing and ignore its parameter; `"auto"` can be written out.
mod program {
    use rclust::cluster;

    #[cluster::main(workers = "auto")]
    pub async fn main(_: cluster::Context) {}
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
