//! The tasks of the *net* thread: one for each listener, and one that looks for stalled slots.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rclust_core::extension::os;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::accept::{self, Accepted};
use crate::give_way::GiveWay;
use crate::house::Shared;
use crate::peek;

/// Connections accepted before others have a turn.
const TURN: usize = 32;

/// How long others are let run in one turn, in sum: other listeners wait for it.
const WAY: Duration = Duration::from_millis(1);

/// The pause after an accept for which the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// One line in this time about such pauses.
const COMPLAIN: Duration = Duration::from_secs(1);

/// What a listener's task does next.
enum Step {
    /// The listener is gone.
    End,
    /// Nobody has room: wait for it.
    WaitForRoom,
    /// Accept.
    Accept,
}

enum Turn {
    /// No slot has room.
    Full,
    /// There may be more to accept.
    More,
    /// Nobody is waiting.
    Empty,
    /// Nothing can be accepted for the moment.
    Exhausted(std::io::Error),
}

/// Accepts for one listener and gives what is held, until the listener is gone.
pub(crate) async fn run(house: Shared, number: u32, socket: AsyncFd<OwnedFd>, room: Rc<Notify>) {
    let (mut complained, mut way) = (None::<Instant>, GiveWay::default());
    loop {
        match next_step(&house, number) {
            Step::End => return,
            Step::WaitForRoom => room.notified().await,
            Step::Accept => {
                let stopping = house.borrow().is_stopping();
                let mut guard = tokio::select! {
                    // While stopping, what waits in the backlog is accepted now or never.
                    () = std::future::ready(()), if stopping => None,
                    guard = socket.readable() => match guard {
                        Ok(guard) => Some(guard),
                        Err(_) => return,
                    },
                    // Something was given back, or the stop began, or the listener is gone.
                    () = room.notified() => continue,
                };
                match accept_turn(&house, number, &socket, &mut way) {
                    Turn::Full => {}
                    Turn::More => tokio::task::yield_now().await,
                    Turn::Empty if stopping => break,
                    Turn::Empty => {
                        if let Some(guard) = &mut guard {
                            guard.clear_ready();
                        }
                    }
                    Turn::Exhausted(error) => {
                        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
                            complained = Some(Instant::now());
                            let text = format!("accept pauses, clients wait in the backlog: {error}");
                            house.borrow().troubled(number, text);
                        }
                        tokio::time::sleep(PAUSE).await;
                        // The system says "no descriptor left" before it looks whether somebody waits at all.
                        if !accept::somebody_waits(&socket) {
                            if stopping {
                                break;
                            }
                            if let Some(guard) = &mut guard {
                                guard.clear_ready();
                            }
                        }
                    }
                }
            }
        }
    }
    // The tree stops: from here on clients are refused by the system, and what was accepted finds a worker.
    drop(socket);
    if let Some(bound) = house.borrow_mut().listeners.get_mut(&number) {
        bound.drained = true;
        bound.file = None;
    }
    while !matches!(next_step(&house, number), Step::End) {
        room.notified().await;
    }
}

/// Gives what is held, then says whether to accept.
fn next_step(house: &Shared, number: u32) -> Step {
    let mut own = house.borrow_mut();
    loop {
        let Some(bound) = own.listeners.get_mut(&number) else { return Step::End };
        let Some(connection) = bound.held.pop_front() else { break };
        let candidates = own.candidates(number);
        if let Err(connection) = own.dispatch(number, &candidates, connection) {
            if let Some(bound) = own.listeners.get_mut(&number) {
                bound.held.push_front(connection);
            }
            if !own.somebody_has_room(number) {
                return Step::WaitForRoom;
            }
        }
    }
    own.tell_if_quiet();
    if own.somebody_has_room(number) { Step::Accept } else { Step::WaitForRoom }
}

fn accept_turn(house: &Shared, number: u32, socket: &AsyncFd<OwnedFd>, way: &mut GiveWay) -> Turn {
    let mut own = house.borrow_mut();
    let mut given_away = Duration::ZERO;
    for n in 0..TURN {
        // An accept that finds nobody makes a file and an inode for nothing: asking first is cheaper.
        if n > 0 && !accept::somebody_waits(socket) && !somebody_comes(socket, way, &mut given_away) {
            return Turn::Empty;
        }
        let candidates = own.candidates(number);
        if candidates.is_empty() {
            return Turn::Full;
        }
        match accept::accept(socket.get_ref()) {
            Accepted::Connection(mut connection) => {
                way.came();
                if let Some(key) = own.accepted(number, &mut connection) {
                    tokio::task::spawn_local(peek::wait(house.clone(), number, connection, key));
                    continue;
                }
                if let Err(connection) = own.dispatch(number, &candidates, connection) {
                    if let Some(bound) = own.listeners.get_mut(&number) {
                        bound.held.push_back(connection);
                    }
                    return Turn::Full;
                }
            }
            Accepted::ClientGone => {}
            Accepted::Nobody => return Turn::Empty,
            Accepted::Exhausted(error) => return Turn::Exhausted(error),
        }
    }
    Turn::More
}

/// Lets others run before this thread goes to sleep, where that pays. Whether somebody waits then.
fn somebody_comes(socket: &AsyncFd<OwnedFd>, way: &mut GiveWay, given_away: &mut Duration) -> bool {
    let began = Instant::now();
    if *given_away > WAY || !way.may(began) {
        return false;
    }
    std::thread::yield_now();
    let took = began.elapsed();
    *given_away += took;
    way.tried(took);
    let comes = accept::somebody_waits(socket);
    if !comes {
        way.judge(began + took);
    }
    comes
}

/// Gives what a stalled slot has not taken to others. Has a timer only while something is untaken and others may take it; one of its
/// own, for connections come meanwhile, and each lets this thread go to sleep.
pub(crate) async fn watch_stalls(house: Shared) {
    let wake = house.borrow().watch();
    let mut alarm = os::Alarm::new();
    loop {
        let next = house.borrow_mut().look_for_stalls(Instant::now());
        match next {
            Some(at) => alarm.sleep_until(at).await,
            None => wake.notified().await,
        }
    }
}
