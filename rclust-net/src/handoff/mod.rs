//! The queue of connections of one slot at one listener. It outlives its reader.
//!
//! A SOCK_SEQPACKET pair: the supervisor sends one connection per packet and closes its own copy at once. A worker's `accept` looks at the
//! first packet and hands its program the connection: it is *in hand*. It is received, and so *taken*, when the program touches the
//! stream, drops it, or comes for the next one. Taking is one atomic act of the kernel, so a connection is in the queue or taken, never both
//! and never neither.
//!
//! What nobody took the supervisor reads back through its duplicate of the receiving end. What was in hand of a worker that has died no
//! program has touched: it goes to another. What is in hand of one that lives stays with it, however long it does not touch it: who reads back
//! throws that packet away, and says so in the slot's page before it begins (`Page::reads_back`), so that both sides know whose it is.

pub(crate) mod note;
pub(crate) mod queue;
pub(crate) mod take;
