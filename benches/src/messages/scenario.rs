//! What every system is put through, said once: what is sent, how often, and what is told about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process;

/// One thing that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Tasks of the sending side put messages into the receiver's mailbox.
    Put { writers: u64, size: usize },
    /// The sending side tells another worker (actor, process) to put them there.
    Pass { size: usize },
    /// Tasks of the sending side ask the receiver, each one question after the other.
    Ask { askers: u64 },
}

const KIB: usize = 1 << 10;

pub(super) const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "64 B one way, 1 writer", kind: Kind::Put { writers: 1, size: 64 } },
    Scenario { name: "64 B one way, 4 writers", kind: Kind::Put { writers: 4, size: 64 } },
    Scenario { name: "64 B one way, worker to worker", kind: Kind::Pass { size: 64 } },
    Scenario { name: "1 KiB one way", kind: Kind::Put { writers: 1, size: KIB } },
    Scenario { name: "64 KiB one way", kind: Kind::Put { writers: 1, size: 64 * KIB } },
    Scenario { name: "1 MiB one way", kind: Kind::Put { writers: 1, size: KIB * KIB } },
    Scenario { name: "ask, 1 asker", kind: Kind::Ask { askers: 1 } },
    Scenario { name: "ask, 64 askers", kind: Kind::Ask { askers: 64 } },
];

impl Scenario {
    /// What its figures are counted in, and what makes one of what a system told: messages or asks a second, or, where
    /// there is one asker, the median of its times in seconds.
    pub(super) fn unit(self) -> (&'static str, f64) {
        match self.kind {
            Kind::Put { size: 64, .. } | Kind::Pass { .. } => ("M messages/s", 1e-6),
            Kind::Put { size, .. } => ("GB/s", size as f64 * 1e-9),
            Kind::Ask { askers: 1 } => ("us", 1e6),
            Kind::Ask { .. } => ("k asks/s", 1e-3),
        }
    }

    /// How many write or ask at once.
    pub(super) fn width(self) -> u64 {
        match self.kind {
            Kind::Put { writers: width, .. } | Kind::Ask { askers: width } => width,
            Kind::Pass { .. } => 1,
        }
    }

    /// The most messages of one pass: unbounded mailboxes hold them all.
    pub(super) fn most(self) -> u64 {
        match self.kind {
            // Divisible by any number of writers and askers.
            Kind::Put { size, .. } | Kind::Pass { size } => ((256 << 20) / size as u64).min(1 << 21),
            Kind::Ask { .. } => 1 << 20,
        }
    }
}

/// The word for a scenario on a command line and in what a system tells.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Put { writers, size } => write!(f, "put:{writers}:{size}"),
            Kind::Pass { size } => write!(f, "pass:1:{size}"),
            Kind::Ask { askers } => write!(f, "ask:{askers}:0"),
        }
    }
}

/// What a system told about one scenario.
pub(super) enum Told {
    /// See [`Scenario::unit`].
    Value(f64),
    /// It cannot do that, and why.
    Refused(String),
}

/// Reads a line of a system: `KIND<TAB>VALUE`, or `KIND<TAB>refused<TAB>WHY`.
pub(super) fn read(line: &str) -> Result<(Scenario, Told)> {
    let (kind, told) = line.split_once('\t').with_context(|| format!("nothing about a scenario: {line}"))?;
    let scenario = SCENARIOS.into_iter().find(|scenario| scenario.kind.to_string() == kind);
    let scenario = scenario.with_context(|| format!("there is no scenario `{kind}`"))?;
    match told.strip_prefix("refused\t") {
        Some(why) => Ok((scenario, Told::Refused(why.to_owned()))),
        None => Ok((scenario, Told::Value(told.parse().with_context(|| format!("not a number: {line}"))?))),
    }
}

/// What is sent: the same struct in every system.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    n: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

impl Load {
    /// Allocated and filled anew for each message, as a program's own data would be.
    pub(super) fn new(n: u64, size: usize) -> Load {
        Load { n, bytes: vec![n as u8; size] }
    }
}

/// What the receiver has handled since it was last asked.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Tally {
    /// Handles a message: it counts if its first and its last byte are what was sent.
    pub(super) fn add(&mut self, load: &Load) {
        let mark = Some(load.n as u8);
        if load.bytes.first().copied() == mark && load.bytes.last().copied() == mark {
            self.messages += 1;
            self.bytes += load.bytes.len() as u64;
        }
    }

    /// The answer to whoever asks; counting begins anew.
    pub(super) fn take(&mut self) -> Tally {
        std::mem::take(self)
    }
}

/// Which CPU is whose.
#[derive(Clone, Copy)]
pub(super) enum Places {
    Unpinned,
    Pinned { sender: usize, receiver: usize },
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Sender,
    Receiver,
}

impl Places {
    pub(super) fn are_same(self) -> bool {
        matches!(self, Places::Pinned { sender, receiver } if sender == receiver)
    }

    /// The CPU of a side, `-` if it has none.
    pub(super) fn cpu(self, side: Side) -> String {
        match (self, side) {
            (Places::Unpinned, _) => "-".to_owned(),
            (Places::Pinned { sender, .. }, Side::Sender) => sender.to_string(),
            (Places::Pinned { receiver, .. }, Side::Receiver) => receiver.to_string(),
        }
    }

    /// Puts the calling thread, and those that it will start, on the CPU of its side.
    pub(super) fn take(self, side: Side) -> Result<()> {
        take_cpu(&self.cpu(side))
    }
}

/// The same, by the word for a CPU.
pub(super) fn take_cpu(cpu: &str) -> Result<()> {
    if cpu != "-" {
        process::pin(cpu.parse()?)?;
    }
    Ok(())
}

/// `-`, or the sender's CPU and the receiver's: `0,1`
impl FromStr for Places {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Places> {
        match word.split_once(',') {
            Some((sender, receiver)) => Ok(Places::Pinned { sender: sender.parse()?, receiver: receiver.parse()? }),
            None if word == "-" => Ok(Places::Unpinned),
            None => bail!("`{word}` are no places"),
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Places::Unpinned => f.write_str("-"),
            Places::Pinned { sender, receiver } => write!(f, "{sender},{receiver}"),
        }
    }
}

/// How a system is to run: `PLACES MILLISECONDS`.
#[derive(Clone, Copy)]
pub(super) struct Orders {
    pub(super) places: Places,
    /// About how long one pass shall take.
    pub(super) budget: Duration,
}

impl Orders {
    pub(super) fn read(args: &[&str]) -> Result<Orders> {
        let [places, budget] = args else { bail!("PLACES MILLISECONDS") };
        Ok(Orders { places: places.parse()?, budget: Duration::from_millis(budget.parse()?) })
    }
}
