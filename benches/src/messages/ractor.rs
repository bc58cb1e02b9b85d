//! Ractor's actors: the receiver is in this process here, and in another one in `ractor_cluster`. Its mailboxes are
//! unbounded.

use anyhow::{Context, Result, bail};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, BytesConvertable, RpcReplyPort};
use ractor_cluster::RactorClusterMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::drive::Peer;
use super::in_process;
use super::scenario::{Load, Tally};

/// One message type for both systems: an actor of another process is an `ActorRef` like any other.
#[derive(RactorClusterMessage)]
pub(super) enum Job {
    Put(Load),
    #[rpc]
    Echo(u64, RpcReplyPort<u64>),
    #[rpc]
    Count(RpcReplyPort<Tally>),
    /// Count, size.
    #[rpc]
    Pass(u64, u64, RpcReplyPort<Tally>),
}

/// Ractor wants to know how its messages' fields become bytes: by the codec that rclust and ipc-channel use.
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data in memory")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).expect("what the other side has encoded")
}

impl BytesConvertable for Load {
    fn into_bytes(self) -> Vec<u8> {
        encode(&self)
    }

    fn from_bytes(bytes: Vec<u8>) -> Load {
        decode(&bytes)
    }
}

impl BytesConvertable for Tally {
    fn into_bytes(self) -> Vec<u8> {
        encode(&self)
    }

    fn from_bytes(bytes: Vec<u8>) -> Tally {
        decode(&bytes)
    }
}

/// The receiver, and the actor that sends to it.
pub(super) struct Counter;

pub(super) struct State {
    tally: Tally,
    next: Option<ActorRef<Job>>,
}

impl Actor for Counter {
    type Msg = Job;
    type State = State;
    type Arguments = Option<ActorRef<Job>>;

    async fn pre_start(&self, _me: ActorRef<Job>, next: Option<ActorRef<Job>>) -> Result<State, ActorProcessingErr> {
        Ok(State { tally: Tally::default(), next })
    }

    async fn handle(&self, _me: ActorRef<Job>, job: Job, state: &mut State) -> Result<(), ActorProcessingErr> {
        match job {
            Job::Put(load) => state.tally.add(&load),
            Job::Echo(n, reply) => reply.send(n)?,
            Job::Count(reply) => reply.send(state.tally.take())?,
            Job::Pass(count, size, reply) => {
                let next = state.next.as_ref().ok_or("the receiver passes nothing on")?;
                for n in 0..count {
                    next.cast(Job::Put(Load::new(n, size as usize)))?;
                }
                reply.send(ask(next, Job::Count).await.map_err(|error| error.to_string())?)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct Actors {
    pub(super) receiver: ActorRef<Job>,
    pub(super) middle: ActorRef<Job>,
}

/// `PLACES MILLISECONDS`
pub(crate) fn play(args: &[&str]) -> Result<()> {
    in_process::play(args, async |far| {
        let (receiver, _) = far.spawn(Actor::spawn(None, Counter, None)).await??;
        let (middle, _) = Actor::spawn(None, Counter, Some(receiver.clone())).await?;
        Ok(Actors { receiver, middle })
    })
}

async fn ask<T: Send + 'static>(to: &ActorRef<Job>, make: impl FnOnce(RpcReplyPort<T>) -> Job) -> Result<T> {
    match to.call(make, None).await.context("the actor is gone")? {
        CallResult::Success(answer) => Ok(answer),
        CallResult::Timeout => bail!("no answer in time"),
        CallResult::SenderError => bail!("the question was dropped"),
    }
}

impl Peer for Actors {
    async fn send(&self, load: Load) -> Result<()> {
        self.receiver.cast(Job::Put(load)).context("the actor is gone")
    }

    async fn echo(&self, n: u64) -> Result<u64> {
        ask(&self.receiver, |reply| Job::Echo(n, reply)).await
    }

    async fn tally(&self) -> Result<Tally> {
        ask(&self.receiver, Job::Count).await
    }

    async fn pass(&self, count: u64, size: usize) -> Result<Tally> {
        ask(&self.middle, |reply| Job::Pass(count, size as u64, reply)).await
    }
}
