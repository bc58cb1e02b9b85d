//! The same tree with a thread for each worker, for tests: `cluster::testing` of the `rclust` crate, which says more.

use std::future::Future;

use rclust_core::extension::Extension;
use rclust_core::{Context, Outcome, Settings, StartError, Supervisor};

pub use rclust_core::testing::{TestCluster, probe};

use crate::net::Net;

/// Starts a tree, and returns when every child is ready.
///
/// # Errors
/// What can be known is refused before anything is started: a setting that needs a process
/// ([`StartError::NeedsProcess`] names child and setting), names used twice, a call outside a tokio runtime. Then the first
/// failed start of a child, after the children before it have been stopped in reverse order.
/// # Cancel safety
/// Dropped before completion, the tree is stopped.
pub async fn start(tree: Supervisor) -> Result<TestCluster, StartError> {
    start_with(Settings::new("test"), tree).await
}

/// The same with settings, of which [`Settings::threads`] counts (with the feature `threads`): how many the runtime of each
/// worker has.
///
/// # Errors
/// As [`start`]. [`Settings::init`] needs a process.
/// # Cancel safety
/// As [`start`].
pub async fn start_with(settings: Settings, tree: Supervisor) -> Result<TestCluster, StartError> {
    rclust_core::testing::start_with(settings, tree, extensions()).await
}

/// Starts `workers` threads that each run the body of a `#[cluster::main] async fn main(cx: cluster::Context)`, under the
/// supervisor that such a program has. They are `body[0]`, `body[1]`, ..
///
/// # Errors
/// As [`start`].
/// # Cancel safety
/// As [`start`].
pub async fn body<F, Fut>(workers: usize, serve: F) -> Result<TestCluster, StartError>
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    body_with(Settings::new("body").workers(workers), serve).await
}

/// The same with settings: name and number of the workers, and the threads of their runtimes.
///
/// # Errors
/// As [`start`]. [`Settings::init`] needs a process.
/// # Cancel safety
/// As [`start`].
pub async fn body_with<F, Fut>(settings: Settings, serve: F) -> Result<TestCluster, StartError>
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future,
    Fut::Output: Outcome,
{
    rclust_core::testing::body_with(settings, serve, extensions()).await
}

fn extensions() -> Vec<Box<dyn Extension>> {
    vec![Box::new(Net)]
}
