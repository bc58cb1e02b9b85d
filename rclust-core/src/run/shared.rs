//! What the threads of the supervisor process share: names, lanes, dead letters, orders, and how it ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::child_spec::Launch;
use crate::error::{LookupError, RunError};
use crate::events::{EVENTS, Event, EventKind};
use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};
use crate::mailbox::beside::{NotAttached, Tag};
use crate::mailbox::dead::Dead;
use crate::mailbox::depot::{self, Depot};
use crate::mailbox::endpoint::{Endpoint, Located, Tend, Upstream};
use crate::mailbox::lane::Parts;
use crate::mailbox::receiver::Receiver;
use crate::mailbox::switchboard::Switchboard;
use crate::output::OutputLines;
use crate::process::spawn::Program;
use crate::recycle::Worn;
use crate::run::ground::Ground;
use crate::run::probe;
use crate::tree::event::{Action, Answer, Request};
use crate::wire::control::{Found, Part};

/// An order to the *tree* thread.
pub(crate) enum Command {
    /// Stop the tree in order.
    Stop,
    /// A lane was made from this side: its other end is to be sent.
    LaneMade { between: (Slot, Slot) },
    /// The extension has nothing untaken any more (or took too long): go on stopping.
    Quiet,
    /// Nothing that this worker took is unread any more (or it took too long): it may hear that it shall stop.
    StopNow { worker: WorkerId, why: StopReason, deadline: Option<Duration> },
    /// A worker that was sent SIGTERM has waited for an order that reaches everybody.
    TermGrace { worker: WorkerId },
    /// A process that SIGTERM ended is gone; told late, because the same signal may be on its way to the supervisor.
    LateGone { worker: WorkerId, reason: ExitReason },
    /// It had its time.
    TermDeadline { worker: WorkerId },
    /// An answer of the extension to a worker.
    Respond { worker: WorkerId, id: u64, body: Vec<u8>, fds: Vec<Arc<OwnedFd>> },
    /// The extension tells of a listener.
    Listening { worker: WorkerId, address: String },
    /// The extension refused something.
    RefusedListen { worker: WorkerId, address: String, error: String },
    /// The extension tells that a listener is in trouble.
    Troubled { address: String, text: String },
    /// The program wants something of a slot's worker.
    Tend { slot: Slot, order: Tend },
    /// A management call, with what it wants run.
    Call { request: Request, launches: Vec<Launch>, answer: oneshot::Sender<Answer> },
    /// An action of a player that holds the tree.
    Perform(Action),
    /// A reply port of the body's, or a probe's, is in a message of `writer` to `reader`.
    Track { asker: Slot, reader: Slot, writer: Slot, end: u64 },
    /// The lane of an endpoint in this process (`me`) with a slot or a seat is spoilt.
    Corrupt { me: Slot, peer: Slot },
    /// The process in a seat did what no worker of ours does.
    Distrust { seat: Slot, error: String },
    /// A worker that was replaced had its time to finish the message in hand.
    GiveUpDeadline { worker: WorkerId },
    /// A worker has reached a limit at which it is to be replaced.
    Worn { worker: WorkerId, what: Worn },
    /// It is time for that.
    Recycle { worker: WorkerId },
    /// What became of its replacement; `None`: the tree has ended.
    Recycled { worker: WorkerId, answer: Option<Answer> },
    /// A reload of this slot or node, with this program, has ended.
    Deployed { slot: Slot, program: Option<Program>, outcome: Answer, answer: oneshot::Sender<Answer> },
    /// A resize that a signal ordered has ended.
    Resized,
    /// What became of the reload that a signal ordered; `None`: the tree has ended.
    Reloaded { answer: Option<Answer> },
    /// A test has dropped the inbox of a probe.
    ProbeGone { slot: Slot },
    /// A test wants the worker of a slot dead, as by a crash; who it was.
    Crash { slot: Slot, crashed: oneshot::Sender<Option<WorkerId>> },
}

/// The names of the tree.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) workers: HashMap<String, Found>,
    pub(crate) pools: HashMap<String, Vec<Found>>,
    pub(crate) slots: HashMap<Slot, String>,
    /// Supervisor nodes, the root under the empty path.
    pub(crate) nodes: HashMap<String, Slot>,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) directory: RwLock<Directory>,
    pub(crate) board: Switchboard,
    pub(crate) depot: Depot,
    pub(crate) dead: Dead,
    pub(crate) inbox: Arc<tokio::sync::Mutex<Option<Receiver>>>,
    /// The probes of tests that this cluster has met.
    pub(crate) probes: Mutex<HashMap<Slot, Arc<Endpoint>>>,
    /// Where the workers run.
    pub(crate) ground: Arc<Ground>,
    /// What workers write, for the program.
    pub(crate) lines: OutputLines,
    commands: mpsc::UnboundedSender<Command>,
    /// Made when the first stream is asked for.
    events: OnceLock<Mutex<Option<broadcast::Sender<Event>>>>,
    end: watch::Sender<Option<Result<(), RunError>>>,
}

impl Shared {
    pub(crate) fn new(
        ground: Arc<Ground>,
        commands: mpsc::UnboundedSender<Command>,
        lines: OutputLines,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            directory: RwLock::default(),
            board: Switchboard::default(),
            depot: Depot::default(),
            dead: Dead::default(),
            inbox: Arc::default(),
            probes: Mutex::default(),
            ground,
            lines,
            commands,
            events: OnceLock::new(),
            end: watch::channel(None).0,
        })
    }

    /// Gives an order; after the tree's end there is nobody to take it.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// The tree has ended like this.
    pub(crate) fn set_ended(&self, how: Result<(), RunError>) {
        if let Some(events) = self.events.get() {
            *events.lock() = None;
        }
        self.end.send_replace(Some(how));
    }

    /// A stream of what happens from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        let sender = self.events.get_or_init(|| Mutex::new((!self.has_ended()).then(|| broadcast::channel(EVENTS).0)));
        match &*sender.lock() {
            Some(sender) => sender.subscribe(),
            // The tree has ended: a stream that has too.
            None => broadcast::channel(1).1,
        }
    }

    /// Tells whoever listens. Never waits.
    pub(crate) fn tell(&self, kind: EventKind, name: &str, worker: Option<WorkerId>, pid: Option<u32>) {
        let Some(sender) = self.events.get() else { return };
        if let Some(sender) = &*sender.lock() {
            // Nobody may be listening any more.
            let _ = sender.send(Event { kind, name: name.to_owned(), worker, pid, time: SystemTime::now() });
        }
    }

    /// Whether the tree has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits for the tree's end.
    pub(crate) async fn ended(&self) -> Result<(), RunError> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or(Err(RunError::Lost)),
            Err(_) => Err(RunError::Lost),
        }
    }

    /// What a path names.
    pub(crate) fn find(&self, path: &str) -> Result<Located, LookupError> {
        let directory = self.directory.read();
        if let Some(found) = directory.workers.get(path) {
            return Ok(Located::Worker(found.clone()));
        }
        match directory.pools.get(path) {
            Some(members) => Ok(Located::Pool(members.clone())),
            None => Err(LookupError::NotFound { path: path.to_owned() }),
        }
    }

    /// A test's probe, met now or before.
    pub(crate) fn probe(self: &Arc<Self>, slot: Slot) -> Option<Arc<Endpoint>> {
        if self.ground.has_process() {
            return None;
        }
        let mut probes = self.probes.lock();
        if let Some(endpoint) = probes.get(&slot) {
            return Some(endpoint.clone());
        }
        let endpoint = probe::meet(slot, self)?;
        probes.insert(slot, endpoint.clone());
        Some(endpoint)
    }

    /// A slot's worker is ready.
    pub(crate) fn is_up(&self, slot: Slot, path: &str) {
        let mut directory = self.directory.write();
        if let Some(found) = directory.workers.get_mut(path).filter(|found| found.slot == slot) {
            found.up = true;
        }
        if let Some((pool, _)) = path.rsplit_once('[') {
            let members = directory.pools.get_mut(pool).into_iter().flatten();
            members.filter(|found| found.slot == slot).for_each(|found| found.up = true);
        }
    }

    /// A slot's path, or that of a seat's slot.
    pub(crate) fn name(&self, slot: Slot) -> String {
        let slot = slot.place();
        let directory = self.directory.read();
        let node = || directory.nodes.iter().find(|(_, node)| **node == slot).map(|(path, _)| path.clone());
        directory.slots.get(&slot).cloned().or_else(node).unwrap_or_else(|| slot.to_string())
    }
}

/// The way to all this of an endpoint in this process: the supervisor's body's, or a probe's.
pub(crate) struct InCluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: Slot,
}

impl Upstream for InCluster {
    fn open(&self, peer: Slot) -> Result<Option<Parts>, String> {
        if self.shared.has_ended() {
            return Err("the cluster has ended".to_owned());
        }
        if !self.shared.directory.read().slots.contains_key(&peer.place()) && self.shared.probe(peer).is_none() {
            return Err(format!("{peer} does not exist"));
        }
        let (parts, made) = self.shared.board.open(self.me, peer, Part::Whole).map_err(|error| error.to_string())?;
        if made {
            self.shared.command(Command::LaneMade { between: (self.me, peer) });
        }
        Ok(Some(parts))
    }

    fn find(&self, path: &str) -> Result<Located, LookupError> {
        self.shared.find(path)
    }

    fn corrupt(&self, me: Slot, peer: Slot, _generation: u32) {
        self.shared.command(Command::Corrupt { me, peer });
    }

    fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached> {
        self.shared.depot.put(self.me, tag, large, fds, &self.shared.board).map_err(NotAttached::Os)
    }

    fn attach_room(&self) -> BoxFuture<'_, ()> {
        // Here nothing is ever crowded: what waits is bounded by the lanes.
        Box::pin(std::future::ready(()))
    }

    fn fetch(&self, tag: Tag, _descriptors: usize) -> BoxFuture<'_, io::Result<Vec<OwnedFd>>> {
        Box::pin(std::future::ready(depot::given(self.shared.depot.give(self.me, tag, &self.shared.board))))
    }

    fn track(&self, reader: Slot, writer: Slot, end: u64) {
        self.shared.command(Command::Track { asker: self.me, reader, writer, end });
    }

    fn handled(&self, tag: Tag) {
        self.shared.depot.handled(self.me, tag);
    }

    fn tend(&self, slot: Slot, order: Tend) -> bool {
        self.shared.command(Command::Tend { slot, order });
        true
    }
}
