//! When a worker is replaced though it has not failed: before a leak that nobody finds does harm.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a child's worker is replaced by a fresh one. It is a reload of that worker, with the program that its restarts would run:
/// the new one is ready first, the old one drains, nothing is counted as a death. One worker of the cluster at a time; others that are
/// due wait for their turn.
///
/// ```
/// use std::time::Duration;
/// use rclust_core::Recycle;
///
/// let recycle = Recycle::new().max_age(Duration::from_secs(86_400)).max_messages(1_000_000).max_rss(512 << 20);
/// # assert_ne!(recycle, Recycle::new());
/// ```
///
/// Each limit is drawn anew for each incarnation, between the given value and a tenth ([`Recycle::jitter`]) less, so that workers
/// that were started together are not due together. A worker lives for a second at least.
///
/// # Source
/// gunicorn's `max_requests` and `max_requests_jitter`; PM2's `max_memory_restart`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Recycle {
    age: Option<Duration>,
    messages: u64,
    connections: u64,
    rss: u64,
    jitter: f64,
}

impl Default for Recycle {
    fn default() -> Recycle {
        Recycle::new()
    }
}

impl Recycle {
    /// Never, until one of the others says when.
    pub fn new() -> Recycle {
        Recycle { age: None, messages: 0, connections: 0, rss: 0, jitter: 0.1 }
    }

    /// At most so long after it became ready.
    pub fn max_age(mut self, age: Duration) -> Recycle {
        self.age = Some(age);
        self
    }

    /// At the latest when it has handled so many messages; 0 is no limit. It may handle some more until its successor is ready.
    pub fn max_messages(mut self, messages: u64) -> Recycle {
        self.messages = messages;
        self
    }

    /// At the latest when it has taken so many connections of the cluster's listeners; 0 is no limit.
    pub fn max_connections(mut self, connections: u64) -> Recycle {
        self.connections = connections;
        self
    }

    /// When its resident set (`VmRSS`) is seen above so many bytes; 0 is no limit. It is looked at a second after a message was handled or
    /// a connection had traffic, once for all that come in that second, and never while the worker idles. A worker that grows
    /// faster is the business of an address space limit ([`Process`](crate::Process)) or of the kernel.
    pub fn max_rss(mut self, bytes: u64) -> Recycle {
        self.rss = bytes;
        self
    }

    /// By which part of it a limit may be less, 0 to 1; 0.1 unless said otherwise.
    pub fn jitter(mut self, part: f64) -> Recycle {
        self.jitter = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.1 };
        self
    }

    /// Whether it looks at the memory of a process.
    pub(crate) fn has_rss(&self) -> bool {
        self.rss != 0
    }

    /// The limits of one incarnation; `random` gives numbers from 0 to 1.
    pub(crate) fn drawn(&self, mut random: impl FnMut() -> f64) -> (Option<Duration>, Limits) {
        let mut less = || 1.0 - self.jitter * random().clamp(0.0, 1.0);
        let age = self.age.map(|age| age.mul_f64(less()));
        // A limit that is set is not drawn away.
        let mut part = |limit: u64| if limit == 0 { 0 } else { ((limit as f64 * less()) as u64).max(1) };
        (age, Limits { messages: part(self.messages), connections: part(self.connections), rss: part(self.rss) })
    }
}

/// What a worker watches itself for; 0: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) messages: u64,
    pub(crate) connections: u64,
    pub(crate) rss: u64,
}

/// Which limit was reached, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Worn {
    Age,
    Messages(u64),
    Connections(u64),
    Rss(u64),
}

impl std::fmt::Display for Worn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Worn::Age => write!(f, "it is old enough"),
            Worn::Messages(n) => write!(f, "it has handled {n} messages"),
            Worn::Connections(n) => write!(f, "it has taken {n} connections"),
            Worn::Rss(bytes) => write!(f, "its resident set is {} KiB", bytes >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_drawn_between_the_given_value_and_the_jitter_less() {
        let recycle = Recycle::new().max_age(Duration::from_secs(100)).max_messages(1000).max_rss(1).jitter(0.2);
        let (age, limits) = recycle.drawn(|| 0.0);
        assert_eq!((age, limits), (Some(Duration::from_secs(100)), Limits { messages: 1000, connections: 0, rss: 1 }));
        let (age, limits) = recycle.drawn(|| 1.0);
        assert_eq!((age, limits), (Some(Duration::from_secs(80)), Limits { messages: 800, connections: 0, rss: 1 }));
        assert_eq!(Recycle::new().jitter(f64::NAN).drawn(|| 0.5), (None, Limits::default()));
    }
}
