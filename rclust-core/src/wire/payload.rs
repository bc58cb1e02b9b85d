//! A user's message to bytes and back, with what is not bytes (reply ports, references, sockets) handled by a scope.
//!
//! serde gives `Serialize` only a shared reference, so a port is a cell: encoding notes the cell in the scope and
//! writes an address; only the commit takes the value out. Until then every failure leaves the message whole.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{Incarnation, Slot, WorkerId};
use crate::reply;
use crate::socket::{Carried, SOCKETS};

/// Correlation ids are unique in the process; the asker's incarnation is beside them on the wire.
static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

const NOBODY: WorkerId = WorkerId { slot: Slot::SUPERVISOR, incarnation: Incarnation(0) };

/// What this thread does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Encode,
    Decode,
    /// Looks at a type, not at a value.
    Trace,
}

struct Scope {
    mode: Cell<Mode>,
    me: Cell<WorkerId>,
    /// Whether anything of what follows was touched: usually nothing is, and then it need not be looked at.
    touched: Cell<bool>,
    aside: RefCell<Aside>,
    sockets: RefCell<Vec<Option<OwnedFd>>>,
    /// What a field of ours refused: postcard keeps no texts.
    refused: Cell<Option<&'static str>>,
}

thread_local! {
    static SCOPE: Scope = const {
        Scope {
            mode: Cell::new(Mode::Idle),
            me: Cell::new(NOBODY),
            touched: Cell::new(false),
            aside: RefCell::new(Aside { ports: Vec::new(), sockets: Vec::new() }),
            sockets: RefCell::new(Vec::new()),
            refused: Cell::new(None),
        }
    };
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
    pub(crate) cell: Arc<reply::Cell>,
}

/// Ends a scope, also when an encoder panics, and restores the outer one. It never lives across an await.
struct Inside<'a> {
    scope: &'a Scope,
    /// What was going on, where a message is encoded within another.
    outer: Option<Box<Outer>>,
}

struct Outer {
    mode: Mode,
    me: WorkerId,
    touched: bool,
    aside: Aside,
    sockets: Vec<Option<OwnedFd>>,
    refused: Option<&'static str>,
}

impl<'a> Inside<'a> {
    #[inline]
    fn enter(scope: &'a Scope, mode: Mode, me: WorkerId) -> Inside<'a> {
        let nested = scope.mode.get() != Mode::Idle;
        let outer = nested.then(|| {
            Box::new(Outer {
                mode: scope.mode.get(),
                me: scope.me.get(),
                touched: scope.touched.replace(false),
                aside: scope.aside.take(),
                sockets: scope.sockets.take(),
                refused: scope.refused.take(),
            })
        });
        scope.mode.set(mode);
        scope.me.set(me);
        Inside { scope, outer }
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        let scope = self.scope;
        scope.mode.set(Mode::Idle);
        if scope.touched.replace(false) {
            // Sockets that a message did not name are closed here.
            drop((scope.aside.take(), scope.sockets.take(), scope.refused.take()));
        }
        if let Some(outer) = self.outer.take() {
            scope.mode.set(outer.mode);
            scope.me.set(outer.me);
            scope.touched.set(outer.touched);
            scope.aside.replace(outer.aside);
            scope.sockets.replace(outer.sockets);
            scope.refused.set(outer.refused);
        }
    }
}

/// Appends encoded bytes to a buffer.
struct Into<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Into<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a message's bytes to `into` and lists what is not bytes. Nothing is taken out of the message.
pub(crate) fn encode<M: Serialize>(message: &M, me: WorkerId, into: &mut Vec<u8>) -> Result<Aside, String> {
    SCOPE.with(|scope| {
        let _inside = Inside::enter(scope, Mode::Encode, me);
        match postcard::serialize_with_flavor(message, Into(into)) {
            Ok(()) if !scope.touched.get() => Ok(Aside::default()),
            Ok(()) => Ok(scope.aside.take()),
            Err(error) => Err(because(scope, error)),
        }
    })
}

/// Decodes a whole message, with the sockets that came beside it; bytes left over are an error. Sockets that the message does
/// not name are closed.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8], sockets: Vec<OwnedFd>) -> Result<M, String> {
    SCOPE.with(|scope| {
        let _inside = Inside::enter(scope, Mode::Decode, NOBODY);
        if !sockets.is_empty() {
            scope.touched.set(true);
            scope.sockets.replace(sockets.into_iter().map(Some).collect());
        }
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(because(scope, postcard::Error::DeserializeBadEncoding)),
            Err(error) => Err(because(scope, error)),
        }
    })
}

fn because(scope: &Scope, error: postcard::Error) -> String {
    scope.refused.get().map_or_else(|| error.to_string(), str::to_owned)
}

/// The same for values that are kept as bytes, and so can hold nothing else.
pub(crate) fn encode_plain<M: Serialize>(message: &M) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let aside = encode(message, NOBODY, &mut bytes)?;
    if aside.ports.is_empty() && aside.sockets.is_empty() {
        return Ok(bytes);
    }
    Err("they are replayed at every restart, so there cannot be a socket or a reply port in them: send it in a message"
        .to_owned())
}

/// Traces a type in `trace`: reports ports and references by name, and lets them be made of nothing.
pub(crate) fn tracing<R>(trace: impl FnOnce() -> R) -> R {
    SCOPE.with(|scope| {
        let _inside = Inside::enter(scope, Mode::Trace, NOBODY);
        trace()
    })
}

fn mode() -> Mode {
    SCOPE.with(|scope| scope.mode.get())
}

/// Whether no message is being decoded, but its type traced.
pub(crate) fn is_tracing() -> bool {
    mode() == Mode::Trace
}

/// Whether a message is being encoded (worker references need no more).
pub(crate) fn encoding() -> bool {
    mode() == Mode::Encode
}

/// Whether a message is being decoded.
pub(crate) fn decoding() -> bool {
    mode() == Mode::Decode
}

/// Called by a field of ours that cannot be encoded or decoded: the error's text, which the encoding does not carry.
pub(crate) fn refuse(why: &'static str) -> &'static str {
    SCOPE.with(|scope| {
        if scope.mode.get() != Mode::Idle {
            scope.touched.set(true);
            scope.refused.set(Some(why));
        }
    });
    why
}

/// Called by a port's `Serialize`: notes the cell and returns the id to write, if a message is being encoded.
pub(crate) fn note_port(cell: &Arc<reply::Cell>) -> Result<(WorkerId, u64), &'static str> {
    if !encoding() {
        return Err("a reply port can only be serialized as part of a message that is being sent");
    }
    SCOPE.with(|scope| {
        let mut aside = scope.aside.borrow_mut();
        if aside.ports.iter().any(|port| Arc::ptr_eq(&port.cell, cell)) {
            return Err(refuse("a reply port was already sent in this message"));
        }
        let id = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        scope.touched.set(true);
        aside.ports.push(Port { id, cell: cell.clone() });
        Ok((scope.me.get(), id))
    })
}

/// Called by a socket's `Serialize`: notes the cell and returns the index to write, if a message is being encoded.
pub(crate) fn note_socket(cell: Arc<dyn Carried>) -> Result<u8, &'static str> {
    if !encoding() {
        return Err("a socket can only be serialized as part of a message that is being sent");
    }
    SCOPE.with(|scope| {
        let mut aside = scope.aside.borrow_mut();
        if aside.sockets.iter().any(|other| Arc::ptr_eq(other, &cell)) {
            return Err(refuse("a socket was already sent in this message"));
        }
        if aside.sockets.len() == SOCKETS {
            return Err(refuse("more sockets than one message carries (32)"));
        }
        scope.touched.set(true);
        aside.sockets.push(cell);
        Ok((aside.sockets.len() - 1) as u8)
    })
}

/// Called by a socket's `Deserialize`: each one is taken once.
pub(crate) fn take_socket(index: u8) -> Result<OwnedFd, &'static str> {
    if !decoding() {
        return Err("a socket exists only inside a message that arrived");
    }
    SCOPE.with(|scope| {
        let socket = scope.sockets.borrow_mut().get_mut(usize::from(index)).and_then(Option::take);
        socket.ok_or_else(|| refuse("it names a socket that did not come with it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Socket;

    #[test]
    fn a_socket_is_encoded_once_and_in_a_message_only() {
        let file = Socket::new(std::fs::File::open("/dev/null").unwrap());
        assert!(postcard::to_allocvec(&file).is_err());
        let mut bytes = Vec::new();
        assert_eq!(encode(&(1, &file), NOBODY, &mut bytes).unwrap().sockets.len(), 1);
        let twice = encode(&(&file, &file), NOBODY, &mut bytes).err();
        assert_eq!(twice.as_deref(), Some("a socket was already sent in this message"));
        assert!(encode_plain(&file).is_err_and(|error| error.contains("replayed at every restart")));
        let many: Vec<Socket<OwnedFd>> =
            (0..33).map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap()).into()).collect();
        assert!(encode(&many, NOBODY, &mut bytes).is_err_and(|error| error.contains("32")));
    }

    #[test]
    fn a_socket_is_decoded_once_and_only_if_it_came() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        type Two = (Socket<OwnedFd>, Socket<OwnedFd>);
        assert!(decode::<Two>(&[0, 1], vec![fd(), fd()]).is_ok());
        for (bytes, sockets) in [([0, 0], vec![fd(), fd()]), ([0, 1], vec![fd()]), ([1, 255], vec![fd(), fd()])] {
            let error = decode::<Two>(&bytes, sockets).err();
            assert_eq!(error.as_deref(), Some("it names a socket that did not come with it"));
        }
        let other = decode::<Socket<std::net::TcpStream>>(&[0], vec![fd()]).err();
        assert_eq!(other.as_deref(), Some("a socket of another kind than the message says"));
    }

    #[test]
    fn a_message_that_is_encoded_within_another_disturbs_nothing() {
        struct Nested(Socket<OwnedFd>);
        impl Serialize for Nested {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = encode(&self.0, NOBODY, &mut Vec::new()).unwrap();
                assert_eq!(inner.sockets.len(), 1);
                serializer.serialize_u8(7)
            }
        }
        let fd = || Socket::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let aside = encode(&(fd(), Nested(fd()), fd()), NOBODY, &mut Vec::new()).unwrap();
        assert_eq!(aside.sockets.len(), 2);
        assert!(!encoding() && !decoding());
    }
}
