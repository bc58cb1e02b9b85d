//! The supervisor's loop, on the thread *tree*: hears workers, signals and orders, and lets the machine decide.
//!
//! Two threads stand beside it: *spawn* starts processes, *net* belongs to the extension. No user code runs on any of them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::background;
use crate::child_spec::Launch;
use crate::error::{RunError, StartError};
use crate::events::EventKind;
use crate::exit::ExitReason;
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::ipc::link::{Outgoing, SupervisorEnd};
use crate::mailbox::endpoint::Endpoint;
use crate::process::spawn::{Spawned, Spawner, Started};
use crate::process::watch::Watched;
use crate::run::boot::Home;
use crate::run::bury::{Again, Gone};
use crate::run::collect::Collector;
use crate::run::decider::Decider;
use crate::run::ground::Ground;
use crate::run::keeper::{self, FromWorker};
use crate::run::live::{Live, Ordered};
use crate::run::open::{self, Setup};
use crate::run::recycle::Recycling;
use crate::run::reload::Reloads;
use crate::run::seats::Seated;
use crate::run::shared::{Command, Shared};
use crate::run::signals::{Signals, next_signal};
use crate::run::tracks::Tracks;
use crate::sys::identity::{self, Identity};
use crate::trace::Story;
use crate::tree::event::{Action, Answer as Managed, CallId, Event, GiveUp, Request as Management, Time};
use crate::wire::control::{Ending, ToWorker};

/// Words of workers that wait for the loop; more of them wait in the workers' links.
const WORDS: usize = 256;

/// Frames that wait for one worker to read; one that lets more pile up has not read its control link for long.
pub(crate) const FRAMES: usize = 8192;

/// How long the body has to end when a signal comes after the tree has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the end waits for the extension's.
const EXTENSION_END: Duration = Duration::from_millis(250);

/// How long a stop waits for connections that nobody has taken.
const QUIET_LIMIT: Duration = Duration::from_secs(1);

pub(crate) fn run(setup: Setup) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            setup.shared.set_ended(Err(RunError::Lost));
            let _ = setup.told.send(Err(StartError::Os(error)));
            return;
        }
    };
    let shared = setup.shared.clone();
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(supervise(setup)))).is_err() {
        // A bug of ours. A supervisor that hears nothing any more is worse than none: its workers go with it.
        shared.set_ended(Err(RunError::Lost));
        if shared.ground.has_process() {
            crate::sys::process::exit_now(101);
        }
    }
}

/// Everything the *tree* thread has. Decisions come from `tree`; `perform` carries them out.
pub(crate) struct Supervise {
    pub(crate) tree: Decider,
    pub(crate) launches: HashMap<u32, Launch>,
    pub(crate) calls: HashMap<CallId, oneshot::Sender<Managed>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) home: Arc<Home>,
    pub(crate) spawner: Spawner,
    pub(crate) collector: Collector,
    pub(crate) identity: Identity,
    pub(crate) live: HashMap<WorkerId, Live>,
    pub(crate) ordered: HashMap<WorkerId, Ordered>,
    /// What dead processes had that are not cleaned up.
    pub(crate) leaving: HashMap<WorkerId, Seated>,
    /// Workers that are worn.
    pub(crate) recycling: Recycling,
    /// Which program runs where, and the reloads of the whole tree.
    pub(crate) reloads: Reloads,
    /// The seat of each slot's worker, where it is not (or was once not) the first.
    pub(crate) seats: HashMap<Slot, Slot>,
    /// What each slot ran last, and as which incarnation.
    pub(crate) last: HashMap<Slot, (u32, Incarnation)>,
    /// The messages that were in hand of a dead incarnation, and are delivered again.
    pub(crate) again: HashMap<Slot, Again>,
    /// The slots whose body has listened.
    pub(crate) listened: HashSet<Slot>,
    /// Lanes of slots that are gone with peers that may still write there: (slot, peer).
    pub(crate) closing: HashMap<(Slot, Slot), Gone>,
    /// With whom a slot's lanes were spoilt, in the life of its worker.
    pub(crate) spoilt: HashMap<Slot, HashSet<Slot>>,
    /// Reply ports that were sent on.
    pub(crate) tracks: Tracks,
    /// Who has looked up a pool, by its path.
    pub(crate) pool_users: HashMap<String, HashSet<WorkerId>>,
    /// Who wants to hear of a slot's next end.
    pub(crate) watchers: HashMap<Slot, HashSet<WorkerId>>,
    pub(crate) extension: Option<mpsc::UnboundedSender<extension::Event>>,
    extension_ended: Option<std::sync::mpsc::Receiver<()>>,
    pub(crate) told: Option<oneshot::Sender<Result<(), StartError>>>,
    pub(crate) ended: bool,
    next_launch: u32,
    next_call: u64,
    events: mpsc::Sender<FromWorker>,
    started: Instant,
    stories: mpsc::Sender<Story>,
    missed: Arc<AtomicU64>,
    /// Whether the order to stop has been given (the machine may hear of it later, when connections are quiet).
    pub(crate) stopping: bool,
    /// Whether the machine has heard of it.
    pub(crate) told_stop: bool,
    /// Nothing is waited for any more.
    pub(crate) now: bool,
    /// The first signal that ordered the stop.
    pub(crate) signalled: Option<(&'static str, Instant)>,
    /// The innermost give-up: which worker exhausted its supervisor.
    pub(crate) innermost: Option<(String, GiveUp)>,
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
        let wakeup =
            own.tree.poll_wakeup().and_then(|at| own.started.checked_add(at)).map(tokio::time::Instant::from_std);
        let timer = async {
            match wakeup {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Signals first: an order that reaches everybody must not be overtaken by the ends it causes.
            biased;
            name = next_signal(&mut signals) => own.signal(name),
            Some(command) = orders.recv() => own.command(command),
            Some(spawned) = newborn.recv() => own.born(spawned),
            Some(event) = from_workers.recv() => own.heard(event),
            () = timer => own.decide(Event::Wakeup),
        }
    }
    let (now, has_process) = (own.now, shared.ground.has_process());
    // Calls that come too late find nobody, and their callers hear of that.
    drop((own, orders, newborn, from_workers));
    if !has_process {
        return;
    }
    // The tree has ended; the program's body may go on, or be stuck. The signals are still ours: one more ends the program,
    // unless a second one has come already.
    if !now {
        next_signal(&mut signals).await;
    }
    tokio::time::sleep(LAST_WORDS).await;
    crate::sys::process::exit_now(1);
}

/// The extension's way in, and its end.
type Net = (mpsc::UnboundedSender<extension::Event>, std::sync::mpsc::Receiver<()>);

type Prepared = (Supervise, mpsc::UnboundedReceiver<Command>, Option<Signals>);

fn prepare(
    setup: Setup,
    events: mpsc::Sender<FromWorker>,
    spawned: mpsc::UnboundedSender<Spawned>,
) -> Result<Prepared, (oneshot::Sender<Result<(), StartError>>, io::Error)> {
    let Setup {
        tree,
        launches,
        next_launch,
        shared,
        endpoint,
        home,
        orders,
        told,
        stories,
        missed,
        collector,
        extension,
    } = setup;
    let ground = shared.ground.clone();
    let parts = || -> io::Result<(Spawner, Option<Net>, Identity, Option<Signals>)> {
        let identity = match &*ground {
            Ground::Processes { program, .. } => program.identity,
            Ground::Threads(_) => identity::own_identity()?,
        };
        let spawner = Spawner::start(ground.has_process(), move |outcome| {
            // The loop ends only when nothing is ordered any more.
            let _ = spawned.send(outcome);
        })?;
        let extension = match extension {
            Some(extension) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let supervisor = extension::Supervisor { shared: shared.clone() };
                let (runs, ended) = std::sync::mpsc::channel::<()>();
                std::thread::Builder::new().name("rclust-net".to_owned()).stack_size(512 << 10).spawn(move || {
                    extension.run(receiver, supervisor);
                    drop(runs);
                })?;
                Some((sender, ended))
            }
            None => None,
        };
        // A test's signals are its harness's.
        let signals = if ground.has_process() { Some(Signals::new()?) } else { None };
        Ok((spawner, extension, identity, signals))
    };
    match parts() {
        Ok((spawner, extension, identity, signals)) => {
            let (extension, extension_ended) = extension.unzip();
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
                collector,
                identity,
                live: HashMap::new(),
                ordered: HashMap::new(),
                leaving: HashMap::new(),
                seats: HashMap::new(),
                recycling: Recycling::default(),
                reloads: Reloads::default(),
                last: HashMap::new(),
                again: HashMap::new(),
                listened: HashSet::new(),
                closing: HashMap::new(),
                spoilt: HashMap::new(),
                tracks: Tracks::default(),
                pool_users: HashMap::new(),
                watchers: HashMap::new(),
                extension,
                extension_ended,
                told: Some(told),
                ended: false,
                events,
                started: Instant::now(),
                stories,
                missed,
                stopping: false,
                told_stop: false,
                now: false,
                signalled: None,
                innermost: None,
            };
            Ok((own, orders, signals))
        }
        Err(error) => Err((told, error)),
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

    /// Stops the tree in order; first, connections that nobody has taken find a worker.
    pub(crate) fn stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        let (quiet, told) = oneshot::channel();
        let asked = self.extension.as_ref().is_some_and(|net| net.send(extension::Event::Quiet(quiet)).is_ok());
        if !asked {
            return self.tell_stop();
        }
        let shared = self.shared.clone();
        background::spawn(async move {
            // Quiet, too late or gone: all mean that the stop goes on.
            let _ = tokio::time::timeout(QUIET_LIMIT, told).await;
            shared.command(Command::Quiet);
        });
    }

    /// The machine hears of the stop, once.
    pub(crate) fn tell_stop(&mut self) {
        if !std::mem::replace(&mut self.told_stop, true) {
            self.decide(Event::Stop);
        }
    }

    /// A management call: what it wants run is numbered, and what it adds to the tree is listed before it starts.
    pub(crate) fn manage(&mut self, mut request: Management, launches: Vec<Launch>, answer: oneshot::Sender<Managed>) {
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
                let template = self.tree.template(*supervisor).and_then(|launch| self.launches.get(&launch));
                let like = template.map(|template| (template.process.clone(), template.start_timeout));
                if let Some((copy, (process, start_timeout))) = self.launches.get_mut(&offset).zip(like) {
                    (copy.process, copy.start_timeout) = (process, start_timeout);
                }
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
            for pool in open::list(&self.shared, &self.tree, &self.launches, node) {
                self.pool_changed(&pool);
            }
        }
        self.perform_all();
    }

    /// A process was started, or could not be.
    fn born(&mut self, Spawned { worker, outcome }: Spawned) {
        self.spawner.reported(worker);
        let Some(mut ordered) = self.ordered.remove(&worker) else { return };
        match outcome.and_then(|started| self.adopt(worker, &mut ordered, started)) {
            Ok(()) => {
                if let Some((why, deadline)) = ordered.stop {
                    self.ask_to_stop(worker, why, deadline);
                }
                if ordered.kill {
                    self.kill(worker);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ArgumentListTooLong => {
                let text = format!(
                    "{error}: its arguments and environment are more than the system lets a process have (`getconf ARG_MAX`; one of them \
                     128 KiB): send them in a message, or write a file"
                );
                self.gone(worker, ExitReason::Spawn(text));
            }
            Err(error) => self.gone(worker, ExitReason::Spawn(error.to_string())),
        }
    }

    fn adopt(&mut self, worker: WorkerId, ordered: &mut Ordered, started: Started) -> io::Result<()> {
        let name = self.shared.name(worker.slot);
        let kill_group = self.launches.get(&ordered.launch).is_some_and(|launch| launch.kill_group && !launch.stdin);
        let process = Watched::new(started.begun, kill_group)?;
        let link = SupervisorEnd::new(started.link)?;
        let (outgoing, frames) = mpsc::channel(FRAMES);
        let start_timeout = self.launches.get(&ordered.launch).map_or(Duration::ZERO, |launch| launch.start_timeout);
        let pid = process.pid();
        let seated = self.take_seat(worker).ok_or_else(|| io::Error::other("two processes of its slot live"))?;
        self.live.insert(
            worker,
            Live {
                process: process.clone(),
                outgoing,
                name: name.clone(),
                online: false,
                listening: false,
                ready: false,
                unlinked: false,
                terminated: false,
                room: Arc::default(),
                asking: 0,
                _outputs: std::mem::take(&mut ordered.outputs),
                distrusted: None,
                asked: false,
                killed: false,
                ordered: ordered.at,
                ending: None,
                start_timeout,
                lanes: HashSet::new(),
                seated,
                program: ordered.program.clone(),
                age: None,
                worn: false,
                recycles: false,
                ready_at: None,
                porter: None,
            },
        );
        background::spawn(keeper::keep(worker, link, process, frames, self.events.clone()));
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

    /// The process of a worker is no more (or never was): what it left is put in order, then the machine hears of it.
    pub(crate) fn gone(&mut self, worker: WorkerId, reason: ExitReason) {
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
        if let Some(ended) = self.extension_ended.take() {
            // It puts its things in order (the files of sockets). Stuck in a policy of the program's, it is not waited for.
            let _ = ended.recv_timeout(EXTENSION_END);
        }
        // Nothing can be sent any more, before anybody hears of the end.
        self.endpoint.close();
        self.shared.probes.lock().drain().for_each(|(_, probe)| probe.close());
        // Calls that were never answered hear that the tree has ended by their sender's end.
        self.calls.clear();
        self.shared.set_ended(how);
        self.ended = true;
    }
}
