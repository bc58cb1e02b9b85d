//! A connection: the stream, and a guard that reports the close.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::share::Share;

/// A TCP connection: tokio's stream, and its count.
pub type TcpStream = Stream<tokio::net::TcpStream>;

/// A connection of a Unix socket: tokio's stream, and its count.
pub type UnixStream = Stream<tokio::net::UnixStream>;

/// A connection: tokio's stream, which it dereferences to, and the count it has in its worker's load.
///
/// It counts for the incarnation that took it until it is dropped or moved out by [`Stream::into_inner`].
#[derive(Debug)]
pub struct Stream<S> {
    stream: S,
    count: Option<Count>,
}

/// One taken connection of a share.
#[derive(Debug)]
pub(crate) struct Count {
    share: Arc<Share>,
    begun: bool,
}

impl Count {
    pub(crate) fn new(share: Arc<Share>) -> Count {
        Count { share, begun: false }
    }

    /// It was read from.
    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.share.begun();
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.begin();
        self.share.closed();
    }
}

impl<S> Stream<S> {
    pub(crate) fn new(stream: S, count: Option<Count>) -> Stream<S> {
        Stream { stream, count }
    }

    /// Tokio's stream. From now on it counts for nobody.
    #[must_use]
    pub fn into_inner(self) -> S {
        let Stream { stream, count } = self;
        drop(count);
        stream
    }

    /// Whether this connection came by handoff, and counts for this worker.
    #[must_use]
    pub fn is_handed(&self) -> bool {
        self.count.is_some()
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
        &self.stream
    }
}

impl<S> DerefMut for Stream<S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
