//! One worker process as the supervisor's loop sees it: its words, its end, and the frames on their way to it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::id::WorkerId;
use crate::ipc::link::{Outgoing, SupervisorEnd};
use crate::process::watch::{Status, Watched};
use crate::wire::control::ToSupervisor;
use crate::wire::frame::{Decoder, FrameError};

/// Frames taken over at once.
const BURST: usize = 16;

/// What comes from a worker process.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// A word of its own.
    Said(WorkerId, ToSupervisor),
    /// Something that no worker of ours says: it is not to be trusted further.
    Garbage(WorkerId, FrameError),
    /// It closed its control link: nobody can tell it to stop any more.
    Unlinked(WorkerId),
    /// It is gone. The last one.
    Ended(WorkerId, Status),
}

/// Keeps one worker until its end. `outgoing` is bounded by its sender.
pub(crate) async fn keep(
    worker: WorkerId,
    link: SupervisorEnd,
    process: Watched,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<FromWorker>,
) {
    let mut decoder = SupervisorEnd::decoder();
    let mut queue = VecDeque::new();
    let (mut reading, mut writing) = (true, true);
    let ended = process.ended();
    tokio::pin!(ended);
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            more = link.read(&mut decoder), if reading => {
                // The tree thread ends only when every worker has: then nobody is left to tell.
                if !matches!(more, Ok(true)) {
                    reading = false;
                    let _ = events.send(FromWorker::Unlinked(worker)).await;
                } else if !pass_on(worker, &mut decoder, &events).await {
                    reading = false;
                }
            }
            Some(frame) = outgoing.recv(), if writing && queue.len() < BURST => {
                queue.push_back(frame);
                // What does not go now goes when the link is writable.
                let _ = link.write_now(&mut queue);
            }
            wrote = link.write(&mut queue), if writing && !queue.is_empty() => {
                if wrote.is_err() {
                    // The worker is gone or going: its end is on its way.
                    writing = false;
                    queue.clear();
                }
            }
        }
    };
    // Its last words may still be in the link.
    while reading && matches!(link.read_now(&mut decoder), Ok(true)) {
        reading = pass_on(worker, &mut decoder, &events).await;
    }
    let _ = events.send(FromWorker::Ended(worker, status)).await;
}

/// Passes whole frames on. `false`: there was garbage.
async fn pass_on(worker: WorkerId, decoder: &mut Decoder, events: &mpsc::Sender<FromWorker>) -> bool {
    loop {
        match decoder.next::<ToSupervisor>() {
            Ok(Some((word, _))) => {
                let _ = events.send(FromWorker::Said(worker, word)).await;
            }
            Ok(None) => return true,
            Err(error) => {
                let _ = events.send(FromWorker::Garbage(worker, error)).await;
                return false;
            }
        }
    }
}
