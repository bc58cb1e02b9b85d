//! Reply ports: the way back inside a message, and the question that waits for it.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use crate::error::AskError;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::beside::{Body, Large, Parcel};
use crate::mailbox::endpoint::{self, Endpoint};
use crate::mailbox::lane::{Lane, OPEN_ASKS};
use crate::mailbox::pending::{Outcome, Sink};
use crate::mailbox::sender::{self, Refused};
use crate::wire::control::Ring;
use crate::wire::payload::{self, Aside};
use crate::wire::schema;

/// How long an [`ask`](crate::WorkerRef::ask) waits when no other limit is given.
pub const ASK_LIMIT: Duration = Duration::from_secs(30);

const NOBODY: WorkerId = WorkerId { slot: Slot(0), incarnation: Incarnation(0) };

/// A port in another process.
pub(crate) struct Remote {
    endpoint: Arc<Endpoint>,
    asker: WorkerId,
    id: u64,
    /// How often it has been sent on.
    hops: u8,
}

/// A port that has left its message.
pub(crate) enum Departed {
    /// Our own question.
    Ours(Sink),
    /// Somebody else's, sent on.
    Theirs(Remote),
}

enum State {
    /// Ours: the question has not left yet.
    Local(Sink),
    /// Received in a message: somebody waits for it.
    Remote(Remote),
    /// Sent or answered.
    Empty,
}

/// Where a port's value is, shared between the message and the scope that encodes it.
pub(crate) struct Cell(Mutex<State>);

impl Cell {
    /// The message with this port is committed: takes the value out.
    pub(crate) fn depart(&self) -> Option<Departed> {
        match std::mem::replace(&mut *self.0.lock(), State::Empty) {
            State::Local(sink) => Some(Departed::Ours(sink)),
            State::Remote(remote) => Some(Departed::Theirs(remote)),
            State::Empty => None,
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let State::Remote(remote) = std::mem::replace(self.0.get_mut(), State::Empty) {
            remote.say(sender::DROPPED, &[]);
        }
    }
}

impl Remote {
    /// Tells the asker that its port is in a message to `to` now, in the record of our lane that ends there: that slot's death is
    /// what it has to hear of.
    pub(crate) fn moved(&self, to: Slot, end: u64) {
        if to != self.asker.slot {
            let mut text = to.0.to_le_bytes().to_vec();
            text.extend(end.to_le_bytes());
            text.push(self.hops.saturating_add(1));
            self.say(sender::MOVED, &text);
        }
    }

    /// An answer's head: whose question it is for.
    fn head(&self, room: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + room);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.asker.incarnation.0.to_le_bytes());
        bytes
    }

    /// Tells the asker that no answer comes.
    fn say(&self, what: u32, text: &[u8]) {
        let mut bytes = self.head(text.len());
        bytes.extend(text);
        if self.asker.slot == self.endpoint.seat() {
            return self.endpoint.settle(self.asker.slot, what, &bytes, Vec::new());
        }
        // No lane: the asker is gone for good, and nobody waits.
        if let Ok(lane) = self.endpoint.lane(self.asker.slot) {
            sender::reply(&self.endpoint, &lane, Parcel::plain(what, bytes));
        }
    }

    fn answer(&self, value: Vec<u8>, aside: Aside) {
        // Ports inside an answer: their askers wait on this side, for whatever comes from there.
        for port in aside.ports {
            match port.cell.depart() {
                Some(Departed::Ours(sink)) => self.endpoint.pending().opened(port.id, sink, self.asker.slot, 0),
                // In an answer: whoever gets it is not taken for dead with a message.
                Some(Departed::Theirs(_)) | None => {}
            }
        }
        let to_self = self.asker.slot == self.endpoint.seat();
        if to_self && aside.sockets.is_empty() {
            let mut bytes = self.head(value.len());
            bytes.extend(value);
            return self.endpoint.settle(self.asker.slot, sender::ANSWER, &bytes, Vec::new());
        }
        let Ok(lane) = self.endpoint.lane(self.asker.slot) else { return };
        let mut parcel = Parcel { sockets: aside.sockets, ..Parcel::plain(sender::ANSWER, self.head(value.len())) };
        if 12 + value.len() <= lane.inline(Ring::Replies) {
            parcel.bytes.extend(value);
        } else if value.len() as u64 > lane.largest() {
            let why = format!("an answer of {} bytes, the limit of that lane is {}", value.len(), lane.largest());
            return self.say(sender::UNANSWERABLE, why.as_bytes());
        } else {
            match Large::new(&value) {
                Ok(large) => parcel.large = Some(large),
                Err(error) => return self.say(sender::UNANSWERABLE, error.to_string().as_bytes()),
            }
        }
        sender::reply(&self.endpoint, &lane, parcel);
    }
}

/// The way back to an asker, as a field of a message, at any depth. Answered once, now or later, from any task.
///
/// Dropped without an answer, it tells the asker so ([`AskError::Dropped`]). It can be sent on inside another message.
/// Serializing one is only possible as part of a message that is being sent.
pub struct Reply<T> {
    cell: Arc<Cell>,
    _answer: PhantomData<fn(T)>,
}

impl<T: Serialize> Reply<T> {
    /// Answers. Never waits: what finds no room waits in this process, bounded by the open questions of the asker's lane.
    ///
    /// The asker may have stopped waiting, or died; nobody is told. A value that cannot be encoded, or is larger than the
    /// lane's largest message, reaches the asker as [`AskError::Unsendable`].
    pub fn send(self, value: T) {
        let state = std::mem::replace(&mut *self.cell.0.lock(), State::Empty);
        let me = match &state {
            State::Remote(remote) => remote.endpoint.asker(),
            State::Local(_) | State::Empty => endpoint::current().map_or(NOBODY, |own| own.asker()),
        };
        let mut bytes = Vec::new();
        let encoded = payload::encode(&value, me, &mut bytes);
        match (state, encoded) {
            (State::Local(sink), Ok(aside)) => {
                let _ = match aside.take_sockets() {
                    Ok(sockets) => sink.send(Outcome::Answered { body: Body::Inline(bytes), sockets }),
                    Err(error) => sink.send(Outcome::Unanswerable(error.to_string())),
                };
            }
            (State::Local(sink), Err(error)) => {
                let _ = sink.send(Outcome::Unanswerable(error));
            }
            (State::Remote(remote), Ok(aside)) => remote.answer(bytes, aside),
            (State::Remote(remote), Err(error)) => remote.say(sender::UNANSWERABLE, error.as_bytes()),
            (State::Empty, _) => {}
        }
    }
}

impl<T> Reply<T> {
    /// Whether nobody waits any more, as far as this process knows: a port that has not left yet knows, one that came
    /// from another process does not and says `false`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &*self.cell.0.lock() {
            State::Local(sink) => sink.is_closed(),
            State::Remote(_) => false,
            State::Empty => true,
        }
    }

    fn local(sink: Sink) -> Reply<T> {
        Reply { cell: Arc::new(Cell(Mutex::new(State::Local(sink)))), _answer: PhantomData }
    }
}

impl<T: DeserializeOwned> Reply<T> {
    /// A port and what comes of it: for messages with two ports, and for tests.
    pub fn pair() -> (Reply<T>, Answer<T>) {
        let (sink, receiver) = oneshot::channel();
        (Reply::local(sink), Answer { receiver, to: "the receiver of the port".to_owned(), _answer: PhantomData })
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl<T> Serialize for Reply<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (me, id) = payload::note_port(&self.cell).map_err(S::Error::custom)?;
        let address = match &*self.cell.0.lock() {
            State::Local(_) => (me, id, 0),
            State::Remote(remote) => (remote.asker, remote.id, remote.hops.saturating_add(1)),
            State::Empty => {
                return Err(S::Error::custom(payload::refuse("a reply port that was already sent or answered")));
            }
        };
        address.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Reply<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reply<T>, D::Error> {
        if payload::is_tracing() {
            schema::name::<T, D>("rclust::Reply", deserializer)?;
            // Nobody waits for it, so that nobody hears when it is dropped.
            return Ok(Reply { cell: Arc::new(Cell(Mutex::new(State::Empty))), _answer: PhantomData });
        }
        let (asker, id, hops) = <(WorkerId, u64, u8)>::deserialize(deserializer)?;
        if !payload::decoding() {
            return Err(D::Error::custom("a reply port exists only inside a message that arrived"));
        }
        let endpoint = endpoint::current().ok_or_else(|| D::Error::custom("no cluster runs here"))?;
        let state = State::Remote(Remote { endpoint, asker, id, hops });
        Ok(Reply { cell: Arc::new(Cell(Mutex::new(state))), _answer: PhantomData })
    }
}

/// What comes of a port made by [`Reply::pair`]: a future.
#[must_use = "futures do nothing unless awaited"]
pub struct Answer<T> {
    receiver: oneshot::Receiver<Outcome>,
    to: String,
    _answer: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for Answer<T> {
    type Output = Result<T, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.receiver).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(read(outcome.unwrap_or(Outcome::Dropped), &self.to)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// A question: a future of its answer. Nothing is sent before it is first polled.
///
/// It always ends: answered, timed out (30 s unless [`Ask::timeout`] says otherwise), dropped, died, closed.
///
/// # Cancel safety
/// Dropped before its first poll, nothing was sent; later, the question may be handled, and its answer is thrown away.
#[must_use = "a question does nothing unless awaited"]
pub struct Ask<T> {
    question: Option<Question>,
    limit: Duration,
    running: Option<Exchange<T>>,
}

/// A question on its way.
type Exchange<T> = Pin<Box<dyn Future<Output = Result<T, AskError>> + Send>>;

/// An encoded question that has not been sent.
struct Question {
    to: String,
    sent: Result<Sendable, AskError>,
}

struct Sendable {
    endpoint: Arc<Endpoint>,
    lane: Arc<Lane>,
    bytes: Vec<u8>,
    aside: Aside,
    receiver: oneshot::Receiver<Outcome>,
}

impl<T: DeserializeOwned + 'static> Ask<T> {
    pub(crate) fn new<M: Serialize>(
        lane: Result<(&Arc<Endpoint>, &Arc<Lane>), AskError>,
        to: &str,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Ask<T> {
        let (sink, receiver) = oneshot::channel();
        let message = make(Reply::local(sink));
        let sent = lane.and_then(|(endpoint, lane)| {
            let (endpoint, lane) = (endpoint.clone(), lane.clone());
            let mut bytes = Vec::new();
            match payload::encode(&message, endpoint.asker(), &mut bytes) {
                Ok(aside) => Ok(Sendable { endpoint, lane, bytes, aside, receiver }),
                Err(error) => Err(AskError::Unsendable { to: to.to_owned(), error }),
            }
        });
        Ask { question: Some(Question { to: to.to_owned(), sent }), limit: ASK_LIMIT, running: None }
    }

    /// Waits for at most this long, in all.
    pub fn timeout(mut self, limit: Duration) -> Ask<T> {
        self.limit = limit;
        self
    }
}

impl<T: DeserializeOwned + 'static> Future for Ask<T> {
    type Output = Result<T, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let limit = self.limit;
        if let Some(question) = self.question.take() {
            self.running = Some(Box::pin(run(question, limit)));
        }
        match &mut self.running {
            Some(running) => running.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Ask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

async fn run<T: DeserializeOwned>(question: Question, limit: Duration) -> Result<T, AskError> {
    let Question { to, sent } = question;
    let Sendable { endpoint, lane, bytes, aside, mut receiver } = sent?;
    let exchange = async {
        // Held until the answer: a lane has a bounded number of open asks.
        let _permit = lane.asks.acquire().await;
        let mut large = None;
        loop {
            match sender::commit(&endpoint, &lane, &bytes, &aside, &mut large) {
                Ok(()) => break,
                Err(Refused::Crowded) => endpoint.attach_room().await,
                Err(Refused::Full) => {
                    if sender::wait_for_room(&endpoint, &lane, sender::need(&lane, &bytes, &aside)).await.is_err() {
                        return Err(AskError::Closed { to: to.clone() });
                    }
                }
                Err(Refused::Closed | Refused::OtherMessages | Refused::Corrupt(_)) => {
                    return Err(AskError::Closed { to: to.clone() });
                }
                Err(Refused::TooLarge { bytes, limit }) => {
                    let error = format!("{bytes} bytes, the limit of that lane is {limit}");
                    return Err(AskError::Unsendable { to: to.clone(), error });
                }
                Err(Refused::Encode(error) | Refused::Os(error)) => {
                    return Err(AskError::Unsendable { to: to.clone(), error });
                }
            }
        }
        drop((aside, large, bytes));
        // This task waits now: no reason to let the question wait for the rest of a batch.
        lane.ring_if_needed();
        if lane.asks.available_permits() + 1 == OPEN_ASKS {
            // Nobody else asks: a batch of answers, for which sleep is well spent, is not to be expected.
            let mut outcome = None;
            let come = || {
                outcome = receiver.try_recv().ok();
                outcome.is_some()
            };
            endpoint.linger_for_answer(&endpoint.answering(&lane), come).await;
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        Ok(receiver.await.unwrap_or(Outcome::Dropped))
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(outcome) => {
            let outcome = outcome?;
            endpoint.within(|| read(outcome, &to))
        }
        Err(_) => Err(AskError::Timeout { to, after: limit }),
    }
}

fn read<T: DeserializeOwned>(outcome: Outcome, to: &str) -> Result<T, AskError> {
    let to = || to.to_owned();
    match outcome {
        Outcome::Answered { body, sockets } => {
            payload::decode(&body, sockets).map_err(|error| AskError::Undecodable { to: to(), error })
        }
        Outcome::Dropped => Err(AskError::Dropped { to: to() }),
        Outcome::Died(reason) => Err(AskError::Died { to: to(), reason }),
        Outcome::Closed => Err(AskError::Closed { to: to() }),
        Outcome::Unanswerable(error) => Err(AskError::Unsendable { to: to(), error }),
    }
}
