//! The supervisor's end of a worker's porter: takes in what goes beside records, and answers who has taken them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::SocketType;

use crate::id::{Slot, WorkerId};
use crate::mailbox::beside::Tag;
use crate::mailbox::depot::{self, Given};
use crate::run::shared::{Command, Shared};
use crate::run::supervise::Supervise;
use crate::sys::{descriptors, readiness};
use crate::wire::control::{Answer, ToWorker};

/// One worker's; dropped with it.
pub(crate) struct Porter {
    socket: Arc<OwnedFd>,
    reading: tokio::task::AbortHandle,
}

impl Drop for Porter {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Supervise {
    /// Gives a worker its porter.
    pub(crate) fn give_porter(&mut self, worker: WorkerId, id: u64) {
        let Some(live) = self.live.get_mut(&worker) else { return };
        if live.porter.is_some() {
            return self.distrust(worker, "it asks for a second porter".to_owned());
        }
        let answer = match open(live.seated.seat, &self.shared) {
            Ok((porter, theirs)) => {
                live.porter = Some(porter);
                return self.send(worker, &ToWorker::Answer { id, answer: Answer::Porter }, vec![Arc::new(theirs)]);
            }
            Err(error) => Answer::Refused(format!("no porter can be made: {error}")),
        };
        self.send(worker, &ToWorker::Answer { id, answer }, Vec::new());
    }

    /// A worker has taken a record, and asks for what is beside it.
    pub(crate) fn fetch(&mut self, worker: WorkerId, tag: Tag) {
        let Some(live) = self.live.get(&worker) else { return };
        let Some(porter) = &live.porter else { return };
        let reader = live.seated.side(tag.ring);
        // At the supervisor's own limit of descriptors, a payload cannot be copied: to its reader that is a lost one.
        let given = self.shared.depot.give(reader, tag, &self.shared.board).unwrap_or(Given::Gone);
        if depot::answer(&*porter.socket, tag, &given).is_err() {
            // What cannot be sent is lost; a worker that does not even read this does not read its answers.
            let _ = depot::answer(&*porter.socket, tag, &Given::Gone);
        }
    }
}

fn open(slot: Slot, shared: &Arc<Shared>) -> std::io::Result<(Porter, OwnedFd)> {
    let (ours, theirs) = descriptors::socket_pair(SocketType::SEQPACKET)?;
    let socket = Arc::new(ours);
    shared.depot.add_porter(slot, socket.clone());
    let readable = readiness::register_readable(socket.clone())?;
    let shared = shared.clone();
    let reading = tokio::spawn(async move {
        while let Ok(mut ready) = readable.readable().await {
            match shared.depot.take_in(slot, &shared.board) {
                Ok(true) => ready.clear_ready(),
                Ok(false) => return,
                Err(error) => return shared.command(Command::Distrust { seat: slot, error }),
            }
        }
    });
    Ok((Porter { socket, reading: reading.abort_handle() }, theirs))
}
