//! A worker that leaves by itself: it is stopped as if somebody had asked for that, and counts as a death all the same.
//!
//! # Source
//! Node's `worker.disconnect()` on the worker's own side; what follows its end is OTP's: `{stop, shutdown, State}` of a
//! child, to which RULES 11 applies (a permanent one is replaced).

use std::time::Duration;

use super::child::{Child, Leaving, Life};
use super::event::Action;
use super::machine::{Timer, Tree};
use super::plan::Shutdown;
use crate::exit::StopReason;
use crate::id::{Incarnation, Slot, WorkerId};

/// What a child has that is otherwise killed without being asked: it asked for its end itself.
const UNSAID: Duration = Duration::from_secs(5);

impl Tree {
    /// The worker wants to go. Said before it is ready, it counts from then on; said again, it changes nothing.
    pub(super) fn on_leave(&mut self, worker: WorkerId) {
        let Some(child) = self.children.get_mut(&worker.slot) else { return };
        // A reload's next one leaves when it is the current one, and ready.
        if let Some(reload) = child.reload.as_mut().filter(|reload| reload.next == Some(worker.incarnation)) {
            reload.leaves = true;
            return;
        }
        if child.node.is_some() || child.current != worker.incarnation || child.goes().is_some() {
            return;
        }
        child.leaving = Some(Leaving { incarnation: worker.incarnation, asked: false, killed: false });
        self.let_leave(worker.slot);
    }

    /// Asks who is up and wants to go to stop, with the deadline of its specification. It stays up until it has ended, so that
    /// its restart type decides what follows.
    pub(super) fn let_leave(&mut self, slot: Slot) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(leaving @ Leaving { asked: false, .. }) = child.goes() else { return };
        if !matches!(child.life, Life::Up) {
            return;
        }
        child.leaving = Some(Leaving { asked: true, ..leaving });
        let deadline = match child.plan.shutdown {
            Shutdown::Timeout(limit) => Some(limit),
            Shutdown::Infinity => None,
            Shutdown::BrutalKill => Some(UNSAID),
        };
        let worker = child.worker();
        if let Some(limit) = deadline {
            self.timers.set(slot, Timer::Life, self.now.saturating_add(limit));
        }
        self.act(Action::Stop { worker, why: StopReason::Leave, deadline });
    }

    /// It had its time. One that did not want to go has none.
    pub(super) fn leave_deadline(&mut self, slot: Slot) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(leaving) = child.goes() else { return };
        child.leaving = Some(Leaving { killed: true, ..leaving });
        let worker = child.worker();
        self.act(Action::Kill { worker });
    }
}

impl Child {
    /// A reload's next incarnation is the current one from now on.
    pub(super) fn succeed(&mut self, incarnation: Incarnation, leaves: bool) {
        self.current = incarnation;
        self.leaving = leaves.then_some(Leaving { incarnation, asked: false, killed: false });
    }

    /// What its current incarnation has said of going.
    pub(super) fn goes(&self) -> Option<Leaving> {
        self.leaving.filter(|leaving| leaving.incarnation == self.current)
    }

    /// Whether it was asked to stop because it wants to go, so that nobody else need ask.
    pub(super) fn was_asked(&self) -> bool {
        self.goes().is_some_and(|leaving| leaving.asked)
    }

    /// Whether it has been killed for not going in time.
    pub(super) fn was_killed(&self) -> bool {
        self.goes().is_some_and(|leaving| leaving.killed)
    }
}
