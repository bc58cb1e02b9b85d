//! What every measured HTTP server runs: the same hyper, the same service, the same one-word answer.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rclust_core::extension::os;
use tokio::io::{AsyncRead, AsyncWrite};

/// The answer that throughput is measured with.
pub(crate) const HELLO: Bytes = Bytes::from_static(b"hello");

/// How long `/work` takes.
const WORK: Duration = Duration::from_millis(5);

/// The variable that names the memory for [`Notes`]; for node, which cannot map it, a file to append two bytes to.
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

/// Bytes of the notes' memory: a word that counts them, and a word for each.
const NOTES_LEN: usize = 8 << 20;

/// Where a server notes each client's port right after `accept`, if the harness asks for it: in memory that all processes share, so
/// that there is no system call between the two.
pub(crate) struct Notes(Option<os::Mapping>);

impl Notes {
    /// Makes an empty one; other processes open what this descriptor is of.
    pub(crate) fn create() -> io::Result<(Notes, Arc<OwnedFd>)> {
        let memory = Arc::new(os::create_memory("notes", NOTES_LEN as u64)?);
        Ok((Notes(Some(os::Mapping::new(memory.clone(), NOTES_LEN)?)), memory))
    }

    /// The one that the harness names; without that, nothing is noted.
    pub(crate) fn open() -> io::Result<Notes> {
        let Some(path) = std::env::var_os(NOTES) else { return Ok(Notes(None)) };
        let memory = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Notes(Some(os::Mapping::new(Arc::new(memory.into()), NOTES_LEN)?)))
    }

    /// Whether there is something to note.
    pub(crate) fn wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn note(&self, peer: SocketAddr) {
        let Some(memory) = &self.0 else { return };
        let at = 8 * (memory.add(0, 1, Ordering::AcqRel) as usize + 1);
        if at < NOTES_LEN {
            memory.store(at, peer.port().into(), Ordering::Release);
        }
    }

    /// The ports so far.
    pub(crate) fn ports(&self) -> Result<Vec<u16>> {
        let Some(memory) = &self.0 else { return Ok(Vec::new()) };
        let count = memory.load(0, Ordering::Acquire) as usize;
        ensure!(8 * (count + 1) <= NOTES_LEN, "{count} connections are more than the notes have room for");
        // A process that was killed between its count and its note leaves a zero.
        Ok((1..=count).filter_map(|n| u16::try_from(memory.load(8 * n, Ordering::Acquire)).ok()).collect())
    }
}
