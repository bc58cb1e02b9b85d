//! The drain: last calls, then the close, by a deadline; no client that obeys loses a request.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rclust_tests::client::{Connection, Failure};
use rclust_tests::lines::{Line, serving};
use rclust_tests::load::Load;
use rclust_tests::{Running, await_end, command, eventually, kill, start};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

const HTTP: &str = env!("CARGO_BIN_EXE_http");
const LINES: &str = env!("CARGO_BIN_EXE_lines");

fn http(workers: u32) -> (Running, SocketAddr) {
    let mut running = start(command(HTTP).env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", workers.to_string()));
    let port = running.own("listening on 127.0.0.1:").parse().expect("a port");
    (running, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// One worker of the program `lines` with this quiet window, whose deadline is 5 s.
fn lines(quiet_ms: u64) -> (Running, String) {
    serving(command(LINES).env("WORKERS", "1").env("QUIET", quiet_ms.to_string()))
}

/// After how many milliseconds of last calls the close began. The program's clock begins when it hears of them, a little too late.
fn closes_after(running: &mut Running) -> u64 {
    let text = running.after(" closes after ");
    text.trim_end_matches(" ms").parse().expect("a number")
}

#[test]
fn a_thousand_idle_connections_are_closed_after_one_quiet_window() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (mut running, address) = http(4);
    let mut open: Vec<Connection> = (0..1000).map(|_| Connection::open(address).unwrap()).collect();
    for connection in &mut open {
        assert_eq!(connection.get("/").unwrap().body, "hello");
    }
    let workers = running.workers();
    let began = Instant::now();
    running.signal(Signal::TERM);
    workers.into_iter().for_each(await_end);
    let took = began.elapsed();
    // The window is 1 s, the deadline of `http` 30 s: half of it would be for clients that go on.
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    for mut connection in open {
        assert_eq!(connection.receive_within(Duration::from_secs(1)).unwrap_err(), Failure::Cut);
    }
    running.line("stopping");
    let said = running.end_with(0);
    assert!(!said.contains("SIGKILL") && !said.contains("unexpected"), "{said}");
}

#[test]
fn busy_clients_lose_no_request_while_their_workers_drain() {
    let (mut running, address) = http(2);
    let load = Load::start(address, 24, "/work?ms=1");
    for n in 0..6usize {
        load.goes_on(200);
        let worker = running.workers()[n % 2];
        kill(worker, Signal::TERM);
        await_end(worker);
        running.line(" ready");
        eventually("the replacement", || {
            let workers = running.workers();
            (workers.len() == 2 && !workers.contains(&worker)).then_some(())
        });
    }
    load.goes_on(200);
    let (answered, failures) = load.end();
    println!("{answered} answered, failures {failures:?}, 6 drains");
    assert!(failures.is_empty(), "{failures:?}, {answered} answered");
    assert!(!running.said().contains("unexpected"));
}

#[test]
fn without_connections_the_close_is_at_once() {
    let (mut running, address) = lines(4000);
    // One that was, and has ended, is none.
    let mut line = Line::open(&address).unwrap();
    line.ask("who").unwrap();
    drop(line);
    running.signal(Signal::TERM);
    let ms = closes_after(&mut running);
    assert!(ms < 2000, "{ms} ms");
    running.end_with(0);
}

#[test]
fn without_traffic_the_close_comes_after_one_quiet_window() {
    let (mut running, address) = lines(600);
    let mut idle = Line::open(&address).unwrap();
    idle.ask("who").unwrap();
    running.signal(Signal::TERM);
    let ms = closes_after(&mut running);
    assert!((450..2300).contains(&ms), "{ms} ms");
    assert!(idle.receive().is_err());
    running.end_with(0);
}

#[test]
fn the_last_client_that_leaves_ends_last_calls() {
    let (mut running, address) = lines(60_000);
    let mut idle = Line::open(&address).unwrap();
    idle.ask("who").unwrap();
    running.signal(Signal::TERM);
    running.line(" drains");
    // It is still served.
    assert!(idle.ask("who").is_ok());
    drop(idle);
    let ms = closes_after(&mut running);
    // Half of the deadline is 2500 ms.
    assert!(ms < 2000, "{ms} ms");
    running.end_with(0);
}

/// Asks until the connection ends, and says how often it was answered.
fn talk(mut line: Line<TcpStream>, stop: &AtomicBool) -> u32 {
    let mut answers = 0;
    while !stop.load(Ordering::Acquire) && line.ask("who").is_ok() {
        answers += 1;
    }
    answers
}

#[test]
fn with_steady_traffic_the_close_comes_at_half_the_deadline() {
    let (mut running, address) = lines(1500);
    let line = Line::open(&address).unwrap();
    let client = thread::spawn(move || talk(line, &AtomicBool::new(false)));
    running.signal(Signal::TERM);
    let ms = closes_after(&mut running);
    assert!((2200..4000).contains(&ms), "{ms} ms");
    assert!(client.join().unwrap() > 10);
    let said = running.end_with(0);
    assert!(!said.contains("SIGKILL"), "{said}");
}

#[test]
fn connections_end_also_where_their_worker_has_no_deadline() {
    let (mut running, address) = serving(command(LINES).env("WORKERS", "1").env("QUIET", "5000").env("ENDLESS", "1"));
    let (busy, mut idle) = (Line::open(&address).unwrap(), Line::open(&address).unwrap());
    idle.ask("who").unwrap();
    let client = thread::spawn(move || talk(busy, &AtomicBool::new(false)));
    let began = Instant::now();
    running.signal(Signal::TERM);
    // Half of 30 s, because one of them goes on; neither is closed by this program then.
    assert!(idle.within(Duration::from_secs(40)).unwrap().receive().is_err());
    assert!(client.join().unwrap() > 10);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(29) && took < Duration::from_secs(38), "{took:?}");
    let ms = closes_after(&mut running);
    assert!((14_500..20_000).contains(&ms), "{ms} ms");
    running.end_with(0);
}

#[test]
fn whatever_accepts_a_draining_worker_takes_nothing_new() {
    for dispatch in ["balanced", "shared", "per_slot"] {
        let (mut running, address) =
            serving(command(LINES).env("WORKERS", "2").env("QUIET", "60000").env("DISPATCH", dispatch));
        // One that stays: its worker is in last calls for half of 5 s.
        let mut stays = Line::open(&address).unwrap();
        let (_, pid) = stays.who("who").unwrap();
        kill(pid, Signal::TERM);
        running.line(" drains");
        for n in 0..20 {
            let other = Line::open(&address).unwrap().who("who").unwrap();
            assert_ne!(other.1, pid, "{dispatch}: connection {n}");
        }
        assert_eq!(stays.who("who").unwrap().1, pid, "{dispatch}: it is served on");
        drop(stays);
        await_end(pid);
        running.line(" ready");
    }
}
