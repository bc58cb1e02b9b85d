//! A connection: the stream, and a guard that reports the close.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use rclust_core::Transfer;
use rclust_core::extension::Here;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::futures::OwnedNotified;

use crate::kept::Kept;
use crate::share::Share;

/// A TCP connection: tokio's stream, and its count.
pub type TcpStream = Stream<tokio::net::TcpStream>;

/// A connection of a Unix socket: tokio's stream, and its count.
pub type UnixStream = Stream<tokio::net::UnixStream>;

/// A connection: tokio's stream, which it dereferences to, and the count it has in its worker's load.
///
/// It counts for the incarnation that took it until it is dropped, moved out by [`Stream::into_inner`], or sent away in a message
/// ([`Socket<TcpStream>`](rclust_core::Socket)): from then on it is the receiver's, who may [`adopt`](Stream::adopt) it.
///
/// A worker that dies with a connection that it was handed by the supervisor and that its program has not touched (read from, written to,
/// dereferenced, sent away, unwrapped, dropped) leaves it to another worker. Not if it came for the next one meanwhile, and not if its
/// queue was read back before: because it drains, or took nothing for 150 ms while others waited. A panic that unwinds drops it.
///
/// While its worker drains, reads and writes of a connection that counts put the close off (`Context::shutdown`). What goes past this type
/// is not seen: tokio's `try_read`, `split`, `into_inner`.
#[derive(Debug)]
pub struct Stream<S> {
    stream: S,
    count: Option<Count>,
}

/// One connection that counts for this worker.
#[derive(Debug)]
pub(crate) struct Count {
    of: Of,
    kept: Arc<Kept>,
    begun: bool,
    /// The number of a connection that the program has in hand and has not touched; 0: it was touched, or was never.
    in_hand: AtomicU32,
    /// The end of the worker's drain, for a read and for a write that wait.
    cut: [Option<Pin<Box<OwnedNotified>>>; 2],
}

/// How it came.
#[derive(Debug)]
enum Of {
    /// From a listener of the supervisor.
    Share(Arc<Share>),
    /// Otherwise.
    Adopted(Here),
}

/// What a connection waits for.
#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl Count {
    /// Of a connection that was taken.
    pub(crate) fn new(share: Arc<Share>, kept: Arc<Kept>) -> Count {
        kept.opened();
        Count::with(Of::Share(share), kept)
    }

    fn with(of: Of, kept: Arc<Kept>) -> Count {
        Count { of, kept, begun: false, in_hand: AtomicU32::new(0), cut: [None, None] }
    }

    /// It is taken when it is touched.
    pub(crate) fn is_in_hand(&mut self, number: Option<u32>) {
        *self.in_hand.get_mut() = number.unwrap_or(0);
    }

    /// The program touches the connection: from now on it ends with this worker. `false`: the worker is dead (a thread of a test that
    /// goes on), and the connection is another's.
    #[inline]
    fn touch(&self) -> bool {
        match (self.in_hand.load(Ordering::Relaxed), &self.of) {
            (number @ 1.., Of::Share(share)) => {
                let alive = share.claim(number);
                if alive {
                    self.in_hand.store(0, Ordering::Relaxed);
                }
                alive
            }
            _ => true,
        }
    }

    /// It was read from.
    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            if let Of::Share(share) = &self.of {
                share.begun();
            }
        }
    }

    /// Whether the connection is cut; if not, this task hears of it.
    fn is_cut(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let kept = &self.kept;
        let waiting = self.cut[side as usize].get_or_insert_with(|| Box::pin(kept.cut.clone().notified_owned()));
        // It was made before this look, so a cut after it is told.
        kept.is_cut() || waiting.as_mut().poll(cx).is_ready()
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.touch();
        self.begin();
        match &self.of {
            Of::Share(share) => {
                share.closed();
                self.kept.closed();
            }
            Of::Adopted(here) => self.kept.give_up(here),
        }
    }
}

impl<S> Stream<S> {
    pub(crate) fn new(stream: S, count: Option<Count>) -> Stream<S> {
        Stream { stream, count }
    }

    /// See [`Count::touch`].
    fn touch(&self) -> bool {
        self.count.as_ref().is_none_or(Count::touch)
    }

    /// Tokio's stream. From now on it counts for nobody.
    #[must_use]
    pub fn into_inner(self) -> S {
        let Stream { stream, count } = self;
        drop(count);
        stream
    }

    /// Makes a connection that came in a message (or otherwise past a shared listener) count for this worker: in its load, and in its
    /// drain. Outside a worker of a cluster, and where it counts already, nothing changes.
    ///
    /// ```
    /// # use rclust_core::Socket;
    /// # use rclust_net::TcpStream;
    /// # fn on_message(client: Socket<TcpStream>) {
    /// let client = client.into_inner().adopt();
    /// # }
    /// ```
    #[must_use]
    pub fn adopt(mut self) -> Stream<S> {
        if let (None, Some(here)) = (&self.count, Here::worker()) {
            let kept = Kept::of(&here);
            kept.adopt(&here);
            self.count = Some(Count::with(Of::Adopted(here), kept));
        }
        self
    }

    /// Whether this connection came by handoff, and counts for this worker.
    #[must_use]
    pub fn is_handed(&self) -> bool {
        matches!(self.count, Some(Count { of: Of::Share(_), .. }))
    }

    /// What the stream did, seen by the drain.
    fn seen<T>(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        let Some(count) = &mut self.count else { return act(Pin::new(&mut self.stream), cx) };
        if !count.touch() || count.kept.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let outcome = act(Pin::new(&mut self.stream), cx);
        match outcome {
            Poll::Ready(_) => count.kept.traffic(),
            Poll::Pending if count.is_cut(side, cx) => return Poll::Ready(Err(cut())),
            Poll::Pending => {}
        }
        outcome
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the worker stops, and its connections have had their time")
}

/// Its count ends when it is sent; what arrives counts for nobody until it is adopted.
impl<S: Transfer> Transfer for Stream<S> {
    fn as_descriptor(&self) -> BorrowedFd<'_> {
        self.touch();
        self.stream.as_descriptor()
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Stream::new(S::from_fd(fd)?, None))
    }
}

impl From<tokio::net::TcpStream> for TcpStream {
    fn from(stream: tokio::net::TcpStream) -> TcpStream {
        TcpStream::new(stream, None)
    }
}

impl From<tokio::net::UnixStream> for UnixStream {
    fn from(stream: tokio::net::UnixStream) -> UnixStream {
        UnixStream::new(stream, None)
    }
}

impl<S> Deref for Stream<S> {
    type Target = S;

    fn deref(&self) -> &Self::Target {
        self.touch();
        &self.stream
    }
}

impl<S> DerefMut for Stream<S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.touch();
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = self.seen(Side::Read, cx, |stream, cx| stream.poll_read(cx, buf));
        if outcome.is_ready() {
            if let Some(count) = &mut self.count {
                count.begin();
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen(Side::Write, cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen(Side::Write, cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.touch() {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.touch() {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
