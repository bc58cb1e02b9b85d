//! Servers in the parameter form: the body is the worker. The first argument says which.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rclust::ProcessRole;
use rclust::cluster::{
    self,
    net::{self, TcpListener},
};
use rclust_core::extension::os;
use rclust_tests::load::PORTS;

static SLOT: AtomicUsize = AtomicUsize::new(0);

async fn answer(request: Request<Incoming>, listener: Arc<TcpListener>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    tokio::time::sleep(Duration::from_millis(path.trim_start_matches("/work/").parse().unwrap_or(0))).await;
    let body = if path == "/stats" { format!("{:?}", listener.stats().await) } else { "hello".to_owned() };
    let response = Response::builder()
        .header("x-pid", std::process::id())
        .header("x-worker", SLOT.load(Ordering::Relaxed))
        .body(Full::new(Bytes::from(body)));
    Ok(response.expect("a status and one header make a response"))
}

/// Memory that a test shares with its workers: a word for each port of a client, which counts the connections from there.
fn notes() -> cluster::Result<Option<os::Mapping>> {
    let Ok(path) = std::env::var("NOTES") else { return Ok(None) };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    Ok(Some(os::Mapping::new(Arc::new(file.into()), PORTS * 8)?))
}

/// Bare hyper, each connection a task.
async fn serve(cx: &cluster::Context, listener: TcpListener) -> cluster::Result<()> {
    let (notes, listener) = (notes()?, Arc::new(listener));
    loop {
        tokio::select! {
            () = cx.shutdown() => return Ok(()),
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                if let Some(notes) = &notes {
                    notes.add(usize::from(peer.port()) * 8, 1, Ordering::Release);
                }
                let (mut shutdown, listener) = (cx.shutdown(), listener.clone());
                cx.spawn(async move {
                    let service = service_fn(move |request| answer(request, listener.clone()));
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(connection);
                    tokio::select! {
                        _ = &mut connection => {}
                        () = &mut shutdown => {
                            connection.as_mut().graceful_shutdown();
                            // A client that leaves is no error of ours.
                            let _ = connection.await;
                        }
                    }
                });
            }
        }
    }
}

/// The second slot for everybody.
struct Second;

impl net::Policy for Second {
    fn pick(&mut self, _: &net::Arrival, candidates: &[net::Candidate]) -> Option<usize> {
        candidates.iter().position(|candidate| candidate.index == 1)
    }
}

fn init(_: &ProcessRole) -> cluster::Result<()> {
    net::register("second", || Second);
    Ok(())
}

#[cluster::main(name = "server", init = init)]
async fn main(cx: cluster::Context) -> cluster::Result<()> {
    let way = std::env::args().nth(1).unwrap_or_default();
    SLOT.store(cx.slot(), Ordering::Relaxed);
    let addr = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:0".into());
    let mut builder = TcpListener::builder();
    if let Some((_, name)) = std::env::var("DISPATCH").ok().as_deref().and_then(|dispatch| dispatch.split_once(':')) {
        builder = builder.dispatch(net::Dispatch::custom(name));
    }
    if way == "slow" {
        // Longer than a body without a listener is waited for.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let listener = match builder.bind(&addr).await {
        Ok(listener) => listener,
        Err(error) if way == "bind-error" => {
            println!("{} cannot bind: {:?} {:?}", cx.name(), error.kind(), error.raw_os_error());
            cx.ready();
            cx.shutdown().await;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    println!("{} first {}", cx.name(), listener.local_addr()?);
    match way.as_str() {
        "ports" => {
            let second = TcpListener::bind(&addr).await?;
            println!("{} second {}", cx.name(), second.local_addr()?);
            let exclusive = TcpListener::builder().exclusive(true).bind("127.0.0.1:0").await?;
            println!("{} exclusive {} {}", cx.name(), exclusive.local_addr()?, exclusive.is_shared());
            serve(&cx, listener).await
        }
        "rebind" => {
            // Closed by everybody, bound again; then twice, and one of the two dropped.
            let address = listener.local_addr()?;
            drop(listener);
            for _ in 0..20 {
                drop(TcpListener::bind(address).await?);
            }
            let fixed = TcpListener::bind(address).await?;
            drop(TcpListener::bind(address).await?);
            println!("{} rebound {address}", cx.name());
            serve(&cx, fixed).await
        }
        "last-calls" => {
            let app = axum::Router::new()
                .route("/", axum::routing::get(|| async { "hello" }))
                .layer(net::LastCalls::new(cx.draining()));
            // Nothing is closed but by last answers, for as long as the test may need.
            tokio::select! {
                outcome = async { axum::serve(listener, app).await } => outcome?,
                () = async { cx.shutdown().await; tokio::time::sleep(Duration::from_secs(8)).await } => {}
            }
            Ok(())
        }
        "spins" => {
            println!("{} is {}", cx.name(), std::process::id());
            loop {
                std::hint::spin_loop();
            }
        }
        _ => serve(&cx, listener).await,
    }
}
