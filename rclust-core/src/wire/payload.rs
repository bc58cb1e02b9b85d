//! A user's message to bytes and back, with what is not bytes (reply ports, references) handled by a scope.
//!
//! serde gives `Serialize` only a shared reference, so a port is a cell: encoding notes the cell in the scope and
//! writes an address; only the commit takes the value out. Until then every failure leaves the message whole.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{Slot, WorkerId};
use crate::reply::Cell;

/// Correlation ids are unique in the process; the asker's incarnation is beside them on the wire.
static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

enum Scope {
    Encode { me: WorkerId, ports: Vec<Port> },
    Decode { from: Slot },
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

/// Appends a message's bytes to `into` and lists the ports inside. Nothing is taken out of the message.
pub(crate) fn encode<M: Serialize>(
    message: &M,
    me: WorkerId,
    into: &mut Vec<u8>,
) -> Result<Vec<Port>, postcard::Error> {
    let scope = Restore::enter(Scope::Encode { me, ports: Vec::new() });
    let buffer = std::mem::take(into);
    let outcome = postcard::to_extend(message, buffer);
    let ports = match scope.leave() {
        Some(Scope::Encode { ports, .. }) => ports,
        _ => Vec::new(),
    };
    *into = outcome?;
    Ok(ports)
}

/// Decodes a whole message that came from `from`; bytes left over are an error.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8], from: Slot) -> Result<M, postcard::Error> {
    let scope = Restore::enter(Scope::Decode { from });
    let outcome = postcard::take_from_bytes(bytes);
    drop(scope);
    match outcome? {
        (message, []) => Ok(message),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// Called by a port's `Serialize`: notes the cell and returns the id to write, if a message is being encoded.
pub(crate) fn note_port(cell: &Arc<Cell>) -> Result<(WorkerId, u64), &'static str> {
    SCOPE.with(|current| match &mut *current.borrow_mut() {
        Some(Scope::Encode { me, ports }) => {
            if ports.iter().any(|port| Arc::ptr_eq(&port.cell, cell)) {
                return Err("a reply port was already sent in this message");
            }
            let id = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
            ports.push(Port { id, cell: cell.clone() });
            Ok((*me, id))
        }
        _ => Err("reply ports and worker references can only be serialized as part of a message that is being sent"),
    })
}

/// Whether a message is being encoded (worker references need no more).
pub(crate) fn encoding() -> bool {
    SCOPE.with(|current| matches!(&*current.borrow(), Some(Scope::Encode { .. })))
}

/// Whether a message is being decoded, and whose.
pub(crate) fn decoding() -> Option<Slot> {
    SCOPE.with(|current| match &*current.borrow() {
        Some(Scope::Decode { from }) => Some(*from),
        _ => None,
    })
}
