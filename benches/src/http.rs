//! Requests and connections per second, ours beside bare hyper and Node.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::free_address;
use crate::report::Report;
use crate::systems::{Systems, Way};
use crate::{Options, load};

const WORKERS: usize = 2;

const CONNECTIONS: usize = 64;

/// Each round starts every system anew, one after the other, so that a slow minute of the machine hits all of them.
pub(crate) fn measure(options: &Options) -> Result<Report> {
    let rounds = options.amount(7, 1);
    let time = options.amount(Duration::from_secs(3), Duration::from_millis(500));
    let connections = options.amount(20_000, 2_000);
    let systems = Systems::new(options)?;
    let mut report = Report::new(format!("HTTP: 2 workers, body `hello`, {CONNECTIONS} closed loops on one thread"));
    for round in 1..=rounds {
        eprintln!("http: round {round} of {rounds}");
        for (name, way) in systems.ways() {
            let Some((requests, new)) = one(&systems, way, time, connections).context(name)? else { continue };
            report.sample(name, "keep-alive", "requests/s", requests);
            report.sample(name, "new connections", "connections/s", new);
        }
    }
    report.note("the load runs on the same CPUs as the systems: compare rows of one run, not runs");
    report.note("sticky: the clients have 200 addresses, which costs the load a bind for each connection");
    report.note(systems.about_node());
    Ok(report)
}

fn one(systems: &Systems, way: Way, time: Duration, count: i64) -> Result<Option<(f64, f64)>> {
    let address = free_address()?;
    let Some(_system) = systems.start(way, address, WORKERS, None)? else { return Ok(None) };
    // The first process answers; this is for the second.
    thread::sleep(Duration::from_millis(100));
    let target = load::Target::new(address, matches!(way, Way::Ours("sticky")));
    let requests = load::keep_alive(target, CONNECTIONS, Duration::from_millis(300), time)?;
    let new = load::connections(target, CONNECTIONS, count)?;
    Ok(Some((requests, new)))
}
