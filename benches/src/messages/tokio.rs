//! Tokio's bounded channel within one process: two tasks on one thread, or a thread (with a runtime) for each side.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use super::{ASKERS, Side, Work, take_place, tell_asks, tell_bytes, tell_median, tell_rate};
use crate::process;

enum Job {
    Put { key: [u8; 32], at: u64, ttl: u64, flags: u32 },
    Bytes(Vec<u8>),
    Echo { n: u64, reply: oneshot::Sender<u64> },
    Count(oneshot::Sender<u64>),
}

type Sender = mpsc::Sender<Job>;

/// `PLACES full|quick`, where PLACES are two CPUs (`0,1`) or `-`
pub(crate) fn play(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [places, size] = args else { bail!("tokio-messages PLACES SIZE") };
    let work = Work::of(size);
    let one_thread = places.split_once(',').is_some_and(|(sender, receiver)| sender == receiver);
    for capacity in [64, 1024] {
        let (sender, receiver) = mpsc::channel(capacity);
        if one_thread {
            take_place(places, Side::Sender)?;
            block_on(async {
                let counter = tokio::spawn(count(receiver));
                all(sender, capacity, work).await?;
                Ok(counter.await?)
            })?;
        } else {
            let other = (*places).to_owned();
            let counter = thread::spawn(move || {
                take_place(&other, Side::Receiver)?;
                block_on(async {
                    count(receiver).await;
                    Ok(())
                })
            });
            take_place(places, Side::Sender)?;
            block_on(all(sender, capacity, work))?;
            counter.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        }
    }
    Ok(())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn count(mut receiver: mpsc::Receiver<Job>) {
    let mut count = 0;
    while let Some(job) = receiver.recv().await {
        match job {
            Job::Put { key, at, ttl, flags } => {
                std::hint::black_box((key, at, ttl, flags));
                count += 1;
            }
            Job::Bytes(bytes) => count += bytes.len() as u64,
            // An asker that is gone is no news.
            Job::Echo { n, reply } => drop(reply.send(n)),
            Job::Count(reply) => drop(reply.send(std::mem::take(&mut count))),
        }
    }
}

async fn all(sender: Sender, capacity: usize, work: Work) -> Result<()> {
    let named = |scenario: &str| format!("{scenario} ({capacity})");
    small(&sender, work.small / 10).await?;

    let start = Instant::now();
    small(&sender, work.small).await?;
    tell_rate(&named("64 B one way"), work.small, start);

    for (scenario, size, count) in [("1 KiB one way", 1 << 10, work.kib), ("64 KiB one way", 64 << 10, work.kib64)] {
        let start = Instant::now();
        large(&sender, size, count).await?;
        tell_bytes(&named(scenario), size as u64 * count, start);
    }

    let mut times = Vec::new();
    for n in 0..work.asks {
        times.push(echo(&sender, n).await?);
    }
    tell_median(&named("ask, 1 asker"), times);

    let start = Instant::now();
    let askers = (0..ASKERS).map(|_| {
        let sender = sender.clone();
        tokio::spawn(async move {
            for n in 0..work.asks / ASKERS * 4 {
                echo(&sender, n).await?;
            }
            Result::<()>::Ok(())
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await??;
    }
    tell_asks(&named("ask, 64 askers"), work.asks / ASKERS * 4 * ASKERS, start);
    Ok(())
}

async fn small(sender: &Sender, count: u64) -> Result<()> {
    for at in 0..count {
        send(sender, Job::Put { key: [at as u8; 32], at, ttl: 60, flags: 1 }).await?;
    }
    expect(sender, count).await
}

async fn large(sender: &Sender, size: usize, count: u64) -> Result<()> {
    for n in 0..count {
        send(sender, Job::Bytes(vec![n as u8; size])).await?;
    }
    expect(sender, size as u64 * count).await
}

async fn send(sender: &Sender, job: Job) -> Result<()> {
    sender.send(job).await.map_err(|_| anyhow::anyhow!("the receiver is gone"))
}

async fn expect(sender: &Sender, expected: u64) -> Result<()> {
    let (reply, answer) = oneshot::channel();
    send(sender, Job::Count(reply)).await?;
    let counted = answer.await?;
    ensure!(counted == expected, "{counted} came of {expected}");
    Ok(())
}

async fn echo(sender: &Sender, n: u64) -> Result<Duration> {
    let start = Instant::now();
    let (reply, answer) = oneshot::channel();
    send(sender, Job::Echo { n, reply }).await?;
    ensure!(answer.await? == n, "no echo of {n}");
    Ok(start.elapsed())
}
