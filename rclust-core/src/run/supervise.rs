//! The supervisor's loop, on the thread *tree*: hears workers, signals and orders, and lets the machine decide.
//!
//! Two threads stand beside it: *spawn* starts processes, *net* belongs to the extension. No user code runs on any of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::child_spec::{Args, Launch};
use crate::cluster::Cluster;
use crate::error::{RunError, StartError};
use crate::events::EventKind;
use crate::exit::{ExitReason, StopReason};
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::ipc::link::{Outgoing, SupervisorEnd};
use crate::mailbox::dead::DeadReason;
use crate::mailbox::endpoint::Endpoint;
use crate::process::spawn::{Program, Spawned, Spawner, Started};
use crate::process::watch::{self, Status, Watched};
use crate::run::boot::{Booted, Home, booted};
use crate::run::decider::Decider;
use crate::run::keeper::{self, FromWorker};
use crate::run::shared::{Command, InSupervisor, Shared};
use crate::sys::identity::Identity;
use crate::trace::Story;
use crate::tree::event::{Action, Answer as Managed, CallId, Event, Request as Management, Time};
use crate::tree::machine::Tree;
use crate::tree::plan::{ChildKind, ChildPlan, SupervisorPlan};
use crate::wire::control::{Answer, Ending, Found, Request, ToSupervisor, ToWorker};

/// Words of workers that wait for the loop; more of them wait in the workers' links.
const WORDS: usize = 256;

/// Frames that wait for one worker to read; one that lets more pile up has not read its control link for long.
pub(crate) const FRAMES: usize = 8192;

/// Questions of one worker to the extension that may be open.
const ASKING: u32 = 256;

/// How long a stop waits for connections that nobody has taken.
const QUIET_LIMIT: Duration = Duration::from_secs(1);

/// A worker that was sent SIGTERM waits so long for the order that a service manager sends to everybody at once.
const TERM_GRACE: Duration = Duration::from_millis(100);

/// Stories that wait for the main thread.
const STORIES: usize = 1024;

/// Starts a tree in a process that passed boot as supervisor.
pub(crate) async fn start(plan: SupervisorPlan, launches: Vec<Launch>) -> Result<Cluster, StartError> {
    let home = match booted() {
        Some(Booted::Supervisor(home)) => home,
        Some(Booted::Worker) => return Err(StartError::InWorker),
        None => return Err(StartError::NotBooted),
    };
    check_roles(&plan, "", &launches, home)?;
    let tree = Tree::new(plan, fastrand::u64(..))?;
    let (shared, endpoint, up) = open(Decider::Tree(Box::new(tree)), launches)?;
    match up.await {
        Ok(Ok(())) => Ok(Cluster::new(shared, endpoint)),
        // An operator's stop while the tree was starting is a graceful end of the program: `boot` ends the body here.
        Ok(Err(StartError::Stopped)) => {
            home.stopped_early.notify_one();
            std::future::pending().await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Ended(RunError::Lost)),
    }
}

/// What a started supervisor gives: the last part tells when every child is up.
type Opened = (Arc<Shared>, Arc<Endpoint>, oneshot::Receiver<Result<(), StartError>>);

/// Starts the threads, with the tree or a player to decide.
pub(crate) fn open(decider: Decider, launches: Vec<Launch>) -> Result<Opened, StartError> {
    let home = match booted() {
        Some(Booted::Supervisor(home)) => home,
        Some(Booted::Worker) => return Err(StartError::InWorker),
        None => return Err(StartError::NotBooted),
    };
    let mut running = home.running.lock();
    if running.is_some() {
        return Err(StartError::AlreadyRunning);
    }
    let (commands, orders) = mpsc::unbounded_channel();
    let shared = Shared::new(commands);
    let me = WorkerId { slot: Slot::SUPERVISOR, incarnation: Incarnation(1) };
    let upstream = Box::new(InSupervisor(shared.clone()));
    let endpoint = Endpoint::new(me, "the supervisor".to_owned(), home.runtime.clone(), upstream);
    endpoint.set_ready();
    endpoint.install();
    *running = Some(shared.clone());
    drop(running);

    let (told, up) = oneshot::channel();
    let (stories, teller) = mpsc::channel(STORIES);
    let missed = Arc::new(AtomicU64::new(0));
    home.teller.lock().replace(home.runtime.spawn(tell(teller, missed.clone())));
    let next_launch = launches.len() as u32;
    let launches: HashMap<u32, Launch> = (0..).zip(launches).collect();
    list(&shared, &decider, &launches, Slot::SUPERVISOR);
    let setup = Setup {
        tree: decider,
        launches,
        next_launch,
        shared: shared.clone(),
        endpoint: endpoint.clone(),
        home,
        orders,
        told,
        stories,
        missed,
        extension: home.extensions.lock().pop(),
    };
    std::thread::Builder::new().name("rclust-tree".to_owned()).stack_size(512 << 10).spawn(move || run(setup))?;
    Ok((shared, endpoint, up))
}

/// Compares every type in the tree with the program's list, before anything is started.
fn check_roles(plan: &SupervisorPlan, path: &str, launches: &[Launch], home: &Home) -> Result<(), StartError> {
    for child in &plan.children {
        let path = if path.is_empty() { child.name.clone() } else { format!("{path}/{}", child.name) };
        check_role(child, &path, launches, home)?;
    }
    Ok(())
}

fn check_role(child: &ChildPlan, path: &str, launches: &[Launch], home: &Home) -> Result<(), StartError> {
    let launch = match &child.kind {
        ChildKind::Supervisor(inner) => return check_roles(inner, path, launches, home),
        ChildKind::Worker { launch } => launches.get(*launch as usize),
    };
    let Some(launch) = launch else { return Ok(()) };
    if !home.roles.iter().any(|role| (role.id)() == (launch.role.id)()) {
        let listed: Vec<&str> = home.roles.iter().map(|role| (role.name)()).collect();
        let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
        return Err(StartError::UnknownRole { child: path.to_owned(), role: (launch.role.name)().to_owned(), listed });
    }
    match &launch.args {
        Args::Same(Err(error)) if !launch.template => {
            Err(StartError::Args { child: path.to_owned(), error: error.clone() })
        }
        _ => Ok(()),
    }
}

/// The same for a child that is added at run time.
pub(crate) fn check_child(child: &ChildPlan, launches: &[Launch]) -> Result<(), StartError> {
    match booted() {
        Some(Booted::Supervisor(home)) => check_role(child, &child.name, launches, home),
        Some(Booted::Worker) => Err(StartError::InWorker),
        None => Err(StartError::NotBooted),
    }
}

/// Lists a node of the tree, and everything below it that has no entry yet, in the directory.
pub(crate) fn list(shared: &Shared, tree: &Decider, launches: &HashMap<u32, Launch>, node: Slot) {
    let mut directory = shared.directory.write();
    let mut open = vec![node];
    while let Some(slot) = open.pop() {
        let Some(place) = tree.place(slot) else { continue };
        if place.is_supervisor {
            directory.nodes.entry(place.path).or_insert(slot);
            open.extend(tree.children(slot));
        } else if let Entry::Vacant(entry) = directory.slots.entry(slot) {
            entry.insert(place.path.clone());
            let launch = place.launch.and_then(|launch| launches.get(&launch));
            let takes = launch.map_or("", |launch| (launch.role.takes)());
            let found = Found { slot, name: place.path.clone(), takes: takes.to_owned() };
            if let Some(pool) = place.pool.and_then(|pool| tree.place(pool)) {
                let members = directory.pools.entry(pool.path).or_default();
                let at = members.partition_point(|member| member.slot < slot);
                members.insert(at, found.clone());
            }
            directory.workers.insert(place.path, found);
        }
    }
}

/// Tells stories on the main thread, where blocking holds up nobody but the program's own body.
async fn tell(mut stories: mpsc::Receiver<Story>, missed: Arc<AtomicU64>) {
    while let Some(story) = stories.recv().await {
        story.tell();
        let missed = missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            Story::Missed { stories: missed }.tell();
        }
    }
}

struct Setup {
    tree: Decider,
    launches: HashMap<u32, Launch>,
    next_launch: u32,
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    home: &'static Home,
    orders: mpsc::UnboundedReceiver<Command>,
    told: oneshot::Sender<Result<(), StartError>>,
    stories: mpsc::Sender<Story>,
    missed: Arc<AtomicU64>,
    extension: Option<Box<dyn extension::Extension>>,
}

fn run(setup: Setup) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            setup.shared.set_ended(Err(RunError::Lost));
            let _ = setup.told.send(Err(StartError::Os(error)));
            return;
        }
    };
    runtime.block_on(supervise(setup));
}

/// A process that lives.
pub(crate) struct Live {
    pub(crate) process: Watched,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) name: String,
    pub(crate) online: bool,
    pub(crate) ready: bool,
    /// Its link is closed.
    pub(crate) unlinked: bool,
    /// It said that it was sent SIGTERM.
    pub(crate) terminated: bool,
    /// It said that it has room, and the extension has not looked yet.
    pub(crate) room: Arc<AtomicBool>,
    /// Its questions that the extension has not answered.
    pub(crate) asking: u32,
    /// Asked to stop.
    pub(crate) asked: bool,
    /// Killed by us.
    pub(crate) killed: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) start_timeout: Duration,
    /// The peers whose lanes it was sent.
    pub(crate) lanes: HashSet<Slot>,
}

/// A process that has been ordered and is not there yet.
pub(crate) struct Ordered {
    pub(crate) launch: u32,
    pub(crate) attempt: u32,
    pub(crate) previous: Option<ExitReason>,
    pub(crate) kill: bool,
    pub(crate) stop: Option<(StopReason, Option<Duration>)>,
}

/// Everything the *tree* thread has. Decisions come from `tree`; `perform` carries them out.
pub(crate) struct Supervise {
    pub(crate) tree: Decider,
    pub(crate) launches: HashMap<u32, Launch>,
    pub(crate) calls: HashMap<CallId, oneshot::Sender<Managed>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) home: &'static Home,
    pub(crate) spawner: Spawner,
    pub(crate) identity: Identity,
    pub(crate) live: HashMap<WorkerId, Live>,
    pub(crate) ordered: HashMap<WorkerId, Ordered>,
    /// Who wants to hear of a slot's next end.
    pub(crate) watchers: HashMap<Slot, HashSet<WorkerId>>,
    pub(crate) extension: Option<mpsc::UnboundedSender<extension::Event>>,
    pub(crate) told: Option<oneshot::Sender<Result<(), StartError>>>,
    pub(crate) ended: bool,
    next_launch: u32,
    next_call: u64,
    events: mpsc::Sender<FromWorker>,
    started: Instant,
    stories: mpsc::Sender<Story>,
    missed: Arc<AtomicU64>,
    /// Whether the order to stop has been given (the machine may hear of it later, when connections are quiet).
    stopping: bool,
}

async fn supervise(setup: Setup) {
    let (events, mut from_workers) = mpsc::channel(WORDS);
    let (spawned, mut newborn) = mpsc::unbounded_channel::<Spawned>();
    let shared = setup.shared.clone();
    let prepared = prepare(setup, events, spawned);
    let (mut own, mut orders, mut signals) = match prepared {
        Ok(prepared) => prepared,
        Err((told, error)) => {
            shared.set_ended(Err(RunError::Lost));
            let _ = told.send(Err(StartError::Os(error)));
            return;
        }
    };
    own.decide(Event::Boot);
    while !own.ended {
        let wakeup = own.tree.poll_wakeup().map(|at| tokio::time::Instant::from_std(own.started + at));
        let timer = async {
            match wakeup {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Signals first: an order that reaches everybody must not be overtaken by the ends it causes.
            biased;
            name = signals.next() => own.signal(name),
            Some(command) = orders.recv() => own.command(command),
            Some(spawned) = newborn.recv() => own.born(spawned),
            Some(event) = from_workers.recv() => own.heard(event),
            () = timer => own.decide(Event::Wakeup),
        }
    }
    own.endpoint.close();
    drop(own);
}

type Prepared = (Supervise, mpsc::UnboundedReceiver<Command>, Signals);

fn prepare(
    setup: Setup,
    events: mpsc::Sender<FromWorker>,
    spawned: mpsc::UnboundedSender<Spawned>,
) -> Result<Prepared, (oneshot::Sender<Result<(), StartError>>, io::Error)> {
    let Setup { tree, launches, next_launch, shared, endpoint, home, orders, told, stories, missed, extension } = setup;
    let parts = || -> io::Result<(Spawner, Option<mpsc::UnboundedSender<extension::Event>>, Identity, Signals)> {
        let program: Program = home.program.clone();
        let identity = Identity::of(&*program.file)?;
        let spawner = Spawner::start(program, move |outcome| {
            // The loop ends only when nothing is ordered any more.
            let _ = spawned.send(outcome);
        })?;
        let extension = match extension {
            Some(extension) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let supervisor = extension::Supervisor { shared: shared.clone() };
                std::thread::Builder::new()
                    .name("rclust-net".to_owned())
                    .stack_size(512 << 10)
                    .spawn(move || extension.run(receiver, supervisor))?;
                Some(sender)
            }
            None => None,
        };
        Ok((spawner, extension, identity, Signals::new()?))
    };
    match parts() {
        Ok((spawner, extension, identity, signals)) => {
            let own = Supervise {
                tree,
                launches,
                next_launch,
                calls: HashMap::new(),
                next_call: 0,
                shared,
                endpoint,
                home,
                spawner,
                identity,
                live: HashMap::new(),
                ordered: HashMap::new(),
                watchers: HashMap::new(),
                extension,
                told: Some(told),
                ended: false,
                events,
                started: Instant::now(),
                stories,
                missed,
                stopping: false,
            };
            Ok((own, orders, signals))
        }
        Err(error) => Err((told, error)),
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            _ = self.hup.recv() => "SIGHUP",
        }
    }
}

impl Supervise {
    /// Lets the machine decide, and begins what it decided. Never waits.
    pub(crate) fn decide(&mut self, event: Event) {
        let now: Time = self.started.elapsed();
        self.tree.handle(now, event);
        self.perform_all();
    }

    fn perform_all(&mut self) {
        let mut answers = Vec::new();
        while let Some(action) = self.tree.poll_action() {
            match action {
                Action::Answer { call, answer } => answers.push((call, answer)),
                action => self.perform(action),
            }
        }
        // A caller that hears that something is done finds it done.
        for (call, answer) in answers {
            self.perform(Action::Answer { call, answer });
        }
    }

    /// Has a story told on the main thread. Never waits.
    pub(crate) fn story(&self, story: Story) {
        if self.stories.try_send(story).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A frame for a worker. One that does not read its link for so long gets no more, and no longer life.
    pub(crate) fn send(&self, worker: WorkerId, word: &ToWorker, fds: Vec<Arc<std::os::fd::OwnedFd>>) {
        let Some(live) = self.live.get(&worker) else { return };
        let Ok(frame) = Outgoing::new(word, fds) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = live.outgoing.try_send(frame) {
            live.process.kill();
        }
    }

    fn signal(&mut self, name: &'static str) {
        if name == "SIGHUP" {
            self.story(Story::Signal { name, meaning: "ignored (reload is not there yet)" });
        } else if self.stopping {
            self.story(Story::Signal { name, meaning: "a second one: stopping now" });
            self.decide(Event::Kill);
        } else {
            self.story(Story::Signal { name, meaning: "stopping" });
            self.stop();
        }
    }

    /// Stops the tree in order; first, connections that nobody has taken find a worker.
    fn stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        let (quiet, told) = oneshot::channel();
        let asked = self.extension.as_ref().is_some_and(|net| net.send(extension::Event::Quiet(quiet)).is_ok());
        if !asked {
            return self.decide(Event::Stop);
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            // Quiet, too late or gone: all mean that the stop goes on.
            let _ = tokio::time::timeout(QUIET_LIMIT, told).await;
            shared.command(Command::Quiet);
        });
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Stop => self.stop(),
            Command::Quiet => self.decide(Event::Stop),
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
                let pid = self.live.get(&worker).map(|live| live.process.pid());
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
            Command::Distrust { slot } => {
                let current = self.live.keys().find(|worker| worker.slot == slot).copied();
                if let Some(worker) = current {
                    self.distrust(worker, "its mailbox ring to the supervisor is corrupt".to_owned());
                }
            }
        }
    }

    /// A management call: what it wants run is numbered, and what it adds to the tree is listed before it starts.
    fn manage(&mut self, mut request: Management, launches: Vec<Launch>, answer: oneshot::Sender<Managed>) {
        let offset = self.next_launch;
        self.next_launch += launches.len() as u32;
        self.launches.extend((offset..).zip(launches));
        let node = match &mut request {
            Management::StartChild { supervisor, child } => {
                crate::supervisor::renumber_child(child, offset);
                Some(*supervisor)
            }
            Management::StartCopy { supervisor, launch } => {
                *launch = offset;
                Some(*supervisor)
            }
            Management::Resize { supervisor, .. } => Some(*supervisor),
            _ => None,
        };
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, answer);
        self.tree.handle(self.started.elapsed(), Event::Call { call, request });
        if let Some(node) = node {
            list(&self.shared, &self.tree, &self.launches, node);
        }
        self.perform_all();
    }

    /// A process was started, or could not be.
    fn born(&mut self, Spawned { worker, outcome }: Spawned) {
        self.spawner.reported(worker);
        let Some(ordered) = self.ordered.remove(&worker) else { return };
        match outcome.and_then(|started| self.adopt(worker, &ordered, started)) {
            Ok(()) => {
                if let Some((why, deadline)) = ordered.stop {
                    self.ask_to_stop(worker, why, deadline);
                }
                if ordered.kill {
                    self.kill(worker);
                }
            }
            Err(error) => self.gone(worker, ExitReason::Spawn(error.to_string())),
        }
    }

    fn adopt(&mut self, worker: WorkerId, ordered: &Ordered, started: Started) -> io::Result<()> {
        let name = self.shared.name(worker.slot);
        let kill_group = self.launches.get(&ordered.launch).is_some_and(|launch| launch.kill_group);
        let process = Watched::new(started.pid, started.pidfd, kill_group)?;
        let link = SupervisorEnd::new(started.link)?;
        let (outgoing, frames) = mpsc::channel(FRAMES);
        let start_timeout = self.launches.get(&ordered.launch).map_or(Duration::ZERO, |launch| launch.start_timeout);
        let pid = process.pid();
        self.live.insert(
            worker,
            Live {
                process: process.clone(),
                outgoing,
                name: name.clone(),
                online: false,
                ready: false,
                unlinked: false,
                terminated: false,
                room: Arc::default(),
                asking: 0,
                asked: false,
                killed: false,
                ending: None,
                start_timeout,
                lanes: HashSet::new(),
            },
        );
        tokio::spawn(keeper::keep(worker, link, process, frames, self.events.clone()));
        self.story(Story::Started { worker, name: name.clone(), pid });
        self.shared.tell(EventKind::Forked, &name, Some(worker), Some(pid));
        let index = self.tree.place(worker.slot).map_or(0, |place| place.index);
        self.tell_extension(extension::Event::Started { worker, name: name.as_str().into(), index: index as usize });
        if let Err(error) = self.send_boot(worker, ordered, name, index) {
            // It cannot be told who it is: it goes, and its end is a failed start.
            if let Some(live) = self.live.get_mut(&worker) {
                live.ending = Some(Ending::Error(error));
            }
            self.kill(worker);
        }
        Ok(())
    }

    fn heard(&mut self, event: FromWorker) {
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
                let (name, pid) = (live.name.clone(), live.process.pid());
                self.shared.tell(EventKind::Ready, &name, Some(worker), Some(pid));
                self.story(Story::Ready { worker, name, pid });
                self.tell_extension(extension::Event::Ready { worker });
                self.decide(Event::Ready { worker });
            }
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
                tokio::spawn(async move {
                    tokio::time::sleep(TERM_GRACE).await;
                    shared.command(Command::TermGrace { worker });
                });
            }
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
            // What the supervisor wrote was spoilt by this worker or its predecessor: the lane is emptied at its end.
            ToSupervisor::CorruptLane { peer: Slot::SUPERVISOR } => self.endpoint.spoilt(worker.slot),
            ToSupervisor::CorruptLane { peer } => {
                // Both could write there: who of the two spoilt it cannot be known, and neither is believed.
                let error = format!("it reports that its lane from {peer} is corrupt");
                let name = live.name.clone();
                self.story(Story::Distrusted { worker, name, error });
            }
        }
    }

    fn asked(&mut self, worker: WorkerId, id: u64, request: Request) {
        use crate::mailbox::endpoint::Located;
        let answer = match request {
            Request::Find { path } => match self.shared.find(&path) {
                Ok(Located::Worker(found)) => Answer::Worker(found),
                Ok(Located::Pool(members)) => Answer::Pool(members),
                Err(_) => Answer::NotFound,
            },
            Request::Lane { peer } => {
                let known = peer == Slot::SUPERVISOR || self.shared.directory.read().slots.contains_key(&peer);
                if !known {
                    Answer::Refused(format!("{peer} does not exist"))
                } else {
                    match self.shared.board.open(worker.slot, peer) {
                        Ok(_) => {
                            self.share_lane(worker.slot, peer);
                            Answer::LaneSent
                        }
                        Err(error) => Answer::Refused(format!("no lane can be made: {error}")),
                    }
                }
            }
            Request::Extension(body) => match &self.extension {
                Some(net) if net.send(extension::Event::Request { worker, id, body }).is_ok() => return,
                _ => Answer::Refused("this program has no such extension".to_owned()),
            },
        };
        self.send(worker, &ToWorker::Answer { id, answer }, Vec::new());
    }

    /// Whose end a worker wants to hear of: at once, if there is nobody.
    fn watch(&mut self, watcher: WorkerId, slot: Slot) {
        if self.live.keys().any(|worker| worker.slot == slot) {
            self.watchers.entry(slot).or_default().insert(watcher);
        } else {
            let worker = WorkerId { slot, incarnation: Incarnation(0) };
            let (name, reason) = (self.shared.name(slot), ExitReason::Unknown);
            self.send(watcher, &ToWorker::PeerDown { worker, name, taken: None, reason, watched: true }, Vec::new());
        }
    }

    /// SIGTERM reached one worker, and no order to stop followed: it alone drains, and is then replaced.
    fn terminated(&mut self, worker: WorkerId) {
        let Some(live) = self.live.get(&worker) else { return };
        if self.stopping || live.asked {
            return;
        }
        let deadline = crate::child_spec::SHUTDOWN;
        self.drain(worker, StopReason::Signal, Some(deadline));
        let shared = self.shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            shared.command(Command::TermDeadline { worker });
        });
    }

    /// A worker did what no worker of ours does: it costs it its life, and nobody else anything.
    fn distrust(&mut self, worker: WorkerId, error: String) {
        let name = self.shared.name(worker.slot);
        self.story(Story::Distrusted { worker, name, error });
        self.kill(worker);
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
        let reason = if live.killed && !live.ready && !live.asked && !self.stopping {
            // Only a start that took too long is killed without having been asked to stop.
            match live.ending {
                Some(Ending::Error(text)) => ExitReason::Error(text),
                _ => ExitReason::StartTimeout(live.start_timeout),
            }
        } else {
            watch::reason(status, live.ending, live.asked)
        };
        let expected = live.asked || self.stopping || reason.is_normal();
        let (name, pid) = (live.name, live.process.pid());
        if !live.unlinked {
            self.shared.tell(EventKind::Disconnected, &name, Some(worker), Some(pid));
        }
        self.shared.tell(EventKind::Exited { reason: reason.clone(), expected }, &name, Some(worker), Some(pid));
        self.story(Story::Exited { worker, name, pid, reason: reason.clone(), expected });
        self.gone(worker, reason);
    }

    /// The process of a worker is no more (or never was): what it left is put in order, then the machine hears of it.
    fn gone(&mut self, worker: WorkerId, reason: ExitReason) {
        self.clean_up(worker, &reason);
        self.decide(Event::Exited { worker, reason });
    }

    pub(crate) fn tell_extension(&self, event: extension::Event) {
        if let Some(net) = &self.extension {
            // The extension's thread ends only with this sender.
            let _ = net.send(event);
        }
    }

    /// Ends the loop: everybody is told how.
    pub(crate) fn finish(&mut self, how: Result<(), RunError>, start: Option<StartError>) {
        let text = match &how {
            Ok(()) => "stopped".to_owned(),
            Err(error) => error.to_string(),
        };
        if let Some(told) = self.told.take() {
            let outcome = match (start, &how) {
                (Some(error), _) => Err(error),
                (None, Err(error)) => Err(StartError::Ended(error.clone())),
                (None, Ok(())) => Err(StartError::Stopped),
            };
            // `start` may have been dropped.
            let _ = told.send(outcome);
        } else {
            self.story(Story::Ended { text });
        }
        self.extension = None;
        // Calls that were never answered hear that the tree has ended by their sender's end.
        self.calls.clear();
        self.shared.set_ended(how);
        self.ended = true;
    }
}
