// Roles are types of any kind: generic, with a path, with a trailing comma.
mod program {
    use std::marker::PhantomData;

    use rclust::cluster::{self, Child, Context, Never, Pool, Size, Supervisor};

    pub struct Cache<K>(PhantomData<K>);

    impl<K: 'static> cluster::Worker for Cache<K> {
        type Msg = Never;
        type Args = u64;
        async fn start(_limit: u64, _cx: &mut Context<Self>) -> cluster::Result<Self> {
            Ok(Cache(PhantomData))
        }
        async fn on_message(&mut self, msg: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
            match msg {}
        }
    }

    mod site {
        use super::*;

        pub struct Web;

        impl cluster::Worker for Web {
            type Msg = Never;
            type Args = ();
            async fn start(_args: (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
                Ok(Web)
            }
            async fn on_message(
                &mut self,
                msg: Never,
                _cx: &mut Context<Self>,
            ) -> cluster::Result<()> {
                match msg {}
            }
        }
    }

    #[cluster::main(workers(Cache<u64>, Cache<(String, u8)>, site::Web), name = "shop")]
    pub async fn main() -> cluster::Result<()> {
        let cluster = Supervisor::one_for_one()
            .child(Child::<Cache<u64>>::new("numbers").args(10))
            .child(Child::<Cache<(String, u8)>>::new("pairs").args(10))
            .child(Pool::<site::Web>::new("web").size(Size::Auto))
            .start()
            .await?;
        Ok(cluster.run().await?)
    }
}

// The program is in a module because trybuild runs what it compiles, and this one would serve for ever.
fn main() {
    let _program: fn() -> std::process::ExitCode = program::main;
}
