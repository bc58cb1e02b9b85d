//! What every measured HTTP server runs: the same hyper, the same service, the same one-word answer.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The answer that throughput is measured with.
pub(crate) const HELLO: Bytes = Bytes::from_static(b"hello");

/// How long `/work` takes.
const WORK: Duration = Duration::from_millis(5);

/// The variable that names a file for [`Notes`].
pub(crate) const NOTES: &str = "RCLUST_BENCHES_NOTES";

/// Serves one connection to its end, on a task of its own; requests are answered with `body`, after a while for `/work`, and
/// for `/pid` with this process's number.
pub(crate) fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, body: Bytes) {
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (body, works) = match request.uri().path() {
                "/pid" => (std::process::id().to_string().into(), false),
                path => (body.clone(), path == "/work"),
            };
            async move {
                if works {
                    tokio::time::sleep(WORK).await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        });
        // A client that resets its connection is no news.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
}

/// Where a server notes each client right after `accept`, if the harness asks for it: two bytes, its port, in the byte order of this
/// machine. Appended, because that is one act for any number of processes.
pub(crate) struct Notes(Option<File>);

impl Notes {
    pub(crate) fn open() -> io::Result<Notes> {
        let path = std::env::var_os(NOTES);
        Ok(Notes(path.map(|path| OpenOptions::new().append(true).open(path)).transpose()?))
    }

    /// Whether there is something to note.
    pub(crate) fn wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn note(&self, peer: SocketAddr) -> io::Result<()> {
        match &self.0 {
            Some(file) => (&*file).write_all(&peer.port().to_ne_bytes()),
            None => Ok(()),
        }
    }
}
