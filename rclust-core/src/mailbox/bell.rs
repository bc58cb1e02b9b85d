//! What doorbells wake, and when they are rung for what was sent.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::lane::Lane;
use crate::mailbox::ring::WORTH_RELEASING;
use crate::mailbox::sender;

/// After this long without use a ring's pages are given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long a broken doorbell may be one that is being renewed.
const RENEWAL: Duration = Duration::from_secs(2);

/// Rings the readers of finished batches: runs when the sending task yields.
pub(super) async fn ring_batches(endpoint: Arc<Endpoint>) {
    loop {
        endpoint.ring.notified().await;
        endpoint.ring_all();
    }
}

/// What one of a lane's doorbells wakes: its answers, its messages, its waiting senders, and the wish to release memory.
/// `generation`: the lane's, as of this doorbell; it may have been renewed before this runs for the first time.
pub(super) async fn answer_bell(
    endpoint: Arc<Endpoint>,
    lane: Arc<Lane>,
    bell: AsyncFd<Arc<OwnedFd>>,
    generation: u32,
) {
    let mut released = 0;
    let mut release_at: Option<Instant> = None;
    loop {
        // Both ends of an old doorbell may live: neither would hear of the other's end.
        let renewal = lane.renewed.notified();
        tokio::pin!(renewal);
        renewal.as_mut().enable();
        if lane.generation() != generation {
            // Renewed: other tasks have the new doorbells.
            return;
        }
        if lane.writes() {
            let replied = || {
                if sender::flush_replies(&endpoint, &lane)? && lane.replies.lock().writer.reader_sleeps() {
                    lane.ring();
                }
                Ok(())
            };
            let settled = match endpoint.take_answers(&lane).and_then(|settled| replied().map(|()| settled)) {
                Ok(settled) => settled,
                Err(_) => {
                    endpoint.distrust(&lane);
                    lane.repaired.notified().await;
                    continue;
                }
            };
            if !settled {
                tokio::task::yield_now().await;
                continue;
            }
            if release_at.is_none() && lane.written().wrapping_sub(released) >= WORTH_RELEASING {
                release_at = Some(Instant::now() + IDLE);
            }
        }
        let ready = async {
            match release_at {
                Some(at) => tokio::time::timeout_at(at, bell.readable()).await.ok(),
                None => Some(bell.readable().await),
            }
        };
        let ready = tokio::select! {
            ready = ready => ready,
            () = renewal => continue,
        };
        match ready {
            Some(Ok(mut guard)) => match lane.hush(bell.get_ref()) {
                Ok(true) => guard.clear_ready(),
                // The lane is given up: its last messages are still to be read. Or it is being renewed. Or somebody shut the
                // doorbell down.
                Ok(false) | Err(_) => {
                    let cut = {
                        let mut inbox = lane.inbox.lock();
                        if !inbox.is_empty() {
                            endpoint.activate(&lane);
                        }
                        inbox.is_cut()
                    };
                    if !cut && !lane.is_closed() && !renewed(&lane, generation).await && !lane.is_closed() {
                        endpoint.distrust(&lane);
                    }
                    return;
                }
            },
            Some(Err(_)) => return,
            None => {
                release_at = None;
                // Not empty: the reader rings when it has emptied it.
                if lane.release_if_empty() {
                    released = lane.written();
                }
                continue;
            }
        }
        lane.room.notify_waiters();
        endpoint.activate(&lane);
    }
}

/// Whether a lane whose doorbell is broken is renewed: the word of it may come a moment after.
async fn renewed(lane: &Lane, generation: u32) -> bool {
    let renewal = async {
        loop {
            let told = lane.renewed.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if lane.generation() != generation || lane.is_closed() {
                return;
            }
            told.await;
        }
    };
    tokio::time::timeout(RENEWAL, renewal).await.is_ok()
}
