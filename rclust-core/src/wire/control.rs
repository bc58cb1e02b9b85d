//! What supervisor and worker say to each other on the control lane.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{ExitReason, StopReason};
use crate::id::{Slot, WorkerId};
use crate::recycle::{Limits, Worn};
use crate::sys::identity::Identity;
use crate::wire::applied::Applied;

/// The first frame a new process is sent: who it is and what it runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BootMessage {
    /// The program that the supervisor meant to start.
    pub(crate) identity: Identity,
    /// The supervisor's process id, to see whether it still lives.
    pub(crate) supervisor: u32,
    /// Who this is.
    pub(crate) worker: WorkerId,
    /// Its path in the tree, `name[index]` for a pool's member.
    pub(crate) name: String,
    /// Its place in its pool, 0 outside one.
    pub(crate) index: u32,
    /// How many failed starts came before this one, in a row.
    pub(crate) attempt: u32,
    /// Why the previous incarnation ended.
    pub(crate) previous: Option<ExitReason>,
    /// Which of the program's roles it plays.
    pub(crate) role: String,
    /// Another incarnation is current, and the slot has listened: a body that does not is taken for ready late.
    pub(crate) awaits_listener: bool,
    /// The role's arguments, as the user's type encodes them.
    #[serde(with = "bytes")]
    pub(crate) args: Vec<u8>,
    /// Threads of its runtime.
    pub(crate) threads: u32,
    /// The limit of open descriptors that the supervisor was started with.
    pub(crate) descriptors: (Option<u64>, Option<u64>),
    /// Whether the supervisor's standard input comes as the first descriptor.
    pub(crate) stdin: bool,
    /// What it makes of its process before user code.
    pub(crate) applied: Applied,
    /// The first message of this lane has been in hand of so many incarnations that died.
    pub(crate) again: Option<(Slot, u32)>,
    /// The seat from which it writes.
    pub(crate) seat: Slot,
    /// What the supervisor takes the role's messages and arguments for: fingerprints. A program that was put in the place of the
    /// one that the supervisor runs may have other types.
    pub(crate) schemas: (u64, u64),
    /// When it is to say that it is worn.
    pub(crate) limits: Limits,
}

/// What of a slot's side of a lane a process has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// It writes, and reads the answers to its own questions; the slot's messages are read by another.
    Seat,
    /// It reads the slot's messages, and writes from another seat.
    Inbox,
}

/// Which end of a pair's memory and doorbell a process has: the lower slot is `First`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum End {
    /// The lower slot's.
    First,
    /// The higher slot's.
    Second,
}

/// Which of the two rings that a process writes in a lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Ring {
    /// Messages for the other side.
    Messages,
    /// Answers to its questions.
    Replies,
}

/// How much the two directions of a lane hold: what the reader of each has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// Capacity of the ring of messages that each end writes, in bytes.
    pub(crate) messages: [u32; 2],
    /// Capacity of each ring of replies.
    pub(crate) replies: u32,
    /// The largest message that each end may write.
    pub(crate) largest: [u64; 2],
    /// How many bytes of messages too large for the ring each end may leave unhandled.
    pub(crate) waiting: [u64; 2],
}

/// Supervisor to worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Who you are. Once, first.
    Boot(Box<BootMessage>),
    /// A lane between `me` and `peer`; descriptors: memory, your end of each doorbell, and in a lane to yourself the end that rings
    /// the first of them.
    Lane {
        /// Your slot, or your seat.
        me: Slot,
        /// The other side.
        peer: Slot,
        /// What of it is yours.
        part: Part,
        /// Which end is yours.
        end: End,
        /// How many doorbells there are: one for each process that has a part in the other side.
        bells: u32,
        /// Its sizes.
        sizes: Sizes,
        /// Counts its renewals: the same lane, with other doorbells.
        generation: u32,
        /// Whether its memory is another too, and empty.
        fresh: bool,
    },
    /// All that existed before you has been said: begin.
    Begin,
    /// The outcome of a request of yours.
    Answer {
        /// Which.
        id: u64,
        /// The outcome; an extension's may have descriptors.
        answer: Answer,
    },
    /// Stop in order.
    Stop {
        /// Why.
        why: StopReason,
        /// When you will be killed; `None`: never.
        deadline: Option<Duration>,
    },
    /// A reload has made you the one that reads your slot's messages: your predecessor has given that up. The lanes follow.
    Current {
        /// As in the boot message.
        again: Option<(Slot, u32)>,
    },
    /// A process that you share a lane with, or watch, is gone.
    PeerDown {
        /// Who.
        worker: WorkerId,
        /// The seat that it wrote from.
        seat: Slot,
        /// Its slot's path.
        name: String,
        /// Behind which of your lane's messages, and how far, it had taken them.
        taken: Option<(u64, u64)>,
        /// Why it ended.
        reason: ExitReason,
        /// Whether you watch it.
        watched: bool,
    },
    /// A process that had taken (or will never take) messages with reply ports of yours is gone.
    MovedDied {
        /// Who had sent them on.
        writer: Slot,
        /// Who died.
        reader: Slot,
        /// Behind what, and how far, it had taken.
        taken: (u64, u64),
        /// Why it ended.
        reason: ExitReason,
    },
    /// A pool that you have looked up has these members now.
    Pool {
        /// Its path.
        path: String,
        /// All of them.
        members: Vec<Found>,
    },
    /// A slot that will never be filled again.
    PeerGone {
        /// Which.
        slot: Slot,
    },
}

/// Worker to supervisor. Nothing in it is trusted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// I have had my boot message and run the program.
    Online,
    /// I can serve.
    Ready,
    /// I end (or could not start), and why.
    Ending(Ending),
    /// I want to know or to have something.
    Request {
        /// For the answer.
        id: u64,
        /// What.
        request: Request,
    },
    /// I was sent SIGTERM: please stop me.
    Terminated,
    /// I want to go: please stop me.
    Leave,
    /// There is room again where you found none (connections).
    Room,
    /// A message that cannot be decoded.
    Undecodable {
        /// Whose lane it came from.
        from: Slot,
        /// What the decoder said.
        error: String,
        /// Its first bytes.
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
    },
    /// My body listens, for the first time.
    Listens,
    /// Tell me when this slot's incarnation ends.
    Watch {
        /// Which.
        slot: Slot,
    },
    /// The ring that this slot writes and I read is corrupt.
    CorruptLane {
        /// The slot or seat of mine that reads it.
        me: Slot,
        /// The writer.
        peer: Slot,
        /// Which lane of these two it was: one that was renewed since is not meant.
        generation: u32,
    },
    /// I have been replaced, and take no more messages: what I had taken is done.
    GaveUp,
    /// I have reached a limit at which I am to be replaced.
    Worn(Worn),
    /// A reply port of mine is in a message of `writer` to `reader`: tell me of the death that takes it.
    Track {
        /// Who reads it.
        reader: Slot,
        /// Who sent it on.
        writer: Slot,
        /// The position behind the record.
        end: u64,
    },
    /// I have heard that this slot is gone, and write nothing more to it.
    LaneClosed {
        /// Which.
        peer: Slot,
    },
    /// I took the record of this slot that ends here: give me what is beside it.
    Fetch {
        /// The writer.
        from: Slot,
        /// Of its rings to me.
        ring: Ring,
        /// The position behind the record.
        end: u64,
    },
    /// What was beside that record is wanted no more.
    Handled {
        /// The writer.
        from: Slot,
        /// Of its rings to me.
        ring: Ring,
        /// The position behind the record.
        end: u64,
    },
}

/// A worker's own word about its end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// An error was returned; its text.
    Error(String),
    /// A panic.
    Panic {
        /// Its message.
        message: String,
        /// Where.
        location: Option<String>,
        /// How it came there.
        backtrace: Option<String>,
    },
    /// It was asked to stop, or stopped itself in order.
    Shutdown,
    /// It ended itself in order, and gave a word for it.
    ShutdownWith(String),
    /// Its start declined to run.
    Declined,
    /// It ended by itself, with success.
    Normal,
}

/// A worker's question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Which slot is this, and what does it take?
    Find {
        /// A path.
        path: String,
    },
    /// A lane to this slot.
    Lane {
        /// The slot.
        peer: Slot,
    },
    /// A socket for what goes beside records.
    Porter,
    /// Something of an extension's (`rclust-net`), in its own words.
    Extension(#[serde(with = "bytes")] Vec<u8>),
}

/// The supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A worker's slot.
    Worker(Found),
    /// A pool's members, in order.
    Pool(Vec<Found>),
    /// There is no such child.
    NotFound,
    /// The lane was sent before this answer.
    LaneSent,
    /// The socket comes as a descriptor.
    Porter,
    /// No: why.
    Refused(String),
    /// An extension's answer.
    Extension(#[serde(with = "bytes")] Vec<u8>),
}

/// One worker's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Its slot.
    pub(crate) slot: Slot,
    /// Its path.
    pub(crate) name: String,
    /// The type of the messages it takes, as the compiler names it.
    pub(crate) takes: String,
    /// That type's fingerprint.
    pub(crate) schema: u64,
    /// Whether its worker is ready, or was once.
    pub(crate) up: bool,
}

/// Byte strings as one run of bytes (a `Vec<u8>` is a sequence to serde, decoded element by element).
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
