//! Probes of tests: slots of this process that belong to no tree, until a cluster of threads meets one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::error::LookupError;
use crate::id::{Incarnation, Slot, WorkerId};
use crate::mailbox::beside::{NotAttached, Tag};
use crate::mailbox::depot::{self, Depot};
use crate::mailbox::endpoint::{Endpoint, Located, Tend, Upstream};
use crate::mailbox::lane::Parts;
use crate::mailbox::switchboard::Switchboard;
use crate::run::shared::{Command, InCluster, Shared};
use crate::wire::control::Part;

/// All probes. A reference to one travels as its slot's number, which is therefore unique in the process.
static PROBES: Mutex<Option<HashMap<Slot, Probe>>> = Mutex::new(None);

/// Trees count up from 0; these count down from the other end.
static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);

#[derive(Clone)]
struct Probe {
    endpoint: Weak<Endpoint>,
    met: Arc<OnceLock<Weak<Shared>>>,
}

/// A probe's life: dropped, those who send to it find it closed.
pub(crate) struct Guard(Slot);

/// Makes a probe that lives on this runtime.
pub(crate) fn make(runtime: Handle) -> (Arc<Endpoint>, Guard) {
    let slot = Slot(NEXT.fetch_sub(1, Ordering::Relaxed));
    let met = Arc::new(OnceLock::new());
    let upstream =
        Box::new(ThroughCluster { me: slot, met: met.clone(), own: Switchboard::default(), depot: Depot::default() });
    let me = WorkerId { slot, incarnation: Incarnation(1) };
    let endpoint = Endpoint::new(me, "a probe".to_owned(), runtime, upstream);
    endpoint.set_ready();
    let probe = Probe { endpoint: Arc::downgrade(&endpoint), met };
    PROBES.lock().get_or_insert_default().insert(slot, probe);
    (endpoint, Guard(slot))
}

/// The probe in a slot, if there is one and it has met no other cluster.
pub(crate) fn meet(slot: Slot, shared: &Arc<Shared>) -> Option<Arc<Endpoint>> {
    let probe = PROBES.lock().as_ref()?.get(&slot)?.clone();
    let met = probe.met.get_or_init(|| Arc::downgrade(shared));
    if Weak::as_ptr(met) == Arc::as_ptr(shared) { probe.endpoint.upgrade() } else { None }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let probe = PROBES.lock().as_mut().and_then(|probes| probes.remove(&self.0));
        let met = probe.and_then(|probe| probe.met.get().and_then(Weak::upgrade));
        if let Some(shared) = met {
            shared.command(Command::ProbeGone { slot: self.0 });
        }
    }
}

/// A probe's way to the supervisor of the cluster that it has met.
struct ThroughCluster {
    me: Slot,
    met: Arc<OnceLock<Weak<Shared>>>,
    /// Its lane to itself, which needs no cluster.
    own: Switchboard,
    depot: Depot,
}

impl ThroughCluster {
    fn cluster(&self) -> Result<InCluster, String> {
        let shared = self.met.get().ok_or("this probe has not been sent anything by a worker yet")?;
        let shared = shared.upgrade().ok_or("the cluster has ended")?;
        Ok(InCluster { shared, me: self.me })
    }
}

impl Upstream for ThroughCluster {
    fn open(&self, peer: Slot) -> Result<Option<Parts>, String> {
        if peer == self.me {
            return self
                .own
                .open(peer, peer, Part::Whole)
                .map(|(parts, _)| Some(parts))
                .map_err(|error| error.to_string());
        }
        self.cluster()?.open(peer)
    }

    fn find(&self, path: &str) -> Result<Located, LookupError> {
        let no_cluster = |why| LookupError::NoCluster { path: path.to_owned(), why };
        self.cluster().map_err(no_cluster)?.find(path)
    }

    fn corrupt(&self, _me: Slot, _peer: Slot, _generation: u32) {
        // Its peers are threads of this process, which trust each other; what it finds broken is a lane that is being given up.
    }

    fn attach(&self, tag: Tag, large: bool, fds: &[BorrowedFd<'_>]) -> Result<(), NotAttached> {
        if tag.peer == self.me {
            return self.depot.put(self.me, tag, large, fds, &self.own).map_err(NotAttached::Os);
        }
        self.cluster().map_err(|why| NotAttached::Os(io::Error::other(why)))?.attach(tag, large, fds)
    }

    fn attach_room(&self) -> BoxFuture<'_, ()> {
        // Nothing is crowded in a supervisor's process.
        Box::pin(std::future::ready(()))
    }

    fn fetch(&self, tag: Tag, descriptors: usize) -> BoxFuture<'_, io::Result<Vec<OwnedFd>>> {
        Box::pin(async move {
            if tag.peer == self.me {
                return depot::given(self.depot.give(self.me, tag, &self.own));
            }
            self.cluster().map_err(io::Error::other)?.fetch(tag, descriptors).await
        })
    }

    fn track(&self, reader: Slot, writer: Slot, end: u64) {
        if let Ok(cluster) = self.cluster() {
            cluster.track(reader, writer, end);
        }
    }

    fn tend(&self, slot: Slot, order: Tend) -> bool {
        self.cluster().is_ok_and(|cluster| cluster.tend(slot, order))
    }

    fn handled(&self, tag: Tag) {
        if tag.peer == self.me {
            self.depot.handled(self.me, tag);
        } else if let Ok(cluster) = self.cluster() {
            cluster.handled(tag);
        }
    }
}
