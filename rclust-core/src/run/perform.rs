//! Tree actions to effects. Each begins here and never waits; its outcome comes back as an event.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::background;
use crate::child_spec::SHUTDOWN;
use crate::error::{self, RunError, StartError};
use crate::events::EventKind;
use crate::exit::{ExitReason, StopReason};
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::dead::DeadReason;
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::Parts;
use crate::process::spawn::{Order, Program};
use crate::run::bury::Gone;
use crate::run::collect::Attached;
use crate::run::live::Ordered;
use crate::run::shared::Command;
use crate::run::supervise::Supervise;
use crate::trace::Story;
use crate::tree::event::{Action, End, Notice};
use crate::wire::applied::Applied;
use crate::wire::control::{BootMessage, Part, Ring, ToWorker};

/// How long a worker's order to stop waits for connections that it took and has not read from.
const DRAIN_LIMIT: Duration = Duration::from_millis(250);

/// How long a worker that was replaced may take for the message in hand; its successor waits for that.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(30);

impl Supervise {
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Start { worker, launch, attempt, previous } => {
                self.last.insert(worker.slot, (launch, worker.incarnation));
                let program = self.program_of(worker.slot);
                let (order, applied, outputs) = self.order(worker, launch, program.clone()).unwrap_or_else(|error| {
                    let order: Order = Box::new(|_| Err(error));
                    (order, Applied::default(), Attached::default())
                });
                let (at, kill, stop) = (Instant::now(), false, None);
                let ordered = Ordered { launch, attempt, previous, at, kill, stop, program, applied, outputs };
                self.ordered.insert(worker, ordered);
                self.spawner.order(worker, order);
            }
            Action::Stop { worker, why, deadline } => self.ask_to_stop(worker, why, deadline),
            Action::Kill { worker } => self.kill_or_cancel(worker),
            Action::Retire { worker, by, deadline } => {
                self.retire(worker, by);
                self.ask_to_stop(worker, StopReason::Reload, deadline);
                let shared = self.shared.clone();
                background::spawn(async move {
                    tokio::time::sleep(GIVE_UP_LIMIT).await;
                    shared.command(Command::GiveUpDeadline { worker });
                });
            }
            Action::Notice(notice) => self.notice(notice),
            Action::Answer { call, answer } => {
                if let Some(caller) = self.calls.remove(&call) {
                    // The caller may have stopped waiting.
                    let _ = caller.send(answer);
                }
            }
            // Comes only to those who asked for it.
            Action::StartSupervisor { .. } => {}
            Action::Forget { slot } => self.forget(slot),
            Action::Booted => {
                if let Some(told) = self.told.take() {
                    // `start` may have been dropped; the tree goes on.
                    let _ = told.send(Ok(()));
                }
            }
            Action::End(end) => self.end(end),
        }
    }

    /// How a worker is started, what it then makes of its process, and what holds its outputs.
    fn order(
        &mut self,
        worker: WorkerId,
        launch: u32,
        program: Option<Program>,
    ) -> io::Result<(Order, Applied, Attached)> {
        let launch = self.launches.get(&launch).ok_or_else(|| io::Error::other("a child without a launch"))?;
        let name = self.shared.name(worker.slot);
        let index = self.tree.place(worker.slot).map_or(0, |place| place.index);
        let process = launch.process.of(worker, index as usize).map_err(io::Error::other)?;
        let (pipes, outputs) = self.collector.attach(worker, &name, &process)?;
        let (dress, applied) = process.parts(pipes);
        Ok((self.shared.ground.order(name, launch, program, dress), applied, outputs))
    }

    /// Asks a worker to stop. The deadline's kill is the machine's.
    pub(crate) fn ask_to_stop(&mut self, worker: WorkerId, why: StopReason, deadline: Option<Duration>) {
        if let Some(ordered) = self.ordered.get_mut(&worker) {
            ordered.stop = Some((why, deadline));
            return;
        }
        let Some(live) = self.live.get_mut(&worker) else { return };
        live.asked = true;
        let (name, pid) = (live.name.clone(), live.process.pid());
        self.story(Story::Stopping { worker, name, pid });
        self.drain(worker, why, deadline);
    }

    /// Takes a worker's intake away, and tells it to stop when what it had taken in has begun.
    pub(crate) fn drain(&mut self, worker: WorkerId, why: StopReason, deadline: Option<Duration>) {
        let (quiet, told) = oneshot::channel();
        let event = extension::Event::Draining { worker, quiet };
        let nobody = self.extension.as_ref().is_none_or(|net| net.send(event).is_err());
        // One that was replaced is still to give its mailbox over; it closes no connection before it is quiet.
        if nobody || why == StopReason::Reload {
            return self.send(worker, &ToWorker::Stop { why, deadline }, Vec::new());
        }
        let shared = self.shared.clone();
        background::spawn(async move {
            // Quiet, too late or gone: all mean that the stop goes on.
            let _ = tokio::time::timeout(DRAIN_LIMIT, told).await;
            shared.command(Command::StopNow { worker, why, deadline });
        });
    }

    /// Ends a worker that the tree wants gone. One that was starting may be ready in this very moment: unless it has had all
    /// its time, or everything must end now, it is asked first.
    fn kill_or_cancel(&mut self, worker: WorkerId) {
        let cancelled = self.live.get(&worker).is_some_and(|live| {
            !live.ready && !live.asked && !live.killed && live.ordered.elapsed() < live.start_timeout
        });
        if !cancelled || self.now || !self.tree.is_tree() {
            return self.kill(worker);
        }
        self.ask_to_stop(worker, StopReason::Shutdown, Some(SHUTDOWN));
        let shared = self.shared.clone();
        background::spawn(async move {
            tokio::time::sleep(SHUTDOWN).await;
            shared.command(Command::TermDeadline { worker });
        });
    }

    /// Ends a worker's process now.
    pub(crate) fn kill(&mut self, worker: WorkerId) {
        if let Some(ordered) = self.ordered.get_mut(&worker) {
            ordered.kill = true;
            self.spawner.cancel(worker);
        }
        if let Some(live) = self.live.get_mut(&worker) {
            live.killed = true;
            live.process.kill();
        }
    }

    /// Tells a new process who it is, what lanes it has, and that it may begin.
    pub(crate) fn send_boot(
        &mut self,
        worker: WorkerId,
        ordered: &mut Ordered,
        name: String,
        index: u32,
    ) -> Result<(), String> {
        let launch = self.launches.get(&ordered.launch).ok_or("a child without a launch")?;
        let (age, limits) = launch.recycle.map_or_else(Default::default, |recycle| recycle.drawn(fastrand::f64));
        let Some(live) = self.live.get_mut(&worker) else { return Ok(()) };
        (live.age, live.recycles) = (age, launch.recycle.is_some());
        let seated = live.seated.clone();
        let mut fds = Vec::new();
        if launch.stdin {
            let stdin =
                rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(|error| error.to_string())?;
            fds.push(Arc::new(stdin));
        }
        let boot = BootMessage {
            identity: ordered.program.as_ref().map_or(self.identity, |program| program.identity),
            supervisor: std::process::id(),
            worker,
            name,
            index,
            attempt: ordered.attempt,
            previous: ordered.previous.clone(),
            role: (launch.role.key)().into_owned(),
            awaits_listener: seated.successor && self.listened.contains(&worker.slot),
            args: launch.args.of(worker)?,
            threads: self.home.threads as u32,
            descriptors: self.home.descriptors,
            stdin: launch.stdin,
            applied: std::mem::take(&mut ordered.applied),
            again: self.again.get(&worker.slot).filter(|_| seated.reads).map(|again| (again.peer, again.deliveries)),
            seat: seated.seat,
            schemas: ((launch.role.schema)(), (launch.role.args)()),
            limits,
        };
        self.send(worker, &ToWorker::Boot(Box::new(boot)), fds);
        let board = &self.shared.board;
        let mut lanes = board.lanes_of(seated.seat, board.part(seated.seat, false));
        if seated.reads && board.part(worker.slot, true) == Part::Inbox {
            lanes.extend(board.lanes_of(worker.slot, Part::Inbox));
        }
        for parts in lanes {
            self.send_lane(worker, parts);
        }
        self.send(worker, &ToWorker::Begin, Vec::new());
        Ok(())
    }

    /// Sends both sides of a lane their part, where they live and have not had it.
    pub(crate) fn share_lane(&mut self, a: Slot, b: Slot) {
        for (me, peer) in [(a, b), (b, a)] {
            if let Some(own) = self.own(me) {
                self.share_with(&own, peer);
                continue;
            }
            for (worker, part) in self.holders(me) {
                if let Ok((parts, _)) = self.shared.board.open(me, peer, part) {
                    self.send_lane(worker, parts);
                }
            }
        }
    }

    /// An endpoint of this process: its body's, or a test's probe.
    pub(crate) fn own(&self, slot: Slot) -> Option<Arc<Endpoint>> {
        if slot == Slot::SUPERVISOR { Some(self.endpoint.clone()) } else { self.shared.probe(slot) }
    }

    /// This process's own part, so that its body hears of messages from a lane that a worker asked for.
    fn share_with(&self, own: &Arc<Endpoint>, peer: Slot) {
        if let Ok((parts, _)) = self.shared.board.open(own.me().slot, peer, Part::Whole) {
            if let Err(error) = own.add(parts) {
                let name = self.shared.name(peer);
                let text = format!("the supervisor cannot map its lane: {error}");
                let worker = WorkerId { slot: peer, incarnation: Incarnation(0) };
                self.story(Story::Distrusted { worker, name, error: text });
            }
        }
    }

    /// Gives a lane new doorbells, or all of it anew, and everybody who has it the new one.
    pub(crate) fn renew_lane(&mut self, a: Slot, b: Slot, fresh: bool) {
        if let Err(error) = self.shared.board.renew(a, b, fresh) {
            // It stays as it is, of no use, until there is another reason to renew it.
            let (address, peer) = (self.shared.name(a), self.shared.name(b));
            let text = format!("its lane with {peer} cannot be renewed: {error}");
            return self.story(Story::Troubled { address, text });
        }
        if fresh {
            // Positions begin anew: what was kept under old ones would be taken for what comes.
            for (writer, reader) in [(a, b), (b, a)] {
                for ring in [Ring::Messages, Ring::Replies] {
                    self.shared.depot.reader_died((writer, reader, ring), u64::MAX);
                }
                self.tell_tracks(writer, reader, (0, u64::MAX), &ExitReason::Unknown);
                if self.again.get(&reader).is_some_and(|again| again.peer == writer) {
                    self.again.remove(&reader);
                }
            }
            self.tracks.forget(a, b);
        }
        for live in self.live.values_mut() {
            live.lanes.remove(&(a, b));
            live.lanes.remove(&(b, a));
        }
        self.share_lane(a, b);
    }

    fn send_lane(&mut self, worker: WorkerId, parts: Parts) {
        let Some(live) = self.live.get_mut(&worker) else { return };
        if parts.bells.is_empty() {
            // It could not be renewed when it was to have another doorbell.
            return self.renew_lane(parts.me, parts.peer, false);
        }
        if !live.lanes.insert((parts.me, parts.peer)) {
            return;
        }
        let mut fds = vec![parts.memory];
        let bells = parts.bells.len() as u32;
        fds.extend(parts.bells);
        fds.extend(parts.ringer);
        let Parts { me, peer, part, end, sizes, generation, fresh, .. } = parts;
        self.send(worker, &ToWorker::Lane { me, peer, part, end, bells, sizes, generation, fresh }, fds);
    }

    /// Puts in order what a dead process leaves: its lanes, the questions it had taken, those who watch it.
    pub(crate) fn clean_up(&mut self, worker: WorkerId, reason: &ExitReason) {
        self.tell_extension(extension::Event::Gone { worker });
        let slot = worker.slot;
        // One that could not be started has left nothing.
        let Some(had) = self.leaving.remove(&worker) else { return };
        let name = self.shared.name(slot);
        let mut sides = vec![(had.seat, self.shared.board.part(had.seat, false))];
        if had.reads && self.shared.board.part(slot, true) == Part::Inbox {
            sides.push((slot, Part::Inbox));
        }
        for (side, part) in sides {
            self.spoilt.remove(&side);
            self.endpoint.repair(side, part, self.holders(side).is_empty());
        }
        // Its last packets first: they may belong to records that it did commit.
        let _ = self.shared.depot.take_in(had.seat, &self.shared.board);
        self.shared.depot.remove_porter(had.seat);
        // Who hears of it, and what it had taken of theirs.
        let mut peers: HashMap<Slot, Option<(u64, u64)>> = HashMap::new();
        for left in self.what_it_left(worker, had.seat, had.reads) {
            self.bury(worker, &name, reason, &left);
            let taken = left.taken.map(|taken| (self.taken_before(slot, left.peer), taken));
            let known = peers.entry(left.peer).or_default();
            *known = taken.or(*known);
            if left.deaf {
                self.renew_lane(left.side, left.peer, false);
            }
        }
        peers.extend(had.gave_up.iter().map(|(peer, taken)| (*peer, Some((0, *taken)))));
        let was_current = !had.retired && !had.successor;
        let watchers = if was_current { self.watchers.remove(&slot).unwrap_or_default() } else { HashSet::new() };
        let mut told = Vec::new();
        for (peer, taken) in peers {
            if let Some(taken) = taken {
                self.tell_tracks(peer, slot, taken, reason);
            }
            let taken = taken.unwrap_or((0, 0));
            if let Some(own) = self.own(peer) {
                own.peer_died(slot, had.seat, taken, reason);
            } else if let Some(peer) = self.seated(peer) {
                told.push(peer);
                self.send_down(peer, worker, had.seat, &name, Some(taken), reason, watchers.contains(&peer));
            }
        }
        self.lanes_closed(had.seat);
        for watcher in watchers {
            if !told.contains(&watcher) {
                self.send_down(watcher, worker, had.seat, &name, None, reason, true);
            }
        }
        if was_current {
            for live in self.live.iter_mut().filter(|(other, _)| other.slot == slot).map(|(_, live)| live) {
                // What a reload was starting takes its place.
                live.seated.successor = false;
            }
        }
        self.inherit(slot);
    }

    #[allow(clippy::too_many_arguments)] // the fields of one word
    fn send_down(
        &self,
        to: WorkerId,
        worker: WorkerId,
        seat: Slot,
        name: &str,
        taken: Option<(u64, u64)>,
        reason: &ExitReason,
        watched: bool,
    ) {
        let (name, reason) = (name.to_owned(), reason.clone());
        self.send(to, &ToWorker::PeerDown { worker, seat, name, taken, reason, watched }, Vec::new());
    }

    pub(crate) fn dead_letter(&self, to: WorkerId, name: &str, from: Slot, reason: DeadReason, bytes: Vec<u8>) {
        let size = bytes.len() as u64;
        self.dead_large(to, name, from, reason, bytes, size);
    }

    /// The same for a message of this size, whatever of it is here.
    pub(crate) fn dead_large(
        &self,
        to: WorkerId,
        name: &str,
        from: Slot,
        reason: DeadReason,
        bytes: Vec<u8>,
        size: u64,
    ) {
        let text = match &reason {
            DeadReason::Died(reason) => format!("its worker died with it in hand ({reason})"),
            DeadReason::Undecodable(error) => format!("it cannot be decoded ({error})"),
            DeadReason::Quarantined { deliveries, last } => {
                format!("{deliveries} incarnations died with it in hand (the last: {last})")
            }
            DeadReason::Discarded(reason) => format!("the mailbox is emptied at a restart (after: {reason})"),
            DeadReason::Closed => "its slot will never be filled again".to_owned(),
        };
        self.story(Story::DeadLetter { worker: to, name: name.to_owned(), bytes: size as usize, reason: text });
        self.shared.dead.put_large(to, name, from.place(), reason, bytes, Some(size));
    }

    /// A test's probe is gone: nobody can send to it any more, and those who watch it hear of its end.
    pub(crate) fn forget_probe(&mut self, slot: Slot) {
        let Some(endpoint) = self.shared.probes.lock().remove(&slot) else { return };
        for watcher in self.watchers.remove(&slot).unwrap_or_default() {
            let me = endpoint.me();
            self.send_down(watcher, me, me.slot, endpoint.name(), None, &ExitReason::Normal, true);
        }
        self.forget(slot);
    }

    /// A slot that will never be filled again.
    fn forget(&mut self, slot: Slot) {
        self.tell_extension(extension::Event::Forgotten { slot });
        let incarnation = self.last.get(&slot).map_or(Incarnation(0), |(_, incarnation)| *incarnation);
        let gone = Gone { worker: WorkerId { slot, incarnation }, name: self.shared.name(slot) };
        if let Some((launch, _)) = self.last.remove(&slot) {
            // A copy's arguments are its own; what others run stays.
            if self.launches.get(&launch).is_some_and(|launch| launch.copy) {
                self.launches.remove(&launch);
            }
        }
        self.watchers.remove(&slot);
        self.seats.remove(&slot);
        self.reloads.forget(slot);
        // Who sends to a pool knows that it has shrunk before its member's lane is closed.
        for pool in self.strike(slot) {
            self.pool_changed(&pool);
        }
        self.give_up(gone);
    }

    /// Takes a slot out of the directory. Returns the pools that have fewer members now.
    fn strike(&self, slot: Slot) -> Vec<String> {
        let mut directory = self.shared.directory.write();
        directory.nodes.retain(|_, node| *node != slot);
        if let Some(path) = directory.slots.remove(&slot) {
            if directory.workers.get(&path).is_some_and(|found| found.slot == slot) {
                directory.workers.remove(&path);
            }
        }
        let mut changed = Vec::new();
        for (path, members) in &mut directory.pools {
            let before = members.len();
            members.retain(|found| found.slot != slot);
            if members.len() < before {
                changed.push(path.clone());
            }
        }
        changed
    }

    /// A pool has other members now: tells everybody who has looked it up.
    pub(crate) fn pool_changed(&mut self, path: &str) {
        let members = self.shared.directory.read().pools.get(path).cloned().unwrap_or_default();
        self.endpoint.pool_changed(path, members.clone());
        let Some(mut users) = self.pool_users.remove(path) else { return };
        users.retain(|user| self.live.contains_key(user));
        for user in &users {
            self.send(*user, &ToWorker::Pool { path: path.to_owned(), members: members.clone() }, Vec::new());
        }
        if !users.is_empty() {
            self.pool_users.insert(path.to_owned(), users);
        }
    }

    fn path(&self, slot: Slot) -> String {
        self.tree.place(slot).map_or_else(|| self.shared.name(slot), |place| place.path)
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Restarting { slot, delay, attempt } => {
                let kind = if delay.is_zero() { EventKind::Restarting } else { EventKind::BackingOff(delay) };
                let ended = self.last.get(&slot).map(|(_, incarnation)| WorkerId { slot, incarnation: *incarnation });
                self.shared.tell(kind, &self.path(slot), ended, None);
                self.story(Story::Restarting { name: self.path(slot), delay, attempt });
            }
            Notice::GaveUp(give_up) => {
                let node = if give_up.supervisor == Slot::SUPERVISOR {
                    "the supervisor".to_owned()
                } else {
                    self.path(give_up.supervisor)
                };
                let text = error::gave_up(&self.path(give_up.child), &give_up);
                if self.tree.place(give_up.child).is_none_or(|place| !place.is_supervisor) {
                    self.innermost = Some((self.path(give_up.child), give_up.clone()));
                }
                self.shared.tell(EventKind::GaveUp(give_up), &node, None, None);
                self.story(Story::GaveUp { name: node, text });
            }
            Notice::Up { .. }
            | Notice::Ended { .. }
            | Notice::Down { .. }
            | Notice::SupervisorUp { .. }
            | Notice::SupervisorDown { .. } => {}
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Stopped => self.finish(Ok(()), None),
            End::StartFailed { slot, reason } => {
                let child = self.path(slot);
                let error = StartError::Child { child, reason };
                self.finish(Err(RunError::Lost), Some(error));
            }
            End::GaveUp(give_up) => {
                // What the program is told is the child that began it, not the chain of supervisors above.
                let own = (self.path(give_up.child), give_up);
                let (child, give_up) = self.innermost.take().unwrap_or(own);
                self.finish(Err(RunError::GaveUp { child, give_up: Box::new(give_up) }), None);
            }
            End::AutoShutdown { slot } => {
                let child = self.path(slot);
                self.finish(Err(RunError::AutoShutdown { child }), None);
            }
        }
    }
}
