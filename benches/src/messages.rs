//! Messages and asks: ours from supervisor to worker, beside tokio's channels within one process.

pub(crate) mod ours;
pub(crate) mod tokio;

use std::iter;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, System};
use crate::report::{Report, median};
use crate::{Options, process::cpus};

/// How many of what a pass sends.
#[derive(Clone, Copy)]
struct Work {
    small: u64,
    kib: u64,
    kib64: u64,
    asks: u64,
}

impl Work {
    fn of(size: &str) -> Work {
        match size {
            "full" => Work { small: 1_000_000, kib: 200_000, kib64: 10_000, asks: 20_000 },
            _ => Work { small: 50_000, kib: 10_000, kib64: 1_000, asks: 2_000 },
        }
    }
}

/// How many ask at once in the crowd.
const ASKERS: u64 = 64;

/// Each round runs every system in every pinning once, in processes of its own.
pub(crate) fn measure(options: Options) -> Result<Report> {
    let rounds = options.amount(7, 1);
    let size = options.amount("full", "quick");
    let cpus = cpus();
    let same = cpus.first().map(|cpu| ("same", format!("{cpu},{cpu}")));
    let split = cpus.get(1).map(|other| ("split", format!("{},{other}", cpus[0])));
    let mut report = Report::new("Messages: supervisor to worker, beside tokio in one process");
    for round in 1..=rounds {
        eprintln!("messages: round {round} of {rounds}");
        for (pinning, places) in iter::once(("unpinned", "-".to_owned())).chain(same.clone()).chain(split.clone()) {
            for (system, role) in [("rclust", "rclust-messages"), ("tokio mpsc, one process", "tokio-messages")] {
                let name = format!("{system}, {pinning}");
                let lines = System::role(options, &[role, &places, size])?.lines().context(name.clone())?;
                for line in lines {
                    let (scenario, unit, value) = parse(&line)?;
                    report.sample(&name, scenario, unit, value);
                }
            }
        }
    }
    report.note(
        "pinned with sched_setaffinity: `same` all threads of both sides on one CPU, `split` each side on its own",
    );
    report.note("ours encodes, crosses to another process and decodes; tokio moves a pointer: the channel's capacity is in the scenario");
    report.note("one way: until the receiver has counted all; ask, 1 asker: the median of a pass; 1 KiB and 64 KiB are fresh Vecs");
    if split.is_none() {
        report.note("`split` was left out: there is one CPU");
    }
    Ok(report)
}

fn parse(line: &str) -> Result<(&str, &'static str, f64)> {
    let words: Vec<&str> = line.split('\t').collect();
    let [scenario, unit, value] = words[..] else { bail!("not a sample: {line}") };
    let unit = UNITS.into_iter().find(|known| *known == unit).with_context(|| format!("an unknown unit: {line}"))?;
    Ok((scenario, unit, value.parse()?))
}

const UNITS: [&str; 4] = ["M messages/s", "GB/s", "us", "k asks/s"];

/// Tells the harness a sample. Standard output is a pipe that it reads.
fn tell(scenario: &str, unit: &'static str, value: f64) {
    println!("{scenario}\t{unit}\t{value}");
}

fn tell_rate(scenario: &str, messages: u64, start: Instant) {
    tell(scenario, "M messages/s", messages as f64 / start.elapsed().as_secs_f64() / 1e6);
}

fn tell_bytes(scenario: &str, bytes: u64, start: Instant) {
    tell(scenario, "GB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
}

fn tell_median(scenario: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    tell(scenario, "us", median(&us));
}

fn tell_asks(scenario: &str, asks: u64, start: Instant) {
    tell(scenario, "k asks/s", asks as f64 / start.elapsed().as_secs_f64() / 1e3);
}

/// The two sides, in the order of `places`.
#[derive(Clone, Copy)]
enum Side {
    Sender,
    Receiver,
}

/// Puts the calling thread, and those that it will start, on the CPU of its side; `-` leaves it where it is.
fn take_place(places: &str, side: Side) -> Result<()> {
    if let Some((sender, receiver)) = places.split_once(',') {
        let place = match side {
            Side::Sender => sender,
            Side::Receiver => receiver,
        };
        process::pin(place.parse()?)?;
    }
    Ok(())
}
