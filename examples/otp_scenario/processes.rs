//! The world in which every worker is a process: started, told and killed by rclust's own supervisor loop.
//!
//! What happens is the processes' doing: every event that the tree is given has come from one, with the reason that the
//! supervisor loop made of its end. *When* the tree is given it follows the plan that a [`Simulated`] world keeps of
//! what was ordered, and that is legitimate for two reasons:
//!
//! - **Order.** Nothing orders what two processes do at the same time: whichever is heard first, the other could have
//!   been. Of these orders the plan's is taken; an event that is there too early waits for those planned before it.
//!   They come whether or not it is told, since what made them was ordered before. OTP has the same freedom, and its
//!   scenarios leave only those outcomes open that do not show.
//! - **Time.** To start a process takes milliseconds, on a busy machine many; in a scenario it takes none. So the clock
//!   stands while an order is being carried out, and runs (in real time) while there is nothing to do but to wait: for
//!   a `wait`, for a slow worker, for the end of a deaf one's time.
//!
//! An event that was not planned is never held back: the tree hears of it at once, and the trace will show it. One that
//! was planned and does not come is a panic.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rclust::cluster::{self, Context, Error, ExitReason, StartError, StopReason, Worker};
use rclust_core::replay::Processes;
use rclust_core::tree::event::{Action, Event, Time};
use rclust_core::{Slot, WorkerId};
use serde::{Deserialize, Serialize};

use super::scenario::StopStyle;
use super::world::{Birth, Simulated, World};

/// How long a process may take for what it was ordered to do at once. Machines stall; this is for hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The word of a worker that was asked to stop and means to end `normal`: rclust itself calls every such end with exit
/// code 0 `shutdown`, where OTP tells the two apart.
const NORMAL: &str = "(normal)";

/// What one incarnation is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    birth: Birth,
    stop: StopStyle,
    /// Of a held one: see [`closed`].
    door: String,
}

/// The order to end. A mailbox outlives its reader, so it says which incarnation is meant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    incarnation: u32,
    reason: ExitReason,
}

/// A worker that does as its part says.
pub(crate) struct Actor {
    stop: StopStyle,
}

impl Worker for Actor {
    type Msg = End;
    type Args = Part;

    async fn start(part: Part, cx: &mut Context<Self>) -> cluster::Result<Self> {
        match part.birth {
            // Who is to be killed is killed from outside, as soon as it is up.
            Birth::Well | Birth::Doomed(ExitReason::Signal { .. }) => {}
            Birth::Doomed(reason) => {
                let _ = cx.send_after(Duration::ZERO, End { incarnation: cx.id().incarnation.0, reason });
            }
            Birth::Fails(reason) => return Err(error(reason)),
            Birth::Held => {
                closed(&part.door).await?;
                return Err("told to fail".into());
            }
        }
        Ok(Actor { stop: part.stop })
    }

    async fn on_message(&mut self, end: End, cx: &mut Context<Self>) -> cluster::Result<()> {
        match end.reason {
            _ if end.incarnation != cx.id().incarnation.0 => Ok(()),
            // It ends with what it lives for.
            ExitReason::Normal => {
                cx.spawn_linked(async {});
                Ok(())
            }
            reason => Err(error(reason)),
        }
    }

    async fn on_stop(&mut self, _why: StopReason, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match &self.stop {
            StopStyle::Exit(ExitReason::Shutdown) => Ok(()),
            StopStyle::Exit(ExitReason::Normal) => Err(Error::shutdown_with(NORMAL)),
            StopStyle::Exit(reason) => Err(error(reason.clone())),
            StopStyle::Slow(after) => {
                tokio::time::sleep(*after).await;
                Ok(())
            }
            StopStyle::Ignore => std::future::pending().await,
        }
    }
}

/// What a callback returns to end with this reason.
fn error(reason: ExitReason) -> Error {
    match reason {
        ExitReason::Shutdown => Error::shutdown(),
        ExitReason::ShutdownWith(word) => Error::shutdown_with(word),
        ExitReason::Ignored => Error::decline(),
        ExitReason::Error(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// Waits until the player closes the door: an abstract Unix socket at which it listens and lets nobody in. (`start`
/// reads no messages.)
async fn closed(door: &str) -> io::Result<()> {
    let Ok(outside) = UnixStream::connect_addr(&SocketAddr::from_abstract_name(door)?) else {
        return Ok(());
    };
    outside.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(outside)?.readable().await
}

/// The scenario's word for the reason of a real end.
fn in_words(reason: ExitReason) -> ExitReason {
    match reason {
        // An error's text is followed by its place in the source.
        ExitReason::Error(text) => {
            ExitReason::Error(text.rsplit_once(" (at ").map_or(text.as_str(), |(text, _)| text).to_owned())
        }
        ExitReason::ShutdownWith(word) if word == NORMAL => ExitReason::Normal,
        other => other,
    }
}

/// The processes of this program, for one scenario after the other.
pub(crate) struct Stage {
    processes: Processes,
    parts: Arc<Mutex<HashMap<WorkerId, Part>>>,
    /// The highest slot so far: each scenario has slots of its own.
    used: u32,
    spoilt: bool,
}

impl Stage {
    /// Prepares to start processes.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(crate) fn open() -> Result<Stage, StartError> {
        let parts: Arc<Mutex<HashMap<WorkerId, Part>>> = Arc::default();
        let given = parts.clone();
        let part = move |worker| {
            let part = given.lock().expect("nobody panics with it").remove(&worker);
            part.expect("it is there before the start is ordered")
        };
        let processes = Processes::open::<Actor>(part)?;
        // The loop's own order to boot is for trees.
        let _ = processes.next(Some(processes.now() + PATIENCE));
        Ok(Stage { processes, parts, used: 0, spoilt: false })
    }

    /// A world for one scenario. When it is dropped, all its processes are gone.
    pub(crate) fn world(&mut self) -> Real<'_> {
        let (base, plan) = (self.used, Simulated::default());
        Real { stage: self, base, plan, early: Vec::new(), starting: HashMap::new(), doors: HashMap::new() }
    }

    /// Whether a scenario was interrupted, or left something behind.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Without it the program would wait for its tree.
        self.processes.perform(Action::End(rclust_core::tree::event::End::Stopped));
    }
}

/// A world of processes.
pub(crate) struct Real<'a> {
    stage: &'a mut Stage,
    /// What is slot 1 to the tree is slot 1 + `base` on the stage.
    base: u32,
    /// What was ordered and has not been told.
    plan: Simulated,
    /// What has come before its turn.
    early: Vec<Event>,
    /// Those who will be ready and have not said so, with the orders that wait for it.
    starting: HashMap<WorkerId, Vec<Action>>,
    /// Of those who are held.
    doors: HashMap<WorkerId, UnixListener>,
}

impl Real<'_> {
    fn on_stage(&self, worker: WorkerId) -> WorkerId {
        WorkerId { slot: Slot(worker.slot.0 + self.base), ..worker }
    }

    fn in_tree(&self, worker: WorkerId) -> WorkerId {
        WorkerId { slot: Slot(worker.slot.0.saturating_sub(self.base)), ..worker }
    }

    /// Gives an order, once the worker is up: in OTP nobody can stop or kill a child whose start has not returned, its
    /// supervisor waits for it.
    fn order(&mut self, worker: WorkerId, action: Action) {
        match self.starting.get_mut(&worker) {
            Some(waiting) => waiting.push(action),
            None => self.stage.processes.perform(action),
        }
    }

    /// Whether a worker needs no more orders, because it is not there, or ends at once as it was ordered before. (OTP's
    /// signals to one process keep their order; a real kill would overtake what was said before it.)
    fn is_done(&self, worker: WorkerId) -> bool {
        let ends = |(at, _): &(Time, u64), event: &Event| {
            *at <= self.plan.now && matches!(event, Event::Exited { worker: ending, .. } if *ending == worker)
        };
        !self.plan.living.contains_key(&worker) || self.plan.coming.iter().any(|(at, event)| ends(at, event))
    }

    fn kill_on_stage(&mut self, worker: WorkerId) {
        let action = Action::Kill { worker: self.on_stage(worker) };
        self.order(worker, action);
    }

    /// What the processes do next, until this time of the stage's clock.
    fn receive(&mut self, until: Duration) -> Option<Event> {
        let event = self.stage.processes.next(Some(until))?;
        Some(match event {
            Event::Ready { worker } => {
                let worker = self.in_tree(worker);
                for action in self.starting.remove(&worker).unwrap_or_default() {
                    self.stage.processes.perform(action);
                }
                Event::Ready { worker }
            }
            Event::Exited { worker, reason } => {
                let worker = self.in_tree(worker);
                self.starting.remove(&worker);
                self.doors.remove(&worker);
                Event::Exited { worker, reason: in_words(reason) }
            }
            // An operator's signal.
            other => {
                self.stage.spoilt = true;
                other
            }
        })
    }

    /// Waits for a planned event. An event that nothing planned comes instead of it.
    fn await_planned(&mut self, planned: &Event) -> Event {
        if let Some(at) = self.early.iter().position(|event| is_same(event, planned)) {
            return self.early.remove(at);
        }
        loop {
            let until = self.stage.processes.now() + PATIENCE;
            let event = self.receive(until).unwrap_or_else(|| panic!("{planned:?} was ordered and does not come"));
            if is_same(&event, planned) {
                return event;
            }
            if let Some(event) = self.put_aside(event) {
                return event;
            }
        }
    }

    /// Keeps a planned event until its turn; one that was not planned comes back.
    fn put_aside(&mut self, event: Event) -> Option<Event> {
        if self.plan.coming.values().any(|planned| is_same(&event, planned)) {
            self.early.push(event);
            return None;
        }
        if let Event::Exited { worker, .. } = &event {
            self.plan.living.remove(worker);
        }
        Some(event)
    }

    /// Lets time pass, with nothing planned in it.
    fn pass(&mut self, until: Time) -> Option<Event> {
        let end = self.stage.processes.now() + until.saturating_sub(self.plan.now);
        while let Some(event) = self.receive(end) {
            let surprise = self.put_aside(event);
            if surprise.is_some() {
                let left = end.saturating_sub(self.stage.processes.now());
                self.plan.now = self.plan.now.max(until.saturating_sub(left));
                return surprise;
            }
        }
        self.plan.now = self.plan.now.max(until);
        None
    }
}

/// Whether both say the same of the same worker. Why it ended is the real event's to say.
fn is_same(one: &Event, other: &Event) -> bool {
    match (one, other) {
        (Event::Ready { worker: one }, Event::Ready { worker: other }) => one == other,
        (Event::Exited { worker: one, .. }, Event::Exited { worker: other, .. }) => one == other,
        _ => false,
    }
}

impl World for Real<'_> {
    fn now(&self) -> Time {
        self.plan.now
    }

    fn start(&mut self, worker: WorkerId, stop: &StopStyle, birth: Birth) {
        self.plan.start(worker, stop, birth.clone());
        match &birth {
            Birth::Well | Birth::Doomed(_) => drop(self.starting.insert(worker, Vec::new())),
            Birth::Fails(_) | Birth::Held => {}
        }
        if let Birth::Doomed(ExitReason::Signal { .. }) = &birth {
            self.kill_on_stage(worker);
        }
        let on_stage = self.on_stage(worker);
        self.stage.used = self.stage.used.max(on_stage.slot.0);
        let door = format!("rclust-otp-scenario-{}-{on_stage}", std::process::id());
        if let Birth::Held = &birth {
            let listener = SocketAddr::from_abstract_name(&door).and_then(|address| UnixListener::bind_addr(&address));
            self.doors.insert(worker, listener.expect("no other program uses this program's process id"));
        }
        let part = Part { birth, stop: stop.clone(), door };
        self.stage.parts.lock().expect("nobody panics with it").insert(on_stage, part);
        self.stage.processes.perform(Action::Start { worker: on_stage, launch: 0, attempt: 0, previous: None });
    }

    fn stop(&mut self, worker: WorkerId) {
        if self.is_done(worker) {
            return;
        }
        self.plan.stop(worker);
        if let Some(StopStyle::Exit(ExitReason::Signal { .. })) = self.plan.living.get(&worker) {
            return self.kill_on_stage(worker);
        }
        let (on_stage, why) = (self.on_stage(worker), StopReason::Terminated);
        // The tree keeps the deadline.
        self.order(worker, Action::Stop { worker: on_stage, why, deadline: None });
    }

    fn kill(&mut self, worker: WorkerId) {
        if !self.is_done(worker) {
            self.plan.kill(worker);
            self.kill_on_stage(worker);
        }
    }

    fn end(&mut self, worker: WorkerId, reason: ExitReason) {
        if self.is_done(worker) {
            return;
        }
        self.plan.end(worker, reason.clone());
        if self.doors.remove(&worker).is_some() {
            return;
        }
        if let ExitReason::Signal { .. } = reason {
            return self.kill_on_stage(worker);
        }
        let mailbox = self.stage.processes.worker::<Actor>(self.on_stage(worker).slot);
        let sent = mailbox.try_send(End { incarnation: worker.incarnation.0, reason });
        sent.expect("a mailbox has room for one message, and its slot is not forgotten");
        mailbox.flush();
    }

    fn next(&mut self, until: Option<Time>) -> Option<Event> {
        match self.plan.due() {
            Some((at, planned)) if until.is_none_or(|until| at <= until) => {
                let event = self.await_planned(&planned);
                if is_same(&event, &planned) {
                    // The plan's part is done; what it said of the reason is not believed.
                    let _ = self.plan.next(Some(at));
                }
                Some(event)
            }
            _ => until.and_then(|until| self.pass(until)),
        }
    }
}

impl Drop for Real<'_> {
    fn drop(&mut self) {
        // When a scenario is over, nothing of it lives. If something does, it goes now, and the scenario has failed.
        let gone = |worker: &WorkerId| {
            let has_ended = |event: &Event| matches!(event, Event::Exited { worker: ended, .. } if ended == worker);
            self.early.iter().any(has_ended)
        };
        let mut left: Vec<WorkerId> = self.plan.living.keys().filter(|worker| !gone(worker)).copied().collect();
        if !left.is_empty() {
            eprintln!("the scenario is over, and these still live: {left:?}");
            self.stage.spoilt = true;
        }
        for worker in left.clone() {
            self.stage.processes.perform(Action::Kill { worker: self.on_stage(worker) });
        }
        while !left.is_empty() {
            let Some(event) = self.receive(self.stage.processes.now() + PATIENCE) else { break };
            left.retain(|worker| !matches!(&event, Event::Exited { worker: ended, .. } if ended == worker));
        }
        for slot in self.base + 1..=self.stage.used {
            self.stage.processes.perform(Action::Forget { slot: Slot(slot) });
        }
    }
}
