//! What workers ask, and the answers. Supervisor side; nothing that they say is trusted.

use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rclust_core::WorkerId;
use rclust_core::extension::os;

use crate::accept;
use crate::bind::{Ask, Key, Told};
use crate::dispatch::Dispatch;
use crate::house::{Bound, Lane, Shared};
use crate::load;
use crate::registry;
use crate::serve;

/// Turns that a closing listener's task may need.
const CLOSING_TURNS: usize = 8;

pub(crate) fn request(house: &Shared, worker: WorkerId, id: u64, body: &[u8]) {
    match postcard::from_bytes(body) {
        Ok(Ask::Bind { key, backlog, dispatch, descriptors }) => {
            let house = house.clone();
            tokio::task::spawn_local(async move {
                let wish = Wish { key, backlog, dispatch, descriptors };
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
                        supervisor.refused_listen(worker, wish.key.address.to_string(), error.to_string());
                        let told = Told::Failed { errno: error.raw_os_error(), text: error.to_string() };
                        respond(&house, worker, id, &told, Vec::new());
                    }
                }
            });
        }
        Ok(Ask::Stats { listener }) => {
            let stats = house.borrow().stats(worker, listener);
            let gone = || Told::Failed { errno: None, text: "the listener is not this worker's any more".to_owned() };
            respond(house, worker, id, &stats.map_or_else(gone, Told::Stats), Vec::new());
        }
        Ok(Ask::Close { listener }) => {
            house.borrow_mut().close(worker, listener);
            respond(house, worker, id, &Told::Closed, Vec::new());
        }
        Err(error) => respond(house, worker, id, &Told::Failed { errno: None, text: error.to_string() }, Vec::new()),
    }
}

fn respond(house: &Shared, worker: WorkerId, id: u64, told: &Told, fds: Vec<Arc<OwnedFd>>) {
    // Encoding these cannot fail: no map without a length, no float, no user type.
    let body = postcard::to_allocvec(told).unwrap_or_default();
    house.borrow().supervisor.respond(worker, id, body, fds);
}

/// What a worker asks for.
struct Wish {
    key: Key,
    backlog: u32,
    dispatch: Dispatch,
    descriptors: Option<u64>,
}

type Bind = (u32, SocketAddr, Vec<Arc<OwnedFd>>);

fn bind(house: &Shared, worker: WorkerId, wish: &Wish) -> io::Result<Bind> {
    let Wish { key, backlog, dispatch, descriptors } = wish;
    let mut own = house.borrow_mut();
    let Some(slot) = own.slots.get_mut(&worker.slot.0).filter(|slot| slot.current == worker) else {
        return Err(io::Error::other("this worker is not current any more"));
    };
    slot.most = load::most(*descriptors);
    let memory = slot.memory.clone();
    let known = own.listeners.iter().find(|(_, bound)| bound.key == *key).map(|(number, _)| *number);
    let number = match known {
        Some(number) => number,
        None => {
            let number = own.free_number()?;
            let (how, key_of) = registry::resolve(dispatch)?;
            let socket = accept::listen(key.address, key.v6_only, *backlog)?;
            let local = socket2::SockRef::from(&socket).local_addr()?;
            let local = local.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
            let socket = os::register_readable(socket)?;
            let bound = Bound::new(key.clone(), local, how, key_of);
            let room = bound.room.clone();
            own.listeners.insert(number, bound);
            tokio::task::spawn_local(serve::run(house.clone(), number, socket, room));
            number
        }
    };
    let bound = own.listeners.get_mut(&number).ok_or_else(|| io::Error::other("the listener is gone"))?;
    let lane = match bound.lanes.entry(worker.slot.0) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Lane::new()?),
    };
    lane.binds += 1;
    let fds = vec![lane.queue.receiving_end(), memory];
    bound.room.notify_one();
    Ok((number, bound.local, fds))
}
