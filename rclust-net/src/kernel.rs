//! Listeners whose queues are the kernel's: workers accept themselves. Supervisor side.
//!
//! `Shared` has one socket for everybody; `PerSlot` has one in an SO_REUSEPORT group for each slot, which the supervisor holds, so
//! that its queue survives incarnations. What the supervisor accepts itself (from the queue of a slot that stays down, and all
//! that waits when the tree stops) is left in a queue that every worker of the listener reads.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rclust_core::extension::os;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::accept::{self, Accepted};
use crate::handoff::queue::Queue;
use crate::house::{House, Intake, Shared};
use crate::load::UNTAKEN;
use crate::open::{self, Manner, Opened, SocketFile};
use crate::place::Place;
use crate::steer;
use crate::sys::reuseport;

/// How long a slot may be down before others accept from its queue.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// How long a socket that was shut down and cannot be bound again is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections accepted before others have a turn.
const TURN: usize = 32;

/// The sockets of one listener.
pub(crate) struct Kernel {
    /// What the supervisor accepted itself.
    pub(crate) leftovers: Queue,
    /// How it was bound, to bind it again.
    way: Way,
    /// In the order in which they began to listen, which is the kernel's order of the group.
    members: Vec<Member>,
    next: u32,
    /// It could not be bound again: not to be tried before.
    retry: Option<Instant>,
    /// One was bound again, which is to be told.
    revived: bool,
    /// The kernel does not take our program: its own hash chooses, also slots that are down.
    unsteered: bool,
}

pub(crate) struct Way {
    /// With the port that the system chose.
    pub(crate) place: Place,
    pub(crate) manner: Manner,
    pub(crate) per_slot: bool,
    /// A Unix socket's.
    pub(crate) file: Option<SocketFile>,
}

impl Way {
    fn listen(&mut self) -> io::Result<Arc<OwnedFd>> {
        // Its own file would be in the way.
        self.file = None;
        let Opened { socket, file, .. } = open::open(&self.place, self.manner)?;
        self.file = file;
        Ok(Arc::new(socket))
    }
}

struct Member {
    id: u32,
    socket: Arc<OwnedFd>,
    /// Whose it is; of `Shared`, and after its slot was removed, nobody's.
    slot: Option<u32>,
    /// Since when its slot has not been ready.
    down: Option<Instant>,
    /// Others accept from it: wakes that task.
    taken_over: Option<Rc<Notify>>,
}

impl Kernel {
    /// With the first socket.
    pub(crate) fn new(way: Way, socket: Arc<OwnedFd>) -> io::Result<Kernel> {
        let unsteered = !way.per_slot;
        let mut kernel = Kernel {
            leftovers: Queue::new()?,
            way,
            members: Vec::new(),
            next: 0,
            retry: None,
            revived: false,
            unsteered,
        };
        kernel.add(socket);
        Ok(kernel)
    }

    fn add(&mut self, socket: Arc<OwnedFd>) -> usize {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.members.push(Member { id, socket, slot: None, down: None, taken_over: None });
        self.members.len() - 1
    }

    /// The socket that a slot's worker accepts from.
    pub(crate) fn socket_of(&mut self, slot: u32) -> io::Result<Arc<OwnedFd>> {
        let per_slot = self.way.per_slot;
        let own = |member: &Member| !per_slot || member.slot == Some(slot);
        let at = match self.members.iter().position(own) {
            Some(at) => at,
            // One that a removed slot left is drained by others until somebody has it.
            None => match self.members.iter().position(|member| member.slot.is_none()) {
                Some(at) => at,
                None => {
                    let socket = self.way.listen()?;
                    self.add(socket)
                }
            },
        };
        let at = self.revive(at)?;
        let member = &mut self.members[at];
        if self.way.per_slot {
            member.slot = Some(slot);
        }
        Ok(member.socket.clone())
    }

    /// A socket that a worker shut down is bound again; where it is now.
    fn revive(&mut self, at: usize) -> io::Result<usize> {
        if listens(&self.members[at].socket) {
            return Ok(at);
        }
        let socket = self.way.listen()?;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.revived = true;
        let old = self.members.swap_remove(at);
        // As the kernel does with its group: the last one takes the place of one that ends, a new one comes last.
        self.members.push(Member { id, socket, ..old });
        Ok(self.members.len() - 1)
    }

    /// Whether a slot is ready has changed.
    pub(crate) fn set_ready(&mut self, slot: u32, ready: bool, now: Instant) {
        for member in self.members.iter_mut().filter(|member| member.slot == Some(slot)) {
            member.down = if ready { None } else { member.down.or(Some(now)) };
        }
    }

    /// A slot is no more: its queue is for others at once.
    pub(crate) fn forget(&mut self, slot: u32, now: Instant) {
        for member in self.members.iter_mut().filter(|member| member.slot == Some(slot)) {
            member.slot = None;
            member.down = now.checked_sub(GRACE).or(Some(now));
        }
    }

    /// Connections go to the sockets of these slots alone, if the system lets us say so.
    pub(crate) fn steer(&mut self, is_ready: impl Fn(u32) -> bool) {
        if self.unsteered {
            return;
        }
        let ready = |member: &Member| member.slot.is_some_and(&is_ready);
        let places: Vec<u32> = (0..).zip(&self.members).filter(|(_, member)| ready(member)).map(|(n, _)| n).collect();
        // While nobody is ready the program before goes on: all queues wait alike.
        let (Some(program), Some(first)) = (steer::among(&places), self.members.first()) else { return };
        self.unsteered = reuseport::steer(&first.socket, &program).is_err();
    }

    fn is_full(&self) -> bool {
        self.leftovers.untaken() >= UNTAKEN
    }

    /// Whether nothing that the supervisor accepted is untaken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.leftovers.untaken() == 0
    }
}

/// Whether a socket (still) listens.
pub(crate) fn listens(socket: &OwnedFd) -> bool {
    socket2::SockRef::from(socket).is_listener().unwrap_or(false) && !accept::is_shut_down(socket)
}

/// Looks after a listener's sockets until it is gone.
pub(crate) async fn run(house: Shared, number: u32, room: Rc<Notify>) {
    let mut hangup: Option<(u32, AsyncFd<Arc<OwnedFd>>)> = None;
    loop {
        let Some((look, stopping)) = house.borrow_mut().look_at_kernel(number, Instant::now()) else { return };
        for (id, socket, wake) in look.take_over {
            tokio::task::spawn_local(take_over(house.clone(), number, id, socket, wake));
        }
        if stopping {
            break;
        }
        // Of `Shared`: a worker's shutdown() ends it for all of them.
        if let Some((id, socket)) = look.watch {
            if hangup.as_ref().is_none_or(|(watched, _)| *watched != id) {
                hangup = os::register_hangup(socket).ok().map(|socket| (id, socket));
            }
        }
        tokio::select! {
            () = room.notified() => {}
            () = async { match look.next { Some(at) => tokio::time::sleep_until(at.into()).await, None => std::future::pending().await } } => {}
            () = async { match &hangup { Some((_, socket)) => hung_up(socket).await, None => std::future::pending().await } } => {
                hangup = None;
            }
        }
    }
    // The tree stops: what waits in the kernel is left for whoever is there, and from here on clients are refused.
    loop {
        let Some(done) = house.borrow_mut().drain_kernel(number) else { return };
        if done {
            break;
        }
        room.notified().await;
    }
    while house.borrow_mut().look_at_kernel(number, Instant::now()).is_some() {
        house.borrow_mut().tell_if_quiet();
        room.notified().await;
    }
}

async fn hung_up(socket: &AsyncFd<Arc<OwnedFd>>) {
    // An error means that the runtime ends.
    let _ = socket.writable().await.map(|mut guard| guard.clear_ready());
}

/// Accepts from the queue of a slot that stays down, until it is not.
async fn take_over(house: Shared, number: u32, id: u32, socket: Arc<OwnedFd>, wake: Rc<Notify>) {
    // A duplicate: one open socket is registered once for each descriptor, and the first may be registered already.
    let registered = socket.try_clone().and_then(os::register_readable);
    let Ok(socket) = registered else {
        tokio::time::sleep(PAUSE).await;
        return house.borrow_mut().taken_over(number, id);
    };
    loop {
        if !house.borrow().is_down(number, id) {
            return house.borrow_mut().taken_over(number, id);
        }
        let room = house.borrow_mut().leave_held(number);
        if !room {
            wake.notified().await;
            continue;
        }
        let mut guard = tokio::select! {
            () = wake.notified() => continue,
            guard = socket.readable() => match guard {
                Ok(guard) => guard,
                Err(_) => return,
            },
        };
        let outcome = house.borrow_mut().accept_leftovers(number, socket.get_ref(), TURN);
        match outcome {
            Leftovers::None => guard.clear_ready(),
            Leftovers::More => {}
            Leftovers::Error => {
                drop(guard);
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::task::yield_now().await;
    }
}

enum Leftovers {
    /// Nobody waits.
    None,
    /// Somebody may.
    More,
    /// Not now.
    Error,
}

/// What a look at a listener's sockets came to.
struct Look {
    /// To be accepted from: which, and what wakes that task.
    take_over: Vec<(u32, Arc<OwnedFd>, Rc<Notify>)>,
    /// The socket whose end is to be noticed.
    watch: Option<(u32, Arc<OwnedFd>)>,
    /// When to look again.
    next: Option<Instant>,
}

impl House {
    fn kernel(&mut self, number: u32) -> Option<&mut Kernel> {
        match &mut self.listeners.get_mut(&number)?.intake {
            Intake::Kernel(kernel) => Some(kernel),
            _ => None,
        }
    }

    /// Whether somebody would take what is left.
    fn somebody_is_ready(&self, number: u32) -> bool {
        let Some(bound) = self.listeners.get(&number) else { return false };
        bound.lanes.keys().any(|slot| self.slots.get(slot).is_some_and(|state| state.ready))
    }

    /// `None`: the listener is gone.
    fn look_at_kernel(&mut self, number: u32, now: Instant) -> Option<(Look, bool)> {
        self.leave_held(number);
        let (somebody, stopping) = (self.somebody_is_ready(number), self.is_stopping());
        let kernel = self.kernel(number)?;
        let mut look = Look { take_over: Vec::new(), watch: None, next: None };
        if stopping {
            return Some((look, true));
        }
        let mut failed = None;
        if let Some(at) = kernel.retry.filter(|at| now < *at) {
            look.next = Some(at);
        } else if !kernel.way.per_slot {
            kernel.retry = None;
            match kernel.revive(0) {
                Ok(at) => look.watch = Some((kernel.members[at].id, kernel.members[at].socket.clone())),
                Err(error) => {
                    kernel.retry = Some(now + RETRY);
                    look.next = kernel.retry;
                    failed = Some(error);
                }
            }
        }
        for member in &mut kernel.members {
            let Some(down) = member.down else { continue };
            if let Some(wake) = &member.taken_over {
                wake.notify_one();
            } else if somebody && now >= down + GRACE {
                let wake = Rc::<Notify>::default();
                member.taken_over = Some(wake.clone());
                look.take_over.push((member.id, member.socket.clone(), wake));
            } else if somebody {
                look.next = Some(look.next.map_or(down + GRACE, |next: Instant| next.min(down + GRACE)));
            }
        }
        if self.kernel(number).is_some_and(|kernel| std::mem::take(&mut kernel.revived)) {
            self.troubled(number, "a worker shut it down, it is bound again".to_owned());
        }
        if let Some(error) = failed {
            self.troubled(number, format!("a worker shut it down, and it cannot be bound again: {error}"));
        }
        Some((look, false))
    }

    /// Whether others are to accept from this socket.
    fn is_down(&self, number: u32, id: u32) -> bool {
        let Some(Intake::Kernel(kernel)) = self.listeners.get(&number).map(|bound| &bound.intake) else { return false };
        let member = kernel.members.iter().find(|member| member.id == id);
        member.is_some_and(|member| member.down.is_some()) && self.somebody_is_ready(number) && !self.is_stopping()
    }

    /// Nobody but its slot accepts from this socket any more.
    fn taken_over(&mut self, number: u32, id: u32) {
        let Some(kernel) = self.kernel(number) else { return };
        for member in kernel.members.iter_mut().filter(|member| member.id == id) {
            member.taken_over = None;
        }
        if let Some(bound) = self.listeners.get(&number) {
            bound.room.notify_one();
        }
    }

    /// Leaves what is held for whoever is there; whether there is room for more.
    fn leave_held(&mut self, number: u32) -> bool {
        loop {
            let Some(bound) = self.listeners.get_mut(&number) else { return false };
            let Intake::Kernel(kernel) = &mut bound.intake else { return false };
            if kernel.is_full() {
                self.want_all();
                // Somebody may have taken one before we asked to be told.
                match self.kernel(number) {
                    Some(kernel) if !kernel.is_full() => continue,
                    _ => return false,
                }
            }
            let Some(connection) = bound.held.pop_front() else { return true };
            match kernel.leftovers.give(connection) {
                Ok(()) => bound.left += 1,
                Err(connection) => {
                    bound.held.push_front(connection);
                    self.want_all();
                    return false;
                }
            }
        }
    }

    fn accept_leftovers(&mut self, number: u32, socket: &OwnedFd, most: usize) -> Leftovers {
        for _ in 0..most {
            let Some(bound) = self.listeners.get_mut(&number) else { return Leftovers::None };
            match accept::accept(socket) {
                Accepted::Connection(connection) => {
                    bound.accepted += 1;
                    bound.moved += 1;
                    bound.held.push_back(connection);
                    if !self.leave_held(number) {
                        return Leftovers::More;
                    }
                }
                Accepted::ClientGone => {}
                Accepted::Nobody => return Leftovers::None,
                Accepted::Exhausted(_) => return Leftovers::Error,
            }
        }
        Leftovers::More
    }

    /// The tree stops: accepts what waits, then closes the port. Whether all is accepted; `None`: the listener is gone.
    fn drain_kernel(&mut self, number: u32) -> Option<bool> {
        let sockets: Vec<_> = self.kernel(number)?.members.iter().map(|member| member.socket.clone()).collect();
        for socket in sockets {
            loop {
                if !self.leave_held(number) {
                    return Some(false);
                }
                match self.accept_leftovers(number, &socket, TURN) {
                    Leftovers::More => {}
                    Leftovers::None | Leftovers::Error => break,
                }
            }
            // Workers have duplicates; this ends the listening for all of them. It may have ended already.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
        self.kernel(number)?.way.file = None;
        self.listeners.get_mut(&number)?.drained = true;
        self.tell_if_quiet();
        Some(true)
    }
}
