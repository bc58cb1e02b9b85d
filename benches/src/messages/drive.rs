//! Puts a system through the scenarios. The clock runs from the first message until the receiver has said that it
//! handled all.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use super::scenario::{Kind, Load, Scenario, Tally};
use crate::report::median;

/// The sending side of a system. Clones are the same one.
pub(super) trait Peer: Clone + Send + Sync + 'static {
    /// One way, waiting while a bounded mailbox is full.
    fn send(&self, load: Load) -> impl Future<Output = Result<()>> + Send;

    /// A question; the receiver answers with `n`.
    fn echo(&self, n: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Asks the receiver what it has handled since the last time, everything sent before included.
    fn tally(&self) -> impl Future<Output = Result<Tally>> + Send;

    /// Has another worker send `count` messages to the receiver and then ask it what it has handled: itself, because
    /// between its messages and a question of ours there is no order.
    fn pass(&self, count: u64, size: usize) -> impl Future<Output = Result<Tally>> + Send;

    /// Runs a writer or an asker. A peer whose calls block gives each a thread.
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(task)
    }
}

/// The error of a system that does not do what was asked, for a reason of its own.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Measures each of `scenarios` and tells the harness, on standard output, which is a pipe that it reads.
pub(super) async fn drive<P: Peer>(peer: &P, scenarios: &[Scenario], budget: Duration) -> Result<()> {
    for scenario in scenarios {
        match measure(peer, *scenario, budget).await {
            Ok(value) => println!("{}\t{value}", scenario.kind),
            Err(error) => match error.downcast::<Refused>() {
                Ok(refused) => {
                    println!("{}\trefused\t{refused}", scenario.kind);
                    // What went before the refusal belongs to no scenario.
                    peer.tally().await?;
                }
                Err(error) => return Err(error.context(scenario.name)),
            },
        }
    }
    Ok(())
}

/// Passes of growing length warm everything up, and say how long the one that counts has to be: systems differ a
/// thousandfold.
///
/// Its number of messages is chosen before it, so no slow moment is picked out. Where it turned out too short (what
/// went before was still cold), it was one more of the others.
async fn measure<P: Peer>(peer: &P, scenario: Scenario, budget: Duration) -> Result<f64> {
    let most = scenario.most();
    let width = scenario.width();
    let mut count = width * 2;
    let mut counts = false;
    loop {
        let Passed { taken, times } = pass(peer, scenario.kind, count).await?;
        let long = taken >= budget / 4 || count >= most;
        if counts && long {
            return Ok(if scenario.kind == (Kind::Ask { askers: 1 }) {
                median_of(times)
            } else {
                count as f64 / taken.as_secs_f64()
            });
        }
        counts = long;
        let goal = if long { budget } else { budget / 3 };
        let growth = (goal.as_secs_f64() / taken.as_secs_f64()).min(8.0);
        // Every writer sends the same number.
        count = ((count as f64 * growth) as u64).clamp(width, most) / width * width;
    }
}

struct Passed {
    taken: Duration,
    /// Of each ask.
    times: Vec<Duration>,
}

async fn pass<P: Peer>(peer: &P, kind: Kind, count: u64) -> Result<Passed> {
    let start = Instant::now();
    let (size, counted) = match kind {
        Kind::Put { writers, size } => {
            together::<P, _, _>(writers, |_| put(peer.clone(), size, count / writers)).await?;
            (size, peer.tally().await?)
        }
        Kind::Pass { size } => (size, peer.pass(count, size).await?),
        Kind::Ask { askers } => {
            let each = together::<P, _, _>(askers, |asker| ask(peer.clone(), asker << 32, count / askers)).await?;
            return Ok(Passed { taken: start.elapsed(), times: each.concat() });
        }
    };
    let taken = start.elapsed();
    let expected = Tally { messages: count, bytes: count * size as u64 };
    ensure!(counted == expected, "the receiver handled {counted:?} of {expected:?}");
    Ok(Passed { taken, times: Vec::new() })
}

/// Runs `width` tasks at once, to the end of all.
async fn together<P: Peer, T, F>(width: u64, task: impl Fn(u64) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let tasks: Vec<_> = (0..width).map(|n| P::spawn(task(n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await?);
    }
    results.into_iter().collect()
}

async fn put<P: Peer>(peer: P, size: usize, count: u64) -> Result<()> {
    for n in 0..count {
        peer.send(Load::new(n, size)).await?;
    }
    Ok(())
}

async fn ask<P: Peer>(peer: P, first: u64, count: u64) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in first..first + count {
        let start = Instant::now();
        let answer = peer.echo(n).await?;
        times.push(start.elapsed());
        ensure!(answer == n, "{answer} is no echo of {n}");
    }
    Ok(times)
}

/// In seconds.
fn median_of(times: Vec<Duration>) -> f64 {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    median(&seconds)
}
