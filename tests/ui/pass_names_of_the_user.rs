// Names in the user's program cannot disturb the expansion.
mod program {
    use ::rclust::cluster;

    pub mod rclust {}
    pub mod std {}
    pub mod core {}
    #[allow(dead_code)]
    pub struct Settings;
    #[allow(dead_code)]
    pub fn boot() {}
    #[allow(unused_macros)]
    macro_rules! vec {
        ($($anything:tt)*) => {
            compile_error!("not this one")
        };
    }

    #[allow(dead_code)]
    pub struct Web;

    impl cluster::Worker for Web {
        type Msg = cluster::Never;
        type Args = ();
        async fn start(_args: (), _cx: &mut cluster::Context<Self>) -> cluster::Result<Self> {
            Ok(Web)
        }
        async fn on_message(
            &mut self,
            msg: cluster::Never,
            _cx: &mut cluster::Context<Self>,
        ) -> cluster::Result<()> {
            match msg {}
        }
    }

    #[cluster::main(workers(Web))]
    pub async fn main() -> cluster::Result<()> {
        Ok(())
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
