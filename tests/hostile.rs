//! Garbage on every lane: it costs the worker its life, and nobody else anything.

use rclust_tests::{command, start};

const HOSTILE: &str = env!("CARGO_BIN_EXE_hostile");

fn holds(scenario: &str) -> String {
    let said = start(command(HOSTILE).arg(scenario)).end_with(0);
    assert!(said.contains("held"), "{said}");
    said
}

#[test]
fn a_worker_that_spoils_its_rings_is_replaced_and_its_lane_goes_on() {
    let said = holds("ring");
    assert!(said.contains("is not trusted any more: its mailbox ring"), "{said}");
}

#[test]
fn a_worker_that_writes_garbage_to_its_control_link_is_replaced() {
    let said = holds("link");
    assert!(said.contains("is not trusted any more: a control frame"), "{said}");
}

#[test]
fn a_worker_that_floods_the_supervisor_with_questions_slows_nobody_down() {
    holds("flood");
}

#[test]
fn a_worker_that_fills_drains_and_blocks_every_socket_it_holds_is_replaced() {
    let said = holds("sockets");
    assert!(said.contains("is not trusted any more"), "{said}");
}

#[test]
fn a_worker_that_spoils_all_its_lanes_is_replaced_and_all_lanes_go_on() {
    let said = holds("lanes");
    assert!(said.contains("killed because it is not to be trusted"), "{said}");
}

#[test]
fn a_spoilt_lane_between_two_workers_is_renewed() {
    let said = holds("peer");
    assert!(said.contains("was spoilt, and is renewed"), "{said}");
}

#[test]
fn doorbells_that_were_shut_down_ring_again_for_the_next_incarnation() {
    holds("deaf");
}
