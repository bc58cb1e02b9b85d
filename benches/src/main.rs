//! Measures rclust beside what one would write without it. README.md says how to run it and how to read it.
//!
//! One binary plays every part: without `role` it is the harness, which starts the systems that it measures as processes of
//! their own, from this same file.

mod balance;
mod http;
mod life;
mod load;
mod loss;
mod memory;
mod messages;
mod peers;
mod process;
mod report;
mod scale;
mod served;
mod systems;
mod web;

use std::env;
use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str =
    "usage: rclust-benches http|balance|loss|messages|life|memory|scale|all [--quick] [--only ROW] [--verbose]
  --only     http, balance, loss: rows that have this in their name, to look at one with a profiler; may be said again
  --quick    a tenth of the work: does everything run?
  --verbose  the measured systems keep their standard error";

/// What the harness was asked for.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// A tenth of the work; the figures mean nothing.
    quick: bool,
    /// The systems write to our standard error.
    verbose: bool,
    /// Rows that have one of these in their name; none: all.
    only: Vec<String>,
}

impl Options {
    /// One of two amounts.
    fn amount<T>(&self, usual: T, quick: T) -> T {
        if self.quick { quick } else { usual }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        // The processes of a cluster come by here too: rclust starts them with the arguments of their supervisor.
        ["role", role, ref args @ ..] => play(role, args),
        _ => match harness(&words) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("rclust-benches: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Plays one of the measured systems, to its end.
fn play(role: &str, args: &[&str]) -> ExitCode {
    let played = match role {
        "rclust-http" => return web::play(args),
        "rclust-scale" => return scale::play(args),
        "rclust-life" => return life::program::play(args),
        "rclust-messages" => return messages::ours::play(args),
        "tokio-messages" => messages::tokio::play(args),
        "ractor-messages" => messages::ractor::play(args),
        "kameo-messages" => messages::kameo::play(args),
        "actix-messages" => messages::actix::play(args),
        "ipc-channel-messages" => messages::ipc_channel::lead(args),
        "ipc-channel-worker" => messages::ipc_channel::work(args),
        "ractor-cluster-messages" => messages::ractor_cluster::lead(args),
        "ractor-cluster-node" => messages::ractor_cluster::work(args),
        "pinned" => messages::node::pinned(args),
        "hyper" => peers::lead(args),
        "hyper-process" => peers::work(args),
        _ => Err(anyhow::anyhow!("there is no role `{role}`")),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rclust-benches, role {role}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn harness(words: &[&str]) -> Result<ExitCode> {
    let mut options = Options::default();
    let mut programs = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--only" => options.only.extend(words.next().map(|row| (*row).to_owned())),
            "--quick" => options.quick = true,
            "--verbose" => options.verbose = true,
            "all" => programs.extend(["http", "balance", "loss", "messages", "life", "memory", "scale"]),
            "http" | "balance" | "loss" | "messages" | "life" | "memory" | "scale" => programs.push(word),
            _ => programs.clear(),
        }
    }
    if programs.is_empty() {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    }
    if cfg!(debug_assertions) {
        println!("note: this is a debug build, its figures mean nothing");
    }
    for program in programs {
        let report = match program {
            "http" => http::measure(&options)?,
            "balance" => balance::measure(&options)?,
            "loss" => loss::measure(&options)?,
            "messages" => messages::measure(&options)?,
            "life" => life::measure(&options)?,
            "scale" => scale::measure(&options)?,
            _ => memory::measure(&options)?,
        };
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}
