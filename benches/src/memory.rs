//! What an idle system holds: memory and descriptors, and whether it does anything at all.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{System, children, find, free_address};
use crate::report::Report;
use crate::{Options, load};

/// Workers of a cluster and processes of a peer.
const WORKERS: usize = 4;

/// Connections that are open at once before the idling: so many for each worker, one request on each.
const TOUCHES: usize = 4;

/// From the last connection to the first look.
const SETTLE: Duration = Duration::from_secs(2);

/// The kinds of memory, in kB of `smaps_rollup`: what else shares a page matters for the first two, not for the third.
const KINDS: [(&str, &[&str]); 3] =
    [("RSS", &["Rss:"]), ("PSS", &["Pss:"]), ("private", &["Private_Clean:", "Private_Dirty:"])];

pub(crate) fn measure(options: &Options) -> Result<Report> {
    let rounds = options.amount(3, 1);
    let mut report = Report::new(format!("Memory: idle, {WORKERS} workers, after {TOUCHES} requests each"));
    let example = example()?;
    for round in 1..=rounds {
        eprintln!("memory: round {round} of {rounds}");
        if let Some(example) = &example {
            let address = free_address()?;
            let mut command = Command::new(example);
            command.env("ADDR", address.to_string()).env("DISPATCH", "balanced");
            let name = "rclust, example `http` (axum)";
            one(&mut report, options, name, System::start(options, command.env(COUNT, WORKERS.to_string()))?, address)?;
        }
        for (name, role, how) in [
            ("rclust, bare hyper", "rclust-http", "balanced"),
            ("hyper, 1 process, 2 threads", "hyper", "threads"),
            ("hyper, processes, inherited listener", "hyper", "inherited"),
        ] {
            let address = free_address()?;
            let n = if how == "threads" { 2 } else { WORKERS };
            let system = System::role(options, &[role, how, &address.to_string(), &n.to_string()])?;
            one(&mut report, options, name, system, address)?;
        }
    }
    for workers in [WORKERS, 2 * WORKERS] {
        let address = free_address()?;
        let words = ["rclust-http", "balanced", &address.to_string(), &workers.to_string()];
        let mut system = System::role(options, &words)?;
        system.answers(address)?;
        wait_for_children(&system, workers)?;
        let open = descriptors(system.pid())?;
        report.sample("rclust, bare hyper", &format!("descriptors, supervisor of {workers}"), "count", open);
    }
    if example.is_none() {
        report.note("the example `http` was not there: build it with `cargo build --release --example http`");
    }
    report.note("samples are processes: each worker of each round; PSS shares the file's pages with the harness too");
    idle_calls(&mut report, options, example)?;
    Ok(report)
}

/// How rclust is told its number of workers from outside.
const COUNT: &str = "WEB_CONCURRENCY";

/// The example `http`, if it was built beside us.
fn example() -> Result<Option<PathBuf>> {
    let us = std::env::current_exe()?;
    let file = us.parent().context("this program is in no folder")?.join("examples/http");
    Ok(file.is_file().then_some(file))
}

fn one(report: &mut Report, options: &Options, name: &str, mut system: System, address: SocketAddr) -> Result<()> {
    system.answers(address).context(name.to_owned())?;
    let leader = system.pid();
    let workers = match name.contains("threads") {
        true => Vec::new(),
        false => wait_for_children(&system, WORKERS)?,
    };
    load::touch(address, TOUCHES * WORKERS)?;
    thread::sleep(options.amount(SETTLE, SETTLE / 4));
    let part = if workers.is_empty() { "process" } else { "supervisor" };
    for (kind, fields) in KINDS {
        for worker in &workers {
            report.sample(name, &format!("{kind}, worker"), "MiB", memory(*worker, fields)?);
        }
        report.sample(name, &format!("{kind}, {part}"), "MiB", memory(leader, fields)?);
    }
    Ok(())
}

fn wait_for_children(system: &System, count: usize) -> Result<Vec<u32>> {
    for _ in 0..2000 {
        let children = children(system.pid())?;
        if children.len() == count {
            // The last one may be starting still.
            thread::sleep(Duration::from_millis(100));
            return Ok(children);
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("it does not come to {count} processes")
}

fn memory(pid: u32, fields: &[&str]) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let lines = text.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    Ok(lines.filter_map(kib).sum::<f64>() / 1024.0)
}

fn descriptors(pid: u32) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64)
}

/// Watches all processes of an idle cluster with strace, which tells each system call that ends.
fn idle_calls(report: &mut Report, options: &Options, example: Option<PathBuf>) -> Result<()> {
    let Some(strace) = find("strace") else {
        report.note("strace is not in PATH: system calls of an idle cluster were not counted");
        return Ok(());
    };
    let time = options.amount(Duration::from_secs(10), Duration::from_secs(1));
    let scenario = format!("system calls in {} s idle, all processes", time.as_secs());
    let address = free_address()?;
    let (name, mut system) = match example {
        Some(example) => {
            let mut command = Command::new(example);
            command.env("ADDR", address.to_string()).env("DISPATCH", "balanced").env(COUNT, WORKERS.to_string());
            ("rclust, example `http` (axum)", System::start(options, &mut command)?)
        }
        None => {
            let words = ["rclust-http", "balanced", &address.to_string(), &WORKERS.to_string()];
            ("rclust, bare hyper", System::role(options, &words)?)
        }
    };
    system.answers(address)?;
    let mut pids = wait_for_children(&system, WORKERS)?;
    load::touch(address, TOUCHES * WORKERS)?;
    thread::sleep(SETTLE);
    pids.push(system.pid());
    eprintln!("memory: {} s of strace", time.as_secs());
    match traced(&strace, &pids, time) {
        Ok(calls) => {
            report.sample(name, &scenario, "count", calls.values().sum::<u64>() as f64);
            if !calls.is_empty() {
                report.note(format!("{name}: {scenario}: {calls:?}"));
            }
        }
        Err(error) => report.note(format!("strace did not work here, idle system calls were not counted: {error:#}")),
    }
    Ok(())
}

/// The system calls that end within `time` in these processes, by name.
///
/// A full trace instead of `-c`: it also shows that strace was there, by the calls that were blocked when it came.
fn traced(strace: &PathBuf, pids: &[u32], time: Duration) -> Result<BTreeMap<String, u64>> {
    let file = std::env::temp_dir().join(format!("rclust-benches-{}.strace", std::process::id()));
    let mut command = Command::new(strace);
    command.arg("-f").arg("-o").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    for pid in pids {
        command.arg("-p").arg(pid.to_string());
    }
    let mut child = command.spawn()?;
    // It attaches at once; a little longer than `time` is the stricter measurement.
    thread::sleep(time + Duration::from_millis(200));
    let ended = child.try_wait()?;
    if ended.is_none() {
        kill_process(Pid::from_child(&child), Signal::INT)?;
        child.wait()?;
    }
    let trace = fs::read_to_string(&file).context("strace wrote nothing")?;
    fs::remove_file(&file)?;
    ensure!(ended.is_none(), "it ended by itself: {ended:?}");
    let seen = |pid: &&u32| trace.lines().any(|line| line.starts_with(&format!("{pid} ")));
    ensure!(pids.iter().filter(seen).count() == pids.len(), "it did not attach to every process");
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        // `PID call(..) = 0` and `PID <... call resumed>..) = 0` have ended, `<unfinished ...>` and `<detached ...>` not.
        let Some((_, call)) = line.split_once(' ').filter(|(_, call)| call.contains(") = ")) else { continue };
        let call = call.trim_start().trim_start_matches("<... ");
        let name: String = call.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        *calls.entry(name).or_default() += 1;
    }
    Ok(calls)
}
