//! What another crate adds to the supervisor: `rclust-net` lives behind this door.
//!
//! An extension has a thread of its own in the supervisor, hears what happens to workers, answers their questions (with
//! descriptors, if it wants), and is asked to fall quiet before the tree stops. For users of rclust there is nothing here.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::context::say_ready;
use crate::id::{Slot, WorkerId};
use crate::ipc::control::{self, Control};
use crate::mailbox::endpoint::{self, Endpoint};
use crate::run::shared::{Command, Shared};
use crate::wire::control::ToSupervisor;

/// The operating system's calls that extensions share with the core, so that there is one place for them.
pub mod os {
    pub use crate::sys::alarm::Alarm;
    pub use crate::sys::descriptors::{Received, receive_with, send_with, socket_pair};
    pub use crate::sys::memory::{Mapping, create as create_memory};
    pub use crate::sys::process::take_env;
    pub use crate::sys::readiness::{Owns, register_hangup, register_readable};
}

/// Code that runs on the supervisor's *net* thread.
pub trait Extension: Send + 'static {
    /// Called in the supervisor's process while it has one thread, before it opens anything and before its `init`.
    fn prepare(&mut self) {}

    /// Runs until `events` ends. Called on a thread of its own.
    fn run(self: Box<Self>, events: mpsc::UnboundedReceiver<Event>, supervisor: Supervisor);
}

/// What an extension hears.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A process was started for a slot.
    Started {
        /// Who.
        worker: WorkerId,
        /// The slot's path.
        name: Arc<str>,
        /// Its place in its pool.
        index: usize,
    },
    /// It can serve.
    Ready {
        /// Who.
        worker: WorkerId,
    },
    /// A reload has replaced it by another, which is ready. It drains next.
    Replaced {
        /// Who was.
        worker: WorkerId,
        /// Who is.
        by: WorkerId,
    },
    /// It is about to be asked to stop: nothing new for it. It hears of the stop when the extension has answered (it gives
    /// up what nobody took, and lets what was taken begin), or after 250 ms.
    Draining {
        /// Who.
        worker: WorkerId,
        /// The answer.
        quiet: oneshot::Sender<()>,
    },
    /// Its process is gone.
    Gone {
        /// Who.
        worker: WorkerId,
    },
    /// A slot will never be filled again.
    Forgotten {
        /// Which.
        slot: Slot,
    },
    /// A question of a worker; not trusted.
    Request {
        /// Who asks.
        worker: WorkerId,
        /// For [`Supervisor::respond`].
        id: u64,
        /// The question.
        body: Vec<u8>,
    },
    /// A worker that was full is so no more.
    Room {
        /// Who.
        worker: WorkerId,
        /// To be cleared before looking: until then it is not told again.
        told: Arc<AtomicBool>,
    },
    /// The tree is about to stop: take nothing new, and answer when all that was taken is in a worker's hands.
    Quiet(oneshot::Sender<()>),
}

/// The extension's way back.
#[derive(Clone)]
pub struct Supervisor {
    pub(crate) shared: Arc<Shared>,
}

impl Supervisor {
    /// Answers a worker's question, with descriptors.
    pub fn respond(&self, worker: WorkerId, id: u64, body: Vec<u8>, fds: Vec<Arc<OwnedFd>>) {
        self.shared.command(Command::Respond { worker, id, body, fds });
    }

    /// Tells that a worker has its share of a listener.
    pub fn listening(&self, worker: WorkerId, address: String) {
        self.shared.command(Command::Listening { worker, address });
    }

    /// Tells that a worker was refused a listener.
    pub fn refused_listen(&self, worker: WorkerId, address: String, error: String) {
        self.shared.command(Command::RefusedListen { worker, address, error });
    }

    /// Tells that a listener is in trouble. (An extension does not log: a subscriber or a full pipe would hold up its thread.)
    pub fn troubled(&self, address: String, text: String) {
        self.shared.command(Command::Troubled { address, text });
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("extension::Supervisor")
    }
}

/// The worker that this process (or thread, in tests) is; its way to the extension in the supervisor.
#[derive(Clone)]
pub struct Here {
    control: Arc<Control>,
    endpoint: Arc<Endpoint>,
}

impl Here {
    /// The worker that this code runs in; `None` outside a cluster and in the supervisor.
    #[must_use]
    pub fn worker() -> Option<Here> {
        let endpoint = endpoint::current()?;
        Some(Here { control: endpoint.control()?.clone(), endpoint })
    }

    /// What the extension keeps for this worker; made at first use.
    #[must_use]
    pub fn kept<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let kept = self.control.kept.get_or_init(|| Arc::new(T::default())).clone();
        // There is one extension, and it keeps one type.
        kept.downcast().unwrap_or_default()
    }

    /// Does what only a living worker may do: a thread that plays one (in tests) may live on when its worker is dead and its
    /// successor has begun. `None`: it is dead, nothing was done. `act` must not wait, the worker's death waits for it.
    pub fn while_alive<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let _alive = self.endpoint.alive()?;
        Some(act())
    }

    /// Asks the extension in the supervisor.
    ///
    /// # Errors
    /// The supervisor refused, or is gone.
    /// # Cancel safety
    /// Dropped before completion, the question may have been handled.
    pub async fn ask(&self, body: Vec<u8>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.control.ask_extension(body).await
    }

    /// Tells the extension that there is room again.
    pub fn room(&self) {
        self.control.say(&ToSupervisor::Room);
    }

    /// This worker listens: a body's worker is ready with that.
    pub fn listens(&self) {
        if self.control.ready_by_listening {
            if !self.control.listened.swap(true, Ordering::Relaxed) {
                self.control.say(&ToSupervisor::Listens);
            }
            say_ready(&self.endpoint, &self.control);
        }
    }

    /// Holds back the close after an order to stop (a worker that nobody does this for closes with the order). `last_calls` is called
    /// when the order comes, with its deadline, on a thread where its future has time whatever the program does. The close begins
    /// when that drops [`Close`], which it has to keep until then. The last one that is said before the order counts.
    pub fn before_close<F>(&self, last_calls: impl FnOnce(Option<Duration>, Close) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.control.before_close(Box::new(|deadline, close| Box::pin(last_calls(deadline, Close(close)))));
    }

    /// This worker has taken a connection.
    pub fn took_connection(&self) {
        self.control.took_connection();
    }

    /// Whether this worker's memory is watched, so that it wants to hear of [`Here::active`].
    #[must_use]
    pub fn watches_memory(&self) -> bool {
        self.control.wear.watches_rss()
    }

    /// This worker did something; its memory is looked at a second later, and not again before that.
    pub fn active(&self) {
        self.control.active();
    }

    /// The soft limit of open descriptors of this process; `None` is unlimited.
    #[must_use]
    pub fn descriptor_limit(&self) -> Option<u64> {
        crate::sys::process::descriptor_limit().0
    }
}

/// Its drop begins the close of a worker: `cx.shutdown()` resolves.
pub struct Close(#[allow(dead_code)] control::Close);

impl fmt::Debug for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Close")
    }
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Here({})", self.endpoint.name())
    }
}
