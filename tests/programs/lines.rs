//! A server that answers lines, in the form whose body is the supervisor's. BIND says where, DISPATCH how, WORKERS how many.

use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rclust::cluster::net::{self, Arrival, Candidate, Dispatch, Policy, Stats, TcpListener, UdpSocket, UnixListener};
use rclust::cluster::{self, Context, Never, Pool, SHUTDOWN, Shutdown, Supervisor};
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
        if let Some(ms) = number("DOWN").filter(|_| cx.id().incarnation.0 > 1) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let addr = variable("BIND").unwrap_or_else(|| "127.0.0.1:0".into());
        let mut told = false;
        let listener = loop {
            match Listener::bind(&addr, cx.slot()).await {
                Ok(listener) => break listener,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        println!("{} cannot bind: {error}", cx.name());
                    }
                    if variable("RETRY").is_none() {
                        return Err(error);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        println!("{} on {}", cx.name(), listener.local());
        if variable("LIAR").is_some_and(|liar| liar == cx.slot().to_string()) {
            lie();
            // Dropped, it would be no share of its any more.
            std::mem::forget(listener);
            println!("{} lies", cx.name());
            return Ok(Lines);
        }
        // The first so many workers die with a connection in their hands; all take their time before they touch one.
        let fatal = number("FATAL").is_some_and(|fatal| u64::from(cx.id().incarnation.0) <= fatal);
        let slow = number("SLOW").map(Duration::from_millis);
        let (slot, shutdown, draining, name) = (cx.slot(), cx.shutdown(), cx.draining(), cx.name().to_owned());
        if variable("QUIET").is_some() {
            let close = cx.shutdown();
            cx.spawn(async move {
                draining.await;
                println!("{name} drains");
                let began = Instant::now();
                close.await;
                println!("{name} closes after {} ms", began.elapsed().as_millis());
            });
        }
        cx.spawn_linked(async move {
            let listener = Rc::new(listener);
            let tasks = tokio::task::LocalSet::new();
            let accepting = async {
                loop {
                    let stream = listener.accept(slot).await?;
                    if fatal {
                        process::abort();
                    }
                    if let Some(slow) = slow {
                        std::thread::sleep(slow);
                    }
                    let listener = listener.clone();
                    tokio::task::spawn_local(async move {
                        // A client that leaves is no error of ours.
                        let _ = serve(stream, slot, &listener).await;
                    });
                }
            };
            tokio::select! {
                outcome = tasks.run_until(accepting) => outcome,
                () = shutdown => {
                    if variable("ENDLESS").is_some() {
                        // Its connections end when their clients leave, or are cut.
                        tasks.await;
                    }
                    std::io::Result::Ok(())
                }
            }
        });
        Ok(Lines)
    }

    async fn on_message(&mut self, message: Never, _: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

/// Says in its page of counters that everything was taken and closed, and takes nothing; over and over.
fn lie() {
    use std::os::unix::fs::FileExt;
    let own = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let pages =
        own.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|name| name.to_string_lossy().contains("rclust-load")));
    for page in pages {
        let page = std::fs::OpenOptions::new().write(true).open(page.path());
        if let Ok(page) = page {
            std::thread::spawn(move || {
                for n in 0u64.. {
                    let word = (u64::MAX - n % 1000).to_ne_bytes();
                    // The first word is the supervisor's wish to be told.
                    for at in (64..4096).step_by(8) {
                        let _ = page.write_at(&word, at);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Both for S {}

/// `unix:PATH`, `udp:ADDRESS`, `fd:NUMBER`, `named:NAME` or an address.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
}

impl Listener {
    async fn bind(place: &str, slot: usize) -> cluster::Result<Listener> {
        let most_each = variable("MOST_EACH").and_then(|most| most.split(',').nth(slot)?.parse().ok());
        if let Some(path) = place.strip_prefix("unix:") {
            let mut builder = UnixListener::builder().dispatch(dispatch()?);
            if let Some(window) = number("QUIET") {
                builder = builder.quiet(Duration::from_millis(window));
            }
            if let Some(mode) = variable("MODE") {
                builder = builder.mode(u32::from_str_radix(&mode, 8)?);
            }
            return Ok(Listener::Unix(builder.bind(path).await?));
        }
        if let Some(address) = place.strip_prefix("udp:") {
            return Ok(Listener::Udp(UdpSocket::bind(address).await?));
        }
        let mut builder = TcpListener::builder().dispatch(dispatch()?).v6_only(variable("V6_ONLY").is_some());
        if let Some(window) = number("QUIET") {
            builder = builder.quiet(Duration::from_millis(window));
        }
        if let Some(most) = number("MOST") {
            builder = builder.max_connections(most);
        }
        if let Some(most) = most_each {
            builder = builder.max_connections_per_worker(most);
        }
        Ok(Listener::Tcp(match place.split_once(':') {
            Some(("fd", number)) => builder.descriptor(number.parse()?).await?,
            Some(("named", name)) => builder.activated(name).await?,
            _ => builder.bind(place).await?,
        }))
    }

    fn local(&self) -> String {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Listener::Udp(socket) => socket.local_addr().map(|address| address.to_string()),
            Listener::Unix(listener) => listener
                .local_addr()
                .map(|address| address.as_pathname().map_or_else(String::new, |path| path.display().to_string())),
        }
        .unwrap_or_else(|error| error.to_string())
    }

    async fn accept(&self, slot: usize) -> std::io::Result<Box<dyn Both>> {
        match self {
            Listener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Udp(socket) => loop {
                let (_, from) = socket.recv_from(&mut [0; 64]).await?;
                socket.send_to(format!("{slot} {}", process::id()).as_bytes(), from).await?;
            },
        }
    }

    async fn stats(&self) -> std::io::Result<Option<Stats>> {
        match self {
            Listener::Tcp(listener) => listener.stats().await,
            Listener::Unix(listener) => listener.stats().await,
            Listener::Udp(_) => Ok(None),
        }
    }
}

async fn serve(stream: Box<dyn Both>, slot: usize, listener: &Listener) -> std::io::Result<()> {
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
    let lines = Pool::<Lines>::new("lines")
        .size(workers)
        .shutdown(if variable("ENDLESS").is_some() { Shutdown::Infinity } else { Shutdown::Timeout(SHUTDOWN) })
        .intensity(number("INTENSITY").unwrap_or(1000) as u32, Duration::from_secs(1));
    let cluster = Supervisor::one_for_one().child(lines).start().await?;
    println!("serving");
    let mut resize = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
    println!("the supervisor sees {:?}", net::listeners().await);
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
