//! What goes beside messages (sockets, large payloads), and what becomes of messages at deaths. The programs check.

use rclust_tests::{command, start};

const PARCELS: &str = env!("CARGO_BIN_EXE_parcels");

fn holds(scenario: &str) {
    let said = start(command(PARCELS).arg(scenario)).end_with(0);
    assert!(said.contains("held"), "{said}");
}

#[test]
fn sockets_of_every_kind_move_with_messages_between_all_processes() {
    holds("sockets");
}

#[test]
fn sockets_that_wait_survive_the_deaths_of_reader_and_writer() {
    holds("waiting_sockets");
}

#[test]
fn a_message_that_is_not_sent_comes_back_with_its_sockets() {
    holds("come_back");
}

#[test]
fn a_thousand_sockets_and_twenty_kills_leak_no_descriptor() {
    holds("no_leak");
}

#[test]
fn large_messages_travel_beside_the_ring_and_are_bounded() {
    holds("large");
}

#[test]
fn large_messages_survive_deaths_and_become_whole_dead_letters() {
    holds("large_deaths");
}

#[test]
fn answers_may_be_large_and_have_sockets() {
    holds("answers");
}

#[test]
fn a_message_in_hand_is_delivered_again_and_then_quarantined() {
    holds("redelivery");
}

#[test]
fn a_question_that_is_delivered_again_is_answered() {
    holds("asked_again");
}

#[test]
fn a_child_may_have_an_empty_mailbox_at_a_restart() {
    holds("empty_mailbox");
}

#[test]
fn what_waits_for_a_slot_that_is_given_up_becomes_dead_letters() {
    holds("closed");
}
