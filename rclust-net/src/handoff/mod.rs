//! The queue of connections of one slot at one listener. It outlives its reader.
//!
//! A SOCK_SEQPACKET pair: the supervisor sends one connection per packet and closes its own copy at once; a worker's `accept`
//! receives one packet. Taking is one atomic act of the kernel, so a connection is in the queue or taken, never
//! both and never neither; what nobody took the supervisor reads back through its duplicate of the receiving end.

pub(crate) mod note;
pub(crate) mod queue;
pub(crate) mod take;
