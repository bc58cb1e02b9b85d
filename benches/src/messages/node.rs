//! Node's child processes, started pinned; `node.js` is the system.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::scenario::{Orders, SCENARIOS, Side, take_cpu};
use crate::Options;
use crate::process::{self, System};

/// The system's script.
pub(super) struct Script(process::Script);

impl Script {
    /// `None` if node is not in PATH.
    pub(super) fn new() -> Result<Option<Script>> {
        Ok(process::Script::new("messages", include_str!("node.js"))?.map(Script))
    }

    /// What its figures are figures of.
    pub(super) fn version(&self) -> &str {
        &self.0.version
    }

    /// Starts it with one of node's serializations.
    pub(super) fn start(&self, options: &Options, serialization: &str, orders: Orders) -> Result<System> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
        let mut words =
            vec!["pinned".to_owned(), orders.places.cpu(Side::Sender), text(&self.0.node)?, text(&self.0.file)?];
        words.extend([
            serialization.to_owned(),
            orders.places.cpu(Side::Receiver),
            orders.budget.as_millis().to_string(),
        ]);
        words.push(text(&std::env::current_exe()?)?);
        words.extend(SCENARIOS.iter().map(|scenario| format!("{}:{}", scenario.kind, scenario.most())));
        System::role(options, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// `CPU PROGRAM ARGS..`: takes the CPU and becomes the program.
pub(crate) fn pinned(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [cpu, program, args @ ..] = args else { bail!("CPU PROGRAM ARGS..") };
    take_cpu(cpu)?;
    Err(Command::new(program).args(args).exec()).context((*program).to_owned())
}
