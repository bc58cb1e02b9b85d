//! The load while processes are killed: a failure is counted, and the loop goes on.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{Target, answer_length, runtime};

/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the requests.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) timed_out: u64,
    pub(crate) cut_short: u64,
    pub(crate) cut_kept: u64,
    /// How often each port of ours was connected, and said something or tried to.
    pub(crate) connected: HashMap<u16, u64>,
}

struct Loop {
    target: Target,
    keeps: bool,
    request: String,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
}

/// Runs `loops` that keep their connection and as many that do not; calls `kill` so often, with a pause before each and
/// one at the end.
pub(crate) fn run(
    target: Target,
    loops: usize,
    path: &str,
    pause: Duration,
    kills: u32,
    mut kill: impl FnMut(),
) -> Result<Tally> {
    runtime()?.block_on(async {
        let (tally, stop) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let mut all = JoinSet::new();
        for n in 0..2 * loops {
            let keeps = n % 2 == 0;
            let connection = if keeps { "keep-alive" } else { "close" };
            let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: {connection}\r\n\r\n");
            let one = Loop { target, keeps, request, tally: tally.clone(), stop: stop.clone() };
            all.spawn(one.run());
        }
        let mut ticks = interval_at(Instant::now() + pause, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..kills {
            ticks.tick().await;
            kill();
        }
        ticks.tick().await;
        stop.store(true, Relaxed);
        all.join_all().await;
        Ok(tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    })
}

impl Loop {
    async fn run(self) {
        let mut kept = None;
        while !self.stop.load(Relaxed) {
            let outcome = timeout(PATIENCE, self.once(&mut kept)).await;
            if !matches!(outcome, Ok(Ok(()))) {
                kept = None;
            }
            let refused = match &outcome {
                Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
                _ => false,
            };
            {
                let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
                let count = match outcome {
                    Ok(Ok(())) => &mut tally.answered,
                    Ok(Err(_)) if refused => &mut tally.refused,
                    Ok(Err(_)) if self.keeps => &mut tally.cut_kept,
                    Ok(Err(_)) => &mut tally.cut_short,
                    Err(_) => &mut tally.timed_out,
                };
                *count += 1;
            }
            if refused {
                // Nobody is there at all: a loop without a pause would be all that runs.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn once(&self, kept: &mut Option<TcpStream>) -> io::Result<()> {
        let stream = match kept {
            Some(stream) => stream,
            None => {
                let stream = self.target.connect().await?;
                let port = stream.local_addr()?.port();
                *self.tally.lock().unwrap_or_else(PoisonError::into_inner).connected.entry(port).or_default() += 1;
                kept.insert(stream)
            }
        };
        stream.write_all(self.request.as_bytes()).await?;
        let (mut buffer, mut got) = ([0; 1024], 0);
        loop {
            match stream.read(&mut buffer[got..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => got += n,
            }
            let length = answer_length(&buffer[..got]).map_err(io::Error::other)?;
            if length.is_some_and(|length| got >= length) {
                break;
            }
        }
        if !self.keeps {
            *kept = None;
        }
        Ok(())
    }
}
