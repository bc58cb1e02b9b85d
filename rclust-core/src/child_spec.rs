//! What a user says about a child: its type, its arguments, when it is restarted, how it is stopped.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::WorkerId;
use crate::error::StartError;
use crate::mailbox_spec::Mailbox;
use crate::process_spec::{Made, Process};
use crate::recycle::Recycle;
use crate::tree::plan::{
    Backoff, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy, SupervisorKind, SupervisorPlan,
};
use crate::wire::payload;
use crate::worker::{Role, Worker};
use crate::worker_count::Size;

/// A worker that is not ready after this long has failed to start.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a worker has to stop when nothing else is said (OTP's default for a worker).
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// How the arguments of an incarnation are made.
pub(crate) enum Args {
    Same(Result<Vec<u8>, String>),
    Each(Box<dyn Fn(WorkerId) -> Result<Vec<u8>, String> + Send>),
}

impl Args {
    /// The encoded arguments of one incarnation.
    pub(crate) fn of(&self, worker: WorkerId) -> Result<Vec<u8>, String> {
        match self {
            Args::Same(encoded) => encoded.clone(),
            // The user's code, on the tree thread: its panic is this child's failed start and nothing more.
            Args::Each(make) => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(worker)))
                .unwrap_or_else(|_| Err("the function that makes its arguments panicked".to_owned())),
        }
    }
}

/// What to run in a slot: the performer's half of a child's specification.
pub(crate) struct Launch {
    pub(crate) role: Role,
    pub(crate) args: Args,
    pub(crate) stdin: bool,
    pub(crate) start_timeout: Duration,
    /// Whether what is left of its process group is killed when it has ended.
    pub(crate) kill_group: bool,
    /// Whether it only describes copies, which have arguments of their own.
    pub(crate) template: bool,
    /// Whether it is one copy's alone, and goes with it.
    pub(crate) copy: bool,
    pub(crate) process: Made,
    pub(crate) mailbox: Mailbox,
    /// How often a message is delivered again after deaths with it in hand.
    pub(crate) redeliver: u32,
    /// Whether what waits is thrown away at a death.
    pub(crate) empty_mailbox: bool,
    /// When it is replaced though it has not failed.
    pub(crate) recycle: Option<Recycle>,
}

impl Launch {
    /// What is usual.
    pub(crate) fn new(role: Role, args: Args) -> Launch {
        Launch {
            role,
            args,
            stdin: false,
            start_timeout: START_TIMEOUT,
            kill_group: false,
            template: false,
            copy: false,
            process: Made::default(),
            mailbox: Mailbox::new(),
            redeliver: 0,
            empty_mailbox: false,
            recycle: None,
        }
    }
}

impl Launch {
    /// The first setting that only a process of its own can have: a thread (in-process mode) cannot honour it.
    pub(crate) fn needs_process(&self) -> Option<&'static str> {
        let settings = [("stdin(Stdin::Inherit)", self.stdin), ("kill_group(true)", self.kill_group)];
        let set = settings.into_iter().find(|(_, set)| *set);
        let rss = self.recycle.filter(Recycle::has_rss).map(|_| "Recycle::max_rss");
        set.map(|(setting, _)| setting).or(rss).or_else(|| self.process.needs_process())
    }
}

/// No arguments have been given.
#[derive(Debug)]
pub enum Unset {}

/// The arguments have been given.
#[derive(Debug)]
pub enum Set {}

/// `()`, which need not be given. No other type has a default: a silent 0 would be worse than a compile error.
#[diagnostic::on_unimplemented(
    message = "this child's arguments are missing: its worker takes `{Self}`",
    label = "call `.args(..)` before this",
    note = "only a worker whose `Args` is `()` can be started without `.args(..)`"
)]
pub trait NoArgsNeeded {}

impl NoArgsNeeded for () {}

/// What both kinds of worker children have in common.
pub(crate) struct Common {
    pub(crate) name: String,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) start_timeout: Duration,
    stdin: bool,
    kill_group: bool,
    pub(crate) process: Made,
    mailbox: Mailbox,
    redeliver: u32,
    empty_mailbox: bool,
    recycle: Option<Recycle>,
    backoff: Option<Backoff>,
    significant: bool,
    args: Option<Args>,
    /// A pool's.
    size: Size,
    /// A pool's, if it is not the usual one.
    intensity: Option<Intensity>,
}

impl Common {
    pub(crate) fn new(name: String) -> Common {
        let (restart, shutdown) = (Restart::Permanent, Shutdown::Timeout(SHUTDOWN));
        Common {
            name,
            restart,
            shutdown,
            start_timeout: START_TIMEOUT,
            stdin: false,
            kill_group: false,
            process: Made::default(),
            mailbox: Mailbox::new(),
            redeliver: 0,
            empty_mailbox: false,
            recycle: None,
            backoff: None,
            significant: false,
            args: None,
            size: Size::Auto,
            intensity: None,
        }
    }

    pub(crate) fn plan<W: Worker>(self, launches: &mut Vec<Launch>) -> ChildPlan {
        let launch = launches.len() as u32;
        let args = self.args.unwrap_or_else(|| Args::Same(Ok(Vec::new())));
        let start_timeout = self.start_timeout;
        launches.push(Launch {
            stdin: self.stdin,
            start_timeout,
            kill_group: self.kill_group,
            process: self.process,
            mailbox: self.mailbox,
            redeliver: self.redeliver,
            empty_mailbox: self.empty_mailbox,
            recycle: self.recycle,
            ..Launch::new(Role::of::<W>(), args)
        });
        ChildPlan {
            name: self.name,
            restart: self.restart,
            shutdown: self.shutdown,
            significant: self.significant,
            start_timeout,
            backoff: self.backoff,
            kind: ChildKind::Worker { launch },
        }
    }
}

macro_rules! worker_child {
    ($name:ident) => {
        impl<W> $name<W, Unset> {
            /// A child of this name, which is unique among its siblings.
            pub fn new(name: impl Into<String>) -> Self
            where
                W: Worker,
            {
                $name { common: Common::new(name.into()), _types: PhantomData }
            }
        }

        impl<W: Worker> $name<W, Unset> {
            /// What every incarnation is started with: encoded once, replayed at every restart.
            pub fn args(mut self, args: W::Args) -> $name<W, Set> {
                self.common.args = Some(Args::Same(payload::encode_plain(&args)));
                $name { common: self.common, _types: PhantomData }
            }

            /// What each incarnation is started with, made anew for it. Called by the supervisor, on its tree thread: it must
            /// not block.
            ///
            /// It is called for each incarnation, so it keeps what it captures: clone that, or make it here. A socket cannot be given
            /// so; send it in a message to the worker that is up, or open it in the worker's `start`.
            pub fn args_with(mut self, make: impl Fn(WorkerId) -> W::Args + Send + 'static) -> $name<W, Set> {
                self.common.args = Some(Args::Each(Box::new(move |worker| payload::encode_plain(&make(worker)))));
                $name { common: self.common, _types: PhantomData }
            }
        }

        impl<W: Worker, A> $name<W, A> {
            /// When it is started again; [`Restart::Permanent`] unless said otherwise.
            ///
            /// # Source
            /// OTP, `supervisor`, `restart` in `child_spec()` (rule 11).
            pub fn restart(mut self, restart: Restart) -> Self {
                self.common.restart = restart;
                self
            }

            /// How it is stopped; 5 s, then killed, unless said otherwise.
            ///
            /// # Source
            /// OTP, `supervisor`, `shutdown` in `child_spec()` (rules 39 to 42).
            pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
                self.common.shutdown = shutdown;
                self
            }

            /// Not ready after this long, it is killed and has failed to start; 30 s unless said otherwise. OTP has no such limit
            /// (rule 7): for processes there must be one.
            pub fn start_timeout(mut self, limit: Duration) -> Self {
                self.common.start_timeout = limit;
                self
            }

            /// Waits before a restart that follows a failed start, longer with each in a row; OTP's behaviour, none, unless
            /// given. See [`Backoff::new`].
            pub fn backoff(mut self, backoff: Backoff) -> Self {
                self.common.backoff = Some(backoff);
                self
            }

            /// Whether its end can end its supervisor (see `Supervisor::auto_shutdown`); it must then not be permanent.
            ///
            /// # Source
            /// OTP, `supervisor`, "Automatic Shutdown" (rules 5, 49 to 54).
            pub fn significant(mut self, significant: bool) -> Self {
                self.common.significant = significant;
                self
            }

            /// Whether the processes that it has started, and that are still in its process group, are killed when it has
            /// ended; they live on unless said otherwise.
            pub fn kill_group(mut self, kill: bool) -> Self {
                self.common.kill_group = kill;
                self
            }

            /// What its process is like: environment, arguments, outputs, limits, niceness, CPUs, directory, user. As the
            /// supervisor's unless said otherwise; see [`Process`].
            pub fn process(mut self, process: Process) -> Self {
                self.common.process = Made::Same(process);
                self
            }

            /// What the process of each incarnation is like, made anew for it; the second argument is its place in its pool, 0 outside
            /// one. Called by the supervisor, on its tree thread: it must not block. What it describes and cannot be is that
            /// incarnation's failed start.
            pub fn process_with(mut self, make: impl Fn(WorkerId, usize) -> Process + Send + Sync + 'static) -> Self {
                self.common.process = Made::Each(Arc::new(make));
                self
            }

            /// How much its mailbox holds; see [`Mailbox`] for what is usual.
            pub fn mailbox(mut self, mailbox: Mailbox) -> Self {
                self.common.mailbox = mailbox;
                self
            }

            /// A message that was in hand when an incarnation died is delivered again, up to `times` times; then it is
            /// [quarantined](crate::DeadReason::Quarantined). Not at all unless said otherwise: it becomes a dead letter at once. It
            /// may have been handled completely before the death; [`Context::delivery`](crate::Context::delivery) tells the
            /// handler. A question that is delivered again stays open. A message with sockets is never delivered again.
            pub fn redeliver(mut self, times: u32) -> Self {
                self.common.redeliver = times;
                self
            }

            /// Whether what waits in its mailbox is thrown away when it ends, instead of waiting for the next incarnation. It becomes
            /// dead letters ([`Discarded`](crate::DeadReason::Discarded)), and questions in it fail.
            pub fn empty_mailbox(mut self, empty: bool) -> Self {
                self.common.empty_mailbox = empty;
                self
            }

            /// When it is replaced though it has not failed: by age, messages, connections or memory. Never unless said otherwise.
            pub fn recycle(mut self, recycle: Recycle) -> Self {
                self.common.recycle = Some(recycle);
                self
            }

            /// Whether it gets the supervisor's standard input; /dev/null unless said otherwise.
            pub fn stdin(mut self, inherit: Stdin) -> Self {
                self.common.stdin = inherit == Stdin::Inherit;
                self
            }
        }

        impl<W: Worker, A> std::fmt::Debug for $name<W, A> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} `{}`: {}", stringify!($name), self.common.name, type_name::<W>())
            }
        }
    };
}

/// A worker's standard input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stdin {
    /// /dev/null.
    #[default]
    Null,
    /// The supervisor's own.
    Inherit,
}

/// A child of a supervisor: one worker.
#[must_use]
pub struct Child<W, A = Unset> {
    common: Common,
    _types: PhantomData<fn() -> (W, A)>,
}

/// A child of a supervisor: a number of like workers, numbered from 0.
///
/// For its parent it is one child; among its slots it is a one_for_one supervisor with a counter of its own: 10 x size
/// restarts in 10 s. If it gives up, that is one death upstairs. Its members are started and stopped together.
#[must_use]
pub struct Pool<W, A = Unset> {
    common: Common,
    _types: PhantomData<fn() -> (W, A)>,
}

worker_child!(Child);
worker_child!(Pool);

impl<W: Worker, A> Pool<W, A> {
    /// At most `restarts` of members within `within`; one more and the pool gives up. 10 x size in 10 s unless said otherwise.
    pub fn intensity(mut self, restarts: u32, within: Duration) -> Self {
        self.common.intensity = Some(Intensity::Limited { restarts, within });
        self
    }

    /// How many members; [`Size::Auto`] unless said otherwise.
    pub fn size(mut self, size: impl Into<Size>) -> Self {
        self.common.size = size.into();
        self
    }

    fn plan(self, launches: &mut Vec<Launch>) -> Result<ChildPlan, StartError> {
        let size = self.common.size.resolve()?;
        let intensity = self.common.intensity;
        let restart = self.common.restart;
        let usual = Intensity::Limited { restarts: 10 * size as u32, within: Duration::from_secs(10) };
        let member = self.common.plan::<W>(launches);
        Ok(pool(member, size, restart, intensity.unwrap_or(usual)))
    }
}

/// A pool of `size` members like `member`.
pub(crate) fn pool(member: ChildPlan, size: usize, restart: Restart, intensity: Intensity) -> ChildPlan {
    let name = member.name.clone();
    let children = (0..size).map(|n| ChildPlan { name: format!("{name}[{n}]"), ..member.clone() }).collect();
    ChildPlan {
        name,
        // A pool whose members are temporary is not itself: its give-up cannot come from them.
        restart,
        shutdown: Shutdown::Infinity,
        significant: false,
        start_timeout: member.start_timeout,
        backoff: None,
        kind: ChildKind::Supervisor(SupervisorPlan {
            strategy: Strategy::OneForOne,
            intensity,
            auto_shutdown: crate::tree::plan::AutoShutdown::Never,
            kind: SupervisorKind::Pool,
            children,
        }),
    }
}

/// What a supervisor accepts as a child: [`Child`], [`Pool`], or another supervisor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a child of a supervisor",
    note = "a child is a `Child::<W>::new(name)`, a `Pool::<W>::new(name)` or a named `Supervisor`; arguments other than `()` must be given with `.args(..)`"
)]
pub trait IntoChild {
    /// The plan of the child; what to run is appended to `launches`.
    #[doc(hidden)]
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError>;
}

/// Collects what a tree runs.
#[doc(hidden)]
#[derive(Default)]
pub struct Launches(pub(crate) Vec<Launch>);

impl std::fmt::Debug for Launches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} launches", self.0.len())
    }
}

/// A child's plan.
#[doc(hidden)]
#[derive(Debug)]
pub struct Piece(pub(crate) ChildPlan);

impl<W: Worker> IntoChild for Child<W, Set> {
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError> {
        Ok(Piece(self.common.plan::<W>(&mut launches.0)))
    }
}

impl<W: Worker> IntoChild for Child<W, Unset>
where
    W::Args: NoArgsNeeded,
{
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError> {
        Ok(Piece(self.common.plan::<W>(&mut launches.0)))
    }
}

impl<W: Worker> IntoChild for Pool<W, Set> {
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError> {
        Ok(Piece(self.plan(&mut launches.0)?))
    }
}

impl<W: Worker> IntoChild for Pool<W, Unset>
where
    W::Args: NoArgsNeeded,
{
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError> {
        Ok(Piece(self.plan(&mut launches.0)?))
    }
}
