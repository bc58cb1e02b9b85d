//! Our listener as axum's, and the peer's address for handlers.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};

use crate::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long to pause after an error that is not one client's.
const PAUSE: Duration = Duration::from_millis(200);

impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match TcpListener::accept(self).await {
                Ok(connection) => return connection,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    // Closed by the supervisor for good: nothing comes any more, and axum's accept cannot fail.
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::warn!(target: "rclust::net", %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, tokio::net::unix::SocketAddr) {
        loop {
            match UnixListener::accept(self).await {
                Ok(connection) => return connection,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::warn!(target: "rclust::net", %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<tokio::net::unix::SocketAddr> {
        UnixListener::local_addr(self)
    }
}

/// The address of the client, for `ConnectInfo<PeerAddr>` after `into_make_service_with_connect_info::<PeerAddr>()`.
///
/// (`ConnectInfo<SocketAddr>` cannot be had on a listener that is not axum's own: the orphan rule forbids the implementation.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl Deref for PeerAddr {
    type Target = SocketAddr;

    fn deref(&self) -> &SocketAddr {
        &self.0
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> PeerAddr {
        PeerAddr(*stream.remote_addr())
    }
}
