//! Node's rules: which bind is which socket. Pure.

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::dispatch::Dispatch;
use crate::place::{Local, Place};
use crate::stats::Stats;

/// Which socket a worker asks for. Equal keys in several workers are one socket.
///
/// `nth` counts this worker's own binds of the same address, so that the second `bind` to port 0 in each worker is another
/// port, and the same one in all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) v6_only: bool,
    pub(crate) name: Option<String>,
    pub(crate) nth: u32,
}

/// How a socket is to be bound and served. Of what is said twice, the first worker's word counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// How many connections the kernel may hold.
    pub(crate) backlog: u32,
    /// Mode bits of a Unix socket's file.
    pub(crate) mode: Option<u32>,
    /// Which slot gets a connection.
    pub(crate) dispatch: Dispatch,
    /// How many connections it may have in all slots.
    pub(crate) most: Option<u64>,
    /// How many of them this worker wants: each worker's own word.
    pub(crate) most_each: Option<u64>,
}

/// What a worker asks of the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// A share of a socket.
    Bind {
        /// Which.
        key: Key,
        /// How.
        terms: Terms,
        /// How many descriptors the worker may have open.
        descriptors: Option<u64>,
    },
    /// The socket of a share once more: the old one does not listen any more.
    Again {
        /// The listener's number.
        listener: u32,
    },
    /// What a listener has done.
    Stats {
        /// The listener's number.
        listener: u32,
    },
    /// The worker has dropped its share.
    Close {
        /// The listener's number.
        listener: u32,
    },
}

/// The supervisor's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The share: two descriptors come along, the queue's reading end and the slot's load page; where workers accept
    /// themselves, the socket is a third. Of datagrams the socket alone comes.
    Bound {
        /// The listener's number.
        listener: u32,
        /// Where it is bound.
        local: Local,
    },
    /// The operating system's refusal, as itself.
    Failed {
        /// The error number, if it is one.
        errno: Option<i32>,
        /// What kind of error, if it is none of the system's.
        kind: Refusal,
        /// Its text.
        text: String,
    },
    /// The socket again: one descriptor.
    Again,
    /// The tree is stopping: nothing comes any more.
    Quiet,
    /// Closed.
    Closed,
    /// What the listener has done.
    Stats(Stats),
}

/// The kinds of errors that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    NotFound,
    InvalidInput,
    Other,
}

impl From<io::ErrorKind> for Refusal {
    fn from(kind: io::ErrorKind) -> Refusal {
        match kind {
            io::ErrorKind::NotFound => Refusal::NotFound,
            io::ErrorKind::InvalidInput => Refusal::InvalidInput,
            _ => Refusal::Other,
        }
    }
}

impl From<Refusal> for io::ErrorKind {
    fn from(refusal: Refusal) -> io::ErrorKind {
        match refusal {
            Refusal::NotFound => io::ErrorKind::NotFound,
            Refusal::InvalidInput => io::ErrorKind::InvalidInput,
            Refusal::Other => io::ErrorKind::Other,
        }
    }
}

/// Counts one worker's binds.
#[derive(Debug, Default)]
pub(crate) struct Counter(HashMap<(Place, bool, Option<String>), u32>);

impl Counter {
    /// The key of this worker's next bind of a place. A fixed one has no second: there it is the same socket again.
    pub(crate) fn key(&mut self, place: Place, v6_only: bool, name: Option<String>) -> Key {
        let nth = if place.is_any() {
            let count = self.0.entry((place.clone(), v6_only, name.clone())).or_default();
            *count += 1;
            *count - 1
        } else {
            0
        };
        Key { place, v6_only, name, nth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_bind_to_port_0_is_the_same_socket_in_each_worker() {
        let any = Place::Tcp(([127, 0, 0, 1], 0).into());
        let (mut a, mut b) = (Counter::default(), Counter::default());
        let (a1, a2) = (a.key(any.clone(), false, None), a.key(any.clone(), false, None));
        let (b1, b2) = (b.key(any.clone(), false, None), b.key(any, false, None));
        assert_eq!((&a1, &a2), (&b1, &b2));
        assert_ne!(a1, a2);
        for fixed in [Place::Tcp(([127, 0, 0, 1], 80).into()), Place::Unix(b"/tmp/s".to_vec())] {
            assert_eq!(a.key(fixed.clone(), false, None), a.key(fixed, false, None));
        }
    }
}
