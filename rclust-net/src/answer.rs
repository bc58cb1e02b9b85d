//! What workers ask, and the answers. Supervisor side; nothing that they say is trusted.

use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rclust_core::WorkerId;
use rclust_core::extension::os;

use crate::bind::{Ask, Key, Terms, Told};
use crate::dispatch::{Dispatch, Picker};
use crate::handoff::queue::Queue;
use crate::house::{Bound, House, Intake, Lane, Shared};
use crate::kernel::{self, Kernel, Way};
use crate::load;
use crate::open::{self, Manner, Opened};
use crate::place::{Kind, Local, Place};
use crate::registry;
use crate::serve;

/// Turns that a closing listener's task may need.
const CLOSING_TURNS: usize = 8;

pub(crate) fn request(house: &Shared, worker: WorkerId, id: u64, body: &[u8]) {
    match postcard::from_bytes(body) {
        Ok(Ask::Bind { key, terms, descriptors }) => {
            let wish = Wish { key, terms, descriptors };
            tokio::task::spawn_local(bind_and_tell(house.clone(), worker, id, wish));
        }
        Ok(Ask::Again { listener }) => {
            let (told, fds) = again(&mut house.borrow_mut(), worker, listener);
            respond(house, worker, id, &told, fds);
        }
        Ok(Ask::Stats { listener }) => {
            let stats = house.borrow().stats(worker, listener);
            respond(house, worker, id, &stats.map_or_else(not_yours, Told::Stats), Vec::new());
        }
        Ok(Ask::Close { listener }) => {
            house.borrow_mut().close(worker, listener);
            respond(house, worker, id, &Told::Closed, Vec::new());
        }
        Err(error) => respond(house, worker, id, &failed(&io::Error::other(error)), Vec::new()),
    }
}

fn respond(house: &Shared, worker: WorkerId, id: u64, told: &Told, fds: Vec<Arc<OwnedFd>>) {
    // Encoding these cannot fail: no map without a length, no float, no user type.
    let body = postcard::to_allocvec(told).unwrap_or_default();
    house.borrow().supervisor.respond(worker, id, body, fds);
}

fn not_yours() -> Told {
    failed(&io::Error::other("the listener is not this worker's any more"))
}

fn failed(error: &io::Error) -> Told {
    Told::Failed { errno: error.raw_os_error(), kind: error.kind().into(), text: error.to_string() }
}

/// What a worker asks for.
struct Wish {
    key: Key,
    terms: Terms,
    descriptors: Option<u64>,
}

type Bind = (u32, Local, Vec<Arc<OwnedFd>>);

async fn bind_and_tell(house: Shared, worker: WorkerId, id: u64, wish: Wish) {
    let mut bound = bind(&house, worker, &wish);
    // Our own socket for this address may be closing: its task has the next turns.
    for _ in 0..CLOSING_TURNS {
        match &bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
            _ => break,
        }
        bound = bind(&house, worker, &wish);
    }
    let supervisor = house.borrow().supervisor.clone();
    match bound {
        Ok((listener, local, fds)) => {
            supervisor.listening(worker, local.to_string());
            respond(&house, worker, id, &Told::Bound { listener, local }, fds);
        }
        Err(error) => {
            supervisor.refused_listen(worker, wish.key.place.to_string(), error.to_string());
            respond(&house, worker, id, &failed(&error), Vec::new());
        }
    }
}

fn bind(house: &Shared, worker: WorkerId, wish: &Wish) -> io::Result<Bind> {
    let Wish { key, terms, descriptors } = wish;
    let mut own = house.borrow_mut();
    let not_current = || io::Error::other("this worker is not current any more");
    let slot = own.slots.get_mut(&worker.slot.0).ok_or_else(not_current)?;
    let most = load::most(*descriptors);
    let (memory, ready) = if let Some(next) = slot.next_as(worker) {
        next.most = most;
        (next.memory.clone(), None)
    } else if slot.current == worker {
        slot.most = most;
        (slot.memory.clone(), Some(slot.ready))
    } else {
        return Err(not_current());
    };
    let known = own.listeners.iter().find(|(_, bound)| bound.key == *key).map(|(number, _)| *number);
    let number = match known {
        Some(number) => number,
        None => open(house, &mut own, key, terms)?,
    };
    let House { listeners, slots, .. } = &mut *own;
    let bound = listeners.get_mut(&number).ok_or_else(|| io::Error::other("the listener is gone"))?;
    // It may have had this listener before, or one of the same number, and counts on.
    let taken_before = match slots.get(&worker.slot.0) {
        Some(slot) if slot.current == worker => slot.page.read(number).taken.min(u64::from(u32::MAX)),
        _ => 0,
    };
    let next = slots.get_mut(&worker.slot.0).and_then(|slot| slot.next_as(worker));
    let entry = match next {
        Some(next) => next.lanes.entry(number),
        None => bound.lanes.entry(worker.slot.0),
    };
    let lane = match entry {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let lane = entry.insert(Lane::new(match &bound.intake {
                Intake::Handed { .. } => Some(Queue::new()?),
                Intake::Kernel(_) | Intake::Datagrams(_) => None,
            }));
            lane.handed = taken_before;
            lane
        }
    };
    let mut fds = Vec::new();
    match (&mut bound.intake, &lane.queue) {
        (Intake::Kernel(kernel), _) => {
            let socket = kernel.socket_of(worker.slot.0)?;
            if let Some(ready) = ready {
                kernel.set_ready(worker.slot.0, ready, std::time::Instant::now());
            }
            fds.extend([kernel.leftovers.receiving_end(), memory, socket]);
        }
        (Intake::Datagrams(socket), _) => fds.push(socket.clone()),
        (_, Some(queue)) => fds.extend([queue.receiving_end(), memory]),
        (_, None) => return Err(io::Error::other("the listener has no queue")),
    }
    lane.binds += 1;
    lane.most = terms.most_each.unwrap_or(u64::MAX);
    bound.room.notify_one();
    let local = bound.local.clone();
    own.steer(number);
    Ok((number, local, fds))
}

/// Binds a new listener.
fn open(house: &Shared, own: &mut House, key: &Key, terms: &Terms) -> io::Result<u32> {
    let number = own.free_number()?;
    let (kind, per_slot) = (key.place.kind(), terms.dispatch == Dispatch::PerSlot);
    let workers_accept = per_slot || terms.dispatch == Dispatch::Shared;
    if workers_accept && terms.most.is_some() {
        return Err(invalid(
            "max_connections is the supervisor's to keep, and with Shared and PerSlot it does not see connections: set \
             max_connections_per_worker, or take another dispatch policy",
        ));
    }
    if per_slot && !matches!(key.place, Place::Tcp(_)) {
        return Err(invalid("PerSlot is for TCP addresses alone: take Shared, or another dispatch policy"));
    }
    let policy = if workers_accept || kind == Kind::Udp { None } else { Some(registry::resolve(&terms.dispatch)?) };
    let manner = Manner { v6_only: key.v6_only, backlog: terms.backlog, mode: terms.mode, group: per_slot };
    let Opened { socket, local, file } = open::open(&key.place, manner)?;
    let most = terms.most.unwrap_or(u64::MAX);
    if kind == Kind::Udp {
        let mut bound = Bound::new(key.clone(), local, None, Intake::Datagrams(Arc::new(socket)), most);
        bound.drained = true;
        own.listeners.insert(number, bound);
        return Ok(number);
    }
    match policy {
        Some((how, key_of)) => {
            let socket = os::register_readable(socket)?;
            let bound = Bound::new(key.clone(), local, file, Intake::Handed { picker: Picker::new(how), key_of }, most);
            let room = bound.room.clone();
            own.listeners.insert(number, bound);
            tokio::task::spawn_local(serve::run(house.clone(), number, socket, room));
        }
        None => {
            let place = match (&key.place, &local) {
                (Place::Tcp(_), Local::Ip(address)) => Place::Tcp(*address),
                (place, _) => place.clone(),
            };
            let intake = Intake::Kernel(Kernel::new(Way { place, manner, per_slot, file }, Arc::new(socket))?);
            let bound = Bound::new(key.clone(), local, None, intake, most);
            let room = bound.room.clone();
            own.listeners.insert(number, bound);
            tokio::task::spawn_local(kernel::run(house.clone(), number, room));
        }
    }
    Ok(number)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A worker's socket does not listen any more.
fn again(own: &mut House, worker: WorkerId, number: u32) -> (Told, Vec<Arc<OwnedFd>>) {
    if own.is_stopping() {
        return (Told::Quiet, Vec::new());
    }
    let slot = own.slots.get_mut(&worker.slot.0);
    let next = slot.and_then(|slot| slot.next_as(worker)).map(|next| next.lanes.contains_key(&number));
    if next.is_none() && !own.is_current(worker) {
        return (not_yours(), Vec::new());
    }
    let Some(bound) = own.listeners.get_mut(&number) else { return (not_yours(), Vec::new()) };
    match &mut bound.intake {
        Intake::Kernel(kernel) if next.unwrap_or_else(|| bound.lanes.contains_key(&worker.slot.0)) => {
            let socket = kernel.socket_of(worker.slot.0);
            bound.room.notify_one();
            own.steer(number);
            match socket {
                Ok(socket) => (Told::Again, vec![socket]),
                Err(error) => (failed(&error), Vec::new()),
            }
        }
        _ => (not_yours(), Vec::new()),
    }
}
