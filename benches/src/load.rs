//! The load: closed loops on one thread, raw HTTP/1.1 bytes. Each loop has one request open and waits for its answer.

pub(crate) mod storm;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

const KEEP: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";
const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";

/// No run may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Addresses of the clients, where they have several.
const SOURCES: usize = 200;

/// Where the load goes, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    address: SocketAddr,
    sources: bool,
}

impl Target {
    /// With `sources`, clients connect from 200 addresses in turn (127.0.1.1 and on) and not from one.
    pub(crate) fn new(address: SocketAddr, sources: bool) -> Target {
        Target { address, sources }
    }

    async fn connect(self) -> io::Result<TcpStream> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        if !self.sources {
            return TcpStream::connect(self.address).await;
        }
        let socket = TcpSocket::new_v4()?;
        let source = (TURN.fetch_add(1, Relaxed) % SOURCES) as u8 + 1;
        socket.bind(([127, 0, 1, source], 0).into())?;
        socket.connect(self.address).await
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Requests per second on `connections` connections that stay open, over `time`, after `warm_up`.
pub(crate) fn keep_alive(target: Target, connections: usize, warm_up: Duration, time: Duration) -> Result<f64> {
    runtime()?.block_on(async {
        let answers = Arc::new(AtomicU64::new(0));
        let mut loops = JoinSet::new();
        for _ in 0..connections {
            loops.spawn(one_keep_alive(target, answers.clone()));
        }
        let measured = async {
            tokio::time::sleep(warm_up).await;
            let (start, before) = (Instant::now(), answers.load(Relaxed));
            tokio::time::sleep(time).await;
            (answers.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
        };
        // A loop never ends but by an error, and an error spoils the run.
        tokio::select! {
            rate = measured => Ok(rate),
            Some(ended) = loops.join_next() => {
                ended?.context("a keep-alive connection")?;
                bail!("a loop without end has ended")
            }
        }
    })
}

async fn one_keep_alive(target: Target, answers: Arc<AtomicU64>) -> Result<()> {
    let mut stream = target.connect().await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1024];
    let mut length = None;
    loop {
        stream.write_all(KEEP).await?;
        let mut got = 0;
        // The first answer is read with care; the others have the same length.
        while length.is_none_or(|length| got < length) {
            match stream.read(&mut buffer[got..]).await? {
                0 => bail!("closed by the server"),
                n => got += n,
            }
            if length.is_none() {
                length = answer_length(&buffer[..got])?;
            }
        }
        if length != Some(got) || !buffer.starts_with(b"HTTP/1.1 200") {
            bail!("not the answer that was expected: {:?}", String::from_utf8_lossy(&buffer[..got]));
        }
        answers.fetch_add(1, Relaxed);
    }
}

/// The length of the answer at the beginning of `bytes`, once its head is there.
fn answer_length(bytes: &[u8]) -> Result<Option<usize>> {
    let text = std::str::from_utf8(bytes)?;
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let body = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let body: usize = body.context("an answer without content-length")?;
    Ok(Some(head.len() + 4 + body))
}

/// Connections per second: `count` requests, each with a connection of its own that the server closes, `at_once` open.
pub(crate) fn connections(target: Target, at_once: usize, count: i64) -> Result<f64> {
    runtime()?.block_on(async {
        let left = Arc::new(AtomicI64::new(count));
        let start = Instant::now();
        let mut loops = JoinSet::new();
        for _ in 0..at_once {
            loops.spawn(short_connections(target, left.clone()));
        }
        let all = async {
            while let Some(ended) = loops.join_next().await {
                ended?.context("a short connection")?;
            }
            Ok(count as f64 / start.elapsed().as_secs_f64())
        };
        timeout(LIMIT, all).await.context("the connections took too long")?
    })
}

async fn short_connections(target: Target, left: Arc<AtomicI64>) -> Result<()> {
    let mut buffer = [0; 1024];
    while left.fetch_sub(1, Relaxed) > 0 {
        let mut stream = target.connect().await?;
        stream.write_all(CLOSE).await?;
        let got = to_the_end(&mut stream, &mut buffer).await?;
        if !buffer[..got].starts_with(b"HTTP/1.1 200") || !buffer[..got].ends_with(b"hello") {
            bail!("not the answer that was expected: {:?}", String::from_utf8_lossy(&buffer[..got]));
        }
    }
    Ok(())
}

async fn to_the_end(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    loop {
        match stream.read(&mut buffer[got..]).await? {
            0 => return Ok(got),
            n => got += n,
        }
    }
}

/// The body of a whole answer.
fn body(answer: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(answer)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("not the answer that was expected: {text:?}"),
    }
}

/// How many of `count` connections, `at_once` open, each process answered; the server closes them.
pub(crate) fn who(target: Target, at_once: usize, count: i64) -> Result<HashMap<String, u64>> {
    runtime()?.block_on(async {
        let left = Arc::new(AtomicI64::new(count));
        let mut loops = JoinSet::new();
        for _ in 0..at_once {
            let left = left.clone();
            loops.spawn(async move {
                let (mut buffer, mut counts) = ([0; 1024], HashMap::<String, u64>::new());
                while left.fetch_sub(1, Relaxed) > 0 {
                    let mut stream = target.connect().await?;
                    stream.write_all(b"GET /pid HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
                    let got = to_the_end(&mut stream, &mut buffer).await?;
                    *counts.entry(body(&buffer[..got])?).or_default() += 1;
                }
                anyhow::Ok(counts)
            });
        }
        let mut all = HashMap::new();
        let collect = async {
            while let Some(counts) = loops.join_next().await {
                for (pid, count) in counts?? {
                    *all.entry(pid).or_default() += count;
                }
            }
            anyhow::Ok(())
        };
        timeout(LIMIT, collect).await.context("the connections took too long")??;
        Ok(all)
    })
}

/// How many of `count` connections that stay open each process has.
pub(crate) fn who_keeps(target: Target, count: usize) -> Result<HashMap<String, u64>> {
    runtime()?.block_on(async {
        let (mut open, mut counts, mut buffer) = (Vec::new(), HashMap::new(), [0; 1024]);
        for _ in 0..count {
            let mut stream = target.connect().await?;
            stream.write_all(b"GET /pid HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
            let got = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.context("no answer")??;
            *counts.entry(body(&buffer[..got])?).or_default() += 1;
            open.push(stream);
        }
        Ok(counts)
    })
}

/// Opens `count` connections at once, has one answer on each, and closes them.
pub(crate) fn touch(address: SocketAddr, count: usize) -> Result<()> {
    runtime()?.block_on(async {
        let mut open = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(KEEP).await?;
            let mut buffer = [0; 1024];
            let got = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.context("no answer")??;
            answer_length(&buffer[..got])?;
            open.push(stream);
        }
        Ok(())
    })
}
