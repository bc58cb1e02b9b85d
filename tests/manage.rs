//! Management at run time, dynamic children, events, monitors, process groups, growth. The programs check.

use rclust_tests::{await_end, command, kill, procfs, start};
use rustix::process::Signal;

const MANAGER: &str = env!("CARGO_BIN_EXE_manager");

fn holds(scenario: &str) {
    let said = start(command(MANAGER).arg(scenario)).end_with(0);
    assert!(said.contains("held"), "{said}");
}

#[test]
fn the_table_of_calls_is_otps() {
    holds("table");
}

#[test]
fn a_start_is_cancelled_by_terminate_and_reads_answer_meanwhile() {
    holds("starting");
}

#[test]
fn dynamic_copies_keep_their_arguments_and_are_forgotten_at_their_end() {
    holds("dynamic");
}

#[test]
fn a_pool_grows_and_shrinks() {
    holds("resize");
}

#[test]
fn a_pool_of_many_stops_within_one_deadline() {
    holds("parallel_stop");
}

#[test]
fn events_come_once_each_and_in_their_order() {
    holds("events");
}

#[test]
fn a_slow_reader_of_events_is_told_how_many_it_missed() {
    holds("slow_reader");
}

#[test]
fn a_monitor_fires_exactly_once_and_at_once_if_nobody_is_there() {
    holds("monitors");
}

#[test]
fn a_waiting_child_keeps_its_mailbox_and_can_be_started_by_hand() {
    holds("backoff");
}

#[test]
fn declining_to_start_leaves_the_slot_down_and_counts_nothing() {
    holds("declines");
}

#[test]
fn significant_children_end_their_supervisor() {
    let said = start(command(MANAGER).arg("significant")).end_with(1);
    assert!(said.contains("the significant child `last` ended"), "{said}");
}

#[test]
fn a_workers_own_children_die_with_its_group_where_asked() {
    let mut running = start(command(MANAGER).arg("groups"));
    let grandchild = |line: String| line.parse::<u32>().expect("a process id");
    let killed = grandchild(running.after("killed's child is "));
    let spared = grandchild(running.after("spared's child is "));
    for worker in running.workers() {
        kill(worker, Signal::KILL);
        await_end(worker);
    }
    await_end(killed);
    assert_eq!(procfs::comm(spared), "sleep", "a group that was not asked for was killed");
    kill(spared, Signal::KILL);
}

#[test]
fn nothing_grows_over_a_thousand_incarnations() {
    holds("thousand");
}

#[test]
fn the_programs_own_children_are_left_alone() {
    holds("children");
}

#[test]
fn copies_leave_nothing_behind_and_after_the_end_calls_are_refused() {
    holds("copies_and_the_end");
}
