// A program may come out of a macro of the user's, in pieces that the macro was given.
macro_rules! program {
    ($count:literal, $name:expr, $init:path, $context:ty, $result:ty, $body:block) => {
        #[rclust::cluster::main(workers = $count, name = $name, init = $init, crate = $crate::hidden::rclust)]
        pub async fn main(_cx: $context) -> $result $body
    };
}

mod hidden {
    pub use rclust;
}

mod program {
    use rclust::cluster;

    fn setup(_role: &rclust::ProcessRole) -> cluster::Result<()> {
        Ok(())
    }

    program!(2, "shop", setup, cluster::Context, cluster::Result<()>, {
        Ok(())
    });
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
