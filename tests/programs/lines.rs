//! A server that answers lines, in the form whose body is the supervisor's. BIND says where, DISPATCH how, WORKERS how many.

use std::process;
use std::time::Duration;

use rclust::cluster::net::{self, Arrival, Candidate, Dispatch, Policy, TcpListener};
use rclust::cluster::{self, Context, Never, Pool, Supervisor};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

struct Lines;

/// The last slot for everybody; from the third connection on it panics.
struct Last(u32);

impl Policy for Last {
    fn pick(&mut self, _: &Arrival, candidates: &[Candidate]) -> Option<usize> {
        self.0 += 1;
        assert!(self.0 < 3, "a policy's panic: part of the test");
        candidates.iter().position(|candidate| candidate.name.ends_with("[2]"))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.parse().ok()
}

fn dispatch() -> cluster::Result<Dispatch> {
    Ok(match variable("DISPATCH").as_deref() {
        None | Some("balanced") => Dispatch::Balanced,
        Some("round_robin") => Dispatch::RoundRobin,
        Some("sticky") => Dispatch::Sticky,
        Some("shared") => Dispatch::Shared,
        Some("per_slot") => Dispatch::PerSlot,
        Some(other) => match other.split_once(':') {
            Some(("sticky_by", name)) => Dispatch::sticky_by(name),
            Some(("custom", name)) => Dispatch::custom(name),
            _ => return Err(format!("no such dispatch: {other}").into()),
        },
    })
}

impl cluster::Worker for Lines {
    type Msg = Never;
    type Args = ();

    async fn start((): (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        if variable("LAME").is_some_and(|lame| lame == cx.slot().to_string()) && cx.id().incarnation.0 > 1 {
            println!("{} does not come up", cx.name());
            std::future::pending::<()>().await;
        }
        let addr = variable("BIND").unwrap_or_else(|| "127.0.0.1:0".into());
        let mut builder = TcpListener::builder().dispatch(dispatch()?);
        if let Some(most) = number("MOST") {
            builder = builder.max_connections(most);
        }
        // A word for each worker.
        if let Some(most) = variable("MOST_EACH").and_then(|most| most.split(',').nth(cx.slot())?.parse().ok()) {
            builder = builder.max_connections_per_worker(most);
        }
        let listener = match builder.bind(&addr).await {
            Ok(listener) => listener,
            Err(error) => {
                println!("{} cannot bind: {error}", cx.name());
                return Err(error.into());
            }
        };
        println!("{} on {}", cx.name(), listener.local_addr()?);
        let (slot, shutdown) = (cx.slot(), cx.shutdown());
        cx.spawn_linked(async move {
            let listener = std::rc::Rc::new(listener);
            let tasks = tokio::task::LocalSet::new();
            let accepting = async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    let listener = listener.clone();
                    tokio::task::spawn_local(async move {
                        // A client that leaves is no error of ours.
                        let _ = serve(stream, slot, &listener).await;
                    });
                }
            };
            tokio::select! {
                outcome = tasks.run_until(accepting) => outcome,
                () = shutdown => std::io::Result::Ok(()),
            }
        });
        Ok(Lines)
    }

    async fn on_message(&mut self, message: Never, _: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite, slot: usize, listener: &TcpListener) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("stats", _) => format!("{:?}", listener.stats().await?),
            ("block", ms) => {
                std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
                "blocked".to_owned()
            }
            ("abort", _) => process::abort(),
            _ => format!("{slot} {}", process::id()),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

#[cluster::main(workers(Lines))]
async fn main() -> cluster::Result<()> {
    net::register("last", || Last(0));
    net::register_key("first_word", |bytes| {
        let end = bytes.iter().position(|byte| *byte == b' ' || *byte == b'\n')?;
        assert_ne!(bytes[0], b'!', "a key function's panic: part of the test");
        Some(bytes[..end].iter().fold(7, |key, byte| key * 31 + u64::from(*byte)))
    });
    let workers = number("WORKERS").unwrap_or(4) as usize;
    let lines = Pool::<Lines>::new("lines").size(workers).intensity(1000, Duration::from_secs(1));
    let cluster = Supervisor::one_for_one().child(lines).start().await?;
    println!("serving");
    let mut resize = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
    let pool = cluster.supervisor("lines")?;
    tokio::spawn(async move {
        // One slot less for each signal.
        for size in (0..workers).rev() {
            resize.recv().await;
            println!("resized to {size}: {:?}", pool.resize(size).await);
        }
    });
    Ok(cluster.run().await?)
}
