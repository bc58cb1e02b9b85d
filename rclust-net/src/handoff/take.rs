//! Worker side: one connection per `accept`, never a prefetch. See the module above for what is in hand and what is taken.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rclust_core::extension::{Here, os};
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::handoff::note::{self, Note};
use crate::kept::{Kept, Taking};
use crate::load::{Back, Page};

/// How long a worker at its descriptor limit waits for one of its descriptors that is no connection of ours.
const AT_THE_LIMIT: Duration = Duration::from_millis(100);

/// The reading end of a queue. One for each queue of a worker, however many of its listeners read it.
#[derive(Debug)]
pub(crate) struct Taker {
    queue: AsyncFd<OwnedFd>,
    /// The slot's page, and the listener's number there. `None`: other workers read this queue too, and a connection is taken at once.
    own: Option<(Arc<Page>, u32)>,
    hand: Mutex<Hand>,
    /// A connection of this worker was closed.
    pub(crate) closed: Notify,
}

#[derive(Debug, Default)]
struct Hand {
    /// The packet that the program has and that is in the queue yet.
    number: Option<u32>,
    /// What was received in the place of one that the supervisor had thrown away: the next to be taken.
    found: Option<Packet>,
}

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum Taken<S> {
    /// A connection; if it is in hand and to be claimed, its number.
    Connection(S, Option<SocketAddr>, Option<u32>),
    /// The supervisor asks whether somebody is there.
    Question,
    /// A connection that the process had no means for, in spite of everything.
    Lost(io::Error),
}

/// What a try came to.
#[derive(Debug)]
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
#[derive(Debug)]
enum Packet {
    Connection(OwnedFd, Note),
    /// One whose descriptor the kernel could not install.
    Bare(Note),
    Question,
}

impl Packet {
    fn is(&self, number: u32) -> bool {
        matches!(self, Packet::Connection(_, note) | Packet::Bare(note) if note.number == number)
    }

    /// It was received, and is ours.
    fn taken<S>(self, prepare: impl Fn(OwnedFd) -> io::Result<S>) -> Taken<S> {
        match self {
            Packet::Connection(socket, note) => match prepare(socket) {
                Ok(stream) => Taken::Connection(stream, note.peer, None),
                Err(error) => Taken::Lost(error),
            },
            Packet::Bare(_) => Taken::Lost(rustix::io::Errno::MFILE.into()),
            Packet::Question => Taken::Question,
        }
    }
}

impl Taker {
    pub(crate) fn new(queue: OwnedFd, own: Option<(Arc<Page>, u32)>) -> io::Result<Taker> {
        Ok(Taker { queue: os::register_readable(queue)?, own, hand: Mutex::default(), closed: Notify::new() })
    }

    /// Whether it reads this queue.
    pub(crate) fn reads(&self, queue: &OwnedFd) -> bool {
        let of = |queue: &OwnedFd| rustix::fs::fstat(queue).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        of(queue).is_some_and(|other| of(self.queue.get_ref()) == Some(other))
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
            // Where something was in hand or found, it was not cleared.
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

    /// The program touches the connection that it has in hand: it is taken.
    pub(crate) fn claim(&self, number: u32) {
        let mut hand = self.hand();
        if hand.number == Some(number) {
            self.settle(&mut hand);
        }
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in hand is taken. (A second descriptor of it comes along and is closed: the stream has the first.)
    fn settle(&self, hand: &mut Hand) {
        let Some(number) = hand.number.take() else { return };
        match self.receive(RecvFlags::empty()) {
            // Not ours: the supervisor has read the queue back meanwhile, and left us what we have.
            Ok(Some(packet)) if !packet.is(number) => hand.found = Some(packet),
            // An error is the next one's to return.
            _ => {}
        }
        self.holds(0);
    }

    fn holds(&self, number: u32) {
        if let Some((page, listener)) = &self.own {
            page.holds(*listener, number);
        }
    }

    fn back(&self) -> Option<Back> {
        self.own.as_ref().map(|(page, listener)| page.back(*listener))
    }

    fn take_now<S>(&self, prepare: impl Fn(OwnedFd) -> io::Result<S>) -> io::Result<Tried<S>> {
        let mut hand = self.hand();
        self.settle(&mut hand);
        if let Some(packet) = hand.found.take() {
            return Ok(Tried::Taken(packet.taken(prepare)));
        }
        let before = self.back();
        let (socket, note) = match self.receive(RecvFlags::PEEK)? {
            None => return Ok(Tried::Nothing),
            Some(Packet::Bare(_)) => return Ok(Tried::AtTheLimit),
            Some(Packet::Connection(socket, note)) => (socket, note),
            Some(Packet::Question) => {
                let received = self.receive(RecvFlags::empty())?;
                return Ok(received.map_or(Tried::Gone, |packet| Tried::Taken(packet.taken(prepare))));
            }
        };
        let stream = prepare(socket)?;
        self.holds(note.number);
        if before.is_some() && self.back() == before {
            // Who reads back from now on sees that it is ours.
            hand.number = Some(note.number);
            return Ok(Tried::Taken(Taken::Connection(stream, note.peer, hand.number)));
        }
        // Others read this queue, or the supervisor has begun to: the kernel decides, at once.
        let received = self.receive(RecvFlags::empty())?;
        let (back, ours) = (self.back(), Tried::Taken(Taken::Connection(stream, note.peer, None)));
        self.holds(0);
        let left_to_us =
            |(before, back): (Back, Back)| back == Back { times: before.times.wrapping_add(1), in_hand: note.number };
        Ok(match received {
            Some(packet) if packet.is(note.number) => ours,
            received if before.zip(back).is_some_and(left_to_us) => {
                hand.found = received;
                ours
            }
            Some(packet) => Tried::Taken(packet.taken(prepare)),
            None => Tried::Gone,
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
    use std::cell::Cell;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::handoff::queue::{Connection, Queue};
    use crate::house::Lane;

    /// The supervisor's side of a queue with so many connections, and their clients.
    struct Given {
        lane: Lane,
        page: Page,
        memory: Arc<OwnedFd>,
        clients: Vec<TcpStream>,
    }

    const LISTENER: u32 = 3;

    impl Given {
        fn new(count: usize) -> Given {
            let (page, memory) = Page::create().unwrap();
            let mut given = Given { lane: Lane::new(Some(Queue::new().unwrap())), page, memory, clients: Vec::new() };
            (0..count).for_each(|_| given.one_more());
            given
        }

        fn one_more(&mut self) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            self.clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (socket, peer) = listener.accept().unwrap();
            let connection = Connection { socket: socket.into(), peer: Some(peer), key: 0, deaths: 0 };
            self.lane.queue.as_mut().unwrap().give(connection).unwrap();
            self.lane.given(&self.page, LISTENER);
        }

        /// A worker's side of it.
        fn taker(&self, own: bool) -> Taker {
            let page = Page::open(self.memory.try_clone().unwrap()).unwrap();
            let queue = self.lane.queue.as_ref().unwrap().receiving_end().try_clone().unwrap();
            Taker::new(queue, own.then(|| (Arc::new(page), LISTENER))).unwrap()
        }

        fn peer(&self, client: usize) -> Option<SocketAddr> {
            self.clients[client].local_addr().ok()
        }

        /// Whose connections come back, and how many workers died with each.
        fn read_back(&mut self, lives: bool) -> Vec<(Option<SocketAddr>, u8)> {
            let back = self.lane.read_back(&self.page, LISTENER, lives);
            back.into_iter().map(|connection| (connection.peer, connection.deaths)).collect()
        }
    }

    /// Whose connection was taken, and the number to claim it by.
    fn of<S: std::fmt::Debug>(tried: io::Result<Tried<S>>) -> (Option<SocketAddr>, Option<u32>) {
        match tried.unwrap() {
            Tried::Taken(Taken::Connection(_, peer, number)) => (peer, number),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_in_hand_is_in_the_queue_until_it_is_claimed_or_the_next_one_is_wanted() {
        let mut given = Given::new(2);
        let taker = given.taker(true);
        let (peer, number) = of(taker.take_now(Ok));
        assert_eq!(peer, given.peer(0));
        assert_eq!(given.lane.queue.as_ref().unwrap().untaken(), 2);
        assert_eq!(given.lane.counted(&given.page, LISTENER), (1, 1), "for the supervisor it is taken");
        // Dead now, it would be moved; the second touch says nothing new.
        taker.claim(number.unwrap());
        taker.claim(number.unwrap());
        assert_eq!(given.lane.queue.as_ref().unwrap().untaken(), 1);
        assert_eq!(of(taker.take_now(Ok)).0, given.peer(1));
        assert!(matches!(taker.take_now(Ok).unwrap(), Tried::Nothing));
        assert_eq!(given.read_back(false), []);
    }

    #[tokio::test]
    async fn what_was_in_hand_of_a_dead_worker_is_moved_and_what_is_in_hand_of_a_living_one_is_not() {
        let mut given = Given::new(3);
        let first = given.taker(true);
        of(first.take_now(Ok));
        let expected = [(given.peer(0), 1), (given.peer(1), 0), (given.peer(2), 0)];
        assert_eq!(given.read_back(false), expected);

        let mut given = Given::new(3);
        let taker = given.taker(true);
        let (_, number) = of(taker.take_now(Ok));
        assert_eq!(given.read_back(true), [(given.peer(1), 0), (given.peer(2), 0)]);
        // What comes afterwards is not mistaken for it.
        given.one_more();
        taker.claim(number.unwrap());
        assert_eq!(given.read_back(true), [], "it was received in its place, and is the worker's");
        assert_eq!(of(taker.take_now(Ok)), (given.peer(3), None));
    }

    #[tokio::test]
    async fn what_could_not_be_made_a_stream_of_stays_in_the_queue() {
        let given = Given::new(1);
        let taker = given.taker(true);
        let refused = taker.take_now(|_| Err::<(), _>(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::OutOfMemory));
        assert_eq!(given.lane.counted(&given.page, LISTENER), (1, 0));
        assert_eq!(of(taker.take_now(Ok)).0, given.peer(0));
    }

    #[tokio::test]
    async fn what_the_supervisor_took_back_in_that_moment_is_not_taken() {
        let given = std::cell::RefCell::new(Given::new(2));
        let taker = given.borrow().taker(true);
        let back = Cell::new(Vec::new());
        let tried = taker.take_now(|socket| {
            back.set(given.borrow_mut().read_back(true));
            Ok(socket)
        });
        assert!(matches!(tried, Ok(Tried::Gone)), "{tried:?}");
        let given = given.into_inner();
        assert_eq!(back.take(), [(given.peer(0), 0), (given.peer(1), 0)]);
        assert_eq!(given.page.in_hand(LISTENER), 0);
    }

    #[tokio::test]
    async fn two_workers_who_look_at_one_packet_take_one_connection_each() {
        let given = Given::new(2);
        let [first, second] = [given.taker(false), given.taker(false)];
        let other = Cell::new(None);
        // While the first prepares what it looked at, the second takes it.
        let taken = first.take_now(|socket| {
            if given.lane.queue.as_ref().unwrap().untaken() == 2 {
                other.set(of(second.take_now(Ok)).0);
            }
            Ok(socket)
        });
        assert_eq!((other.take(), of(taken)), (given.peer(0), (given.peer(1), None)));
    }
}
