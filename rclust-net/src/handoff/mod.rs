//! The queue of connections of one slot at one listener. It outlives its reader.
//!
//! A SOCK_SEQPACKET pair: the supervisor sends one connection per packet and closes its own copy at once. A worker's `accept` looks at the
//! first packet and hands its program the connection: it is *in hand*. The packet is received, and the connection *taken*, when the program
//! touches the stream, drops it, or comes for the next one.
//!
//! What nobody took the supervisor reads back through its duplicate of the receiving end. Receiving is one atomic act of the kernel: a packet
//! is one process's. What was in hand of a worker that has died no program has touched, and it goes to another. What is in hand of a worker
//! that lives stays with it, however long it does not touch it: a word in the slot's page says what that is (`Page::holds`). The supervisor
//! takes that word away before it reads back (`Page::begins_reading`), and throws the packet away where it finds it; a worker that was about
//! to have something in hand in that moment finds the word changed, and receives like everybody else. So does one that comes meanwhile.

pub(crate) mod note;
pub(crate) mod queue;
pub(crate) mod take;
