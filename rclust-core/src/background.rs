//! Tasks of ours that run beside a loop.

use std::future::Future;
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Starts a task on the runtime of this thread.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    spawn_on(&Handle::current(), work);
}

/// Starts a task on this runtime.
///
/// It is boxed: tokio's machinery for a task is some 3 KiB of code for each type of future, and pages of code are most of what
/// an idle process holds. None of these is started often.
pub(crate) fn spawn_on(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    runtime.spawn(work)
}
