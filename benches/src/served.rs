//! What every measured HTTP server runs: the same hyper, the same service, the same one-word answer.

use std::convert::Infallible;

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

/// Serves one connection to its end, on a task of its own; every request is answered with `body`.
pub(crate) fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, body: Bytes) {
    tokio::spawn(async move {
        let service = service_fn(move |_: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(body.clone()))))
        });
        // A client that resets its connection is no news.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
}
