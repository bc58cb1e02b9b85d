//! A user's message to bytes and back, with what is not bytes (reply ports, references) handled by a scope.
//!
//! serde gives `Serialize` only a shared reference, so a port is a cell: encoding notes the cell in the scope and
//! writes an address; only the commit takes the value out. Until then every failure leaves the message whole.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::WorkerId;
use crate::reply::Cell;
use crate::socket::{Carried, SOCKETS};

/// Correlation ids are unique in the process; the asker's incarnation is beside them on the wire.
static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

enum Scope {
    Encode { me: WorkerId, aside: Aside, refused: Option<&'static str> },
    Decode { sockets: Vec<Option<OwnedFd>>, refused: Option<&'static str> },
}

/// What an encoded message holds that is not bytes; still inside the message until the commit takes it.
#[derive(Default)]
pub(crate) struct Aside {
    pub(crate) ports: Vec<Port>,
    pub(crate) sockets: Vec<Arc<dyn Carried>>,
}

impl Aside {
    /// The sockets' descriptors, for an answer that stays in this process.
    pub(crate) fn take_sockets(self) -> std::io::Result<Vec<OwnedFd>> {
        let held = self.sockets.iter().filter_map(|cell| cell.depart());
        held.map(|held| Ok(rustix::io::fcntl_dupfd_cloexec(held.fd(), 3)?)).collect()
    }
}

/// A reply port inside an encoded message: what the commit has to take.
pub(crate) struct Port {
    /// The correlation id that was written, for a port of our own.
    pub(crate) id: u64,
    /// Where the port's value is.
    pub(crate) cell: Arc<Cell>,
}

/// Restores the outer scope, also when an encoder panics.
struct Restore(Option<Scope>);

impl Restore {
    fn enter(scope: Scope) -> Restore {
        Restore(SCOPE.with(|current| current.borrow_mut().replace(scope)))
    }

    fn leave(mut self) -> Option<Scope> {
        let outer = self.0.take();
        let inner = SCOPE.with(|current| std::mem::replace(&mut *current.borrow_mut(), outer));
        std::mem::forget(self);
        inner
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let outer = self.0.take();
        SCOPE.with(|current| *current.borrow_mut() = outer);
    }
}

/// Appends a message's bytes to `into` and lists what is not bytes. Nothing is taken out of the message.
pub(crate) fn encode<M: Serialize>(message: &M, me: WorkerId, into: &mut Vec<u8>) -> Result<Aside, String> {
    let scope = Restore::enter(Scope::Encode { me, aside: Aside::default(), refused: None });
    let buffer = std::mem::take(into);
    let outcome = postcard::to_extend(message, buffer);
    let (aside, refused) = match scope.leave() {
        Some(Scope::Encode { aside, refused, .. }) => (aside, refused),
        _ => (Aside::default(), None),
    };
    *into = outcome.map_err(|error| because(refused, error))?;
    Ok(aside)
}

/// Decodes a whole message, with the sockets that came beside it; bytes left over are an error. Sockets that the message does
/// not name are closed.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8], sockets: Vec<OwnedFd>) -> Result<M, String> {
    let scope = Restore::enter(Scope::Decode { sockets: sockets.into_iter().map(Some).collect(), refused: None });
    let outcome = postcard::take_from_bytes(bytes);
    let refused = match scope.leave() {
        Some(Scope::Decode { refused, .. }) => refused,
        _ => None,
    };
    match outcome {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(because(refused, postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(because(refused, error)),
    }
}

/// postcard keeps no texts: what a field of ours refused is remembered in the scope.
fn because(refused: Option<&'static str>, error: postcard::Error) -> String {
    refused.map_or_else(|| error.to_string(), str::to_owned)
}

/// The same for values that are kept as bytes, and so can hold nothing else.
pub(crate) fn encode_plain<M: Serialize>(message: &M) -> Result<Vec<u8>, String> {
    let nobody = WorkerId { slot: crate::id::Slot::SUPERVISOR, incarnation: crate::id::Incarnation(0) };
    let mut bytes = Vec::new();
    let aside = encode(message, nobody, &mut bytes)?;
    if aside.ports.is_empty() && aside.sockets.is_empty() {
        return Ok(bytes);
    }
    Err("they are replayed at every restart, so there cannot be a socket or a reply port in them: send it in a message"
        .to_owned())
}

/// Called by a port's `Serialize`: notes the cell and returns the id to write, if a message is being encoded.
pub(crate) fn note_port(cell: &Arc<Cell>) -> Result<(WorkerId, u64), &'static str> {
    SCOPE.with(|current| match &mut *current.borrow_mut() {
        Some(Scope::Encode { me, aside, refused }) => {
            if aside.ports.iter().any(|port| Arc::ptr_eq(&port.cell, cell)) {
                return Err(*refused.insert("a reply port was already sent in this message"));
            }
            let id = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
            aside.ports.push(Port { id, cell: cell.clone() });
            Ok((*me, id))
        }
        _ => Err("reply ports and worker references can only be serialized as part of a message that is being sent"),
    })
}

/// Whether a message is being encoded (worker references need no more).
pub(crate) fn encoding() -> bool {
    SCOPE.with(|current| matches!(&*current.borrow(), Some(Scope::Encode { .. })))
}

/// Called by a socket's `Serialize`: notes the cell and returns the index to write, if a message is being encoded.
pub(crate) fn note_socket(cell: Arc<dyn Carried>) -> Result<u8, &'static str> {
    SCOPE.with(|current| match &mut *current.borrow_mut() {
        Some(Scope::Encode { aside, refused, .. }) => {
            if aside.sockets.iter().any(|other| Arc::ptr_eq(other, &cell)) {
                return Err(*refused.insert("a socket was already sent in this message"));
            }
            if aside.sockets.len() == SOCKETS {
                return Err(*refused.insert("more sockets than one message carries (32)"));
            }
            aside.sockets.push(cell);
            Ok((aside.sockets.len() - 1) as u8)
        }
        _ => Err("a socket can only be serialized as part of a message that is being sent"),
    })
}

/// Called by a socket's `Deserialize`: each one is taken once.
pub(crate) fn take_socket(index: u8) -> Result<OwnedFd, &'static str> {
    SCOPE.with(|current| match &mut *current.borrow_mut() {
        Some(Scope::Decode { sockets, refused }) => {
            let socket = sockets.get_mut(usize::from(index)).and_then(Option::take);
            socket.ok_or_else(|| *refused.insert("it names a socket that did not come with it"))
        }
        _ => Err("a socket exists only inside a message that arrived"),
    })
}

/// Called by a field of ours that cannot be encoded or decoded: the error's text, which the encoding does not carry.
pub(crate) fn refuse(why: &'static str) -> &'static str {
    SCOPE.with(|current| match &mut *current.borrow_mut() {
        Some(Scope::Encode { refused, .. } | Scope::Decode { refused, .. }) => *refused.insert(why),
        None => why,
    })
}

/// Whether a message is being decoded.
pub(crate) fn decoding() -> bool {
    SCOPE.with(|current| matches!(&*current.borrow(), Some(Scope::Decode { .. })))
}
