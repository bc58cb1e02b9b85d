//! Node's child processes, started pinned; `node.js` is the system.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::scenario::{Orders, SCENARIOS, Side, take_cpu};
use crate::Options;
use crate::process::{self, System};

/// The script in a file, as long as this lives.
pub(super) struct Script {
    node: PathBuf,
    file: PathBuf,
    pub(super) version: String,
}

impl Script {
    /// `None` if node is not in PATH.
    pub(super) fn new() -> Result<Option<Script>> {
        let Some(node) = process::find("node") else { return Ok(None) };
        let version = Command::new(&node).arg("--version").output()?.stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let file = std::env::temp_dir().join(format!("rclust-benches-messages-{}.js", std::process::id()));
        fs::write(&file, include_str!("node.js"))?;
        Ok(Some(Script { node, file, version }))
    }

    /// Starts it with one of node's serializations.
    pub(super) fn start(&self, options: Options, serialization: &str, orders: Orders) -> Result<System> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
        let mut words =
            vec!["pinned".to_owned(), orders.places.cpu(Side::Sender), text(&self.node)?, text(&self.file)?];
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

impl Drop for Script {
    fn drop(&mut self) {
        // A file that stays behind in the temporary folder does no harm.
        let _ = fs::remove_file(&self.file);
    }
}

/// `CPU PROGRAM ARGS..`: takes the CPU and becomes the program.
pub(crate) fn pinned(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [cpu, program, args @ ..] = args else { bail!("CPU PROGRAM ARGS..") };
    take_cpu(cpu)?;
    Err(Command::new(program).args(args).exec()).context((*program).to_owned())
}
