//! Start to ready, and kill to the replacement's first answer; ours beside Node's cluster.

pub(crate) mod program;

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::process::{self, Script, System, free_address, get};
use crate::report::Report;

const NODE: &str = include_str!("life/node.js");

/// A client that was refused tries again after this; ours is not refused.
const PAUSE: Duration = Duration::from_micros(200);

/// A client that gets no answer on an open connection gives it up after this.
const HUNG: Duration = Duration::from_millis(100);

/// A replacement that does not answer by then is a failure of the run.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn measure(options: &Options) -> Result<Report> {
    let samples = options.amount(50, 5);
    let mut report = Report::new("Life: start to ready, and kill -9 to the replacement's first answer");
    eprintln!("life: {samples} starts of each");
    for _ in 0..samples {
        for (shape, scenario) in [
            ("minimal", "start to ready, minimal worker"),
            ("web", "start to ready, worker that binds a port"),
            ("web8", "start to ready, pool of 8 that binds a port"),
        ] {
            let address = free_address()?.to_string();
            let mut system = System::role(options, &["rclust-life", "start", shape, &address])?;
            told(&mut report, "rclust", scenario, &system.lines().context(scenario)?)?;
        }
    }
    eprintln!("life: {samples} kills of each");
    let mut system = System::role(options, &["rclust-life", "kill", &samples.to_string()])?;
    told(&mut report, "rclust", "kill to first answer to an ask", &system.lines().context("kill and ask")?)?;

    let address = free_address()?;
    let mut system = System::role(options, &["rclust-life", "serve", &address.to_string()])?;
    kills(&mut report, "rclust", &mut system, address, samples)?;

    match Script::new("life", NODE)? {
        Some(node) => beside_node(&mut report, options, &node, samples)?,
        None => report.note("node is not in PATH: its rows are left out"),
    }
    report.note("start: around `Supervisor::start()` in the body, a fresh program each time; the pool starts its 8 as start() does");
    Ok(report)
}

/// The lines of a program are milliseconds.
fn told(report: &mut Report, system: &str, scenario: &str, lines: &[String]) -> Result<()> {
    for line in lines {
        report.sample(system, scenario, "ms", line.parse().with_context(|| format!("not a time: {line}"))?);
    }
    Ok(())
}

/// Kills the one worker behind `address` again and again; a client connects in a loop until another process answers.
fn kills(report: &mut Report, name: &str, system: &mut System, address: SocketAddr, samples: usize) -> Result<()> {
    system.answers(address)?;
    let (mut failed, mut hung) = (0, 0);
    let mut pid = worker(address)?;
    for _ in 0..samples {
        let start = Instant::now();
        process::kill(pid)?;
        pid = loop {
            match worker(address) {
                Ok(other) if other != pid => break other,
                Ok(_) => {}
                Err(error) => {
                    failed += 1;
                    hung += u32::from(is_hung(&error));
                    thread::sleep(PAUSE);
                }
            }
            if start.elapsed() > LIMIT {
                bail!("{name}: no replacement answers");
            }
        };
        report.sample(name, "kill to first HTTP answer", "ms", start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_millis(20));
    }
    report.note(format!("{name}: {failed} attempts of the client failed over {samples} kills, {hung} of them hung"));
    Ok(())
}

/// The pid of the process that answers.
fn worker(address: SocketAddr) -> Result<u32> {
    get(address, HUNG)?.parse().context("the body is no pid")
}

/// Whether the connection was accepted and then never answered.
fn is_hung(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn beside_node(report: &mut Report, options: &Options, node: &Script, samples: usize) -> Result<()> {
    let name = format!("node {} cluster", node.version);
    let command = |mode: &str, n: String| {
        let mut command = Command::new(&node.node);
        command.arg(&node.file).args([mode, &n]);
        command
    };
    eprintln!("life: {samples} starts and kills of {name}");
    let mut system = System::start(options, &mut command("start", samples.to_string()))?;
    told(report, &name, "fork to listening", &system.lines()?)?;
    let address = free_address()?;
    let mut system = System::start(options, &mut command("serve", address.port().to_string()))?;
    kills(report, &name, &mut system, address, samples)
}
