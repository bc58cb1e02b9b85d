//! The supervisor's body asks the *net* thread.

use std::io;
use std::sync::{Mutex, PoisonError};

use rclust_core::extension::Here;
use tokio::sync::{mpsc, oneshot};

use crate::stats::Stats;

/// A question: where to put the answer.
pub(crate) type Question = oneshot::Sender<Vec<Stats>>;

static DESK: Mutex<Option<mpsc::Sender<Question>>> = Mutex::new(None);

/// Opens the desk. *net* thread.
pub(crate) fn open() -> mpsc::Receiver<Question> {
    let (sender, receiver) = mpsc::channel(64);
    *DESK.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    receiver
}

/// What every shared listener of the running cluster has done, in the order in which they were bound (numbers of closed ones are used again). For the supervisor's body; a
/// worker asks a listener that it has, by [`TcpListener::stats`](crate::TcpListener::stats).
///
/// # Errors
/// `Unsupported` in a worker; `NotConnected` where no cluster runs.
/// # Cancel safety
/// Nothing changes.
pub async fn listeners() -> io::Result<Vec<Stats>> {
    if Here::worker().is_some() {
        let text = "listeners() is for the supervisor's body: a worker asks its listener for its stats()";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let none = || io::Error::new(io::ErrorKind::NotConnected, "no cluster runs in this process: start one first");
    let desk = DESK.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(none)?;
    let (question, answer) = oneshot::channel();
    desk.send(question).await.map_err(|_| none())?;
    answer.await.map_err(|_| none())
}
