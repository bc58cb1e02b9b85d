//! The operator's signals.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::run::supervise::Supervise;
use crate::trace::Story;
use crate::tree::event::Event;

/// A signal that is repeated within this time is one order (`timeout(1)` and service managers send it to a process and to its
/// group).
const ONE_ORDER: Duration = Duration::from_millis(500);

pub(super) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    ttin: Signal,
    ttou: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            ttin: signal(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            ttou: signal(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            _ = self.hup.recv() => "SIGHUP",
            _ = self.ttin.recv() => "SIGTTIN",
            _ = self.ttou.recv() => "SIGTTOU",
        }
    }
}

pub(super) async fn next_signal(signals: &mut Option<Signals>) -> &'static str {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

impl Supervise {
    pub(super) fn signal(&mut self, name: &'static str) {
        if matches!(name, "SIGHUP" | "SIGTTIN" | "SIGTTOU") {
            match (self.stopping, name) {
                (true, _) => self.story(Story::Signal { name, meaning: "ignored, the cluster is stopping" }),
                (false, "SIGHUP") => self.reload_all(),
                (false, _) => self.resize_by_signal(name),
            }
        } else if self.stopping {
            let repeated = self.signalled.is_some_and(|(first, at)| first == name && at.elapsed() < ONE_ORDER);
            if !repeated {
                self.story(Story::Signal { name, meaning: "a second one: stopping now" });
                self.now = true;
                self.decide(Event::Kill);
            }
        } else {
            self.signalled = Some((name, Instant::now()));
            self.story(Story::Signal { name, meaning: "stopping" });
            self.stop();
        }
    }
}
