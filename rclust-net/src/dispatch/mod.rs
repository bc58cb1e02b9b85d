//! Dispatch policies: which slot gets a connection. Pure.

mod balanced;
mod round_robin;

use serde::{Deserialize, Serialize};

/// Which slot gets a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Dispatch {
    /// The ready slot with the fewest connections, open and untaken; ties in turn. One dispatcher has exact counts, so it is
    /// nearly round robin for short work and stays even for long-lived connections.
    #[default]
    Balanced,
    /// The ready slots in turn (Node's default).
    RoundRobin,
}

/// A slot that may get the connection: it is ready and has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its number.
    pub(crate) slot: u32,
    /// Its connections, open and untaken.
    pub(crate) load: u64,
}

/// The memory of a policy.
#[derive(Debug)]
pub(crate) struct Picker {
    policy: Dispatch,
    /// The slot that was picked last.
    last: Option<u32>,
}

impl Picker {
    pub(crate) fn new(policy: Dispatch) -> Picker {
        Picker { policy, last: None }
    }

    /// The slot for the next connection, among candidates in the order of their numbers.
    pub(crate) fn pick(&mut self, candidates: &[Candidate]) -> Option<u32> {
        let picked = match self.policy {
            Dispatch::Balanced => balanced::pick(candidates, self.last),
            Dispatch::RoundRobin => round_robin::pick(candidates, self.last),
        }?;
        self.last = Some(picked);
        Some(picked)
    }
}
