//! The handle of a pool: its members, in turn, by load, by key, or all.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;

use crate::error::{AskError, LookupError, ManageError, SendError};
use crate::id::Slot;
use crate::mailbox::endpoint::{Endpoint, Located};
use crate::reply::{Ask, Reply};
use crate::run::shared::Shared;
use crate::supervisor_ref::SupervisorRef;
use crate::tree::event::Refusal;
use crate::wire::control::Found;
use crate::worker::Message;
use crate::worker_ref::{self, WorkerRef};

/// The members of a pool as this process knows them; the supervisor tells of every change.
#[derive(Default)]
pub(crate) struct Members {
    /// Counts the changes.
    version: AtomicU64,
    list: RwLock<Vec<Found>>,
}

impl Members {
    /// They are these now.
    pub(crate) fn set(&self, list: Vec<Found>) {
        let mut current = self.list.write();
        *current = list;
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// References to the members, as of one version.
struct Known<M> {
    version: u64,
    refs: Arc<[WorkerRef<M>]>,
}

/// How a pool chooses the member that a message goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Route {
    /// One after the other.
    #[default]
    Turn,
    /// The member in whose mailbox the fewest bytes of this process's messages wait; equal ones in turn. What other processes
    /// sent to it is not looked at.
    LeastFull,
}

/// A pool's mailboxes, as others hold them. It follows the pool's size: members that a resize adds get messages, members that
/// it took away get none.
pub struct PoolRef<M> {
    endpoint: Arc<Endpoint>,
    path: Arc<str>,
    members: Arc<Members>,
    known: Arc<Mutex<Known<M>>>,
    turn: Arc<AtomicUsize>,
    route: Route,
    /// In the supervisor's process.
    cluster: Option<Arc<Shared>>,
    _message: PhantomData<fn(M)>,
}

impl<M> Clone for PoolRef<M> {
    fn clone(&self) -> Self {
        PoolRef {
            endpoint: self.endpoint.clone(),
            path: self.path.clone(),
            members: self.members.clone(),
            known: self.known.clone(),
            turn: self.turn.clone(),
            route: self.route,
            cluster: self.cluster.clone(),
            _message: PhantomData,
        }
    }
}

impl<M> fmt::Debug for PoolRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolRef({}: {} members)", self.path, self.members.list.read().len())
    }
}

impl<M: Message> PoolRef<M> {
    /// The members now.
    fn refs(&self) -> Arc<[WorkerRef<M>]> {
        let mut known = self.known.lock();
        let version = self.members.version.load(Ordering::Acquire);
        if known.version != version {
            // Members that stay keep their references, and so their open lanes.
            let reference = |found: &Found| {
                let same = known.refs.iter().find(|member| member.slot() == found.slot).cloned();
                same.unwrap_or_else(|| {
                    WorkerRef::new(self.endpoint.clone(), found.slot, found.name.clone(), found.schema)
                })
            };
            let refs = self.members.list.read().iter().map(reference).collect();
            *known = Known { version, refs };
        }
        known.refs.clone()
    }

    /// Replaces the pool's workers one after the other, in the supervisor's process: see
    /// [`SupervisorRef::reload`](crate::SupervisorRef::reload).
    ///
    /// # Errors
    /// As there; in a worker it is refused.
    /// # Cancel safety
    /// Dropped before completion, the reload goes on.
    pub async fn reload(&self) -> Result<(), ManageError> {
        let refused =
            |refusal| ManageError::Refused { supervisor: self.path.to_string(), child: "reload".to_owned(), refusal };
        let shared = self.cluster.clone().ok_or_else(|| {
            let text = "only the supervisor's program can order a reload: send it a message that asks for one";
            refused(Refusal::Bad(text.to_owned()))
        })?;
        let slot = shared.directory.read().nodes.get(&*self.path).copied();
        let slot = slot.ok_or_else(|| refused(Refusal::NotFound))?;
        SupervisorRef { shared, endpoint: self.endpoint.clone(), slot, name: self.path.to_string() }.reload().await
    }

    /// In the supervisor's process.
    pub(crate) fn within(self, cluster: Arc<Shared>) -> PoolRef<M> {
        PoolRef { cluster: Some(cluster), ..self }
    }

    /// The same pool, with another way of choosing who gets a message.
    #[must_use]
    pub fn route(&self, route: Route) -> PoolRef<M> {
        PoolRef { route, ..self.clone() }
    }

    fn next(&self, refs: &[WorkerRef<M>]) -> Option<WorkerRef<M>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..refs.len()).map(|n| &refs[(turn + n) % refs.len()]);
        match self.route {
            Route::Turn => in_turn.into_iter().next().cloned(),
            Route::LeastFull => in_turn.min_by_key(|member| member.backlog()).cloned(),
        }
    }

    /// Sends to a member that `choose` picks; to another one if that member is gone by then, and others are there.
    async fn send_to(
        &self,
        mut message: M,
        choose: impl Fn(&[WorkerRef<M>]) -> Option<WorkerRef<M>>,
    ) -> Result<(), SendError<M>> {
        loop {
            let refs = self.refs();
            let Some(member) = choose(&refs) else {
                return Err(SendError::Closed { message, to: self.path.to_string() });
            };
            match member.send(message).await {
                Err(SendError::Closed { message: back, to }) => {
                    if self.refs().iter().any(|other| other.slot() == member.slot()) {
                        return Err(SendError::Closed { message: back, to });
                    }
                    message = back;
                }
                other => return other,
            }
        }
    }

    /// Sends to a member: the next in turn, unless [`PoolRef::route`] says otherwise. As [`WorkerRef::send`].
    ///
    /// # Errors
    /// As [`WorkerRef::send`].
    /// # Cancel safety
    /// Dropped before completion, nothing was queued.
    pub async fn send(&self, message: M) -> Result<(), SendError<M>> {
        self.send_to(message, |refs| self.next(refs)).await
    }

    /// Asks a member, chosen as [`PoolRef::send`] does.
    pub fn ask<T: DeserializeOwned + 'static>(&self, make: impl FnOnce(Reply<T>) -> M) -> Ask<T> {
        match self.next(&self.refs()) {
            Some(member) => member.ask(make),
            None => Ask::new(Err(AskError::Closed { to: self.path.to_string() }), &self.path, make),
        }
    }

    /// Sends to the member that `key` belongs to: the same key, the same member, while the pool's size stays.
    ///
    /// # Errors
    /// As [`WorkerRef::send`].
    /// # Cancel safety
    /// Dropped before completion, nothing was queued.
    pub async fn send_keyed(&self, key: &(impl Hash + ?Sized), message: M) -> Result<(), SendError<M>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        self.send_to(message, |refs| refs.get((hash % refs.len().max(1) as u64) as usize).cloned()).await
    }

    /// The members that it has now, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = WorkerRef<M>> + use<M> {
        // Owned, so that it outlives this reference.
        let refs = self.refs();
        (0..refs.len()).map(move |place| refs[place].clone())
    }

    /// How many members there are now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.refs().len()
    }

    /// Whether there are none: the pool is gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends each member a message of its own, made for its place, and tells how each went. A closure, because a message
    /// with a reply port cannot be cloned. A full mailbox holds up only its own message.
    ///
    /// # Cancel safety
    /// Dropped before completion, some members have their message and some do not.
    pub async fn broadcast(&self, mut make: impl FnMut(usize) -> M) -> Vec<(Slot, Result<(), SendError<M>>)> {
        let refs = self.refs();
        let sends = refs.iter().enumerate().map(|(place, member)| {
            let message = make(place);
            async move { (member.slot(), member.send(message).await) }
        });
        futures::future::join_all(sends).await
    }
}

/// Finds a pool by its path.
pub(crate) fn pool<M: Message>(endpoint: &Arc<Endpoint>, path: &str) -> Result<PoolRef<M>, LookupError> {
    let members = match endpoint.find(path)? {
        Located::Worker(_) => return Err(LookupError::IsWorker { path: path.to_owned() }),
        Located::Pool(members) if members.is_empty() => return Err(LookupError::NotFound { path: path.to_owned() }),
        Located::Pool(members) => members,
    };
    let refs: Result<Arc<[WorkerRef<M>]>, _> =
        members.iter().map(|found| worker_ref::checked(endpoint, path, found.clone())).collect();
    let shared = endpoint.pool(path, members);
    // Version 0 is never current: the first use looks.
    Ok(PoolRef {
        endpoint: endpoint.clone(),
        path: path.into(),
        members: shared,
        known: Arc::new(Mutex::new(Known { version: 0, refs: refs? })),
        turn: Arc::default(),
        route: Route::Turn,
        cluster: None,
        _message: PhantomData,
    })
}
