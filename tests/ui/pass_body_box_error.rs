// Any error type that is `Debug` will do; attributes and `mut` stay with the function.
#![deny(unused_variables, unused_mut, dead_code)]

mod program {
    use rclust::cluster;

    /// Serves.
    #[cluster::main]
    #[allow(unused_variables, unused_mut)]
    pub async fn main(mut cx: cluster::Context) -> Result<(), Box<dyn std::error::Error>> {
        let port: u16 = "3000".parse()?;
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
