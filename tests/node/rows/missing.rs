//! What Node's suite does not test and should.

use super::{Row, met};

pub(crate) const ROWS: &[Row] = &[
    met(
        "a worker dies with a connection that it has not taken",
        "the connection is served by another one, at once (in Node its client waits for ever)",
        &[
            "tests/dispatch.rs::what_no_program_has_taken_outlives_every_worker",
            "tests/storm.rs::two_workers_that_answer_at_once",
        ],
    ),
    met(
        "descriptors after many kills",
        "the supervisor's number of descriptors is what it was (Node leaks one for each kill under load)",
        &[
            "tests/manage.rs::nothing_grows_over_a_thousand_incarnations",
            "tests/handoff.rs::under_load_and_random_kills_nothing_is_refused_and_no_descriptor_leaks",
        ],
    ),
    met(
        "all workers at their limit",
        "the backlog is the buffer, nobody spins (in Node one client keeps all processes busy)",
        &["tests/handoff.rs::when_all_slots_are_full_the_backlog_is_the_buffer_and_waiting_costs_nothing"],
    ),
    met(
        "the last worker dies",
        "the port stays open and clients wait (Node refuses them)",
        &[
            "tests/listening.rs::the_socket_of_workers_that_all_died_stays_open",
            "tests/storm.rs::while_all_workers_are_down_clients_wait_and_none_is_refused",
        ],
    ),
    met(
        "the supervisor is killed, a worker spins",
        "it goes too (in Node it stays for ever)",
        &["ends::primary_kill", "tests/death.rs::a_spinning_body_dies_with_the_supervisor"],
    ),
    met(
        "a stopped worker's queue is bounded",
        "messages wait with their sender, connections go elsewhere",
        &[
            "tests/mailbox.rs::a_sender_to_a_stopped_worker_waits_in_bounded_memory",
            "tests/handoff.rs::a_stopped_or_blocked_worker_holds_no_connection_hostage",
        ],
    ),
    met(
        "a reload under keep-alive load",
        "no request fails, short or keep-alive (with the layer `LastCalls`)",
        &["tests/rolling.rs::ten_reloads_in_ten_seconds_with_another_file_each_time_fail_no_request"],
    ),
    met(
        "how many sockets pass in a second",
        "1000 go to a worker and back, more than 50 a second; what was seen is printed",
        &["passing::handle_pass_rate"],
    ),
    met(
        "fairness",
        "of many connections each worker has its part",
        &["tests/handoff.rs::round_robin_goes_in_turn_and_balanced_spreads_what_stays_open"],
    ),
];
