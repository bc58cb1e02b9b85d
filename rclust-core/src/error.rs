//! Every public error of this crate.
//!
//! Each operation has a type of its own that gives back what was not consumed; [`Error`] is what callbacks and `main`
//! return, and takes them all with `?`.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::panic::Location;
use std::time::Duration;

use crate::exit::{ExitReason, Signal};
use crate::run::panic::cut;
use crate::tree::event::{GiveUp, Refusal};
use crate::tree::plan::PlanError;
use crate::wire::control::Ending;

/// What `start`, `on_message` and `main` return: any error, and the line of the `?` that brought it.
///
/// It takes every standard error, anyhow's, `String` and `&str`. It is not a standard error itself (that would forbid the
/// conversion); [`Error::into_boxed`] makes one. Its `Debug` prints text, place and causes, because `main` prints `Debug`.
pub struct Error {
    inner: Box<dyn StdError + Send + Sync>,
    place: &'static Location<'static>,
}

/// [`std::result::Result`] with [`Error`] as its default error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error as a standard one, for functions that return a boxed error.
    #[must_use]
    pub fn into_boxed(self) -> Box<dyn StdError + Send + Sync> {
        self.inner
    }

    /// The error that the `?` was applied to.
    #[must_use]
    pub fn inner(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.inner
    }
}

/// An orderly end that a callback returns as its error, because an error is what ends an incarnation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Orderly {
    /// `start` declines.
    #[error("declined to start")]
    Declined,
    /// The worker ends itself.
    #[error("shutdown: {0}")]
    ShutdownWith(String),
    /// The worker ends itself, and has no more to say.
    #[error("shutdown")]
    Shutdown,
}

impl Error {
    /// Returned from `start`: the worker declines to run. The slot stays down, no failure is counted.
    ///
    /// # Source
    /// OTP's `ignore`.
    #[must_use]
    #[track_caller]
    pub fn decline() -> Error {
        Orderly::Declined.into()
    }

    /// Returned from a callback: the worker ends itself in order, and a word says why. A normal end for its restart type.
    ///
    /// # Source
    /// OTP's `{shutdown, Term}`.
    #[must_use]
    #[track_caller]
    pub fn shutdown_with(word: impl Into<String>) -> Error {
        Orderly::ShutdownWith(word.into()).into()
    }

    /// Returned from a callback: the worker ends itself in order. A normal end for its restart type.
    #[must_use]
    #[track_caller]
    pub fn shutdown() -> Error {
        Orderly::Shutdown.into()
    }

    /// What the supervisor hears.
    pub(crate) fn ending(&self) -> Ending {
        match self.inner.downcast_ref::<Orderly>() {
            Some(Orderly::Declined) => Ending::Declined,
            Some(Orderly::ShutdownWith(word)) => Ending::ShutdownWith(cut(word)),
            Some(Orderly::Shutdown) => Ending::Shutdown,
            None => Ending::Error(cut(&format!("{self:?}"))),
        }
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Error {
    #[track_caller]
    fn from(error: E) -> Error {
        Error { inner: error.into(), place: Location::caller() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {}:{})", self.inner, self.place.file(), self.place.line())?;
        let mut cause = self.inner.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why a tree did not start. Nothing of it is running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// This process never passed [`boot`](crate::boot).
    #[error(
        "this process was not booted by rclust: annotate `main` with #[cluster::main(workers(..))] or call rclust::boot \
         (in a test: cluster::testing::start)"
    )]
    NotBooted,
    /// This process is a worker.
    #[error("this process is a worker of a cluster: trees are started by the supervisor process")]
    InWorker,
    /// A tree runs already.
    #[error(
        "a tree runs, or has run, in this process: one process supervises one tree; nest supervisors instead, or stop and start its \
         children (`disconnect`, `restart_child`)"
    )]
    AlreadyRunning,
    /// The tree cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An inner supervisor has no name.
    #[error("a supervisor inside another one needs a name: `Supervisor::one_for_all().named(\"..\")`")]
    Unnamed,
    /// A child's type is not among the roles of this program.
    #[error(
        "child `{child}` is a {role}, which this binary cannot play: add it to #[cluster::main(workers(..))], which lists {listed}"
    )]
    UnknownRole {
        /// The child's path.
        child: String,
        /// Its type.
        role: String,
        /// The listed types.
        listed: String,
    },
    /// A child's messages or arguments could be sent and never be read.
    #[error(
        "child `{child}`: some values of `{of}` could be encoded and never be decoded: something in it is read by its looks (serde's `untagged`, \
         `tag`, `flatten`, or a value of any shape such as serde_json::Value), and the encoding does not describe itself. Write such enums \
         plainly, and send values of any shape as text"
    )]
    Unreadable {
        /// The child's path.
        child: String,
        /// The type.
        of: &'static str,
    },
    /// A child is set up in a way that only a process of its own can be, and this cluster's workers are threads
    /// (`cluster::testing`).
    #[error("{child} sets `{setting}`, which needs a process of its own: the workers of cluster::testing are threads")]
    NeedsProcess {
        /// The child's path, or `Settings`.
        child: String,
        /// The setting.
        setting: &'static str,
    },
    /// A child's process is described in a way that cannot be.
    #[error("the process of child `{child}` cannot be as it is described: {error}")]
    Process {
        /// The child's path.
        child: String,
        /// Which setting, why, and what to do.
        error: String,
    },
    /// A child's arguments could not be encoded.
    #[error("the arguments of child `{child}` cannot be encoded: {error}")]
    Args {
        /// The child's path.
        child: String,
        /// What the encoder said.
        error: String,
    },
    /// The number of workers is not one.
    #[error(transparent)]
    WorkerCount(#[from] WorkerCountError),
    /// The first start of this child failed; what was up has been stopped.
    #[error("child `{child}` failed to start: {}", unready(reason))]
    Child {
        /// The child's path.
        child: String,
        /// Why.
        reason: ExitReason,
    },
    /// The tree was stopped while it was starting.
    #[error("the tree was stopped while it was starting")]
    Stopped,
    /// The tree gave up while starting.
    #[error("the tree ended while it was starting: {0}")]
    Ended(RunError),
    /// The operating system refused something that the supervisor needs.
    #[error("the supervisor could not be set up: {0}")]
    Os(#[from] std::io::Error),
}

/// How many workers shall run could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{source_name} is `{value}`: it must be a whole number from 1 to 4096 (WEB_CONCURRENCY may be unset: one worker per CPU)"
)]
pub struct WorkerCountError {
    /// What says so: the variable, or the builder.
    pub source_name: &'static str,
    /// Its value.
    pub value: String,
}

/// Why a management call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManageError {
    /// The supervisor refused it, or the start that it asked for failed.
    #[error("{supervisor}: `{child}`: {}", crate::supervisor_ref::words(.refusal))]
    Refused {
        /// The supervisor's path.
        supervisor: String,
        /// The child that was named.
        child: String,
        /// Why.
        refusal: Refusal,
    },
    /// The child that was given cannot be.
    #[error(transparent)]
    Child(StartError),
    /// This is a worker: workers are looked after by the supervisor's program alone.
    #[error(
        "`{child}` is looked after by the supervisor's program, and this is a worker: send that program a message (`cx.supervisor()`); to end yourself, `cx.leave()`"
    )]
    NotHere {
        /// The worker that was meant.
        child: String,
    },
    /// A signal could not be sent.
    #[error("`{child}`: {signal} could not be sent to its process")]
    Signal {
        /// The worker that was meant.
        child: String,
        /// Which.
        signal: Signal,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// Why a name was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// There is no such child.
    #[error("there is no child `{path}` in the tree: names are paths, such as `ingest/parser` or, in a pool, `web[2]`")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// The name is a pool's, not a worker's.
    #[error("`{path}` is a pool: ask for it with `pool`, or for a member such as `{path}[0]`")]
    IsPool {
        /// What was asked for.
        path: String,
    },
    /// The name is a worker's, not a pool's.
    #[error("`{path}` is a worker, not a pool: ask for it with `worker`")]
    IsWorker {
        /// What was asked for.
        path: String,
    },
    /// It takes other messages.
    #[error("`{path}` takes messages of type {takes}, not {asked}")]
    OtherMessages {
        /// What was asked for.
        path: String,
        /// The type of its messages.
        takes: String,
        /// The type that was asked for.
        asked: String,
    },
    /// No cluster runs here, or it ended, or the supervisor does not answer.
    #[error("`{path}` cannot be looked up: {why}")]
    NoCluster {
        /// What was asked for.
        path: String,
        /// What is missing.
        why: String,
    },
}

/// Why bytes are no message of the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be decoded: {0}")]
pub struct DecodeError(pub(crate) String);

/// Why [`send`](crate::WorkerRef::send) did not put a message into the mailbox. The message comes back.
#[non_exhaustive]
pub enum SendError<M> {
    /// The slot will never be filled again, or the cluster has ended.
    Closed {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
    },
    /// Larger than the largest message that the slot takes (`Mailbox::largest`).
    TooLarge {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
        /// Its encoded size.
        bytes: usize,
        /// The lane's limit.
        limit: usize,
    },
    /// The message's own `Serialize` failed.
    Encode {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
        /// What it said.
        error: String,
    },
    /// The slot takes messages of another type, or of another version of this type: the reference came from another program.
    OtherMessages {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
    },
    /// The operating system refused memory or descriptors for what goes beside the message (sockets, a large payload).
    Os {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
        /// What it said.
        error: String,
    },
}

/// Why [`try_send`](crate::WorkerRef::try_send) did not put a message into the mailbox. The message comes back.
#[non_exhaustive]
pub enum TrySendError<M> {
    /// No room now; `send` would wait.
    Full {
        /// The message.
        message: M,
        /// The slot's path.
        to: String,
    },
    /// It never will (see [`SendError`]).
    Failed(SendError<M>),
}

impl<M> SendError<M> {
    /// The message that was not sent.
    pub fn into_message(self) -> M {
        match self {
            SendError::Closed { message, .. }
            | SendError::TooLarge { message, .. }
            | SendError::Encode { message, .. }
            | SendError::OtherMessages { message, .. }
            | SendError::Os { message, .. } => message,
        }
    }
}

impl<M> TrySendError<M> {
    /// The message that was not sent.
    pub fn into_message(self) -> M {
        match self {
            TrySendError::Full { message, .. } => message,
            TrySendError::Failed(error) => error.into_message(),
        }
    }

    /// Whether waiting would help.
    pub fn is_full(&self) -> bool {
        matches!(self, TrySendError::Full { .. })
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed { to, .. } => write!(f, "the mailbox of {to} is closed"),
            SendError::TooLarge { to, bytes, limit, .. } => {
                write!(f, "a message of {bytes} bytes for {to}, the limit of that lane is {limit}")
            }
            SendError::Encode { to, error, .. } => write!(f, "a message for {to} cannot be encoded: {error}"),
            SendError::OtherMessages { to, .. } => write!(f, "{to} takes other messages: {}", OTHER_MESSAGES),
            SendError::Os { to, error, .. } => write!(f, "a message for {to} cannot be sent now: {error}"),
        }
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({self})")
    }
}

impl<M> StdError for SendError<M> {}

impl<M> fmt::Display for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full { to, .. } => write!(f, "the mailbox of {to} is full"),
            TrySendError::Failed(error) => error.fmt(f),
        }
    }
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrySendError({self})")
    }
}

impl<M> StdError for TrySendError<M> {}

const OTHER_MESSAGES: &str = "the reference came from a program whose message type differs";

/// Why an [`ask`](crate::WorkerRef::ask) has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No answer in time. The question may still be handled.
    #[error("{to} did not answer within {after:?}")]
    Timeout {
        /// The slot's path.
        to: String,
        /// The limit.
        after: Duration,
    },
    /// The reply port was dropped without an answer.
    #[error("{to} dropped the question without an answer")]
    Dropped {
        /// The slot's path.
        to: String,
    },
    /// The incarnation that had taken the question died, whether or not its handler had returned.
    #[error("{to} died with the question: {reason}")]
    Died {
        /// The slot's path.
        to: String,
        /// Why it died.
        reason: ExitReason,
    },
    /// Who is asked cannot be ready before the asker is.
    #[error("{to} cannot answer yet: it is ready only after the asker's own start")]
    NotReady {
        /// The slot's path.
        to: String,
    },
    /// The slot will never be filled again, or the cluster has ended.
    #[error("the mailbox of {to} is closed")]
    Closed {
        /// The slot's path.
        to: String,
    },
    /// The slot takes messages of another type, or of another version of this type.
    #[error("{to} takes other messages: {}", OTHER_MESSAGES)]
    OtherMessages {
        /// The slot's path.
        to: String,
    },
    /// The question could not be encoded, or is too large.
    #[error("the question for {to} cannot be sent: {error}")]
    Unsendable {
        /// The slot's path.
        to: String,
        /// Why.
        error: String,
    },
    /// The answer's bytes are not of the type asked for.
    #[error("the answer of {to} cannot be decoded: {error}")]
    Undecodable {
        /// The slot's path.
        to: String,
        /// What the decoder said.
        error: String,
    },
}

/// How a tree ended, when not by being asked to.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The root gave up.
    #[error("{}", gave_up(.child, .give_up))]
    GaveUp {
        /// The path of the child whose end was one too many.
        child: String,
        /// How often, in which period, the last reason.
        give_up: Box<GiveUp>,
    },
    /// The last significant child ended.
    #[error("the significant child `{child}` ended, and auto_shutdown ends the tree with it")]
    AutoShutdown {
        /// The child's path.
        child: String,
    },
    /// The tree has been dropped before it ended.
    #[error("the supervisor's tree thread ended unexpectedly")]
    Lost,
}

/// Why something did not become ready. An end that would be an orderly one later says of itself that it came too early.
fn unready(reason: &ExitReason) -> String {
    match reason {
        ExitReason::Normal | ExitReason::Shutdown | ExitReason::ShutdownWith(_) => {
            format!("it ended by itself before it was ready ({reason})")
        }
        _ => reason.to_string(),
    }
}

pub(crate) fn gave_up(child: &str, give_up: &GiveUp) -> String {
    match give_up.within {
        Some(within) => format!(
            "gave up: `{child}` ended once more after {} restarts within {within:?}; the last reason: {}",
            give_up.restarts, give_up.reason
        ),
        None => format!(
            "gave up: `{child}` failed to start {} times in a row; the last reason: {}",
            give_up.restarts,
            unready(&give_up.reason)
        ),
    }
}
