//! Messages: what arrives, in which order, across which deaths. The programs check; a failure prints what they saw.

use rclust_tests::{command, eventually, procfs, start};

const ACTORS: &str = env!("CARGO_BIN_EXE_actors");

fn holds(scenario: &str) {
    let said = start(command(ACTORS).arg(scenario)).end_with(0);
    assert!(said.contains("held"), "{said}");
}

#[test]
fn what_waits_in_a_mailbox_survives_the_sigkill_of_its_worker() {
    holds("waiting_survives_sigkill");
}

#[test]
fn a_hundred_failing_starts_lose_none_of_the_messages_in_three_lanes() {
    let said = start(command(ACTORS).arg("failing_starts_eat_nothing").env("GATE", "101")).end_with(0);
    assert!(said.contains("held") && said.matches("error: not yet").count() >= 100, "{said}");
}

#[test]
fn random_kills_reorder_nothing_and_lose_at_most_what_was_in_hand() {
    holds("order_across_kills");
}

#[test]
fn every_ask_ends() {
    holds("asks_end");
}

#[test]
fn a_full_mailbox_waits_or_gives_back_and_can_be_stopped() {
    holds("full_mailbox");
}

#[test]
fn the_supervisors_inbox_hears_its_workers() {
    holds("inbox");
}

#[test]
fn a_slot_that_is_gone_fails_its_senders() {
    holds("gone");
}

#[test]
fn pools_are_addressed_in_turn_by_key_and_all_at_once() {
    holds("pools");
}

#[test]
fn an_idle_pair_holds_little_of_its_rings() {
    let mut running = start(command(ACTORS).arg("traffic"));
    let idle = running.after("idle: ");
    let (supervisor, worker) = idle.split_once(" and ").expect("two processes");
    let (supervisor, worker) = (supervisor.parse().unwrap(), worker.parse().unwrap());
    eventually("less than 128 KiB of ring pages in either process", || {
        let resident = |pid| procfs::resident_kb(pid, "rclust-lane");
        (resident(supervisor) < 128 && resident(worker) < 128).then_some(())
    });
}

#[test]
fn after_the_end_of_the_cluster_nothing_can_be_sent() {
    for _ in 0..10 {
        holds("after_the_end");
    }
}

#[test]
fn what_a_slot_sent_before_it_was_forgotten_is_read() {
    holds("last_words");
}

#[test]
fn a_pools_reference_follows_its_size_and_its_load() {
    holds("pool_follows");
}

#[test]
fn a_flooding_sender_starves_nobody() {
    holds("flood");
}

#[test]
fn a_sender_to_a_stopped_worker_waits_in_bounded_memory() {
    holds("stopped");
}

#[test]
fn two_hundred_kills_lose_nothing_and_reorder_nothing() {
    holds("kills");
}

#[test]
fn workers_that_ask_each_other_with_full_mailboxes_are_answered() {
    holds("cross");
}

#[test]
fn questions_that_are_given_up_cost_later_ones_nothing() {
    holds("cancelled");
}
