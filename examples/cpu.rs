//! Work that keeps a CPU busy, in processes of its own: `GET /` is answered all the while.
//!
//!     cargo run --release --example cpu         (ADDR=127.0.0.1:3000; N=42: the Fibonacci number that is worked out, the slow way)
//!     curl http://127.0.0.1:3000/fib/40 &       as many as you like
//!     curl http://127.0.0.1:3000/
//!
//! You see how long `GET /` took while every worker of the pool was busy. The pool's processes are `nice`: where all want the CPU, the
//! one that answers has it first. A number goes to the worker that has least to do; a worker that dies costs its own request, and no other.

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use rclust::cluster::{self, Child, Cluster, Context, Pool, Process, Reply, Route, Supervisor, net};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::{env, time::Duration, time::Instant};
use tokio::task::{JoinSet, spawn_blocking};

#[derive(Debug, Serialize, Deserialize)]
struct Fib {
    n: u32,
    reply: Reply<u64>,
}

fn fibonacci(n: u32) -> u64 {
    if n < 2 { n.into() } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

struct Math;

impl cluster::Worker for Math {
    type Msg = Fib;
    type Args = ();
    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Math)
    }
    async fn on_message(&mut self, Fib { n, reply }: Fib, _cx: &mut Context<Self>) -> cluster::Result<()> {
        reply.send(fibonacci(n)); // holds this process's thread, and nobody else's
        Ok(())
    }
}

struct Web(SocketAddr);

impl cluster::Worker for Web {
    type Msg = Reply<SocketAddr>;
    type Args = String;
    async fn start(addr: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let math = cx.pool::<Math>("math")?.route(Route::LeastFull);
        let fib = async move |Path(n): Path<u32>| {
            if n > 50 {
                return (StatusCode::BAD_REQUEST, "at most 50\n".to_owned());
            }
            match math.ask(|reply| Fib { n, reply }).await {
                Ok(number) => (StatusCode::OK, format!("{number}\n")),
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            }
        };
        let app = Router::new().route("/", get(async || "hello\n")).route("/fib/{n}", get(fib));
        let listener = net::TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        cx.spawn_linked(axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()));
        Ok(Web(local))
    }
    async fn on_message(&mut self, reply: Reply<SocketAddr>, _cx: &mut Context<Self>) -> cluster::Result<()> {
        reply.send(self.0);
        Ok(())
    }
}

/// How long one request takes, on a connection of its own.
fn request(addr: SocketAddr) -> std::io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: cpu\r\nconnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(begun.elapsed())
}

#[cluster::main(workers(Math, Web))]
async fn main() -> cluster::Result<()> {
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let n = env::var("N").map_or(Ok(42), |n| n.parse())?;
    let tree = Supervisor::one_for_one().child(Pool::<Math>::new("math").process(Process::new().nice(10)));
    let cluster = tree.child(Child::<Web>::new("web").args(addr)).start().await?;
    let addr = cluster.worker::<Web>("web")?.ask(|reply| reply).await?;
    if let Err(error) = measure(&cluster, addr, n).await {
        println!("not measured: {error}"); // it was stopped meanwhile, for one
    }
    println!("listening on {addr}");
    Ok(cluster.run().await?)
}

/// How long the web worker's clients wait while every other worker computes.
async fn measure(cluster: &Cluster, addr: SocketAddr, n: u32) -> cluster::Result<()> {
    let mut work = JoinSet::new();
    for math in cluster.pool::<Math>("math")?.iter() {
        work.spawn(async move { math.ask(|reply| Fib { n, reply }).timeout(Duration::from_secs(600)).await });
    }
    let (begun, busy, mut took) = (Instant::now(), work.len(), Vec::new());
    while !work.is_empty() || took.is_empty() {
        tokio::select! {
            Some(number) = work.join_next() => println!("fibonacci({n}) is {} after {:.1?}", number??, begun.elapsed()),
            time = spawn_blocking(move || request(addr)) => took.push(time??),
        }
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("GET / with {busy} workers busy: {} requests, median {median:.1?}, worst {worst:.1?}", took.len());
    Ok(())
}
