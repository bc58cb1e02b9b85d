//! How a tree comes to run: checks everything that can be known before a process is started, then starts the threads.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, oneshot};

use crate::background;
use crate::child_spec::{Args, Launch};
use crate::cluster::Cluster;
use crate::error::{RunError, StartError};
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::endpoint::{self, Endpoint};
use crate::mailbox_spec::Mailbox;
use crate::output;
use crate::run::boot::{Booted, Home, booted};
use crate::run::collect::Collector;
use crate::run::decider::Decider;
use crate::run::ground::Ground;
use crate::run::shared::{Command, InCluster, Shared};
use crate::run::supervise;
use crate::run::tell;
use crate::trace::Story;
use crate::tree::machine::Tree;
use crate::tree::plan::{ChildKind, ChildPlan, SupervisorPlan};
use crate::wire::control::Found;

/// The largest encoded arguments of a worker: half of a control frame.
const LARGEST_ARGS: usize = crate::wire::frame::LARGEST_DOWN / 2;

/// Stories that wait for the main thread.
const STORIES: usize = 1024;

/// Starts a tree in a process that passed boot as supervisor.
pub(crate) async fn start(plan: SupervisorPlan, launches: Vec<Launch>) -> Result<Cluster, StartError> {
    let home = home()?;
    let (shared, endpoint, up) = plant(home, plan, launches)?;
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

/// The home of this process's cluster.
pub(crate) fn home() -> Result<&'static Arc<Home>, StartError> {
    // A test's worker is a thread of a process that never passed boot.
    let in_worker = endpoint::current().is_some_and(|own| own.control().is_some());
    match booted() {
        Some(Booted::Supervisor(home)) if !in_worker => Ok(home),
        Some(Booted::Supervisor(_) | Booted::Worker) => Err(StartError::InWorker),
        None if in_worker => Err(StartError::InWorker),
        None => Err(StartError::NotBooted),
    }
}

/// Checks a tree, and starts the threads with it to decide.
pub(crate) fn plant(home: &Arc<Home>, plan: SupervisorPlan, launches: Vec<Launch>) -> Result<Opened, StartError> {
    check_plan(&plan, "", &launches, &home.ground)?;
    let tree = Tree::new(plan, fastrand::u64(..))?;
    open(home, Decider::Tree(Box::new(tree)), launches)
}

/// What a started supervisor gives: the last part tells when every child is up.
pub(crate) type Opened = (Arc<Shared>, Arc<Endpoint>, oneshot::Receiver<Result<(), StartError>>);

/// Starts the threads, with the tree or a player to decide.
pub(crate) fn open(home: &Arc<Home>, decider: Decider, launches: Vec<Launch>) -> Result<Opened, StartError> {
    let mut running = home.running.lock();
    if running.is_some() {
        return Err(StartError::AlreadyRunning);
    }
    let (commands, orders) = mpsc::unbounded_channel();
    let (stream, lines) = output::queue();
    let shared = Shared::new(home.ground.clone(), commands, output::lines(lines));
    let me = WorkerId { slot: Slot::SUPERVISOR, incarnation: Incarnation(1) };
    let upstream = Box::new(InCluster { shared: shared.clone(), me: Slot::SUPERVISOR });
    let endpoint = Endpoint::new(me, "the supervisor".to_owned(), home.runtime.clone(), upstream);
    endpoint.set_ready();
    if home.ground.has_process() {
        endpoint.install();
    }
    *running = Some(shared.clone());
    drop(running);

    let (told, up) = oneshot::channel();
    let (stories, teller) = mpsc::channel(STORIES);
    let missed = Arc::new(AtomicU64::new(0));
    let (log, written) = output::queue();
    let telling = tell::tell(teller, written, missed.clone(), home.ground.has_process());
    home.teller.lock().replace(background::spawn_on(&home.runtime, telling));
    let next_launch = launches.len() as u32;
    let launches: HashMap<u32, Launch> = (0..).zip(launches).collect();
    list(&shared, &decider, &launches, Slot::SUPERVISOR);
    let setup = Setup {
        tree: decider,
        launches,
        next_launch,
        shared: shared.clone(),
        endpoint: endpoint.clone(),
        home: home.clone(),
        orders,
        told,
        stories,
        missed,
        collector: Collector::new(log, stream),
        extension: home.extensions.lock().pop(),
    };
    std::thread::Builder::new()
        .name("rclust-tree".to_owned())
        .stack_size(512 << 10)
        .spawn(move || supervise::run(setup))?;
    Ok((shared, endpoint, up))
}

/// Refuses what cannot run, before anything is started.
fn check_plan(plan: &SupervisorPlan, path: &str, launches: &[Launch], ground: &Ground) -> Result<(), StartError> {
    for child in &plan.children {
        let path = if path.is_empty() { child.name.clone() } else { format!("{path}/{}", child.name) };
        check_child(child, &path, launches, ground)?;
    }
    Ok(())
}

/// The same for one child.
pub(crate) fn check_child(
    child: &ChildPlan,
    path: &str,
    launches: &[Launch],
    ground: &Ground,
) -> Result<(), StartError> {
    let launch = match &child.kind {
        ChildKind::Supervisor(inner) => return check_plan(inner, path, launches, ground),
        ChildKind::Worker { launch } => launches.get(*launch as usize),
    };
    let Some(launch) = launch else { return Ok(()) };
    ground.check(path, launch)?;
    if let Some(of) = (launch.role.unreadable)() {
        return Err(StartError::Unreadable { child: path.to_owned(), of });
    }
    match &launch.args {
        Args::Same(Err(error)) if !launch.template => {
            Err(StartError::Args { child: path.to_owned(), error: error.clone() })
        }
        Args::Same(Ok(bytes)) if bytes.len() > LARGEST_ARGS => {
            let error = format!("they are {} bytes, the limit is {LARGEST_ARGS}", bytes.len());
            Err(StartError::Args { child: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// Lists a node of the tree, and everything below it that has no entry yet, in the directory. Returns the pools that have more
/// members now.
pub(crate) fn list(shared: &Shared, tree: &Decider, launches: &HashMap<u32, Launch>, node: Slot) -> BTreeSet<String> {
    let mut changed = BTreeSet::new();
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
            shared.board.set_mailbox(slot, launch.map_or_else(Mailbox::new, |launch| launch.mailbox));
            let schema = launch.map_or(0, |launch| (launch.role.schema)());
            let found = Found { slot, name: place.path.clone(), takes: takes.to_owned(), schema, up: false };
            if let Some(pool) = place.pool.and_then(|pool| tree.place(pool)) {
                changed.insert(pool.path.clone());
                let members = directory.pools.entry(pool.path).or_default();
                let at = members.partition_point(|member| member.slot < slot);
                members.insert(at, found.clone());
            }
            directory.workers.insert(place.path, found);
        }
    }
    changed
}

pub(crate) struct Setup {
    pub(crate) tree: Decider,
    pub(crate) launches: HashMap<u32, Launch>,
    pub(crate) next_launch: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) home: Arc<Home>,
    pub(crate) orders: mpsc::UnboundedReceiver<Command>,
    pub(crate) told: oneshot::Sender<Result<(), StartError>>,
    pub(crate) stories: mpsc::Sender<Story>,
    pub(crate) missed: Arc<AtomicU64>,
    pub(crate) collector: Collector,
    pub(crate) extension: Option<Box<dyn extension::Extension>>,
}
