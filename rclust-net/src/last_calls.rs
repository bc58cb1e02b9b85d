//! The end of keep-alive: while a worker drains, every answer says that it is the last one on its connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use rclust_core::ShutdownSignal;
use tower_layer::Layer;
use tower_service::Service;

/// A layer that puts `Connection: close` on every HTTP/1 response while the worker drains, so that clients open their next
/// connection, which another worker is given, instead of sending a request on one that is about to be closed.
///
/// A graceful shutdown of hyper (and axum's) does the same for requests that are under way when it begins, and closes idle connections
/// at once: a client that sends its next request in that moment loses it. With this layer open connections are served on after
/// `cx.draining()`, and end by themselves with their next answer; give the graceful shutdown `cx.shutdown()`, which comes when they have had
/// no traffic for a while. HTTP/2 has GOAWAY for this, and is left alone.
///
/// ```no_run
/// # use axum::{Router, routing::get};
/// # async fn body(cx: rclust_core::Context) {
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(rclust_net::LastCalls::new(cx.draining()));
/// # }
/// ```
///
/// # Source
/// RFC 9112, 9.6.
#[derive(Clone, Debug)]
pub struct LastCalls(Arc<Mutex<ShutdownSignal>>);

impl LastCalls {
    /// From `cx.draining()`, or `cx.shutdown()`.
    #[must_use]
    pub fn new(draining: ShutdownSignal) -> LastCalls {
        LastCalls(Arc::new(Mutex::new(draining)))
    }

    fn has_begun(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_set()
    }
}

impl<S> Layer<S> for LastCalls {
    type Service = LastCallsService<S>;

    fn layer(&self, inner: S) -> LastCallsService<S> {
        LastCallsService { inner, last_calls: self.clone() }
    }
}

/// The service of [`LastCalls`].
#[derive(Clone, Debug)]
pub struct LastCallsService<S> {
    inner: S,
    last_calls: LastCalls,
}

impl<S, B, C> Service<Request<B>> for LastCallsService<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = LastCallsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let version = request.version();
        let last_calls = (version <= Version::HTTP_11).then(|| (self.last_calls.clone(), version));
        LastCallsFuture { inner: Box::pin(self.inner.call(request)), last_calls }
    }
}

/// The answer of a [`LastCallsService`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LastCallsFuture<F> {
    inner: Pin<Box<F>>,
    last_calls: Option<(LastCalls, Version)>,
}

impl<F, B, E> Future for LastCallsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let outcome = self.inner.as_mut().poll(cx);
        outcome.map_ok(|mut response| {
            if let Some((_, version)) = self.last_calls.as_ref().filter(|(last_calls, _)| last_calls.has_begun()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                if *version == Version::HTTP_10 {
                    // To an answer of a later version hyper would add the keep-alive that such a client has asked for.
                    *response.version_mut() = Version::HTTP_10;
                }
            }
            response
        })
    }
}
