//! Kill storms: what no program has taken is not lost, and clients wait while nobody is there.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rclust_core::extension::os;
use rclust_tests::client::get;
use rclust_tests::lines::{Line, number, serving};
use rclust_tests::load::{Load, PORTS};
use rclust_tests::{Running, await_end, comes_true, command, kill, procfs, start};
use rustix::process::Signal;

const LINES: &str = env!("CARGO_BIN_EXE_lines");
const SERVER: &str = env!("CARGO_BIN_EXE_server");

const KILLS: u32 = 45;
const TIME: Duration = Duration::from_secs(9);

/// Which connections a worker had, whatever became of it: the worker counts each, by its client's port, right after `accept`.
struct Notes {
    memory: Arc<std::os::fd::OwnedFd>,
    noted: os::Mapping,
    /// How many of them the clients know of.
    known: Vec<AtomicU64>,
    /// Connections that failed and that no worker noted.
    lost: AtomicU32,
}

impl Notes {
    fn new() -> Arc<Notes> {
        let memory = Arc::new(os::create_memory("notes", PORTS as u64 * 8).unwrap());
        let noted = os::Mapping::new(memory.clone(), PORTS * 8).unwrap();
        let known = (0..PORTS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Notes { memory, noted, known, lost: AtomicU32::new(0) })
    }

    /// Where workers find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.memory.as_raw_fd())
    }

    /// How many connections workers have noted.
    fn all(&self) -> u64 {
        (0..PORTS).map(|port| self.noted.load(port * 8, Ordering::Acquire)).sum()
    }

    /// A connection from this port was answered, or failed. A port has one connection at a time.
    fn outcome(&self, port: u16, failed: bool) {
        let (port, known) = (usize::from(port), &self.known[usize::from(port)]);
        let noted = self.noted.load(port * 8, Ordering::Acquire);
        if noted == known.swap(noted, Ordering::AcqRel) {
            assert!(failed, "an answer by a worker that did not note the connection: the test is wrong");
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn serve(workers: usize, notes: &Notes) -> (Running, SocketAddr) {
    let mut running = start(command(SERVER).env("WEB_CONCURRENCY", workers.to_string()).env("NOTES", notes.path()));
    let address = running.after("] first ").parse().expect("an address");
    assert!(comes_true(|| running.said().matches(" ready").count() == workers));
    (running, address)
}

/// Which processes die, the clock says and not what became of the one before: 45 in 9 s.
fn storm(workers: usize, path: &'static str) {
    let notes = Notes::new();
    let (mut running, address) = serve(workers, &notes);
    let before = procfs::descriptors(running.pid()).len();
    let load = {
        let notes = notes.clone();
        Load::witnessed(address, 64, path, move |port, outcome| notes.outcome(port, outcome.is_err()))
    };
    load.goes_on(200);
    let began = Instant::now();
    let mut victims = HashSet::new();
    for n in 1..=KILLS {
        thread::sleep((TIME / KILLS * n).saturating_sub(began.elapsed()));
        let now = running.workers();
        if let Some(victim) = now.get(n as usize * 7 % now.len().max(1)) {
            kill(*victim, Signal::KILL);
            // One that is dead and not yet collected is listed too.
            victims.insert(*victim);
        }
    }
    let killed = victims.len() as u32;
    let took = began.elapsed();
    load.goes_on(200);
    let (answered, failures): (u32, HashMap<_, _>) = load.end();
    let lost = notes.lost.load(Ordering::Relaxed);
    let stats = get(address, "/stats").unwrap().body;
    let [accepted, handed, moved, waiting] =
        ["accepted", "handed", "moved", "waiting"].map(|name| number(&stats, name));
    let taken = handed - moved;
    println!(
        "{workers} workers, {path}: {killed} kills in {took:?}, {answered} answered; in flight {failures:?}; {accepted} accepted, \
         {moved} moved, {taken} taken, {} noted, {lost} failed that were not noted",
        notes.all()
    );
    assert!(killed > KILLS * 9 / 10, "{killed} kills");
    assert_eq!(failures.get("refused"), None, "{failures:?}");
    assert_eq!(failures.get("timed out"), None, "{failures:?}");
    // Each connection was taken by a worker, once: `handed` counts those again that were taken back.
    assert_eq!((accepted, waiting), (taken, 0), "{stats}");
    assert_eq!(lost, 0, "connections that failed and that no program had, {killed} kills: {stats}");
    // One that a worker had in hand when it was killed, and had not touched, was noted by it and by the next one.
    assert!(
        (taken..=taken + u64::from(killed)).contains(&notes.all()),
        "{} noted, {killed} kills: {stats}",
        notes.all()
    );
    // What fails was in a program's hands when it was killed.
    assert!(failures.values().sum::<u32>() <= killed * 64, "{failures:?}");
    let mut now = Vec::new();
    let settled = comes_true(|| {
        now = procfs::descriptors(running.pid());
        now.len() == before && running.workers().len() == workers && get(address, "/").is_ok()
    });
    assert!(settled, "{before} descriptors before, now: {now:#?}\n{}", running.said());
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert_eq!(said.matches("killed by SIGKILL").count(), victims.len(), "{said}");
}

#[test]
fn two_workers_that_answer_at_once() {
    storm(2, "/");
}

#[test]
fn two_workers_that_need_five_milliseconds() {
    storm(2, "/work/5");
}

#[test]
fn four_workers_that_answer_at_once() {
    storm(4, "/");
}

#[test]
fn four_workers_that_need_five_milliseconds() {
    storm(4, "/work/5");
}

#[test]
fn while_all_workers_are_down_clients_wait_and_none_is_refused() {
    const DOWN: Duration = Duration::from_secs(2);
    let down = DOWN.as_millis().to_string();
    for dispatch in ["balanced", "shared", "per_slot"] {
        let mut program = command(LINES);
        let (running, address) = serving(program.env("WORKERS", "2").env("DISPATCH", dispatch).env("DOWN", &down));
        let began = Instant::now();
        for worker in running.workers() {
            kill(worker, Signal::KILL);
            await_end(worker);
        }
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut line = Line::open(&address).expect("the port is open, and the backlog takes it");
                line.send("who\n").unwrap();
                line
            })
            .collect();
        assert!(began.elapsed() < DOWN, "{:?}", began.elapsed());
        for (n, mut line) in clients.into_iter().enumerate() {
            let answer = line.receive().unwrap_or_else(|error| panic!("{dispatch}: client {n}: {error}"));
            assert!(!answer.is_empty());
            assert!(began.elapsed() >= DOWN, "{dispatch}: {:?}", began.elapsed());
        }
    }
}
