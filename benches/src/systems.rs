//! The servers that are measured side by side.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use crate::Options;
use crate::process::{Script, System};

/// How the processes of a server share a port.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Ours, with this policy.
    Ours(&'static str),
    /// What one would write with hyper alone.
    Hyper(&'static str),
    /// Node's cluster.
    Node,
}

/// All of them: a name, and how.
const WAYS: [(&str, Way); 10] = [
    ("rclust, balanced", Way::Ours("balanced")),
    ("rclust, round robin", Way::Ours("round_robin")),
    ("rclust, sticky", Way::Ours("sticky")),
    ("rclust, shared", Way::Ours("shared")),
    ("rclust, per slot", Way::Ours("per_slot")),
    ("hyper, 1 process with threads", Way::Hyper("threads")),
    ("hyper, SO_REUSEPORT", Way::Hyper("reuseport")),
    ("hyper, inherited listener", Way::Hyper("inherited")),
    ("hyper, naive handoff", Way::Hyper("handoff")),
    ("node, cluster, round robin", Way::Node),
];

/// What is needed to start any of them.
pub(crate) struct Systems {
    options: Options,
    node: Option<Script>,
}

impl Systems {
    pub(crate) fn new(options: &Options) -> Result<Systems> {
        Ok(Systems { options: options.clone(), node: Script::new("http", include_str!("http/node.js"))? })
    }

    /// The rows that were asked for.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (&'static str, Way)> {
        let only = &self.options.only;
        WAYS.into_iter().filter(|(name, _)| only.is_empty() || only.iter().any(|part| name.contains(part)))
    }

    /// What the figures of node are figures of.
    pub(crate) fn about_node(&self) -> String {
        match &self.node {
            Some(node) => format!("node is {}", node.version),
            None => "node is not in PATH: its rows are left out".to_owned(),
        }
    }

    /// Starts one, which notes its clients in `notes`; `None` if it cannot be had.
    pub(crate) fn start(
        &self,
        way: Way,
        address: SocketAddr,
        workers: usize,
        notes: Option<&str>,
    ) -> Result<Option<System>> {
        let (address_text, workers) = (address.to_string(), workers.to_string());
        let mut command = match way {
            Way::Ours(policy) => System::command(&["rclust-http", policy, &address_text, &workers])?,
            Way::Hyper(how) => System::command(&["hyper", how, &address_text, &workers])?,
            Way::Node => {
                let Some(node) = &self.node else { return Ok(None) };
                let mut command = Command::new(&node.node);
                command.arg(&node.file).args([address.port().to_string(), workers]);
                command
            }
        };
        if let Some(notes) = notes {
            command.env(crate::served::NOTES, notes);
        }
        let mut system = System::start(&self.options, &mut command)?;
        system.answers(address)?;
        Ok(Some(system))
    }
}
