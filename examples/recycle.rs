//! Workers that are replaced before what they leak does harm: each in its turn, the new one ready first, no request lost.
//!
//!     MAX_AGE_MS=5000 cargo run --release --example recycle      (MAX_MESSAGES, MAX_CONNECTIONS, MAX_RSS_MIB; ADDR=127.0.0.1:3000)
//!     curl http://127.0.0.1:3000/                 a hit, which a worker of its own counts; who answered is its incarnation
//!     curl 'http://127.0.0.1:3000/?leak=64'       and the worker that answers has lost 64 MiB for ever

use axum::{Router, extract::Query, routing::get};
use rclust::cluster::{self, Child, Context, Never, Pool, Recycle, Reply, Shutdown, Supervisor, net};
use std::{collections::HashMap, env, time::Duration};

/// Counts hits. It begins at 0 again when it is replaced: what must not be lost goes to a store (see `sessions`).
struct Tally(u64);

impl cluster::Worker for Tally {
    type Msg = Reply<u64>;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Tally(0))
    }

    async fn on_message(&mut self, hit: Reply<u64>, _cx: &mut Context<Self>) -> cluster::Result<()> {
        self.0 += 1;
        hit.send(self.0);
        Ok(())
    }
}

struct Web;

impl cluster::Worker for Web {
    type Msg = Never;
    type Args = String;

    async fn start(addr: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let listener = net::TcpListener::bind(addr).await?;
        println!("listening on {}", listener.local_addr()?);
        let (tally, me) = (cx.worker::<Tally>("tally")?, format!("{}#{}", cx.name(), cx.id().incarnation.0));
        let hit = async move |Query(query): Query<HashMap<String, usize>>| {
            let lost = query.get("leak").map_or(0, |mib| vec![1u8; mib << 20].leak().len());
            let hits = tally.ask(|hit| hit).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(format!("{me}: hit {hits}, {lost} bytes lost"))
        };
        let app = Router::new().route("/", get(hit)).layer(net::LastCalls::new(cx.draining()));
        cx.spawn_linked(axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()));
        Ok(Web)
    }

    async fn on_message(&mut self, never: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match never {}
    }
}

#[cluster::main(workers(Tally, Web))]
async fn main() -> cluster::Result<()> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut recycle = Recycle::new().max_messages(number("MAX_MESSAGES").unwrap_or(0));
    recycle = recycle
        .max_connections(number("MAX_CONNECTIONS").unwrap_or(0))
        .max_rss(number("MAX_RSS_MIB").unwrap_or(0) << 20);
    if let Some(age) = number("MAX_AGE_MS") {
        recycle = recycle.max_age(Duration::from_millis(age));
    }
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let web = Pool::<Web>::new("web").args(addr).size(2).shutdown(Shutdown::Timeout(Duration::from_secs(30)));
    let tally = Child::<Tally>::new("tally").recycle(recycle);
    Ok(Supervisor::one_for_one().child(tally).child(web.recycle(recycle)).start().await?.run().await?)
}
