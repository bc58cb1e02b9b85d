//! How evenly connections are spread: the busiest process over the mean.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::{self, free_address};
use crate::report::Report;
use crate::systems::{Systems, Way};
use crate::{Options, load};

const WORKERS: usize = 8;

/// Short connections that are open at once.
const AT_ONCE: usize = 64;

/// Connections that stay open.
const KEPT: usize = 200;

/// How long the processes have to serve, all of them.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn measure(options: &Options) -> Result<Report> {
    let rounds = options.amount(5, 1);
    let short = options.amount(20_000, 2_000);
    let systems = Systems::new(options)?;
    let mut report =
        Report::new(format!("Balance: {WORKERS} workers, {short} short connections, {KEPT} that stay open"));
    for round in 1..=rounds {
        eprintln!("balance: round {round} of {rounds}");
        for (name, way) in systems.ways().filter(|(_, way)| !matches!(way, Way::Hyper("threads"))) {
            let address = free_address()?;
            let Some(system) = systems.start(way, address, WORKERS, None).context(name)? else { continue };
            let target = load::Target::new(address, matches!(way, Way::Ours("sticky")));
            all_serve(target, &process::children(system.pid())?)?;
            let counts = load::who(target, AT_ONCE, short).context(name)?;
            report.sample(name, "short connections", "busiest/mean", busiest(&counts));
            let counts = load::who_keeps(target, KEPT).context(name)?;
            report.sample(name, "kept connections", "busiest/mean", busiest(&counts));
        }
    }
    report.note("sticky: clients have 200 addresses, and each goes where its address says");
    report.note(systems.about_node());
    Ok(report)
}

/// Waits until every process has answered, or until some had their chance and no connection.
fn all_serve(target: load::Target, processes: &[u32]) -> Result<()> {
    let (start, mut seen) = (Instant::now(), HashMap::<String, u64>::new());
    while start.elapsed() < PATIENCE && seen.len() < processes.len().max(WORKERS) {
        for (pid, count) in load::who(target, 1, 50)? {
            *seen.entry(pid).or_default() += count;
        }
    }
    Ok(())
}

fn busiest(counts: &HashMap<String, u64>) -> f64 {
    let most = counts.values().copied().max().unwrap_or(0);
    most as f64 * WORKERS as f64 / counts.values().sum::<u64>().max(1) as f64
}
