//! Reloads under load: the program's file is replaced, a signal is sent, and no client notices.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rclust_tests::load::Load;
use rclust_tests::{Running, comes_true, command, procfs, start};
use rustix::process::Signal;

const HTTP: &str = env!("CARGO_BIN_EXE_http");

/// Puts a copy of a program in the place of another, as an installer does: never writing to the one that runs.
fn install(program: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(program, &new).expect("a copy");
    fs::rename(&new, to).expect("a file in its place");
}

fn serving(program: &Path, workers: &str, dispatch: &str) -> (Running, std::net::SocketAddr) {
    let mut command = command(program.to_str().expect("a path"));
    command.env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", workers).env("DISPATCH", dispatch);
    let mut running = start(&mut command);
    let address = running.own("listening on ").parse().expect("an address");
    (running, address)
}

#[test]
fn a_body_that_binds_late_is_replaced_by_one_that_listens() {
    let mut running = start(command(env!("CARGO_BIN_EXE_server")).arg("slow").env("WEB_CONCURRENCY", "2"));
    let address: SocketAddr = running.after("] first ").parse().expect("an address");
    running.after("] first ");
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut connected = 0;
            while !stop.load(Ordering::Acquire) {
                TcpStream::connect(address).expect("somebody listens");
                connected += 1;
                thread::sleep(Duration::from_millis(5));
            }
            connected
        })
    };
    running.signal(Signal::HUP);
    running.line("reload: done");
    stop.store(true, Ordering::Release);
    assert!(clients.join().expect("no connection was refused") > 100);
}

#[test]
fn ten_reloads_in_ten_seconds_with_another_file_each_time_fail_no_request() {
    let http = Path::new(HTTP);
    let folder = std::env::temp_dir().join(format!("rclust-rolling-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a directory");
    let program = folder.join("http");
    install(http, &program);
    let (mut running, address) = serving(&program, "2", "balanced");
    let load = Load::start(address, 64, "/work?ms=2");
    load.goes_on(500);
    let descriptors = procfs::descriptors(running.pid()).len();
    let began = Instant::now();
    for n in 1..=10 {
        install(http, &program);
        running.signal(Signal::HUP);
        running.line("SIGHUP: ");
        // Once a second: what is measured is a rhythm, not a wait for an event.
        std::thread::sleep((Duration::from_secs(n)).saturating_sub(began.elapsed()));
    }
    running.line("reload: done");
    load.goes_on(500);
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} were answered, and of others {failures:?}:\n{}", running.said());
    // Orders that came while one was carried out were one more; each replaced both.
    let done = running.said().matches("reload: done").count();
    assert!(done >= 5, "{done} reloads:\n{}", running.said());
    assert!(comes_true(|| running.workers().len() == 2), "{:?}", running.workers());
    assert!(comes_true(|| procfs::descriptors(running.pid()).len() <= descriptors + 64), "{descriptors} before");
    running.signal(Signal::TERM);
    running.end_with(0);
    fs::remove_dir_all(&folder).expect("the directory goes");
}

fn survives_reloads(dispatch: &str) {
    let (mut running, address) = serving(Path::new(HTTP), "3", dispatch);
    let load = Load::start(address, 24, "/work?ms=1");
    for _ in 0..2 {
        load.goes_on(200);
        running.signal(Signal::HUP);
        running.line("reload: done");
    }
    load.goes_on(200);
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} were answered, and of others {failures:?}:\n{}", running.said());
    running.signal(Signal::TERM);
    running.end_with(0);
}

#[test]
fn reloads_fail_no_request_round_robin() {
    survives_reloads("round_robin");
}

#[test]
fn reloads_fail_no_request_sticky() {
    survives_reloads("sticky");
}

#[test]
fn reloads_fail_no_request_shared() {
    survives_reloads("shared");
}

#[test]
fn reloads_fail_no_request_per_slot() {
    survives_reloads("per_slot");
}
