//! Worker side: one connection per `accept`, never a prefetch.
//!
//! A packet is looked at, its stream is made, and only then is it received: between the moment in which a connection is this worker's
//! and the one in which its program has it, nothing is left to do that takes long or can fail. A worker that dies before has taken
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rclust_core::extension::{Here, os};
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::handoff::note::{self, Note};
use crate::kept::{Kept, Taking};

/// How long a worker at its descriptor limit waits for one of its descriptors that is no connection of ours.
const AT_THE_LIMIT: Duration = Duration::from_millis(100);

/// The reading end of a slot's queue.
#[derive(Debug)]
pub(crate) struct Taker {
    queue: AsyncFd<OwnedFd>,
    /// Two tasks of one process would look at the same packet.
    turn: Mutex<()>,
    /// A connection of this worker was closed.
    pub(crate) closed: Notify,
}

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum Taken<S> {
    /// A connection.
    Connection(S, Option<SocketAddr>),
    /// The supervisor asks whether somebody is there.
    Question,
    /// A connection that the process had no means for, in spite of everything.
    Lost(io::Error),
}

/// What a try came to.
enum Tried<S> {
    Taken(Taken<S>),
    /// Nothing is in the queue.
    Nothing,
    /// What was looked at is somebody else's by now.
    Gone,
    /// The process has no descriptor for what is in the queue.
    AtTheLimit,
}

/// A packet of the queue.
enum Packet {
    Connection(OwnedFd, Note),
    /// One whose descriptor the kernel could not install.
    Bare(Note),
    Question,
}

impl Taker {
    pub(crate) fn new(queue: OwnedFd) -> io::Result<Taker> {
        Ok(Taker { queue: os::register_readable(queue)?, turn: Mutex::new(()), closed: Notify::new() })
    }

    /// Takes the next connection, which `prepare` makes a stream of; calls `asked` where it finds a question instead.
    ///
    /// An error of `prepare` is returned, and the connection stays where it is.
    ///
    /// Cancel safe: the one act of taking is not divided by an await.
    pub(crate) async fn take<S>(
        &self,
        here: &Here,
        kept: &Arc<Kept>,
        prepare: impl Fn(OwnedFd) -> io::Result<S>,
        asked: impl Fn(),
    ) -> io::Result<(Taken<S>, Taking)> {
        loop {
            let mut guard = self.queue.readable().await?;
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            let Some(taking) = kept.taking() else {
                // What comes is for others.
                return std::future::pending().await;
            };
            match here.while_alive(|| self.take_now(&prepare)).transpose()? {
                Some(Tried::Nothing) => guard.clear_ready(),
                Some(Tried::Gone) => {}
                Some(Tried::AtTheLimit) => {
                    drop((guard, taking));
                    // Ours are noticed at once, the program's other descriptors cannot be.
                    let _ = tokio::time::timeout(AT_THE_LIMIT, closed).await;
                }
                Some(Tried::Taken(Taken::Question)) => asked(),
                Some(Tried::Taken(taken)) => return Ok((taken, taking)),
                // What is in the queue is its successor's.
                None => return std::future::pending().await,
            }
        }
    }

    fn take_now<S>(&self, prepare: impl Fn(OwnedFd) -> io::Result<S>) -> io::Result<Tried<S>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = match self.receive(RecvFlags::PEEK)? {
            None => return Ok(Tried::Nothing),
            Some(Packet::Bare(_)) => return Ok(Tried::AtTheLimit),
            Some(Packet::Question) => None,
            Some(Packet::Connection(socket, note)) => Some((prepare(socket)?, note)),
        };
        // From here on it is ours. A second descriptor of it comes along and is closed, the stream has the first.
        let received = self.receive(RecvFlags::empty())?;
        Ok(match (received, looked) {
            (Some(Packet::Connection(_, note) | Packet::Bare(note)), Some((stream, looked))) if note == looked => {
                Tried::Taken(Taken::Connection(stream, note.peer))
            }
            // The supervisor took back what was looked at, or another listener of this process has it.
            (None, _) => Tried::Gone,
            (Some(Packet::Question), _) => Tried::Taken(Taken::Question),
            (Some(Packet::Connection(socket, note)), _) => Tried::Taken(match prepare(socket) {
                Ok(stream) => Taken::Connection(stream, note.peer),
                Err(error) => Taken::Lost(error),
            }),
            (Some(Packet::Bare(_)), _) => Tried::Taken(Taken::Lost(rustix::io::Errno::MFILE.into())),
        })
    }

    fn receive(&self, flags: RecvFlags) -> io::Result<Option<Packet>> {
        let (mut bytes, mut fds) = ([0; note::LEN], Vec::new());
        let received = match os::receive_with(self.queue.get_ref(), &mut bytes, &mut fds, flags | RecvFlags::DONTWAIT) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if received.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the supervisor has closed this listener"));
        }
        Ok(Some(match (note::decode(&bytes[..received.bytes]), fds.pop()) {
            (Some(note), Some(socket)) => Packet::Connection(socket, note),
            (Some(note), None) => Packet::Bare(note),
            // The supervisor sends nothing else.
            (None, _) => Packet::Question,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::handoff::queue::{Connection, Queue};

    /// A queue with so many connections, their clients, and two who take from it.
    fn queue_of(count: usize) -> (Queue, Vec<TcpStream>, [Taker; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut queue = Queue::new().unwrap();
        let clients: Vec<TcpStream> = (0..count)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (socket, peer) = listener.accept().unwrap();
                queue.give(Connection { socket: socket.into(), peer: Some(peer), key: 0 }).unwrap();
                client
            })
            .collect();
        let end = || Taker::new(queue.receiving_end().try_clone().unwrap()).unwrap();
        let takers = [end(), end()];
        (queue, clients, takers)
    }

    fn peer_of<S>(tried: Tried<S>) -> Option<SocketAddr> {
        match tried {
            Tried::Taken(Taken::Connection(_, peer)) => peer,
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_could_not_be_made_a_stream_of_stays_in_the_queue() {
        let (queue, clients, [taker, _]) = queue_of(1);
        let refused = taker.take_now(|_| Err::<(), _>(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::OutOfMemory));
        assert_eq!(queue.untaken(), 1);
        assert_eq!(peer_of(taker.take_now(Ok).unwrap()), clients[0].local_addr().ok());
        assert_eq!(queue.untaken(), 0);
        assert!(matches!(taker.take_now(Ok).unwrap(), Tried::Nothing));
    }

    #[tokio::test]
    async fn what_the_supervisor_took_back_meanwhile_is_not_taken() {
        let (queue, clients, [taker, _]) = queue_of(2);
        let mut back = Vec::new();
        let prepare = |socket| {
            back.extend(queue.read_back());
            Ok(socket)
        };
        let prepare = std::cell::RefCell::new(prepare);
        assert!(matches!(taker.take_now(|socket| (prepare.borrow_mut())(socket)).unwrap(), Tried::Gone));
        drop(prepare);
        let (peers, expected): (Vec<_>, Vec<_>) =
            back.iter().zip(&clients).map(|(connection, client)| (connection.peer, client.local_addr().ok())).unzip();
        assert_eq!(peers, expected);
    }

    #[tokio::test]
    async fn two_who_look_at_one_packet_take_one_connection_each() {
        let (queue, clients, [first, second]) = queue_of(2);
        let other = std::cell::Cell::new(None);
        // While the first prepares what it looked at, the second takes it.
        let taken = first.take_now(|socket| {
            if queue.untaken() == 2 {
                other.set(peer_of(second.take_now(Ok)?));
            }
            Ok(socket)
        });
        let own = peer_of(taken.unwrap());
        assert_eq!((other.take(), own), (clients[0].local_addr().ok(), clients[1].local_addr().ok()));
        assert_eq!(queue.untaken(), 0);
    }
}
