//! The supervisor greets each worker by a message, and the workers answer: the tutorials' first program with messages.
//!
//!     cargo run --example greet                 (WEB_CONCURRENCY=4 for four workers, else one for each CPU)
//!     kill -9 PID                               in another terminal, with one of the pids that you see
//!
//! You see one answer from each worker. Kill one: its replacement is greeted too, and says which incarnation it is. No worker ever has
//! another's greeting, and a greeting that a dying worker had not taken waits for its successor.

use rclust::cluster::{self, Context, EventKind, Pool, Supervisor};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    text: String,
    pid: u32,
}

struct Greeted;

impl cluster::Worker for Greeted {
    type Msg = Greeting;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Greeted)
    }

    async fn on_message(&mut self, greeting: Greeting, cx: &mut Context<Self>) -> cluster::Result<()> {
        let text = format!("{}, incarnation {}, was told: {}", cx.name(), cx.id().incarnation.0, greeting.text);
        cx.supervisor().send(Answer { text, pid: std::process::id() }).await?;
        Ok(())
    }
}

#[cluster::main(workers(Greeted))]
async fn main() -> cluster::Result<()> {
    let cluster = Supervisor::one_for_one().intensity(10, std::time::Duration::from_secs(10));
    let cluster = cluster.child(Pool::<Greeted>::new("worker")).start().await?;
    let (mut events, mut answers) = (cluster.events(), cluster.inbox::<Answer>());
    cluster.pool::<Greeted>("worker")?.broadcast(|slot| Greeting { text: format!("good morning, {slot}") }).await;
    loop {
        tokio::select! {
            answer = answers.recv() => println!("from process {}: {}", answer.pid, answer.text),
            event = events.next() => match event {
                Some(Ok(event)) if event.kind == EventKind::Ready => {
                    let text = "welcome in your predecessor's place".to_owned();
                    cluster.worker::<Greeted>(&event.name)?.send(Greeting { text }).await?;
                }
                Some(_) => {}
                None => return Ok(cluster.run().await?),
            },
        }
    }
}
