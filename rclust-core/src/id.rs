//! Numbers with names: who is who in a cluster.
//!
//! A slot is a place in the tree, an incarnation is one process filling it. Both together identify
//! a worker; a process id never does, because the operating system reuses those.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in the tree: a worker's, or that of a supervisor node. Slot 0 is the supervisor process itself.
///
/// Numbers are given in the order of the tree and never reused while the cluster runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Slot(pub u32);

impl Slot {
    /// The supervisor process, which is also the root of the tree.
    pub const SUPERVISOR: Slot = Slot(0);

    /// Says that this is a slot's second seat. No tree has so many slots; tests' probes have this bit and the one above.
    const SECOND: u32 = 1 << 30;

    /// A slot has two *seats*, from which its process writes to others: while a reload replaces it, its successor writes from the
    /// other one. Messages are sent to the slot; answers go to the seat that asked. The first seat has the slot's own number.
    pub(crate) fn other_seat(self) -> Slot {
        Slot(self.0 ^ Slot::SECOND)
    }

    /// The slot that this is, or whose seat this is.
    pub(crate) fn place(self) -> Slot {
        if self.0 >> 30 == 1 { self.other_seat() } else { self }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// The number of a process among those that filled one slot; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The incarnation that follows this one.
    #[must_use]
    pub fn next(self) -> Incarnation {
        Incarnation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One worker: a slot and the incarnation that fills it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WorkerId {
    /// The place in the tree.
    pub slot: Slot,
    /// Which process of that place.
    pub incarnation: Incarnation,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.slot, self.incarnation)
    }
}
