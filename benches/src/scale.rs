//! Many workers under one supervisor: boot, idling, a storm of kills, the end.

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rclust::cluster::{self, Context, EventKind, Never, Pool, Size, Supervisor};
use rustix::process::{Pid, Signal, kill_process};

use crate::Options;
use crate::process::{System, children};
use crate::report::Report;

/// The storm.
const KILLS: usize = 200;

/// How long the idle cluster is watched.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) fn measure(options: &Options) -> Result<Report> {
    let workers = options.amount(1000, 100);
    let mut report = Report::new(format!("Scale: {workers} workers under one supervisor, {KILLS} kills"));
    let mut system = System::role(options, &["rclust-scale", &workers.to_string()])?;
    for line in system.lines()? {
        let mut words = line.split('\t');
        if let (Some(scenario), Some(value), Some(unit)) = (words.next(), words.next(), words.next()) {
            let unit = ["s", "ms", "KiB", "count"].into_iter().find(|known| *known == unit).unwrap_or("");
            report.sample("rclust", scenario, unit, value.parse()?);
        }
    }
    report.note("one run; a worker does nothing; memory is /proc/PID/smaps_rollup's mean over all workers");
    Ok(report)
}

struct Idle;

impl cluster::Worker for Idle {
    type Msg = Never;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Idle)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

/// The measured system: measures itself, because it knows what happens.
pub(crate) fn play(args: &[&str]) -> ExitCode {
    let workers = args.first().and_then(|count| count.parse().ok()).unwrap_or(100);
    let roles = vec![rclust::Role::of::<Idle>()];
    rclust::boot(rclust::Settings::new("scale"), rclust::tree(roles, move || run(workers)))
}

fn say(scenario: &str, value: f64, unit: &str) {
    println!("{scenario}\t{value}\t{unit}");
}

async fn run(workers: usize) -> Result<()> {
    let me = std::process::id();
    let begun = Instant::now();
    let pool = Pool::<Idle>::new("w").size(Size::Fixed(workers)).intensity(u32::MAX, Duration::from_secs(1));
    let cluster = Supervisor::one_for_one().child(pool).start().await?;
    say("boot until all are ready", begun.elapsed().as_secs_f64(), "s");
    let processes = children(me)?;
    say("private memory of a worker", mean(&processes, &["Private_Clean:", "Private_Dirty:"])?, "KiB");
    say("PSS of a worker", mean(&processes, &["Pss:"])?, "KiB");
    say("RSS of the supervisor", mean(&[me], &["Rss:"])?, "KiB");
    say("descriptors of the supervisor", fs::read_dir("/proc/self/fd")?.count() as f64, "count");

    let before = cpu()?;
    tokio::time::sleep(IDLE).await;
    say("CPU of the supervisor, 5 s idle", (cpu()? - before) * 1e3, "ms");

    let (before, begun) = (cpu()?, Instant::now());
    let mut events = cluster.events();
    let victims: HashSet<u32> = (0..KILLS).map(|n| processes[n * 7919 % processes.len()]).collect();
    for pid in &victims {
        let pid = Pid::from_raw(*pid as i32).context("a process id")?;
        // It lives: nobody else kills here.
        kill_process(pid, Signal::KILL)?;
    }
    let mut ready = 0;
    while ready < victims.len() {
        match events.next().await.context("the cluster has ended")? {
            Ok(event) => ready += usize::from(event.kind == EventKind::Ready),
            // Behind: count what is there instead.
            Err(_) => ready = children(me)?.iter().filter(|pid| !processes.contains(pid)).count(),
        }
    }
    say("storm until all are ready again", begun.elapsed().as_secs_f64(), "s");
    say("CPU of the supervisor per restart", (cpu()? - before) * 1e3 / victims.len() as f64, "ms");

    let begun = Instant::now();
    cluster.stop().await;
    say("graceful end", begun.elapsed().as_secs_f64(), "s");
    say("processes left", children(me)?.len() as f64, "count");
    Ok(())
}

/// The mean of the sum of these fields, in KiB.
fn mean(processes: &[u32], fields: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for pid in processes {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        for line in rollup.lines() {
            if let Some(value) = fields.iter().find_map(|field| line.strip_prefix(field)) {
                sum += value.trim().trim_end_matches(" kB").parse::<f64>()?;
            }
        }
    }
    Ok(sum / processes.len() as f64)
}

/// Seconds of processor time that this process has had.
fn cpu() -> Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}
