//! A worker watches itself for the limits at which it is to be replaced, and says so once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::background;
use crate::ipc::control::Control;
use crate::recycle::{Limits, Worn};
use crate::wire::control::ToSupervisor;

/// Activity is followed by one look at the resident set, so much later.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Wear {
    limits: Limits,
    messages: AtomicU64,
    connections: AtomicU64,
    /// A look at the resident set is to come.
    looking: AtomicBool,
    said: AtomicBool,
}

impl Wear {
    pub(crate) fn new(limits: Limits) -> Wear {
        Wear {
            limits,
            messages: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            looking: AtomicBool::new(false),
            said: AtomicBool::new(false),
        }
    }

    /// Whether the resident set is watched.
    pub(crate) fn watches_rss(&self) -> bool {
        self.limits.rss != 0
    }
}

impl Control {
    /// A message was handled.
    #[inline]
    pub(crate) fn handled_message(self: &Arc<Self>) {
        if self.wear.limits != Limits::default() {
            self.count_message();
        }
    }

    #[cold]
    fn count_message(self: &Arc<Self>) {
        let count = self.wear.messages.fetch_add(1, Ordering::Relaxed) + 1;
        if self.wear.limits.messages != 0 && count >= self.wear.limits.messages {
            self.worn(Worn::Messages(count));
        }
        self.active();
    }

    /// A connection was taken.
    pub(crate) fn took_connection(self: &Arc<Self>) {
        let count = self.wear.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if self.wear.limits.connections != 0 && count >= self.wear.limits.connections {
            self.worn(Worn::Connections(count));
        }
        self.active();
    }

    /// Something was done: memory may have grown.
    pub(crate) fn active(self: &Arc<Self>) {
        let wear = &self.wear;
        if !wear.watches_rss() || wear.said.load(Ordering::Relaxed) || wear.looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(runtime) = self.runtime() else { return };
        let control = self.clone();
        background::spawn_on(&runtime, async move {
            tokio::time::sleep(LOOK).await;
            control.wear.looking.store(false, Ordering::Relaxed);
            // Where /proc cannot be read, nothing is known.
            if let Some(rss) = resident().filter(|rss| *rss > control.wear.limits.rss) {
                control.worn(Worn::Rss(rss));
            }
        });
    }

    fn worn(&self, what: Worn) {
        if !self.wear.said.swap(true, Ordering::Relaxed) {
            self.say(&ToSupervisor::Worn(what));
        }
    }
}

/// Bytes of this process's resident set.
///
/// # Source
/// `proc_pid_status(5)`: `VmRSS`, in kB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}
