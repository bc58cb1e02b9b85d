//! The handle others hold: send, try_send, ask.

use std::any::type_name;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::context::Timer;
use crate::error::{AskError, LookupError, SendError, TrySendError};
use crate::id::Slot;
use crate::mailbox::endpoint::{self, Endpoint, Located};
use crate::mailbox::lane::Lane;
use crate::mailbox::sender::{self, Refused};
use crate::reply::{Ask, Reply};
use crate::wire::control::Found;
use crate::wire::payload;
use crate::wire::schema;
use crate::worker::Message;

struct Target {
    slot: Slot,
    name: String,
    /// None only where a message type is traced: that reference leads nowhere.
    endpoint: Option<Arc<Endpoint>>,
    /// The fingerprint of the messages that it takes, or [`ANYTHING`].
    schema: u64,
    /// Whether it was looked up before its worker was ever ready.
    not_yet: bool,
    lane: OnceLock<Arc<Lane>>,
}

/// The schema of a mailbox of which nothing is known.
pub(crate) const ANYTHING: u64 = 0;

/// A worker's mailbox, as others hold it: typed by the message it takes. It names the slot and follows restarts.
///
/// Cheap to clone. It can be sent inside messages; elsewhere serializing it is an error.
pub struct WorkerRef<M> {
    target: Arc<Target>,
    _message: PhantomData<fn(M)>,
}

impl<M> WorkerRef<M> {
    pub(crate) fn new(endpoint: Arc<Endpoint>, slot: Slot, name: String, schema: u64) -> WorkerRef<M> {
        WorkerRef::to(Target { slot, name, endpoint: Some(endpoint), schema, not_yet: false, lane: OnceLock::new() })
    }

    fn to(target: Target) -> WorkerRef<M> {
        WorkerRef { target: Arc::new(target), _message: PhantomData }
    }

    /// None only where a message type is traced.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.target.endpoint.as_ref()
    }

    /// The slot it names.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.target.slot
    }

    /// The slot's path in the tree.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.name
    }
}

impl<M: Message> WorkerRef<M> {
    /// The way there; at first use it is opened, and the type of the messages compared.
    fn lane(&self) -> Result<(&Arc<Endpoint>, &Arc<Lane>), Refused> {
        let target = &self.target;
        let endpoint = target.endpoint.as_ref().ok_or(Refused::Closed)?;
        match target.lane.get() {
            Some(lane) => Ok((endpoint, lane)),
            None => {
                if target.schema != ANYTHING && target.schema != schema::of::<M>() {
                    return Err(Refused::OtherMessages);
                }
                let lane = endpoint.lane(target.slot).map_err(|_| Refused::Closed)?;
                Ok((endpoint, target.lane.get_or_init(|| lane)))
            }
        }
    }

    /// Puts `message` into the worker's mailbox, waiting while it is full.
    ///
    /// `Ok` means that the slot's mailbox holds it: it survives this process and the worker's. It does not mean that it was
    /// handled: a worker may die with it in hand, and it then becomes a [dead letter](crate::DeadLetter).
    /// The worker is woken when this task next yields, at 32 messages, at 16 KiB, or by [`WorkerRef::flush`].
    ///
    /// # Ordering
    /// Kept between one sender and one slot, across its restarts.
    /// # Errors
    /// `Closed` once the slot will not be filled again, `TooLarge`, `Encode`; the message comes back.
    /// # Cancel safety
    /// Dropped before completion, nothing was queued.
    pub async fn send(&self, message: M) -> Result<(), SendError<M>> {
        let refused = match self.lane() {
            Ok((endpoint, lane)) => match sender::send(endpoint, lane, &message).await {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
            Err(refused) => refused,
        };
        Err(self.failed(refused, message))
    }

    /// Puts `message` into the worker's mailbox if there is room now. Everything else as [`WorkerRef::send`].
    ///
    /// # Errors
    /// `Full`: `send` would wait. The message comes back.
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        let refused = match self.lane() {
            Ok((endpoint, lane)) => match sender::try_send(endpoint, lane, &message) {
                Ok(()) => return Ok(()),
                Err(Refused::Full | Refused::Crowded) => {
                    return Err(TrySendError::Full { message, to: self.target.name.clone() });
                }
                Err(refused) => refused,
            },
            Err(refused) => refused,
        };
        Err(TrySendError::Failed(self.failed(refused, message)))
    }

    /// Sends `message` after a delay, waiting then while the mailbox is full. It is this process's until it has gone: lost with it,
    /// and with a mailbox that is closed by then (a line in the log says so). [`Timer::cancel`] takes it back.
    pub fn send_after(&self, delay: Duration, message: M) -> Timer {
        let to = self.clone();
        Timer::on(self.target.endpoint.as_ref().map(|endpoint| endpoint.runtime()), async move {
            tokio::time::sleep(delay).await;
            if let Err(error) = to.send(message).await {
                tracing::warn!(target: "rclust", to = to.name(), %error, "a delayed message was not sent");
            }
        })
    }

    /// How many bytes of this process's messages wait in the worker's mailbox, as of now.
    pub(crate) fn backlog(&self) -> u64 {
        self.lane().map_or(u64::MAX, |(_, lane)| if lane.is_closed() { u64::MAX } else { lane.backlog() })
    }

    /// Wakes the worker for what was sent, by this or another reference of this process, without waiting for this task to yield.
    pub fn flush(&self) {
        let open = || self.target.endpoint.as_ref()?.open_lane(self.target.slot);
        if let Some(lane) = self.target.lane.get().cloned().or_else(open) {
            lane.ring_if_needed();
        }
    }

    /// Asks: `make` puts the reply port into a message; the future is the answer. It always ends.
    ///
    /// ```
    /// # use rclust_core::{Reply, WorkerRef};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # enum Job { Get { key: String, reply: Reply<Option<u64>> } }
    /// # async fn f(cache: WorkerRef<Job>) -> Result<(), Box<dyn std::error::Error>> {
    /// let key = "hits".to_owned();
    /// let hits: Option<u64> = cache.ask(|reply| Job::Get { key, reply }).await?;
    /// # Ok(()) }
    /// ```
    /// # Errors
    /// See [`AskError`]: timeout (30 s unless [`Ask::timeout`] says otherwise), dropped, died, closed, not ready.
    /// # Cancel safety
    /// Dropped before its first poll, nothing was sent; later, the question may be handled and the answer is thrown away.
    pub fn ask<T: DeserializeOwned + 'static>(&self, make: impl FnOnce(Reply<T>) -> M) -> Ask<T> {
        let to = &self.target.name;
        let ready = self.target.endpoint.as_ref().is_none_or(|endpoint| endpoint.is_ready());
        // In its own `start`, a worker must not wait for what comes up after it: the body, itself, a later child.
        let own = self.target.endpoint.as_ref().is_some_and(|endpoint| endpoint.me().slot == self.target.slot);
        let lane = if !ready && (self.target.slot == Slot::SUPERVISOR || own || self.target.not_yet) {
            Err(AskError::NotReady { to: to.clone() })
        } else {
            self.lane().map_err(|refused| match refused {
                Refused::OtherMessages => AskError::OtherMessages { to: to.clone() },
                _ => AskError::Closed { to: to.clone() },
            })
        };
        Ask::new(lane, to, make)
    }

    fn failed(&self, refused: Refused, message: M) -> SendError<M> {
        let to = self.target.name.clone();
        match refused {
            Refused::TooLarge { bytes, limit } => SendError::TooLarge { message, to, bytes, limit },
            Refused::Encode(error) => SendError::Encode { message, to, error },
            Refused::OtherMessages => SendError::OtherMessages { message, to },
            Refused::Os(error) => SendError::Os { message, to, error },
            Refused::Full | Refused::Crowded | Refused::Closed | Refused::Corrupt(_) => {
                SendError::Closed { message, to }
            }
        }
    }
}

impl<M> Clone for WorkerRef<M> {
    fn clone(&self) -> Self {
        WorkerRef { target: self.target.clone(), _message: PhantomData }
    }
}

impl<M> PartialEq for WorkerRef<M> {
    fn eq(&self, other: &Self) -> bool {
        self.target.slot == other.target.slot
    }
}

impl<M> Eq for WorkerRef<M> {}

impl<M> Hash for WorkerRef<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.slot.hash(state);
    }
}

impl<M> fmt::Debug for WorkerRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerRef({})", self.target.name)
    }
}

impl<M> Serialize for WorkerRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !payload::encoding() {
            return Err(S::Error::custom(
                "a worker reference can only be serialized as part of a message that is being sent",
            ));
        }
        (self.target.slot, &self.target.name, self.target.schema).serialize(serializer)
    }
}

impl<'de, M> Deserialize<'de> for WorkerRef<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if payload::is_tracing() {
            schema::name::<M, D>("rclust::WorkerRef", deserializer)?;
            let (slot, name) = (Slot::SUPERVISOR, String::new());
            return Ok(WorkerRef::to(Target {
                slot,
                name,
                endpoint: None,
                schema: ANYTHING,
                not_yet: false,
                lane: OnceLock::new(),
            }));
        }
        let (slot, name, schema) = <(Slot, String, u64)>::deserialize(deserializer)?;
        if !payload::decoding() {
            return Err(D::Error::custom("a worker reference exists only inside a message that arrived"));
        }
        let endpoint = endpoint::current().ok_or_else(|| D::Error::custom("no cluster runs here"))?;
        Ok(WorkerRef::new(endpoint, slot, name, schema))
    }
}

/// Finds a worker by its path.
pub(crate) fn worker<M: Message>(endpoint: &Arc<Endpoint>, path: &str) -> Result<WorkerRef<M>, LookupError> {
    match endpoint.find(path)? {
        Located::Worker(found) => checked(endpoint, path, found),
        Located::Pool(_) => Err(LookupError::IsPool { path: path.to_owned() }),
    }
}

pub(crate) fn checked<M: Message>(
    endpoint: &Arc<Endpoint>,
    path: &str,
    found: Found,
) -> Result<WorkerRef<M>, LookupError> {
    // Message types are compared, never worker types, so that a stand-in with the same messages can be found; and by what they
    // are, not by where they stand.
    if found.schema != schema::of::<M>() {
        let asked = type_name::<M>().to_owned();
        let other = if found.takes == asked { "another version of " } else { "" };
        let takes = format!("{other}{}", found.takes);
        return Err(LookupError::OtherMessages { path: path.to_owned(), takes, asked });
    }
    // Children are started in the order of the tree: one that stands behind the asker and is not up waits for it.
    let not_yet = !found.up && found.slot > endpoint.me().slot;
    let (endpoint, lane) = (Some(endpoint.clone()), OnceLock::new());
    Ok(WorkerRef::to(Target { slot: found.slot, name: found.name, endpoint, schema: found.schema, not_yet, lane }))
}
