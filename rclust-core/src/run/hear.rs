//! What workers say, and how they end. Nothing that they say is trusted.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::background;
use crate::events::EventKind;
use crate::exit::{ExitReason, StopReason};
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::beside::Tag;
use crate::mailbox::dead::DeadReason;
use crate::mailbox::endpoint::Located;
use crate::process::watch::{self, Status};
use crate::run::keeper::FromWorker;
use crate::run::shared::Command;
use crate::run::supervise::Supervise;
use crate::trace::Story;
use crate::tree::event::Event;
use crate::wire::control::{Answer, Ending, Part, Request, ToSupervisor, ToWorker};

/// Questions of one worker to the extension that may be open.
const ASKING: u32 = 256;

/// A worker that was sent SIGTERM waits so long for the order that a service manager sends to everybody at once.
const TERM_GRACE: Duration = Duration::from_millis(100);

impl Supervise {
    pub(crate) fn heard(&mut self, event: FromWorker) {
        match event {
            FromWorker::Said(worker, word) => self.said(worker, word),
            FromWorker::Garbage(worker, error) => self.distrust(worker, error.to_string()),
            FromWorker::Unlinked(worker) => {
                // An ending worker closes its link in its last moment: only one that lives on is killed, and then this
                // kill and its own end are the same.
                self.kill_unlinked(worker);
            }
            FromWorker::Ended(worker, status) => self.process_ended(worker, status),
        }
    }

    fn said(&mut self, worker: WorkerId, word: ToSupervisor) {
        let Some(live) = self.live.get_mut(&worker) else { return };
        match word {
            ToSupervisor::Online => {
                if !std::mem::replace(&mut live.online, true) {
                    self.shared.tell(EventKind::Online, &live.name, Some(worker), Some(live.process.pid()));
                }
            }
            ToSupervisor::Ready => {
                if live.ready {
                    return;
                }
                live.ready = true;
                live.ready_at = Some(Instant::now());
                self.reloads.now_runs(worker.slot, &live.program);
                let (name, pid) = (live.name.clone(), live.process.pid());
                self.shared.tell(EventKind::Ready, &name, Some(worker), Some(pid));
                self.shared.is_up(worker.slot, &name);
                self.story(Story::Ready { worker, name, pid });
                self.ages(worker);
                self.tell_extension(extension::Event::Ready { worker });
                self.decide(Event::Ready { worker });
            }
            ToSupervisor::Listens => drop(self.listened.insert(worker.slot)),
            ToSupervisor::Ending(ending) => live.ending = Some(ending),
            ToSupervisor::Request { id, request } => {
                if matches!(request, Request::Extension(_)) {
                    live.asking += 1;
                    if live.asking > ASKING {
                        return self.distrust(worker, format!("it asks more than {ASKING} things at a time"));
                    }
                }
                self.asked(worker, id, request);
            }
            ToSupervisor::Terminated if std::mem::replace(&mut live.terminated, true) => {}
            ToSupervisor::Terminated => {
                let shared = self.shared.clone();
                background::spawn(async move {
                    tokio::time::sleep(TERM_GRACE).await;
                    shared.command(Command::TermGrace { worker });
                });
            }
            ToSupervisor::Leave => self.decide(Event::Leave { worker }),
            ToSupervisor::Room => {
                // One at a time: a worker cannot fill the extension's queue.
                if !live.room.swap(true, Ordering::AcqRel) {
                    let told = live.room.clone();
                    self.tell_extension(extension::Event::Room { worker, told });
                }
            }
            ToSupervisor::Undecodable { from, error, bytes } => {
                let name = live.name.clone();
                self.dead_letter(worker, &name, from, DeadReason::Undecodable(error), bytes);
            }
            ToSupervisor::Watch { slot } => self.watch(worker, slot),
            ToSupervisor::Track { reader, writer, end } => {
                let asker = live.seated.seat;
                self.track(asker, reader, writer, end);
            }
            ToSupervisor::GaveUp => self.gave_up(worker),
            ToSupervisor::Worn(what) => self.worn(worker, what),
            ToSupervisor::LaneClosed { peer } => {
                let seat = live.seated.seat;
                self.lane_closed(peer, seat);
            }
            ToSupervisor::Fetch { from, ring, end } => self.fetch(worker, Tag { peer: from, ring, end }),
            ToSupervisor::Handled { from, ring, end } => {
                self.shared.depot.handled(live.seated.side(ring), Tag { peer: from, ring, end });
            }
            ToSupervisor::CorruptLane { me, peer, generation } => {
                match self.shared.board.generation(me, peer).filter(|_| live.seated.is(me)) {
                    None => self.distrust(worker, format!("it reports a lane with {peer} that does not exist")),
                    // It was renewed meanwhile.
                    Some(now) if now > generation => {}
                    // What the supervisor wrote was spoilt by this worker or its predecessor: the lane is emptied at its end.
                    Some(_) if peer == Slot::SUPERVISOR => self.endpoint.spoilt(me),
                    Some(_) => self.corrupt_between(me, peer),
                }
            }
        }
    }

    /// A lane of this process's own is spoilt: its worker did it, unless that is dead and its lane in order again. If it is dead, and
    /// the lane was found spoilt too late for the repair that follows a death, it is repaired now, before a successor has it.
    pub(crate) fn corrupt_here(&mut self, me: Slot, peer: Slot) {
        let Some(own) = self.own(me).filter(|own| own.distrusts(peer)) else { return };
        let holders = self.holders(peer);
        if holders.is_empty() {
            own.repair(peer, Part::Whole, true);
        }
        for (worker, _) in holders {
            self.distrust(worker, "its mailbox ring to the supervisor is corrupt".to_owned());
        }
    }

    /// A lane between two workers is spoilt. Both could write there, so who of the two did it cannot be known, and one who says so
    /// may lie: the lane is renewed. But whoever has part in two spoilt lanes, with different peers, is what they have in common.
    fn corrupt_between(&mut self, me: Slot, peer: Slot) {
        let (address, other) = (self.shared.name(me), self.shared.name(peer));
        self.story(Story::Troubled { address, text: format!("its lane with {other} was spoilt, and is renewed") });
        for (one, with) in [(me, peer), (peer, me)] {
            let spoilt = self.spoilt.entry(one).or_default();
            spoilt.insert(with);
            if spoilt.len() > 1 {
                self.spoilt.remove(&one);
                for (worker, _) in self.holders(one) {
                    self.distrust(worker, "its lanes with several other workers are corrupt".to_owned());
                }
            }
        }
        self.renew_lane(me, peer, true);
    }

    fn asked(&mut self, worker: WorkerId, id: u64, request: Request) {
        let answer = match request {
            Request::Find { path } => match self.shared.find(&path) {
                Ok(Located::Worker(found)) => Answer::Worker(found),
                Ok(Located::Pool(members)) => {
                    self.pool_users.entry(path).or_default().insert(worker);
                    Answer::Pool(members)
                }
                Err(_) => Answer::NotFound,
            },
            Request::Lane { peer } => {
                let known = self.shared.directory.read().slots.contains_key(&peer.place());
                let Some(seat) = self.live.get(&worker).map(|live| live.seated.seat) else { return };
                if !known && self.own(peer).is_none() {
                    Answer::Refused(format!("{peer} does not exist"))
                } else {
                    match self.shared.board.open(seat, peer, Part::Whole) {
                        Ok(_) => {
                            self.share_lane(seat, peer);
                            Answer::LaneSent
                        }
                        Err(error) => Answer::Refused(format!("no lane can be made: {error}")),
                    }
                }
            }
            Request::Porter => return self.give_porter(worker, id),
            Request::Extension(body) => match &self.extension {
                Some(net) if net.send(extension::Event::Request { worker, id, body }).is_ok() => return,
                _ => Answer::Refused("this program has no such extension".to_owned()),
            },
        };
        self.send(worker, &ToWorker::Answer { id, answer }, Vec::new());
    }

    /// Whose end a worker wants to hear of: at once, if there is nobody.
    fn watch(&mut self, watcher: WorkerId, slot: Slot) {
        if self.current(slot).is_some() || self.shared.probe(slot).is_some() {
            self.watchers.entry(slot).or_default().insert(watcher);
        } else {
            let worker = WorkerId { slot, incarnation: Incarnation(0) };
            let (seat, name, reason) = (slot, self.shared.name(slot), ExitReason::NotRunning);
            let down = ToWorker::PeerDown { worker, seat, name, taken: None, reason, watched: true };
            self.send(watcher, &down, Vec::new());
        }
    }

    /// SIGTERM reached one worker, and no order to stop followed: it alone drains, and is then replaced.
    pub(crate) fn terminated(&mut self, worker: WorkerId) {
        let Some(live) = self.live.get(&worker) else { return };
        if self.stopping || live.asked {
            return;
        }
        let deadline = crate::child_spec::SHUTDOWN;
        self.drain(worker, StopReason::Signal, Some(deadline));
        let shared = self.shared.clone();
        background::spawn(async move {
            tokio::time::sleep(deadline).await;
            shared.command(Command::TermDeadline { worker });
        });
    }

    /// A worker did what no worker of ours does: it costs it its life, and nobody else anything.
    pub(crate) fn distrust(&mut self, worker: WorkerId, error: String) {
        let name = self.shared.name(worker.slot);
        self.story(Story::Distrusted { worker, name, error: error.clone() });
        if let Some(live) = self.live.get_mut(&worker) {
            live.distrusted.get_or_insert(error);
            live.process.kill();
        }
    }

    fn kill_unlinked(&mut self, worker: WorkerId) {
        if let Some(live) = self.live.get_mut(&worker) {
            live.unlinked = true;
            self.shared.tell(EventKind::Disconnected, &live.name, Some(worker), Some(live.process.pid()));
            live.process.kill();
        }
    }

    fn process_ended(&mut self, worker: WorkerId, status: Status) {
        let Some(live) = self.live.remove(&worker) else { return };
        self.leaving.insert(worker, live.seated);
        let too_late = live.killed && !live.ready && live.ordered.elapsed() >= live.start_timeout;
        let reason = match live.ending {
            _ if live.distrusted.is_some() => ExitReason::Distrusted(live.distrusted.unwrap_or_default()),
            // It said why it could not be told who it is, or why it failed, before it was killed.
            Some(Ending::Error(text)) if live.killed && !live.ready => ExitReason::Error(text),
            _ if too_late && !live.asked => ExitReason::StartTimeout(live.start_timeout),
            ending => watch::reason(status, ending, live.asked),
        };
        let wanted = live.asked || self.stopping || (live.killed && !too_late);
        let expected = wanted || reason.is_normal() || reason == ExitReason::Ignored;
        let (name, pid) = (live.name, live.process.pid());
        if !live.unlinked {
            self.shared.tell(EventKind::Disconnected, &name, Some(worker), Some(pid));
        }
        self.shared.tell(EventKind::Exited { reason: reason.clone(), expected }, &name, Some(worker), Some(pid));
        self.story(Story::Exited { worker, name, pid, reason: reason.clone(), expected });
        if self.stopping && !live.ready {
            // Its start is over either way: the machine must know why before it hears of a failed one.
            self.tell_stop();
        }
        if matches!(reason, ExitReason::Signal { signal: 15, .. }) && !self.stopping {
            let shared = self.shared.clone();
            background::spawn(async move {
                tokio::time::sleep(TERM_GRACE).await;
                shared.command(Command::LateGone { worker, reason });
            });
            return;
        }
        self.gone(worker, reason);
    }
}
