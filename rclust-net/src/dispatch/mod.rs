//! Dispatch policies: which slot gets a connection. Pure.

mod balanced;
pub(crate) mod custom;
mod round_robin;
pub(crate) mod sticky;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use custom::Policy;

/// Which slot gets a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Dispatch {
    /// The ready slot with the fewest connections, open and untaken; ties in turn. One dispatcher has exact counts, so it is
    /// nearly round robin for short work and stays even for long-lived connections.
    #[default]
    Balanced,
    /// The ready slots in turn (Node's default).
    RoundRobin,
    /// The same slot for the same client address (the port does not count), as long as that slot is ready and has room: by
    /// rendezvous hashing, so that a slot that comes or goes moves only the clients that are its own. Clients behind one
    /// address translator are one client. A Unix socket's clients have no address, and go to one slot.
    Sticky,
    /// The same, by a function over the first bytes that the client sends, which [`register_key`](crate::register_key) gave this
    /// name; see there. Make it by [`Dispatch::sticky_by`].
    StickyBy(String),
    /// Workers accept from one socket themselves: the fewest steps for a connection, and the most trust. The kernel wakes whoever
    /// waits, so the spread is its own (long-lived connections gather where work is short), a waiting connection wakes every idle
    /// worker, and one worker's `shutdown(2)` on the socket closes it for all: the supervisor notices and binds it again, and what
    /// waited in it is lost. A connection waits in the kernel until a worker accepts it, so deaths lose none that was not accepted.
    Shared,
    /// A socket for each slot in one SO_REUSEPORT group, accepted from by the slot's workers alone and held by the supervisor, so
    /// that its queue survives their deaths. Where the system allows it, connections go to ready slots at random (classic BPF,
    /// SO_ATTACH_REUSEPORT_CBPF), else by the kernel's hash to any slot. From the queue of a slot that is down for 250 ms, or was
    /// removed, others are given. A worker that is blocked keeps what waits in its queue. Any process of the same user can join such
    /// a group. TCP only.
    PerSlot,
    /// A policy of the program's own, which [`register`](crate::register) gave this name. Make it by [`Dispatch::custom`].
    Custom(String),
}

impl Dispatch {
    /// Sticky by the function that [`register_key`](crate::register_key) gave this name.
    pub fn sticky_by(name: impl Into<String>) -> Dispatch {
        Dispatch::StickyBy(name.into())
    }

    /// The policy that [`register`](crate::register) gave this name.
    pub fn custom(name: impl Into<String>) -> Dispatch {
        Dispatch::Custom(name.into())
    }
}

/// A slot that may get the connection: it is ready and has room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its number in the tree, the same for all its incarnations.
    pub slot: u32,
    /// Its path, such as `web[2]`.
    pub name: Arc<str>,
    /// Its place in its pool (what its worker's `cx.slot()` is).
    pub index: usize,
    /// Connections that it took and has not closed, at all listeners of the cluster.
    pub open: u64,
    /// Connections that it was handed and has not taken, at all listeners of the cluster.
    pub untaken: u64,
}

impl Candidate {
    fn load(&self) -> u64 {
        self.open + self.untaken
    }
}

/// A connection that is to be given to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// Where it comes from; a Unix socket's client has no address.
    pub peer: Option<SocketAddr>,
    /// What a sticky policy knows it by; 0 with others.
    pub(crate) key: u64,
}

/// The memory of a policy.
pub(crate) struct Picker {
    policy: How,
    /// The slot that was picked last.
    last: Option<u32>,
    /// How often the program's own policy panicked.
    pub(crate) panics: u64,
}

/// How a [`Picker`] picks.
pub(crate) enum How {
    Balanced,
    RoundRobin,
    Sticky,
    Custom(Box<dyn Policy>),
}

impl Picker {
    pub(crate) fn new(policy: How) -> Picker {
        Picker { policy, last: None, panics: 0 }
    }

    /// The slot for the next connection, among candidates in the order of their numbers.
    pub(crate) fn pick(&mut self, arrival: &Arrival, candidates: &[Candidate]) -> Option<u32> {
        let picked = match &mut self.policy {
            How::Balanced => balanced::pick(candidates, self.last),
            How::RoundRobin => round_robin::pick(candidates, self.last),
            How::Sticky => sticky::pick(candidates, arrival.key),
            How::Custom(policy) => match custom::pick(&mut **policy, arrival, candidates) {
                Ok(Some(slot)) => Some(slot),
                Ok(None) => balanced::pick(candidates, self.last),
                Err(custom::Panicked) => {
                    self.panics += 1;
                    balanced::pick(candidates, self.last)
                }
            },
        }?;
        self.last = Some(picked);
        Some(picked)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn candidate(slot: u32, open: u64) -> Candidate {
        Candidate { slot, name: format!("web[{slot}]").into(), index: slot as usize, open, untaken: 0 }
    }

    pub(crate) const ANYBODY: Arrival = Arrival { peer: None, key: 0 };
}
