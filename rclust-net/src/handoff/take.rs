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
use tokio::sync::futures::Notified;

use crate::handoff::note::{self, Note};
use crate::kept::{Kept, Taking};
use crate::load::Page;

/// How long a worker at its descriptor limit waits for one of its descriptors that is no connection of ours.
const AT_THE_LIMIT: Duration = Duration::from_millis(100);

/// The reading end of a queue, of one listener.
#[derive(Debug)]
pub(crate) struct Taker {
    /// Of the runtime that the listener was bound in.
    ready: AsyncFd<Arc<OwnedFd>>,
    reader: Arc<Reader>,
}

/// Who reads a queue. One for each queue of a worker, however many of its listeners do.
#[derive(Debug)]
pub(crate) struct Reader {
    queue: Arc<OwnedFd>,
    /// The slot's page, and the listener's number there. `None`: other workers read this queue too, and a connection is taken at once.
    own: Option<(Arc<Page>, u32)>,
    hand: Mutex<Hand>,
    /// A connection of this worker was closed.
    closed: Notify,
    /// Something was found while nobody may have been looking.
    came: Notify,
}

#[derive(Debug, Default)]
struct Hand {
    /// The packet that the program has and that is in the queue yet.
    number: Option<u32>,
    /// The one before, which the program has. Where the supervisor reads back it may still be in the queue.
    passed: u32,
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
    pub(crate) fn new(queue: Arc<OwnedFd>, reader: Arc<Reader>) -> io::Result<Taker> {
        Ok(Taker { ready: os::register_readable(queue)?, reader })
    }

    /// The program touches a connection that it may have in hand: it is taken.
    pub(crate) fn claim(&self, number: u32) {
        self.reader.claim(number);
    }

    /// Whether the next connection is received already.
    pub(crate) fn has_found(&self) -> bool {
        self.reader.hand().found.is_some()
    }

    /// Something that nobody else can have may have been found since.
    pub(crate) async fn came(&self) {
        self.reader.came.notified().await;
    }

    /// A connection of this worker was closed.
    pub(crate) fn closed(&self) -> Notified<'_> {
        self.reader.closed.notified()
    }

    /// Tells it.
    pub(crate) fn tell_closed(&self) {
        self.reader.closed.notify_waiters();
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
    ) -> io::Result<(Taken<S>, Option<Taking>)> {
        loop {
            let found = here.while_alive(|| self.reader.hand().found.take()).flatten();
            if let Some(packet) = found {
                match packet.taken(&prepare) {
                    Taken::Question => asked(),
                    // Nobody else can have it: also while this worker drains.
                    taken => return Ok((taken, kept.taking())),
                }
            }
            let mut guard = self.ready.readable().await?;
            let closed = self.closed();
            tokio::pin!(closed);
            closed.as_mut().enable();
            let Some(taking) = kept.taking() else {
                // What comes is for others.
                self.came().await;
                continue;
            };
            match here.while_alive(|| self.reader.take_now(&prepare)).transpose()? {
                Some(Tried::Nothing) => guard.clear_ready(),
                Some(Tried::Gone) => {}
                Some(Tried::AtTheLimit) => {
                    drop((guard, taking));
                    // Ours are noticed at once, the program's other descriptors cannot be.
                    let _ = tokio::time::timeout(AT_THE_LIMIT, closed).await;
                }
                Some(Tried::Taken(Taken::Question)) => asked(),
                Some(Tried::Taken(taken)) => return Ok((taken, Some(taking))),
                // What is in the queue is its successor's.
                None => return std::future::pending().await,
            }
        }
    }
}

impl Reader {
    pub(crate) fn new(queue: Arc<OwnedFd>, own: Option<(Arc<Page>, u32)>) -> Reader {
        Reader { queue, own, hand: Mutex::default(), closed: Notify::new(), came: Notify::new() }
    }

    /// Whether it reads this queue.
    pub(crate) fn reads(&self, queue: &OwnedFd) -> bool {
        let of = |queue: &OwnedFd| rustix::fs::fstat(queue).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        of(queue).is_some_and(|other| of(&self.queue) == Some(other))
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, number: u32) {
        let mut hand = self.hand();
        if hand.number == Some(number) {
            self.settle(&mut hand);
        }
    }

    /// What is in hand is taken. (A second descriptor of it comes along and is closed: the stream has the first.)
    fn settle(&self, hand: &mut Hand) {
        let Some((number, (page, listener))) = hand.number.take().zip(self.own.as_ref()) else { return };
        hand.passed = number;
        if !page.lets_go(*listener, number) {
            return;
        }
        match self.receive(RecvFlags::empty()) {
            // The supervisor began to read back in this moment.
            Ok(Some(packet)) if !packet.is(number) => {
                hand.found = Some(packet);
                self.came.notify_one();
            }
            // An error is the next one's to return.
            _ => {}
        }
        page.has_let_go(*listener, number);
    }

    fn take_now<S>(&self, prepare: impl Fn(OwnedFd) -> io::Result<S>) -> io::Result<Tried<S>> {
        let mut hand = self.hand();
        self.settle(&mut hand);
        if let Some(packet) = hand.found.take() {
            return Ok(Tried::Taken(packet.taken(prepare)));
        }
        let Some((page, listener)) = self.own.as_ref().filter(|(page, listener)| page.looks(*listener)) else {
            return self.take_at_once(hand.passed, prepare);
        };
        let tried = match self.receive(RecvFlags::PEEK) {
            Ok(Some(Packet::Connection(socket, note))) => match prepare(socket) {
                Ok(stream) => {
                    if page.holds(*listener, note.number) {
                        hand.number = Some(note.number);
                        return Ok(Tried::Taken(Taken::Connection(stream, note.peer, hand.number)));
                    }
                    // The supervisor has begun to read back.
                    drop(stream);
                    return self.take_at_once(hand.passed, prepare);
                }
                Err(error) => Err(error),
            },
            Ok(Some(Packet::Question)) => self.take_at_once(hand.passed, prepare),
            Ok(Some(Packet::Bare(_))) => Ok(Tried::AtTheLimit),
            Ok(None) => Ok(Tried::Nothing),
            Err(error) => Err(error),
        };
        page.looked_in_vain(*listener);
        tried
    }

    /// Whoever receives a packet has it.
    fn take_at_once<S>(&self, passed: u32, prepare: impl Fn(OwnedFd) -> io::Result<S>) -> io::Result<Tried<S>> {
        match self.receive(RecvFlags::PEEK)? {
            None => return Ok(Tried::Nothing),
            Some(Packet::Bare(_)) => return Ok(Tried::AtTheLimit),
            Some(_) => {}
        }
        Ok(match self.receive(RecvFlags::empty())? {
            None => Tried::Gone,
            // The program has it already: only the supervisor has not yet thrown it away.
            Some(packet) if packet.is(passed) => Tried::Gone,
            Some(packet) => Tried::Taken(packet.taken(prepare)),
        })
    }

    fn receive(&self, flags: RecvFlags) -> io::Result<Option<Packet>> {
        let (mut bytes, mut fds) = ([0; note::LEN], Vec::new());
        let received = match os::receive_with(&*self.queue, &mut bytes, &mut fds, flags | RecvFlags::DONTWAIT) {
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
    use std::collections::VecDeque;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

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
        fn taker(&self, own: bool) -> Reader {
            let page = Page::open(self.memory.try_clone().unwrap()).unwrap();
            let queue = self.lane.queue.as_ref().unwrap().receiving_end();
            Reader::new(queue, own.then(|| (Arc::new(page), LISTENER)))
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

    #[test]
    fn what_is_in_hand_is_in_the_queue_until_it_is_claimed_or_the_next_one_is_wanted() {
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

    #[test]
    fn what_was_in_hand_of_a_dead_worker_is_moved_and_what_is_in_hand_of_a_living_one_is_not() {
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
        assert_eq!(of(taker.take_now(Ok)).0, given.peer(3));
    }

    #[test]
    fn what_could_not_be_made_a_stream_of_stays_in_the_queue() {
        let given = Given::new(1);
        let taker = given.taker(true);
        let refused = taker.take_now(|_| Err::<(), _>(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::OutOfMemory));
        assert_eq!(given.lane.counted(&given.page, LISTENER), (1, 0));
        assert_eq!(of(taker.take_now(Ok)).0, given.peer(0));
    }

    #[test]
    fn what_the_supervisor_took_back_in_that_moment_is_not_taken() {
        let given = std::cell::RefCell::new(Given::new(2));
        let taker = given.borrow().taker(true);
        let back = Cell::new(Vec::new());
        let tried = taker.take_now(|socket| {
            back.set(given.borrow_mut().read_back(true));
            Ok(socket)
        });
        assert!(matches!(tried, Ok(Tried::Nothing)), "{tried:?}");
        let given = given.into_inner();
        assert_eq!(back.take(), [(given.peer(0), 0), (given.peer(1), 0)]);
        assert_eq!(given.page.in_hand(LISTENER), 0);
    }

    #[test]
    fn while_the_supervisor_reads_back_who_receives_has_it() {
        let mut given = Given::new(4);
        let taker = given.taker(true);
        of(taker.take_now(Ok));
        let in_hand = given.page.begins_reading(LISTENER);
        // What it has is not handed out again, and what it finds is its own at once.
        assert!(matches!(taker.take_now(Ok).unwrap(), Tried::Gone));
        assert_eq!(of(taker.take_now(Ok)), (given.peer(1), None));
        given.page.ends_reading(LISTENER);
        assert_ne!(in_hand, 0);
        assert_eq!(given.read_back(true), [(given.peer(2), 0), (given.peer(3), 0)]);
    }

    #[test]
    fn what_is_in_hand_of_a_listener_that_was_dropped_and_bound_again_is_not_mistaken() {
        let mut given = Given::new(1);
        let before = given.taker(true);
        let (_, parked) = of(before.take_now(Ok));
        // The same listener's number, the same page, another queue.
        drop(std::mem::replace(&mut given.lane, Lane::new(Some(Queue::new().unwrap()))));
        (0..3).for_each(|_| given.one_more());
        let now = given.taker(true);
        assert_eq!(of(now.take_now(Ok)), (given.peer(1), None), "taken at once, while the other is in hand");
        assert_eq!(given.lane.counted(&given.page, LISTENER), (2, 1));
        assert_eq!(given.read_back(true), [(given.peer(2), 0), (given.peer(3), 0)]);
        given.one_more();
        let (peer, number) = of(now.take_now(Ok));
        assert!(peer == given.peer(4) && number.is_some());
        before.claim(parked.unwrap());
        assert_eq!(given.page.held(LISTENER), number, "the touch of one is not the other's");
    }

    #[test]
    fn of_a_queue_that_several_workers_read_each_takes_at_once() {
        let given = Given::new(2);
        let [first, second] = [given.taker(false), given.taker(false)];
        assert_eq!(of(first.take_now(Ok)), (given.peer(0), None));
        assert_eq!(of(second.take_now(Ok)), (given.peer(1), None));
        assert_eq!(given.page.in_hand(LISTENER), 0);
    }

    /// Two workers take and claim in their own time, while the supervisor gives, reads back from both and gives that anew.
    #[test]
    fn under_read_backs_nothing_is_lost_and_nothing_handed_out_twice() {
        const ALL: u16 = 20_000;
        let mut slots = [Given::new(0), Given::new(0)];
        let (done, mut rng) = (AtomicBool::new(false), fastrand::Rng::with_seed(7));
        let mut had: Vec<u16> = thread::scope(|scope| {
            let workers: Vec<_> = slots
                .iter()
                .map(|slot| {
                    let (taker, done, mut rng) = (slot.taker(true), &done, rng.fork());
                    scope.spawn(move || {
                        let mut had = Vec::new();
                        loop {
                            let last = done.load(Ordering::Acquire);
                            match taker.take_now(Ok).unwrap() {
                                Tried::Taken(Taken::Connection(_, Some(peer), number)) => {
                                    had.push(peer.port());
                                    // What it does not claim here it claims when it comes for the next one.
                                    if let (Some(number), true) = (number, rng.bool()) {
                                        (0..rng.u32(..200)).for_each(|_| std::hint::spin_loop());
                                        taker.claim(number);
                                    }
                                }
                                Tried::Nothing | Tried::Gone if last => return had,
                                Tried::Nothing | Tried::Gone => thread::yield_now(),
                                other => panic!("{other:?}"),
                            }
                        }
                    })
                })
                .collect();
            let nothing: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            let connection = |port: u16| {
                let peer = Some(SocketAddr::from(([127, 0, 0, 1], port)));
                Connection { socket: nothing.try_clone().unwrap(), peer, key: 0, deaths: 0 }
            };
            let (mut next, mut back) = (0, VecDeque::new());
            while next < ALL || !back.is_empty() {
                let slot = &mut slots[rng.usize(..2)];
                if rng.u8(..4) == 0 {
                    back.extend(slot.lane.read_back(&slot.page, LISTENER, true));
                }
                let given = back.pop_front().or_else(|| (next < ALL).then(|| connection(next)));
                next +=
                    u16::from(given.as_ref().is_some_and(|given| given.peer.is_some_and(|peer| peer.port() == next)));
                let queue = slot.lane.queue.as_mut().unwrap();
                if let Some(Err(full)) = given.map(|given| queue.give(given)) {
                    back.push_front(full);
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        had.sort_unstable();
        let twice: Vec<_> = had.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        assert_eq!(
            (had.len(), twice.len()),
            (ALL.into(), 0),
            "handed out, and twice: {:?}",
            &twice[..twice.len().min(9)]
        );
    }
}
