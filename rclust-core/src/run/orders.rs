//! Orders to the *tree* thread, from the other threads of the supervisor and from its own timers.

use crate::events::EventKind;
use crate::run::shared::Command;
use crate::run::supervise::Supervise;
use crate::trace::Story;
use crate::tree::event::{Action, Request as Management};
use crate::wire::control::{Answer, ToWorker};

impl Supervise {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Stop => self.stop(),
            Command::Quiet => self.tell_stop(),
            Command::LateGone { worker, reason } => {
                if self.stopping {
                    // The order did reach everybody: this end is a part of it, not a death.
                    self.tell_stop();
                }
                self.gone(worker, reason);
            }
            Command::LaneMade { between: (a, b) } => self.share_lane(a, b),
            Command::StopNow { worker, why, deadline } => {
                self.send(worker, &ToWorker::Stop { why, deadline }, Vec::new());
            }
            Command::TermGrace { worker } => self.terminated(worker),
            Command::TermDeadline { worker } => {
                if let Some(live) = self.live.get_mut(&worker) {
                    live.killed = true;
                    live.process.kill();
                }
            }
            Command::Respond { worker, id, body, fds } => {
                if let Some(live) = self.live.get_mut(&worker) {
                    live.asking = live.asking.saturating_sub(1);
                }
                self.send(worker, &ToWorker::Answer { id, answer: Answer::Extension(body) }, fds);
            }
            Command::Tend { slot, order } => self.tend(slot, order),
            Command::Call { request: request @ Management::Reload { .. }, answer, .. } => self.deploy(request, answer),
            Command::Call { request, launches, answer } => self.manage(request, launches, answer),
            Command::Perform(action) => {
                if let Action::Start { worker, .. } = &action {
                    // A player's slots have no plan here.
                    let name = worker.slot.to_string();
                    self.shared.directory.write().slots.entry(worker.slot).or_insert(name);
                }
                self.perform(action);
            }
            Command::Listening { worker, address } => {
                let pid = self.live.get_mut(&worker).map(|live| {
                    live.listening = true;
                    live.process.pid()
                });
                self.shared.tell(
                    EventKind::Listening(address.clone()),
                    &self.shared.name(worker.slot),
                    Some(worker),
                    pid,
                );
                self.story(Story::Listening { worker, name: self.shared.name(worker.slot), address });
            }
            Command::RefusedListen { worker, address, error } => {
                self.story(Story::Refused { worker, name: self.shared.name(worker.slot), address, error });
            }
            Command::Track { asker, reader, writer, end } => self.track(asker, reader, writer, end),
            Command::ProbeGone { slot } => self.forget_probe(slot),
            Command::Crash { slot, crashed } => {
                let worker = self.current(slot);
                if let Some(live) = worker.and_then(|worker| self.live.get(&worker)) {
                    live.process.kill();
                }
                // The test may have stopped waiting.
                let _ = crashed.send(worker);
            }
            Command::Troubled { address, text } => self.story(Story::Troubled { address, text }),
            Command::Corrupt { me, peer } => self.corrupt_here(me, peer),
            Command::Deployed { slot, program, outcome, answer } => self.deployed(slot, program, outcome, answer),
            Command::Resized => self.resized(),
            Command::Reloaded { answer } => self.reloaded(answer),
            Command::Worn { worker, what } => self.worn(worker, what),
            Command::Recycle { worker } => self.recycle(worker),
            Command::Recycled { worker, answer } => self.recycled(worker, answer),
            Command::Distrust { seat, error } => {
                if let Some(worker) = self.seated(seat) {
                    self.distrust(worker, error);
                }
            }
            Command::GiveUpDeadline { worker } => {
                if self.live.get(&worker).is_some_and(|live| live.seated.reads) {
                    self.kill(worker);
                }
            }
        }
    }
}
