//! Ours: the body sends, one worker counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rclust::cluster::{Child, Context, Reply, Result, Supervisor, Worker, WorkerRef};
use rclust::{ProcessRole, Role, Settings};
use serde::{Deserialize, Serialize};

use super::{ASKERS, Side, Work, take_place, tell_asks, tell_bytes, tell_median, tell_rate};
use crate::web;

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    /// 64 bytes in memory.
    Put {
        key: [u8; 32],
        at: u64,
        ttl: u64,
        flags: u32,
    },
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Echo {
        n: u64,
        reply: Reply<u64>,
    },
    /// How much has come since the last time.
    Count(Reply<u64>),
}

struct Counter {
    count: u64,
}

impl Worker for Counter {
    type Msg = Job;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> Result<Self> {
        Ok(Counter { count: 0 })
    }

    async fn on_message(&mut self, job: Job, _cx: &mut Context<Self>) -> Result<()> {
        match job {
            Job::Put { key, at, ttl, flags } => {
                std::hint::black_box((key, at, ttl, flags));
                self.count += 1;
            }
            Job::Bytes(bytes) => self.count += bytes.len() as u64,
            Job::Echo { n, reply } => reply.send(n),
            Job::Count(reply) => reply.send(std::mem::take(&mut self.count)),
        }
        Ok(())
    }
}

/// `PLACES full|quick`, where PLACES are two CPUs (`0,1`) or `-`
pub(crate) fn play(args: &[&str]) -> ExitCode {
    let [_places, size] = args else { return ExitCode::from(2) };
    let work = Work::of(size);
    let settings = Settings::new("messages").init(init);
    rclust::boot(settings, rclust::tree(vec![Role::of::<Counter>()], move || all(work)))
}

/// Before any thread is started, so that all inherit the place.
fn init(role: &ProcessRole) -> Result<()> {
    let places = std::env::args().nth(3).unwrap_or_default();
    let side = if *role == ProcessRole::Supervisor { Side::Sender } else { Side::Receiver };
    take_place(&places, side).map_err(|error| format!("{error:#}"))?;
    web::init(role)
}

async fn all(work: Work) -> Result<()> {
    let cluster = Supervisor::one_for_one().child(Child::<Counter>::new("counter")).start().await?;
    let counter = cluster.worker::<Counter>("counter")?;
    // The first messages make the lane.
    small(&counter, work.small / 10).await?;

    let start = Instant::now();
    small(&counter, work.small).await?;
    tell_rate("64 B one way", work.small, start);

    for (scenario, size, count) in [("1 KiB one way", 1 << 10, work.kib), ("64 KiB one way", 64 << 10, work.kib64)] {
        let start = Instant::now();
        large(&counter, size, count).await?;
        tell_bytes(scenario, size as u64 * count, start);
    }

    let mut times = Vec::new();
    for n in 0..work.asks {
        times.push(echo(&counter, n).await?);
    }
    tell_median("ask, 1 asker", times);

    let start = Instant::now();
    let askers = (0..ASKERS).map(|_| {
        let counter = counter.clone();
        tokio::spawn(async move {
            for n in 0..work.asks / ASKERS * 4 {
                echo(&counter, n).await?;
            }
            Result::<()>::Ok(())
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await??;
    }
    tell_asks("ask, 64 askers", work.asks / ASKERS * 4 * ASKERS, start);
    cluster.stop().await;
    Ok(())
}

async fn small(counter: &WorkerRef<Job>, count: u64) -> Result<()> {
    for at in 0..count {
        counter.send(Job::Put { key: [at as u8; 32], at, ttl: 60, flags: 1 }).await?;
    }
    expect(counter, count).await
}

async fn large(counter: &WorkerRef<Job>, size: usize, count: u64) -> Result<()> {
    for n in 0..count {
        counter.send(Job::Bytes(vec![n as u8; size])).await?;
    }
    expect(counter, size as u64 * count).await
}

async fn expect(counter: &WorkerRef<Job>, expected: u64) -> Result<()> {
    let counted = counter.ask(Job::Count).await?;
    if counted != expected { Err(format!("{counted} came of {expected}").into()) } else { Ok(()) }
}

async fn echo(counter: &WorkerRef<Job>, n: u64) -> Result<Duration> {
    let start = Instant::now();
    let answer = counter.ask(|reply| Job::Echo { n, reply }).await?;
    if answer != n { Err(format!("{answer} is no echo of {n}").into()) } else { Ok(start.elapsed()) }
}
