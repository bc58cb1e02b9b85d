//! Life cycle and events: the end of all, and of the supervisor.

use rclust_tests::{Running, await_end, command, start};
use rustix::process::Signal;

use crate::{TWIN, holds};

#[test]
fn disconnect() {
    holds("disconnect");
}

#[test]
fn disconnect_before_exit() {
    holds("disconnect_before_exit");
}

#[test]
fn disconnect_exited_after_disconnect_race() {
    holds("disconnect_exited_after_disconnect_race");
}

#[test]
fn disconnect_idle_worker() {
    holds("disconnect_idle_worker");
}

#[test]
fn disconnect_leak() {
    holds("disconnect_leak");
}

#[test]
fn disconnect_race() {
    holds("disconnect_race");
}

#[test]
fn disconnect_unshared_tcp() {
    holds("disconnect_unshared_tcp");
}

#[test]
fn disconnect_unshared_udp() {
    holds("disconnect_unshared_udp");
}

#[test]
fn disconnect_with_no_workers() {
    holds("disconnect_with_no_workers");
}

#[test]
fn concurrent_disconnect() {
    holds("concurrent_disconnect");
}

/// The program with two workers that listen, and who they are.
fn with_two_workers(scenario: &str) -> (Running, Vec<u32>) {
    let mut running = start(command(TWIN).arg(scenario));
    let workers = running.own("workers").split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>();
    assert_eq!(workers.len(), 2);
    (running, workers)
}

#[test]
fn primary_error() {
    let (running, workers) = with_two_workers("primary_error");
    let said = running.end_with(1);
    assert!(said.contains("the primary's error"), "{said}");
    workers.into_iter().for_each(await_end);
}

#[test]
fn primary_exit() {
    let (running, workers) = with_two_workers("primary_exit");
    running.end_with(0);
    workers.into_iter().for_each(await_end);
}

#[test]
fn primary_kill() {
    // One of them spins, and hears nothing that is said to it.
    let (running, workers) = with_two_workers("primary_kill");
    running.signal(Signal::KILL);
    await_end(running.pid());
    workers.into_iter().for_each(await_end);
}

#[test]
fn uncaught_exception() {
    let (running, workers) = with_two_workers("uncaught_exception");
    running.end_with(42);
    workers.into_iter().for_each(await_end);
}
