//! What a listener has done: for programs to look at.

use serde::{Deserialize, Serialize};

/// What a listener has done so far, and how its connections stand at this moment, as the supervisor counts.
///
/// Numbers of workers that lie are clamped; those of a dead worker are zero. Counts are of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Where it is bound.
    pub address: String,
    /// Its name, if its builder gave it one.
    pub name: Option<String>,
    /// Accepted by the supervisor.
    pub accepted: u64,
    /// Put into the queues of slots, those again that were moved.
    pub handed: u64,
    /// Taken back from a slot whose worker died, drained, stopped or blocked, to be put where others take them.
    pub moved: u64,
    /// Accepted, and closed by the supervisor: the system let it not be watched for its first bytes, or three workers died with it in
    /// their hands. (What is waiting when a listener
    /// is closed is told as an event of the supervisor.)
    pub refused: u64,
    /// Accepted, and waiting in the supervisor for a slot or for the client's first bytes.
    pub waiting: u64,
    /// Panics of the program's own policy or key function.
    pub panics: u64,
    /// Each slot that has bound it, in the order of their numbers.
    pub slots: Vec<SlotStats>,
}

/// How the connections of one listener stand at one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotStats {
    /// Its number in the tree.
    pub slot: u32,
    /// Its path, such as `web[2]`.
    pub name: String,
    /// Whether its worker is ready, not draining and seen at its queue: whether it may get connections.
    pub takes: bool,
    /// Put into its queue, of all its incarnations.
    pub handed: u64,
    /// Taken and not closed.
    pub open: u64,
    /// In its queue, not taken.
    pub untaken: u64,
    /// Connections that its worker has adopted, of whatever listener. They are part of its load.
    pub adopted: u64,
    /// Taken and not closed by an incarnation that a reload has replaced and that drains.
    pub retiring: u64,
}
