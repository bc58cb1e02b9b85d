//! An axum server on one port, with as many processes as you like. Measurements rely on what it answers.
//!
//!     WEB_CONCURRENCY=4 cargo run --release --example http     (ADDR=127.0.0.1:3000, DISPATCH=balanced | round_robin |
//!                                                                          sticky | shared | per_slot)
//!     curl -i http://127.0.0.1:3000/              who answered is in `x-worker` and `x-pid`
//!     curl 'http://127.0.0.1:3000/work?ms=50'     takes 50 ms without holding the thread; `/block?ms=50` holds it
//!     curl http://127.0.0.1:3000/crash            aborts the worker; the next request is answered all the same
//!     curl http://127.0.0.1:3000/peer             your own address, as the handler sees it

use axum::extract::{ConnectInfo, Query};
use axum::{Router, middleware, response::Response, routing::get};
use rclust::cluster::{self, Context, Pool, Reply, Shutdown, Supervisor, net};
use std::{env, net::SocketAddr, process, thread, time::Duration};

struct Web(SocketAddr);

impl cluster::Worker for Web {
    type Msg = Reply<SocketAddr>;
    type Args = String;

    async fn start(addr: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let dispatch = match env::var("DISPATCH").as_deref() {
            Ok("balanced") | Err(_) => net::Dispatch::Balanced,
            Ok("round_robin") => net::Dispatch::RoundRobin,
            Ok("sticky") => net::Dispatch::Sticky,
            Ok("shared") => net::Dispatch::Shared,
            Ok("per_slot") => net::Dispatch::PerSlot,
            Ok(other) => return Err(format!("DISPATCH is `{other}`: see the first lines of examples/http.rs").into()),
        };
        let listener = net::TcpListener::builder().dispatch(dispatch).bind(addr).await?;
        let local = listener.local_addr()?;
        let signature = [("x-worker", cx.slot() as u64), ("x-pid", process::id().into())];
        let sign = middleware::map_response(move |mut response: Response| {
            response.headers_mut().extend(signature.map(|(name, value)| (name.parse().ok(), value.into())));
            std::future::ready(response)
        });
        let ms =
            |Query(query): Query<Vec<(String, u64)>>| Duration::from_millis(query.first().map_or(0, |(_, ms)| *ms));
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/work", get(async move |query| tokio::time::sleep(ms(query)).await))
            .route("/block", get(async move |query| thread::sleep(ms(query))))
            .route("/crash", get(async || -> &'static str { process::abort() }))
            .route("/peer", get(async |ConnectInfo(peer): ConnectInfo<net::PeerAddr>| peer.to_string()))
            .layer(sign)
            .layer(net::LastCalls::new(cx.draining()))
            .into_make_service_with_connect_info::<net::PeerAddr>();
        cx.spawn_linked(axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()));
        Ok(Web(local))
    }

    async fn on_message(&mut self, reply: Reply<SocketAddr>, _cx: &mut Context<Self>) -> cluster::Result<()> {
        reply.send(self.0);
        Ok(())
    }
}

#[cluster::main(workers(Web))]
async fn main() -> cluster::Result<()> {
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    // Killed as often as it is crashed at: a server that is measured never gives up.
    let web = Pool::<Web>::new("web").args(addr).intensity(u32::MAX, Duration::from_secs(1));
    let cluster =
        Supervisor::one_for_one().child(web.shutdown(Shutdown::Timeout(Duration::from_secs(30)))).start().await?;
    println!("listening on {}", cluster.pool::<Web>("web")?.ask(|reply| reply).await?);
    Ok(cluster.run().await?)
}
