//! The end: in order, by a deadline, twice is now, and nothing in flight is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rclust_tests::client::{Failure, get};
use rclust_tests::{await_end, command, eventually, kill, procfs, start};
use rustix::process::Signal;

const LIVES: &str = env!("CARGO_BIN_EXE_lives");
const SERVER: &str = env!("CARGO_BIN_EXE_server");

#[test]
fn children_stop_in_the_reverse_order_of_their_start() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut running = start(command(LIVES).arg("order"));
        running.line("up");
        let workers = running.workers();
        running.signal(signal);
        let said = running.end_with(0);
        let order: Vec<&str> =
            said.lines().filter_map(|line| line.split_once(" stops: ").map(|(name, _)| name)).collect();
        assert_eq!(order, ["d", "s/c", "s/b", "a"], "{said}");
        workers.into_iter().for_each(await_end);
    }
}

#[test]
fn a_worker_that_does_not_stop_is_killed_at_the_deadline() {
    let mut running = start(command(LIVES).arg("ignores-stop"));
    running.line("up");
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(begun.elapsed() >= Duration::from_millis(200), "killed before its deadline");
    assert!(said.contains("killed by SIGKILL"), "{said}");
}

#[test]
fn a_second_signal_means_now() {
    let mut running = start(command(LIVES).arg("ignores-stop-long"));
    running.line("up");
    running.signal(Signal::TERM);
    running.line("stopping");
    running.signal(Signal::INT);
    running.end_with(0);
}

#[test]
fn the_bodys_return_and_its_panic_stop_the_tree_in_order() {
    for (way, code) in [("body-returns", 0), ("body-panics", 101)] {
        let said = start(command(LIVES).arg(way)).end_with(code);
        assert_eq!(said.matches("stops: Shutdown").count(), 3, "{way}: {said}");
    }
}

#[test]
fn a_stop_while_starting_is_a_graceful_end() {
    let mut running = start(command(LIVES).arg("start-hangs-long"));
    running.line("started");
    let workers = running.workers();
    running.signal(Signal::TERM);
    running.end_with(0);
    workers.into_iter().for_each(await_end);
}

#[test]
fn a_worker_that_is_sent_sigterm_drains_and_is_replaced() {
    let mut running = start(command(LIVES).arg("three"));
    running.line("up");
    let worker = running.workers()[0];
    kill(worker, Signal::TERM);
    await_end(worker);
    let exit = running.line("life[0] exited");
    assert!(exit.ends_with(": shutdown"), "{exit}");
    running.line("life[0] ready");
    // The terminal's and the operator's signals are the supervisor's business.
    for worker in running.workers() {
        kill(worker, Signal::INT);
        kill(worker, Signal::HUP);
    }
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(!said.contains("unexpected"), "{said}");
}

/// Short requests in a closed loop until the port is closed; each is answered whole, or was never taken.
fn end_under_load(everybody: bool) {
    let mut running = start(command(SERVER).env("WEB_CONCURRENCY", "3"));
    let (mut address, mut ready) = (None, 0);
    while ready < 3 || address.is_none() {
        let line = running.line("server[");
        ready += u32::from(line.contains(" ready"));
        address = address.or(line.split_once("] first ").and_then(|(_, address)| address.parse::<SocketAddr>().ok()));
    }
    let address = address.expect("an address");
    let (answered, cut, stop) =
        (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (answered, cut, stop) = (answered.clone(), cut.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    match get(address, "/work/3") {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(Failure::Refused) => return,
                        Err(_) => cut.fetch_add(1, Ordering::Relaxed),
                    };
                }
            })
        })
        .collect();
    eventually("load", || (answered.load(Ordering::Relaxed) > 200).then_some(()));
    let workers = running.workers();
    if everybody {
        // As a service manager does it: the order is the system's.
        for worker in &workers[..2] {
            kill(*worker, Signal::TERM);
        }
        running.signal(Signal::TERM);
        kill(workers[2], Signal::TERM);
    } else {
        running.signal(Signal::TERM);
    }
    let said = running.end_with(0);
    stop.store(true, Ordering::Release);
    for client in clients {
        client.join().expect("a client");
    }
    let (answered, cut) = (answered.load(Ordering::Relaxed), cut.load(Ordering::Relaxed));
    println!("{answered} answered, {cut} cut");
    assert_eq!(said.matches("exited").count(), 3, "a worker was replaced while everything stopped: {said}");
    assert!(!said.contains("unexpected"), "{said}");
    // Between the last accept and the close of the socket the system may complete a handshake: see the docs of the end.
    assert!(cut <= 2, "{cut} requests were cut, {answered} answered: {said}");
}

#[test]
fn a_graceful_end_under_load_answers_what_was_accepted() {
    end_under_load(false);
}

#[test]
fn a_stop_that_reaches_every_process_at_once_is_one_graceful_end() {
    end_under_load(true);
}

#[test]
fn as_process_1_it_reaps_and_obeys() {
    // A pid namespace of its own needs privileges; without them the kernel refuses, and that is said.
    let mut unshare = command("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(LIVES).arg("three");
    let mut running = start(&mut unshare);
    let first = running.line("");
    if first.contains("Operation not permitted") {
        println!("not tested: {first}");
        return;
    }
    running.line("up");
    // unshare > process 1 (init) > supervisor > workers.
    let init = eventually("process 1", || procfs::children(running.pid()).first().copied());
    let supervisor = eventually("the supervisor", || procfs::children(init).first().copied());
    let workers = procfs::children(supervisor);
    assert_eq!(workers.len(), 3);
    // An orphan whose parent is killed becomes process 1's, which collects it.
    kill(workers[0], Signal::KILL);
    running.line("ready");
    let zombies: Vec<u32> = procfs::children(init)
        .into_iter()
        .filter(|pid| procfs::status(*pid, "State").is_some_and(|state| state.starts_with('Z')))
        .collect();
    assert_eq!(zombies, [0u32; 0]);
    kill(init, Signal::TERM);
    let said = running.end_with(0);
    assert!(said.contains("SIGTERM: stopping"), "{said}");
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_order() {
    let mut running = start(command(LIVES).arg("three"));
    running.line("up");
    running.signal(Signal::TERM);
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(!said.contains("SIGKILL") && said.matches("stops: Shutdown").count() == 3, "{said}");
}

#[test]
fn a_full_pipe_does_not_hold_up_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command(LIVES);
    child.arg("three").stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap());
    let mut child = child.spawn().unwrap();
    eventually("three workers", || (procfs::children(child.id()).len() == 3).then_some(()));
    // Fill what is left of it; nobody reads.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[b'x'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    kill(child.id(), Signal::TERM);
    await_end(child.id());
    assert!(child.wait().unwrap().success());
    drop(reader);
}

#[test]
fn a_second_signal_ends_a_program_whose_body_is_stuck() {
    let mut child = command(LIVES);
    let (reader, writer) = std::io::pipe().unwrap();
    child.arg("body-blocks").stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = child.spawn().unwrap();
    let workers =
        eventually("three workers", || Some(procfs::children(child.id())).filter(|workers| workers.len() == 3));
    eventually("a full pipe", || rustix::io::ioctl_fionread(&reader).ok().filter(|bytes| *bytes >= 60_000));
    kill(child.id(), Signal::TERM);
    workers.into_iter().for_each(await_end);
    kill(child.id(), Signal::INT);
    await_end(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_stop_that_reaches_every_process_while_they_start_is_graceful() {
    for round in 0..10u32 {
        let mut running = start(command(LIVES).arg("three"));
        // At a different moment each time: after so many words of the start.
        for _ in 0..round % 4 {
            running.line("started");
        }
        for worker in running.workers() {
            kill(worker, Signal::TERM);
        }
        running.signal(Signal::TERM);
        let (status, said) = running.end();
        // Before boot has installed a handler the signal's own action is the end.
        assert!(status.code() == Some(0) || said.is_empty(), "round {round}: {status}: {said}");
    }
}
