//! Messages and asks: ours between processes, beside peers between processes and peers within one.

pub(crate) mod actix;
mod drive;
mod in_process;
pub(crate) mod ipc_channel;
pub(crate) mod kameo;
pub(crate) mod node;
pub(crate) mod ours;
pub(crate) mod ractor;
pub(crate) mod ractor_cluster;
mod scenario;
pub(crate) mod tokio;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Options;
use crate::process::{System, cpus};
use crate::report::Report;
use node::Script;
use scenario::{Kind, Orders, Places, SCENARIOS, Scenario, Told};

/// A system that is measured.
struct Measured {
    name: String,
    start: Start,
    only: fn(Kind) -> bool,
}

enum Start {
    /// In a role of this program, with these words before the orders.
    Role(&'static [&'static str]),
    /// Node, with one of its serializations.
    Node(&'static str),
}

/// A pass that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn systems(script: Option<&Script>) -> Vec<Measured> {
    let role = |name: &str, words| Measured { name: name.to_owned(), start: Start::Role(words), only: |_| true };
    let version = script.map_or(String::new(), |script| format!(" {}", script.version()));
    let node = |serialization| Measured {
        name: format!("node{version}, {serialization}"),
        start: Start::Node(serialization),
        only: |_| true,
    };
    vec![
        role("rclust", &["rclust-messages"]),
        role("ipc-channel", &["ipc-channel-messages", "fresh"]),
        Measured {
            name: "ipc-channel, reply channels kept".to_owned(),
            start: Start::Role(&["ipc-channel-messages", "kept"]),
            only: |kind| matches!(kind, Kind::Ask { .. }),
        },
        role("ractor_cluster", &["ractor-cluster-messages"]),
        node("json"),
        node("advanced"),
        role("one process: tokio mpsc(1024)", &["tokio-messages"]),
        role("one process: ractor", &["ractor-messages"]),
        role("one process: kameo", &["kameo-messages"]),
        role("one process: actix", &["actix-messages"]),
    ]
}

/// What the rounds have found, by pinning, scenario and system: rows that belong side by side were not taken side by
/// side.
#[derive(Default)]
struct Found {
    values: HashMap<(usize, &'static str, usize), Vec<f64>>,
    /// Why there is none.
    missing: HashMap<(usize, &'static str, usize), String>,
}

/// Each round runs every system in every pinning once, in processes of its own.
pub(crate) fn measure(options: &Options) -> Result<Report> {
    let rounds = options.amount(5, 1);
    let budget = Duration::from_millis(options.amount(200, 60));
    let script = Script::new()?;
    let systems = systems(script.as_ref());
    let pinnings = pinnings();
    let mut report = Report::new("Messages: ours between processes, beside peers between processes and within one");
    let mut found = Found::default();
    for round in 1..=rounds {
        eprintln!("messages: round {round} of {rounds}");
        for (pinning, (_, places)) in pinnings.iter().enumerate() {
            for (number, system) in systems.iter().enumerate() {
                let orders = Orders { places: *places, budget };
                let told = run(options, system, script.as_ref(), orders);
                found.hear(pinning, number, system, told)?;
            }
        }
    }
    for (pinning, (name, _)) in pinnings.iter().enumerate() {
        for scenario in SCENARIOS {
            for (number, system) in systems.iter().enumerate() {
                found.tell(&mut report, (pinning, scenario, number), &system.name, name);
            }
        }
    }
    report.note("`one process` moves a pointer; the others encode, cross to another process and decode");
    report.note("pinned with sched_setaffinity: `one core`, all threads of all sides on one CPU; `two cores`, each side its own");
    report.note("one way: until the receiver has said that it handled all, each load a fresh Vec; 1 asker: the median of a pass");
    if pinnings.len() < 3 {
        report.note("`two cores` was left out: there is one CPU");
    }
    Ok(report)
}

fn pinnings() -> Vec<(&'static str, Places)> {
    let cpus = cpus();
    let mut pinnings = vec![("unpinned", Places::Unpinned)];
    if let Some(&sender) = cpus.first() {
        pinnings.push(("one core", Places::Pinned { sender, receiver: sender }));
        if let Some(&receiver) = cpus.get(1) {
            pinnings.push(("two cores", Places::Pinned { sender, receiver }));
        }
    }
    pinnings
}

/// The lines of one run. `Ok(Err(..))`: it cannot run here, and why.
fn run(
    options: &Options,
    system: &Measured,
    script: Option<&Script>,
    orders: Orders,
) -> Result<Result<Vec<String>, String>> {
    let mut process = match system.start {
        Start::Role(words) => {
            let (places, budget) = (orders.places.to_string(), orders.budget.as_millis().to_string());
            System::role(options, &[words, &[&places, &budget]].concat())?
        }
        Start::Node(serialization) => match script {
            Some(script) => script.start(options, serialization, orders)?,
            None => return Ok(Err("node is not in PATH".to_owned())),
        },
    };
    process.lines_within(LIMIT).map(Ok).with_context(|| system.name.clone())
}

impl Found {
    /// Takes in what a system has told. A peer that failed is a row that says so; ours must not fail.
    fn hear(
        &mut self,
        pinning: usize,
        number: usize,
        system: &Measured,
        told: Result<Result<Vec<String>, String>>,
    ) -> Result<()> {
        let (lines, otherwise) = match told {
            Ok(Ok(lines)) => (lines, "nothing was told".to_owned()),
            Ok(Err(why)) => (Vec::new(), why),
            Err(error) if number == 0 => return Err(error),
            Err(error) => {
                eprintln!("messages: {error:#}");
                (Vec::new(), "failed".to_owned())
            }
        };
        let mut heard = Vec::new();
        for line in lines {
            let (scenario, told) = scenario::read(&line)?;
            heard.push(scenario);
            match told {
                Told::Value(value) => {
                    let value = value * scenario.unit().1;
                    self.values.entry((pinning, scenario.name, number)).or_default().push(value);
                }
                Told::Refused(why) => {
                    eprintln!("messages: {}, {}: not possible: {why}", system.name, scenario.name);
                    self.missing.insert((pinning, scenario.name, number), "not possible".to_owned());
                }
            }
        }
        for scenario in SCENARIOS.into_iter().filter(|scenario| (system.only)(scenario.kind)) {
            if !heard.contains(&scenario) {
                self.missing.insert((pinning, scenario.name, number), otherwise.clone());
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        report: &mut Report,
        (pinning, scenario, number): (usize, Scenario, usize),
        system: &str,
        pinning_name: &str,
    ) {
        let (key, unit) = ((pinning, scenario.name, number), scenario.unit().0);
        let row = format!("{}, {pinning_name}", scenario.name);
        for value in self.values.get(&key).into_iter().flatten() {
            report.sample(system, &row, unit, *value);
        }
        if let Some(why) = self.missing.get(&key) {
            report.missing(system, &row, unit, why);
        }
    }
}
