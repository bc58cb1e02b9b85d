// A function that is called for each incarnation gives away what it captured.
use rclust::cluster::{self, Child, Context, Never, Supervisor};

struct Acceptor;

impl cluster::Worker for Acceptor {
    type Msg = Never;
    type Args = String;
    async fn start(_: String, _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Acceptor)
    }
    async fn on_message(&mut self, msg: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match msg {}
    }
}

#[cluster::main(workers(Acceptor))]
async fn main() -> cluster::Result<()> {
    let address = String::from("127.0.0.1:3000");
    let cluster = Supervisor::one_for_one()
        .child(Child::<Acceptor>::new("a").args_with(move |_| address))
        .start()
        .await?;
    Ok(cluster.run().await?)
}
