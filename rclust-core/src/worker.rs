//! The worker: an actor that is a process. And the list of those that a program can play.

use std::any::{TypeId, type_name};
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::Result;
use crate::exit::{ExitReason, StopReason};
use crate::id::WorkerId;
use crate::run::work::{self, Life};
use crate::wire::control::Ending;
use crate::wire::schema;

/// What can travel between processes: any serde type that owns its data. Implemented for all of them.
///
/// postcard encodes it; what that refuses (untagged and internally tagged enums, `flatten`, `serde_json::Value`) is refused
/// when the tree starts, as far as it can be traced, and else when it is encoded or decoded. Give byte fields `serde_bytes`: they decode some 26 times faster.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Message for T {}

/// A worker: state, and what is done when a message comes. Each instance is a process of its own.
///
/// Handlers run one at a time, on the worker's own thread; neither state nor futures need be `Send`. A returned error or a
/// panic ends the incarnation, and what its supervisor then does is the supervisor's strategy. The mailbox stays.
///
/// # Source
/// The callbacks are a gen_server's `init`, `handle_cast`, `handle_info({'DOWN', ..})` and `terminate`.
#[allow(async_fn_in_trait)] // handlers need no Send: nothing here is spawned
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a worker",
    label = "not a worker",
    note = "implement `cluster::Worker` for it: `Msg`, `Args`, `start` and `on_message`"
)]
pub trait Worker: Sized + 'static {
    /// The messages it takes; [`Never`] for none.
    type Msg: Message;
    /// What it is started with: encoded once, replayed at every restart.
    type Args: Message;

    /// Makes the worker. It is ready, and its first message is read, when this has returned.
    ///
    /// # Errors
    /// An error is a failed start.
    async fn start(args: Self::Args, cx: &mut Context<Self>) -> Result<Self>;

    /// Handles one message. It is done, for its sender's lane, when this returns; what the handler spawned is not covered.
    ///
    /// # Errors
    /// An error ends the incarnation; the message becomes a dead letter.
    async fn on_message(&mut self, message: Self::Msg, cx: &mut Context<Self>) -> Result<()>;

    /// A worker that [`Context::monitor`] watches has ended.
    ///
    /// # Errors
    /// An error ends the incarnation.
    async fn on_down(&mut self, down: Down, cx: &mut Context<Self>) -> Result<()> {
        let _ = (down, cx);
        Ok(())
    }

    /// The last words, before the process waits for its spawned tasks and ends. Not called after a crash or a kill.
    ///
    /// Called when the order comes: the last message has been handled, last calls begin ([`Context::draining`]), and tasks may
    /// still serve connections. What has to outlive those waits here for [`Context::shutdown`], or belongs to the tasks.
    ///
    /// # Errors
    /// An error becomes the exit reason.
    async fn on_stop(&mut self, why: StopReason, cx: &mut Context<Self>) -> Result<()> {
        let _ = (why, cx);
        Ok(())
    }

    /// The key by which a new process finds this code in its own program. Override it to rename a type freely.
    fn role() -> Cow<'static, str> {
        type_name::<Self>().into()
    }
}

/// The message type of a worker that takes none: `match message {}` is the whole handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

/// The worker made of the body of `#[cluster::main] async fn main(cx: cluster::Context)`.
#[derive(Debug)]
pub enum Main {}

impl Worker for Main {
    type Msg = Never;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> Result<Self> {
        Err("the body of main is not started as a role".into())
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> Result<()> {
        match message {}
    }
}

/// A watched worker has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// Slot and incarnation.
    pub worker: WorkerId,
    /// The slot's path.
    pub name: String,
    /// Why it ended.
    pub reason: ExitReason,
}

/// A worker type as a program can play it: made by [`Role::of`], listed in [`tree`](crate::tree).
#[derive(Clone, Copy)]
pub struct Role {
    pub(crate) id: fn() -> TypeId,
    pub(crate) key: fn() -> Cow<'static, str>,
    pub(crate) name: fn() -> &'static str,
    pub(crate) takes: fn() -> &'static str,
    pub(crate) schema: fn() -> u64,
    pub(crate) args: fn() -> u64,
    /// Which of the two can be sent and never be read.
    pub(crate) unreadable: fn() -> Option<&'static str>,
    pub(crate) play: fn(Life) -> Pin<Box<dyn Future<Output = Ending>>>,
}

impl Role {
    /// The role of a worker type.
    #[must_use]
    pub const fn of<W: Worker>() -> Role {
        Role {
            id: TypeId::of::<W>,
            key: W::role,
            name: type_name::<W>,
            takes: type_name::<W::Msg>,
            schema: schema::of::<W::Msg>,
            args: schema::of::<W::Args>,
            unreadable: unreadable::<W>,
            play: |life| Box::pin(work::play::<W>(life)),
        }
    }
}

fn unreadable<W: Worker>() -> Option<&'static str> {
    match (schema::asks_for_any::<W::Msg>(), schema::asks_for_any::<W::Args>()) {
        (true, _) => Some(type_name::<W::Msg>()),
        (false, true) => Some(type_name::<W::Args>()),
        (false, false) => None,
    }
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Role({})", (self.name)())
    }
}

/// What a body, a linked task or `main` may return: `()`, `ExitCode`, `Infallible`, or a `Result` of these with any error that
/// is `Debug`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the outcome of a worker's body, of a linked task or of `main`",
    note = "return `()`, `ExitCode` or `cluster::Result<()>` (any `Result` whose error is `Debug`)",
    note = "what never ends returns `!`, which has no traits yet: put it into an `async fn` that returns `std::convert::Infallible`"
)]
pub trait Outcome {
    /// The exit code, and an error's text.
    #[doc(hidden)]
    fn report(self) -> Report;
}

/// An outcome in the kernel's and the supervisor's words.
#[doc(hidden)]
#[derive(Debug)]
pub struct Report {
    pub(crate) code: std::process::ExitCode,
    pub(crate) error: Option<String>,
    pub(crate) panicked: Option<crate::run::panic::Panic>,
}

impl Report {
    fn success(code: std::process::ExitCode) -> Report {
        Report { code, error: None, panicked: None }
    }

    pub(crate) fn panicked(panic: &crate::run::panic::Panic) -> Report {
        Report { code: std::process::ExitCode::from(101), error: None, panicked: Some(panic.clone()) }
    }
}

impl Outcome for () {
    fn report(self) -> Report {
        Report::success(std::process::ExitCode::SUCCESS)
    }
}

impl Outcome for std::process::ExitCode {
    fn report(self) -> Report {
        Report::success(self)
    }
}

impl Outcome for std::convert::Infallible {
    fn report(self) -> Report {
        match self {}
    }
}

impl<T: Outcome, E: std::fmt::Debug + 'static> Outcome for std::result::Result<T, E> {
    fn report(self) -> Report {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                let error = Some(format!("{error:?}"));
                Report { code: std::process::ExitCode::FAILURE, error, panicked: None }
            }
        }
    }
}
