//! `boot`: which process is this, and which of two loops does it run?

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::child_spec::{self, Args, Launch};
use crate::context::{Context, Facts};
use crate::error::{Result, StartError};
use crate::extension::Extension;
use crate::id::WorkerId;
use crate::ipc::boot::Booted as Boot;
use crate::ipc::control::{self, Control, ThroughControl};
use crate::mailbox::endpoint::{self, Endpoint, Seat};
use crate::process::role::{self, Claim, MARK, ProcessRole};
use crate::process::spawn::Program as Executable;
use crate::process::thread::Thread;
use crate::process::watch::Status;
use crate::process_spec::{Made, Process};
use crate::run::ground::Ground;
use crate::run::shared::{Command, Shared};
use crate::run::work::{self, Life};
use crate::run::{init, open, panic};
use crate::sys::{descriptors, process};
use crate::tree::plan::{
    AutoShutdown, Backoff, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy, SupervisorKind, SupervisorPlan,
};
use crate::wire::control::{Ending, ToSupervisor};
use crate::worker::{Main, Outcome, Role, Worker};
use crate::worker_count::Size;

/// The settings of a program: what the words of `#[cluster::main]` set.
#[derive(Clone, Debug)]
pub struct Settings {
    name: String,
    workers: Size,
    threads: usize,
    init: Option<Init>,
    program: Option<PathBuf>,
    process: Made,
}

/// Called in every process once its role is known.
type Init = fn(&ProcessRole) -> Result<()>;

impl Settings {
    /// The settings of a program of this name, which names the workers of a [`body`].
    #[must_use]
    pub fn new(name: impl Into<String>) -> Settings {
        Settings {
            name: name.into(),
            workers: Size::Auto,
            threads: 1,
            init: None,
            program: None,
            process: Made::default(),
        }
    }

    /// How many workers a [`body`] has, 1 to 4096; [`Settings::workers_auto`] unless said otherwise.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Settings {
        self.workers = Size::Fixed(workers);
        self
    }

    /// As many workers as `WEB_CONCURRENCY` says, else one for each CPU that this process may use.
    #[must_use]
    pub fn workers_auto(mut self) -> Settings {
        self.workers = Size::Auto;
        self
    }

    /// Threads of a worker's runtime; 1 unless said otherwise. Handlers run on the first, spawned tasks on all.
    /// Needs the feature `threads`.
    #[cfg(feature = "threads")]
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Settings {
        self.threads = threads.clamp(1, 1024);
        self
    }

    /// Says what is missing, better than "no method" would.
    #[cfg(not(feature = "threads"))]
    #[doc(hidden)]
    #[must_use]
    pub fn threads(self, _: impl ThreadsFeature) -> Settings {
        self
    }

    /// Where the program stands that a reload runs; unless said otherwise, the path that this one was called by, made absolute at
    /// the start. Symbolic links are resolved by each reload, so that `current -> releases/42` can be moved between two.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Settings {
        self.program = Some(path.into());
        self
    }

    /// What the process of each worker of a [`body`] is like; as the supervisor's unless said otherwise. In a [`tree`] each child
    /// says that for itself ([`Child::process`](crate::Child::process)).
    #[must_use]
    pub fn process(mut self, process: Process) -> Settings {
        self.process = Made::Same(process);
        self
    }

    /// The same, made anew for each incarnation; the second argument is the worker's number. Called by the supervisor, on its tree
    /// thread: it must not block.
    ///
    /// ```
    /// # use rclust_core::{Process, Settings};
    /// let settings = Settings::new("web").workers(2).process_with(|_worker, index| Process::new().cpus([index as u32]));
    /// ```
    #[must_use]
    pub fn process_with(mut self, make: impl Fn(WorkerId, usize) -> Process + Send + Sync + 'static) -> Settings {
        self.process = Made::Each(Arc::new(make));
        self
    }

    /// Whether something is called in every process.
    pub(crate) fn has_init(&self) -> bool {
        self.init.is_some()
    }

    /// Called in every process once its role is known, before any runtime and any thread: the place for a sandbox, an
    /// allocator's settings, a subscriber. An error is a failed start.
    #[must_use]
    pub fn init(mut self, init: fn(&ProcessRole) -> Result<()>) -> Settings {
        self.init = Some(init);
        self
    }
}

/// Nobody's: what `threads` takes while its feature is off.
#[cfg(not(feature = "threads"))]
#[doc(hidden)]
#[diagnostic::on_unimplemented(message = "`threads` needs the feature `threads` of rclust")]
pub trait ThreadsFeature {}

/// A program whose body is the worker: see [`body`].
#[derive(Debug)]
pub struct Body<F>(F);

/// A program whose body runs in the supervisor: see [`tree`].
#[derive(Debug)]
pub struct Tree<F> {
    roles: Vec<Role>,
    main: F,
}

/// A program whose body is the worker. The supervisor is the default one: one_for_one, every worker permanent. Workers that
/// had been ready are replaced without limit; ten failed starts in a row of one slot (with a backoff from 50 ms to 5 s) end it.
pub fn body<F, Fut>(main: F) -> Body<F>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    Body(main)
}

/// A program whose body runs in the supervisor only, and whose workers play `roles`.
pub fn tree<F, Fut>(roles: Vec<Role>, main: F) -> Tree<F>
where
    F: FnOnce() -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    Tree { roles, main }
}

/// What [`boot`] runs: a [`body`] or a [`tree`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a program",
    note = "give `rclust::boot` what `rclust::body(main)` or `rclust::tree(roles, main)` makes"
)]
pub trait Program: sealed::Sealed {
    /// Its roles.
    #[doc(hidden)]
    fn roles(&self) -> Vec<Role>;
    /// Plays in the supervisor process.
    #[doc(hidden)]
    fn supervise(self, home: &Home, runtime: &Runtime) -> ExitCode;
    /// Plays in a worker process.
    #[doc(hidden)]
    fn work(self, life: Life, role: &str, runtime: &Runtime) -> Last;
    /// Whether its worker is ready with its first listener.
    #[doc(hidden)]
    fn ready_by_listening(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl<F> Sealed for super::Body<F> {}
    impl<F> Sealed for super::Tree<F> {}
}

/// How a worker ended.
#[doc(hidden)]
#[derive(Debug)]
pub struct Last {
    ending: Ending,
    code: Option<ExitCode>,
}

/// What a supervisor process knows of itself.
#[doc(hidden)]
pub struct Home {
    pub(crate) runtime: Handle,
    pub(crate) ground: Arc<Ground>,
    pub(crate) threads: usize,
    /// The limit of open descriptors that this process was started with.
    pub(crate) descriptors: (Option<u64>, Option<u64>),
    pub(crate) extensions: Mutex<Vec<Box<dyn Extension>>>,
    pub(crate) running: Mutex<Option<Arc<Shared>>>,
    pub(crate) teller: Mutex<Option<JoinHandle<()>>>,
    /// The tree was stopped before it was up.
    pub(crate) stopped_early: Notify,
    settings: Settings,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

impl Home {
    pub(crate) fn new(
        runtime: Handle,
        ground: Ground,
        descriptors: (Option<u64>, Option<u64>),
        settings: Settings,
        extensions: Vec<Box<dyn Extension>>,
    ) -> Arc<Home> {
        Arc::new(Home {
            runtime,
            ground: Arc::new(ground),
            threads: settings.threads,
            descriptors,
            extensions: Mutex::new(extensions),
            running: Mutex::new(None),
            teller: Mutex::new(None),
            stopped_early: Notify::new(),
            settings,
        })
    }
}

/// What this process has become.
pub(crate) enum Booted {
    Supervisor(Arc<Home>),
    Worker,
}

static BOOTED: OnceLock<Booted> = OnceLock::new();

/// What this process has become, if it passed boot.
pub(crate) fn booted() -> Option<&'static Booted> {
    BOOTED.get()
}

/// Finds out which process this is, and plays its part: the supervisor's, or one worker's. The function that
/// `#[cluster::main]` expands to; any `main` may call it.
///
/// ```no_run
/// # use std::process::ExitCode;
/// # use rclust_core::{Context, Settings, Result};
/// fn main() -> ExitCode {
///     rclust_core::boot(Settings::new("app").workers(4), rclust_core::body(serve))
/// }
///
/// async fn serve(cx: Context) -> Result<()> {
///     println!("worker {} is process {}", cx.slot(), std::process::id());
///     cx.shutdown().await;
///     Ok(())
/// }
/// ```
///
/// A worker is this program, started again with the same arguments and environment and a mark, so everything before the call
/// happens in every process. Call it once, early, while the process has one thread: it takes the mark out of the environment.
/// A process whose mark is forged (standard input is not a control link of its parent, or the depth is above 8) refuses to run.
/// As process 1 of a container it first becomes a minimal init that starts itself again as the supervisor.
///
/// The exit code is the outcome's: 0 after a graceful end, 1 with an error (which is printed), 101 after a panic.
pub fn boot(settings: Settings, program: impl Program) -> ExitCode {
    boot_with(settings, program, Vec::new())
}

/// The same with extensions, of which at most the last is used (`rclust-net`'s own `boot` calls this).
#[doc(hidden)]
pub fn boot_with(settings: Settings, program: impl Program, extensions: Vec<Box<dyn Extension>>) -> ExitCode {
    match role::claim() {
        Ok(Claim::Supervisor) => supervisor(settings, program, extensions),
        Ok(Claim::Init) => match Executable::own().and_then(|program| init::run(&program)) {
            Ok(code) => code,
            Err(error) => refuse(&format!("this is process 1 and cannot start the supervisor: {error}")),
        },
        Ok(Claim::Worker { link }) => {
            let mut booted = match crate::ipc::boot::receive(link) {
                Ok(booted) => booted,
                Err(error) => return refuse(&error.to_string()),
            };
            match crate::ipc::boot::apply(&mut booted) {
                Ok(()) => worker(settings.init, program, booted, None),
                Err(error) => {
                    // The supervisor tells it with the child's name.
                    let ending = Ending::Error(panic::cut(&error.to_string()));
                    let control = Control::new(booted.socket, false, booted.message.limits);
                    control.say(&ToSupervisor::Ending(ending));
                    // The link ends with the process, not before it: that would be taken for a worker that is lost.
                    std::mem::forget(control);
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(why: &str) -> ExitCode {
    // Standard error may be closed; then nobody listens.
    let _ = writeln!(io::stderr().lock(), "rclust: {why}");
    ExitCode::FAILURE
}

/// Raises the soft limit of open descriptors to the hard one, and returns what it was: workers get that back.
fn raise_descriptor_limit() -> (Option<u64>, Option<u64>) {
    let before = process::descriptor_limit();
    // A system that refuses leaves the limit as it is.
    let _ = process::set_descriptor_limit(before.1, before.1);
    before
}

fn supervisor(settings: Settings, program: impl Program, mut extensions: Vec<Box<dyn Extension>>) -> ExitCode {
    let mut prepared = || -> io::Result<(Runtime, Executable)> {
        descriptors::close_inherited_on_exec()?;
        for extension in &mut extensions {
            extension.prepare();
        }
        let mut executable = Executable::own()?;
        if let Some(path) = &settings.program {
            executable.path = std::path::absolute(path)?.into();
        }
        if let Some(init) = settings.init {
            init(&ProcessRole::Supervisor).map_err(|error| io::Error::other(format!("init: {error:?}")))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((runtime, executable))
    };
    let (runtime, executable) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&format!("the supervisor cannot start: {error}")),
    };
    let roles = program.roles();
    if let Some(double) = double_key(&roles) {
        return refuse(&format!(
            "two roles of this program have the key `{double}`: override Worker::role in one of them"
        ));
    }
    let ground = Ground::Processes { program: executable, roles };
    let home = Home::new(runtime.handle().clone(), ground, raise_descriptor_limit(), settings, extensions);
    let Booted::Supervisor(home) = BOOTED.get_or_init(|| Booted::Supervisor(home)) else {
        return refuse("boot was called twice");
    };
    let code = program.supervise(home, &runtime);
    runtime.block_on(end(home));
    // Tasks of the body that are still blocked must not hold the process.
    runtime.shutdown_background();
    code
}

/// Stops what the body left running, and lets the last stories be told.
async fn end(home: &Home) {
    let running = home.running.lock().clone();
    let Some(shared) = running else { return };
    shared.command(Command::Stop);
    // How it ended was the body's to ask.
    let _ = shared.ended().await;
    let teller = home.teller.lock().take();
    if let Some(teller) = teller {
        // The tree thread drops its end in a moment; a blocked standard error must not hold the end.
        let _ = tokio::time::timeout(Duration::from_millis(500), teller).await;
    }
}

fn double_key(roles: &[Role]) -> Option<String> {
    let mut keys = std::collections::HashSet::new();
    roles.iter().map(|role| (role.key)().into_owned()).find(|key| !keys.insert(key.clone()))
}

/// Starts a thread that plays a worker of a program. It is told who it is by `link`.
pub(crate) fn on_thread<P: Program>(
    name: String,
    link: OwnedFd,
    program: impl FnOnce() -> P + Send + 'static,
) -> io::Result<Arc<Thread>> {
    Thread::start(name, move |thread| match crate::ipc::boot::receive(link) {
        Ok(booted) => Status::Code(number(worker(None, program(), booted, Some(thread)))),
        // It was wanted no more before it was told.
        Err(_) => Status::Code(1),
    })
}

/// An exit code's number, which it tells nobody but those who print it.
fn number(code: ExitCode) -> i32 {
    let shown = format!("{code:?}");
    (0..=u8::MAX).find(|number| format!("{:?}", ExitCode::from(*number)) == shown).map_or(1, i32::from)
}

/// Plays a worker: in a process of its own, or on this thread.
fn worker(init: Option<Init>, program: impl Program, booted: Boot, thread: Option<&Arc<Thread>>) -> ExitCode {
    let Boot { socket, reader, message, .. } = booted;
    let control = Control::new(socket.clone(), program.ready_by_listening(), message.limits);
    match thread {
        None => panic::note_panics(control.clone()),
        Some(_) => panic::note_panics_of_threads(),
    }
    let fail = |text: String| {
        control.say(&ToSupervisor::Ending(Ending::Error(panic::cut(&text))));
        ExitCode::FAILURE
    };
    if let Some(init) = init {
        let name = message.name.clone();
        let role =
            ProcessRole::Worker { name, index: message.index as usize, incarnation: message.worker.incarnation.0 };
        match std::panic::catch_unwind(AssertUnwindSafe(|| init(&role))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return fail(format!("init: {error:?}")),
            Err(payload) => {
                control.say(&ToSupervisor::Ending(panic::last(&*payload).into()));
                return ExitCode::from(101);
            }
        }
    }
    let mut builder = match message.threads {
        #[cfg(feature = "threads")]
        n @ 2.. => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n as usize);
            builder
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let seat = Seat::default();
    if thread.is_some() {
        let seat = seat.clone();
        builder.on_thread_start(move || endpoint::sit(&seat));
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format!("no runtime: {error}")),
    };
    let upstream = Box::new(ThroughControl(control.clone()));
    let (who, name) = (message.worker, message.name.clone());
    let endpoint = Endpoint::seated(who, message.seat, name, runtime.handle().clone(), upstream);
    endpoint.set_again(message.again);
    let end: Box<dyn FnOnce() + Send> = match thread {
        None => {
            endpoint.install();
            let _ = BOOTED.set(Booted::Worker);
            Box::new(|| process::exit_now(1))
        }
        Some(thread) => {
            let _ = seat.set(Arc::downgrade(&endpoint));
            endpoint::sit(&seat);
            // Nobody hears what it says when its lanes have been taken from it.
            let (link, dead, thread_too) = (socket.clone(), endpoint.clone(), thread.clone());
            thread.at_end(move || {
                // It fails where the other end is closed already.
                let _ = rustix::net::shutdown(&*link, rustix::net::Shutdown::Both);
            });
            thread.at_end(move || dead.cut());
            Box::new(move || thread_too.end(Status::Code(1)))
        }
    };
    if let Err(error) = control::start(control.clone(), reader, socket, endpoint.clone(), thread.is_none(), end) {
        return fail(error.to_string());
    }
    control.say(&ToSupervisor::Online);
    let facts = Arc::new(Facts {
        worker: message.worker,
        name: message.name,
        index: message.index as usize,
        attempt: message.attempt,
        previous: message.previous,
    });
    let schemas = message.schemas;
    let (args, awaits_listener) = (message.args, message.awaits_listener);
    let life = Life { facts, endpoint: endpoint.clone(), control: control.clone(), args, awaits_listener, schemas };
    let Last { ending, code } = program.work(life, &message.role, &runtime);
    endpoint.ring_all();
    let code = code.unwrap_or(match &ending {
        Ending::Normal | Ending::Shutdown | Ending::ShutdownWith(_) | Ending::Declined => ExitCode::SUCCESS,
        Ending::Error(_) => ExitCode::FAILURE,
        Ending::Panic { .. } => ExitCode::from(101),
    });
    control.say(&ToSupervisor::Ending(ending));
    runtime.shutdown_background();
    code
}

/// Runs a future of the worker on its runtime, to its end or its panic (or until a thread's worker is declared dead).
fn block_on(runtime: &Runtime, life: Life, work: impl AsyncFnOnce(Life) -> Last) -> Last {
    let endpoint = life.endpoint.clone();
    let work = async {
        tokio::select! {
            biased;
            // What it comes to has been decided by those who declared it.
            () = endpoint.was_cut() => Ok(Last { ending: Ending::Normal, code: None }),
            last = work::catch(work(life)) => last,
        }
    };
    runtime.block_on(work).unwrap_or_else(|panic| Last { ending: panic.into(), code: None })
}

/// An error of this crate where no line of the program brought it: a place would be one in this file.
struct Told(String);

impl<E: std::error::Error> From<E> for Told {
    fn from(error: E) -> Told {
        Told(error.to_string())
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the supervisor's body; its panic is exit code 101.
fn run_body<O: Outcome>(home: &Home, runtime: &Runtime, body: impl Future<Output = O>) -> ExitCode {
    let body = async {
        tokio::select! {
            outcome = body => Some(outcome),
            () = home.stopped_early.notified() => None,
        }
    };
    match runtime.block_on(AssertUnwindSafe(body).catch_unwind()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(outcome)) => {
            let report = outcome.report();
            if let Some(error) = report.error {
                let _ = writeln!(io::stderr().lock(), "Error: {error}");
            }
            report.code
        }
        // The panic's own hook has said what there is to say.
        Err(_) => ExitCode::from(101),
    }
}

impl<F, Fut> Program for Body<F>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    fn roles(&self) -> Vec<Role> {
        vec![Role::of::<Main>()]
    }

    fn supervise(self, home: &Home, runtime: &Runtime) -> ExitCode {
        run_body(home, runtime, async {
            let cluster = open::start(default_tree(&home.settings)?, vec![default_launch(&home.settings)]).await?;
            cluster.run().await?;
            Result::<(), Told>::Ok(())
        })
    }

    fn work(self, life: Life, _role: &str, runtime: &Runtime) -> Last {
        block_on(runtime, life, async |life| {
            let (ending, code) = work::play_body(life, self.0).await;
            Last { ending, code }
        })
    }

    fn ready_by_listening(&self) -> bool {
        true
    }
}

impl<F, Fut> Program for Tree<F>
where
    F: FnOnce() -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    fn roles(&self) -> Vec<Role> {
        self.roles.clone()
    }

    fn supervise(self, home: &Home, runtime: &Runtime) -> ExitCode {
        // The call itself may panic too.
        run_body(home, runtime, async move { (self.main)().await })
    }

    fn work(self, life: Life, role: &str, runtime: &Runtime) -> Last {
        match self.roles.iter().find(|own| (own.key)() == role) {
            Some(own) if ((own.schema)(), (own.args)()) != life.schemas => {
                let error = format!(
                    "the role `{role}` has other messages or arguments in this program than in the one that the supervisor runs: stop the \
                     cluster and start it again with this one, a reload cannot change them"
                );
                Last { ending: Ending::Error(error), code: None }
            }
            Some(own) => block_on(runtime, life, async |life| Last { ending: (own.play)(life).await, code: None }),
            None => {
                let error = format!(
                    "this program has no role `{role}`: the supervisor runs another build, or {MARK} was forged"
                );
                Last { ending: Ending::Error(error), code: None }
            }
        }
    }

    fn ready_by_listening(&self) -> bool {
        false
    }
}

/// The parameter form's worker.
pub(crate) fn default_launch(settings: &Settings) -> Launch {
    Launch { process: settings.process.clone(), ..Launch::new(Role::of::<Main>(), Args::Same(Ok(Vec::new()))) }
}

/// How long a body has to stop.
const BODY_SHUTDOWN: Duration = Duration::from_secs(10);

/// The parameter form's tree: a pool that gives up on a worker only after ten failed starts in a row.
pub(crate) fn default_tree(settings: &Settings) -> Result<SupervisorPlan, StartError> {
    let member = ChildPlan {
        name: settings.name.clone(),
        restart: Restart::Permanent,
        shutdown: Shutdown::Timeout(BODY_SHUTDOWN),
        significant: false,
        start_timeout: child_spec::START_TIMEOUT,
        backoff: Some(Backoff {
            first: Duration::from_millis(50),
            cap: Duration::from_secs(5),
            healthy_after: Duration::ZERO,
            jitter: 0.1,
            after_ready: false,
        }),
        kind: ChildKind::Worker { launch: 0 },
    };
    let intensity = Intensity::FailedStarts { failed_starts: 10 };
    let size = settings.workers.resolve()?;
    Ok(SupervisorPlan {
        strategy: Strategy::OneForOne,
        // The pool's give-up is the end.
        intensity: Intensity::Limited { restarts: 0, within: Duration::from_secs(1) },
        auto_shutdown: AutoShutdown::Never,
        kind: SupervisorKind::Tree,
        children: vec![child_spec::pool(member, size, Restart::Permanent, intensity)],
    })
}

// `Main` is a worker for its types alone; what it plays is the body.
const _: fn() -> std::borrow::Cow<'static, str> = <Main as Worker>::role;
