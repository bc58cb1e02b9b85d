//! Supervisor side: give one, read back what nobody took.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rclust_core::extension::os;
use rustix::net::{RecvFlags, SocketType};

use crate::handoff::note::{self, Note};

/// An accepted connection that no program has.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// A Unix socket's has none.
    pub(crate) peer: Option<SocketAddr>,
    /// What a sticky policy knows the client by.
    pub(crate) key: u64,
    /// How many workers have died with it in their hands.
    pub(crate) deaths: u8,
}

/// One slot's queue at one listener.
#[derive(Debug)]
pub(crate) struct Queue {
    give: OwnedFd,
    take: Arc<OwnedFd>,
    /// The numbers of its first and last packet.
    numbers: Option<(u32, u32)>,
}

/// The next packet's number. No two queues have the same one: a worker may have read several of one listener, one after the other.
fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => next_number(),
        number => number,
    }
}

impl Queue {
    pub(crate) fn new() -> io::Result<Queue> {
        let (give, take) = os::socket_pair(SocketType::SEQPACKET)?;
        Ok(Queue { give, take: Arc::new(take), numbers: None })
    }

    /// The receiving end, for the slot's workers.
    pub(crate) fn receiving_end(&self) -> Arc<OwnedFd> {
        self.take.clone()
    }

    /// Puts a connection into the queue; our own copy is closed with it. Without room it comes back.
    pub(crate) fn give(&mut self, connection: Connection) -> Result<(), Connection> {
        let number = next_number();
        self.numbers = Some((self.numbers.map_or(number, |(first, _)| first), number));
        let Connection { peer, key, deaths, .. } = connection;
        let note = note::encode(Note { peer, key, deaths, number });
        // EAGAIN and ETOOMANYREFS mean full; another error (ENOBUFS, ENOMEM) means not now.
        match os::send_with(&self.give, &note, &[connection.socket.as_fd()]) {
            Ok(_) => Ok(()),
            Err(_) => Err(connection),
        }
    }

    /// How many connections are in it, as the kernel knows.
    pub(crate) fn untaken(&self) -> u64 {
        // FIONREAD is the sum of all packets here, and each is as long as a note. It does not fail on a socket.
        rustix::io::ioctl_fionread(&*self.take).unwrap_or(0).div_ceil(note::LEN as u64)
    }

    /// Whether a packet of this number may be one of its own.
    pub(crate) fn has_given(&self, number: u32) -> bool {
        self.numbers.is_some_and(|(first, last)| number.wrapping_sub(first) <= last.wrapping_sub(first))
    }

    /// Asks its reader, when it comes to its queue, to say so.
    pub(crate) fn ask(&self) -> bool {
        os::send_with(&self.give, &note::QUESTION, &[]).is_ok()
    }

    /// Takes back what nobody took, oldest first, each with its packet's number, and throws one away that is somebody's already. Where this
    /// process has no descriptor left, the rest stays.
    pub(crate) fn read_back(&self, thrown_away: Option<u32>) -> Vec<(Connection, u32)> {
        let receive = |flags| {
            let (mut bytes, mut fds) = ([0; note::LEN], Vec::new());
            match os::receive_with(&*self.take, &mut bytes, &mut fds, flags | RecvFlags::DONTWAIT) {
                Ok(received) if received.bytes > 0 => Some((note::decode(&bytes[..received.bytes]), fds.pop())),
                _ => None,
            }
        };
        let mut connections = Vec::new();
        while let Some((looked, first)) = receive(RecvFlags::PEEK) {
            let is_thrown_away = |note: &Note| Some(note.number) == thrown_away;
            if first.is_none() && looked.is_some_and(|note| !is_thrown_away(&note)) {
                break;
            }
            let Some((note, second)) = receive(RecvFlags::empty()) else { break };
            // Its worker may have received what was looked at. A question that nobody has read needs no answer any more.
            let socket = second.or(first.filter(|_| note == looked));
            if let (Some(socket), Some(note)) = (socket, note.filter(|note| !is_thrown_away(note))) {
                let Note { peer, key, deaths, number } = note;
                connections.push((Connection { socket, peer, key, deaths }, number));
            }
        }
        connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_was_not_taken_comes_back_unread_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut queue = Queue::new().unwrap();
        let mut clients = Vec::new();
        for n in 0..10u8 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(&[n]).unwrap();
            let (socket, peer) = listener.accept().unwrap();
            queue.give(Connection { socket: socket.into(), peer: Some(peer), key: 0, deaths: 0 }).unwrap();
            clients.push(client);
        }
        for _ in 0..3 {
            let (mut bytes, mut fds) = ([0; note::LEN], Vec::new());
            os::receive_with(&*queue.receiving_end(), &mut bytes, &mut fds, RecvFlags::DONTWAIT).unwrap();
        }
        let back = queue.read_back(None);
        let read: Vec<u8> = back
            .into_iter()
            .map(|(connection, _)| {
                let mut byte = [0];
                TcpStream::from(connection.socket).read_exact(&mut byte).unwrap();
                byte[0]
            })
            .collect();
        assert_eq!(read, [3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_full_queue_gives_the_connection_back() {
        let mut queue = Queue::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let mut given = 0;
        while queue
            .give(Connection { socket: listener.try_clone().unwrap().into(), peer: Some(peer), key: 0, deaths: 0 })
            .is_ok()
        {
            given += 1;
            assert!(given < 100_000, "the queue has no end");
        }
        assert_eq!(queue.untaken(), given as u64);
        assert_eq!(queue.read_back(None).len(), given);
        assert_eq!(queue.untaken(), 0);
    }
}
