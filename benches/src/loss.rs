//! What clients lose in a storm of kills, ours beside what one would write without it.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;

use crate::process::{self, free_address};
use crate::report::Report;
use crate::served::Notes;
use crate::systems::{Systems, Way};
use crate::{Options, load};

/// Between two kills.
const PAUSE: Duration = Duration::from_millis(200);

/// Loops that keep their connection, and as many that open one for each request.
const LOOPS: usize = 32;

pub(crate) fn measure(options: &Options) -> Result<Report> {
    let kills = options.amount(45, 5);
    let systems = Systems::new(options)?;
    let mut report = Report::new(format!(
        "Loss: {kills} kill -9, one each {PAUSE:?}, under {LOOPS} keep-alive and {LOOPS} short loops"
    ));
    for (workers, path) in [(2, "/"), (2, "/work"), (4, "/"), (4, "/work")] {
        eprintln!("loss: {workers} workers, {path}");
        for (name, way) in systems.ways().filter(|(_, way)| !matches!(way, Way::Hyper("threads"))) {
            let Some(loss) = storm(&systems, way, workers, path, kills).context(name)? else { continue };
            let mut row = |what: &str, unit, value: f64| {
                report.sample(name, &format!("{workers} workers, {path}: {what}"), unit, value)
            };
            let tally = &loss.tally;
            row("answered", "requests", tally.answered as f64);
            row("refused", "requests", tally.refused as f64);
            row("timed out", "requests", tally.timed_out as f64);
            row("cut, keep-alive", "requests", tally.cut_kept as f64);
            row("cut, short", "requests", tally.cut_short as f64);
            row("never noted", "connections", loss.never_noted as f64);
        }
    }
    report.note("never noted: no process noted it right after accept, so no program had it; where processes accept themselves, a kill may come between the two");
    report.note("cut: the rest was in flight, in the hands of the process that was killed");
    report.note("a request times out after 2 s; its loop then goes on with a new connection");
    report.note(systems.about_node());
    Ok(report)
}

struct Loss {
    tally: load::storm::Tally,
    /// Connections that no process has noted.
    never_noted: u64,
}

fn storm(systems: &Systems, way: Way, workers: usize, path: &'static str, kills: u32) -> Result<Option<Loss>> {
    let (notes, memory) = Notes::create()?;
    let file = rustix::fs::memfd_create("notes", MemfdFlags::CLOEXEC)?;
    let of_node = matches!(way, Way::Node);
    let number = if of_node { file.as_raw_fd() } else { memory.as_raw_fd() };
    let notes_path = format!("/proc/{}/fd/{number}", std::process::id());
    let address = free_address()?;
    let Some(system) = systems.start(way, address, workers, Some(&notes_path))? else { return Ok(None) };
    let target = load::Target::new(address, matches!(way, Way::Ours("sticky")));
    let supervisor = system.pid();
    let mut turn = 0;
    let kill = move || {
        // One that was just killed may still be listed: that is a kill less.
        if let Some(victim) =
            process::children(supervisor).ok().and_then(|all| all.get(turn * 7 % all.len().max(1)).copied())
        {
            let _ = process::kill(victim);
        }
        turn += 1;
    };
    let tally = load::storm::run(target, LOOPS, path, PAUSE, kills, kill)?;
    drop(system);
    let mut noted: HashMap<u16, u64> = HashMap::new();
    let ports = if of_node {
        let mut bytes = Vec::new();
        std::fs::File::open(&notes_path)?.read_to_end(&mut bytes)?;
        bytes.chunks_exact(2).map(|port| u16::from_ne_bytes([port[0], port[1]])).collect()
    } else {
        notes.ports()?
    };
    for port in ports {
        *noted.entry(port).or_default() += 1;
    }
    // A port that connected more often than it was noted.
    let unnoted = |(port, count): (&u16, &u64)| count.saturating_sub(noted.get(port).copied().unwrap_or(0));
    let never_noted = tally.connected.iter().map(unnoted).sum();
    Ok(Some(Loss { tally, never_noted }))
}
