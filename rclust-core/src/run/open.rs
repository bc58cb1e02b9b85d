//! How a tree comes to run: checks everything that can be known before a process is started, then starts the threads.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::background;
use crate::child_spec::{Args, Launch};
use crate::cluster::Cluster;
use crate::error::{RunError, StartError};
use crate::extension;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox_spec::Mailbox;
use crate::run::boot::{Booted, Home, booted};
use crate::run::decider::Decider;
use crate::run::shared::{Command, InSupervisor, Shared};
use crate::run::supervise;
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
    home.teller.lock().replace(background::spawn_on(&home.runtime, tell(teller, missed.clone())));
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
    std::thread::Builder::new()
        .name("rclust-tree".to_owned())
        .stack_size(512 << 10)
        .spawn(move || supervise::run(setup))?;
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
        Args::Same(Ok(bytes)) if bytes.len() > LARGEST_ARGS => {
            let error = format!("they are {} bytes, the limit is {LARGEST_ARGS}", bytes.len());
            Err(StartError::Args { child: path.to_owned(), error })
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
            let found = Found { slot, name: place.path.clone(), takes: takes.to_owned(), schema };
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

pub(crate) struct Setup {
    pub(crate) tree: Decider,
    pub(crate) launches: HashMap<u32, Launch>,
    pub(crate) next_launch: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) home: &'static Home,
    pub(crate) orders: mpsc::UnboundedReceiver<Command>,
    pub(crate) told: oneshot::Sender<Result<(), StartError>>,
    pub(crate) stories: mpsc::Sender<Story>,
    pub(crate) missed: Arc<AtomicU64>,
    pub(crate) extension: Option<Box<dyn extension::Extension>>,
}
