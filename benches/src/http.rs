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

/// New connections before those that are measured: Node compiles its program meanwhile.
const WARM_UP: i64 = 4_000;

/// New connections that are measured in one round.
const SHORT: i64 = 4_000;

/// Each round starts every system anew, one after the other, so that a slow minute of the machine hits all of them.
///
/// There are many short rounds in place of a few long ones: how a start's processes come to lie on the CPUs decides over a fifth of
/// its rate of new connections, and stays so for as long as it runs. A few long rounds are a few throws of that die.
pub(crate) fn measure(options: &Options) -> Result<Report> {
    let time = options.amount(Duration::from_millis(1_500), Duration::from_millis(500));
    let systems = Systems::new(options)?;
    let mut report = Report::new(format!("HTTP: 2 workers, body `hello`, {CONNECTIONS} closed loops on one thread"));
    let mut sample =
        |rounds: usize, scenario: &str, unit, measure: &dyn Fn(load::Target) -> Result<f64>| -> Result<()> {
            for round in 1..=rounds {
                eprintln!("http: {scenario}, round {round} of {rounds}");
                for (name, way) in systems.ways() {
                    let Some(rate) = once(&systems, way, measure).context(name)? else { continue };
                    report.sample(name, scenario, unit, rate);
                }
            }
            Ok(())
        };
    sample(options.amount(15, 1), "keep-alive", "requests/s", &|target| {
        load::keep_alive(target, CONNECTIONS, Duration::from_millis(300), time)
    })?;
    sample(options.amount(41, 3), "new connections", "connections/s", &|target| {
        load::connections(target, CONNECTIONS, WARM_UP)?;
        load::connections(target, CONNECTIONS, SHORT)
    })?;
    report.note("the load runs on the same CPUs as the systems: compare rows of one run, not runs");
    report.note("sticky: the clients have 200 addresses, which costs the load a bind for each connection");
    report.note(systems.about_node());
    Ok(report)
}

/// Starts a system anew and measures it.
fn once(systems: &Systems, way: Way, measure: &dyn Fn(load::Target) -> Result<f64>) -> Result<Option<f64>> {
    let address = free_address()?;
    let Some(_system) = systems.start(way, address, WORKERS, None)? else { return Ok(None) };
    // The first process answers; this is for the second.
    thread::sleep(Duration::from_millis(100));
    measure(load::Target::new(address, matches!(way, Way::Ours("sticky")))).map(Some)
}
