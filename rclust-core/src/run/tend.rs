//! What the program wants to know of one worker, or wants done with it.

use std::time::Duration;

use crate::id::Slot;
use crate::mailbox::endpoint::Tend;
use crate::run::supervise::Supervise;
use crate::standing::{WorkerState, WorkerStatus};
use crate::tree::event::{Answer, Request, State};

impl Supervise {
    pub(crate) fn tend(&mut self, slot: Slot, order: Tend) {
        // Who asked may have stopped waiting.
        match order {
            Tend::Status(answer) => drop(answer.send(self.status(slot))),
            Tend::Signal(signal, answer) => {
                let live = self.current(slot).and_then(|worker| Some((worker, self.live.get(&worker)?)));
                let sent = live.map(|(worker, live)| (worker, live.process.signal(signal)));
                drop(answer.send(sent));
            }
            Tend::Disconnect(answer) => {
                let supervisor = self.tree.place(slot).and_then(|place| place.supervisor);
                match supervisor.zip(self.tree.worker(slot)) {
                    Some((supervisor, worker)) => {
                        self.manage(Request::TerminateWorker { supervisor, worker }, Vec::new(), answer);
                    }
                    // It never ran, or was forgotten: there is nobody to be stopped.
                    None => drop(answer.send(Answer::Done)),
                }
            }
        }
    }

    fn status(&self, slot: Slot) -> WorkerStatus {
        if let Some((worker, live)) = self.current(slot).and_then(|worker| Some((worker, self.live.get(&worker)?))) {
            let state = match live {
                live if live.unlinked => WorkerState::Disconnected,
                live if live.asked || live.terminated => WorkerState::Stopping,
                live if live.ready => WorkerState::Ready,
                live if live.listening => WorkerState::Listening,
                live if live.online => WorkerState::Online,
                _ => WorkerState::Starting,
            };
            return WorkerStatus { state, worker: Some(worker), pid: Some(live.process.pid()) };
        }
        let worker = self.tree.worker(slot);
        let state = match self.tree.state(slot) {
            _ if worker.is_some_and(|worker| self.ordered.contains_key(&worker)) => WorkerState::Starting,
            None => WorkerState::Gone,
            Some(State::Restarting) => WorkerState::Restarting(Duration::ZERO),
            Some(State::Backoff(delay)) => WorkerState::Restarting(delay),
            // Up or on its way for the tree, which has not heard of the end yet.
            Some(_) => WorkerState::Dead,
        };
        WorkerStatus { state, worker, pid: None }
    }
}
