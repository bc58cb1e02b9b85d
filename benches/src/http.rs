//! Requests and connections per second, ours beside bare hyper.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{System, free_address};
use crate::report::Report;
use crate::{Options, load};

/// The systems: a name, and the words of the role between which the address stands.
const SYSTEMS: [(&str, [&str; 2], &str); 6] = [
    ("rclust, balanced", ["rclust-http", "balanced"], "2"),
    ("rclust, round robin", ["rclust-http", "round_robin"], "2"),
    ("hyper, 1 process, 2 threads", ["hyper", "threads"], "2"),
    ("hyper, 2 processes, SO_REUSEPORT", ["hyper", "reuseport"], "2"),
    ("hyper, 2 processes, inherited listener", ["hyper", "inherited"], "2"),
    ("hyper, 2 processes, naive handoff", ["hyper", "handoff"], "2"),
];

const CONNECTIONS: usize = 64;

/// Each round starts every system anew, one after the other, so that a slow minute of the machine hits all of them.
pub(crate) fn measure(options: Options) -> Result<Report> {
    let rounds = options.amount(7, 1);
    let time = options.amount(Duration::from_secs(3), Duration::from_millis(500));
    let connections = options.amount(20_000, 2_000);
    let mut report = Report::new(format!("HTTP: 2 workers, body `hello`, {CONNECTIONS} closed loops on one thread"));
    for round in 1..=rounds {
        eprintln!("http: round {round} of {rounds}");
        for (name, [role, how], workers) in SYSTEMS {
            let (requests, new) = one(options, [role, how], workers, time, connections).context(name)?;
            report.sample(name, "keep-alive", "requests/s", requests);
            report.sample(name, "new connections", "connections/s", new);
        }
    }
    report.note("the load runs on the same CPUs as the systems: compare rows of one run, not runs");
    Ok(report)
}

fn one(options: Options, role: [&str; 2], workers: &str, time: Duration, count: i64) -> Result<(f64, f64)> {
    let address = free_address()?;
    let mut system = System::role(options, &[role[0], role[1], &address.to_string(), workers])?;
    system.answers(address)?;
    // The first process answers; this is for the second.
    thread::sleep(Duration::from_millis(100));
    let requests = load::keep_alive(address, CONNECTIONS, Duration::from_millis(300), time)?;
    let new = load::connections(address, CONNECTIONS, count)?;
    Ok((requests, new))
}
