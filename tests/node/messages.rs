//! What Node's tests of `child_process` say of messages, starts and ends.

use rclust_tests::{command, start};

use crate::{TWIN, holds};

#[test]
fn child_process_send_cb() {
    holds("child_process_send_cb");
}

#[test]
fn child_process_send_after_close() {
    holds("child_process_send_after_close");
}

#[test]
fn child_process_send_returns_boolean() {
    holds("child_process_send_returns_boolean");
}

#[test]
fn child_process_send_utf8() {
    holds("child_process_send_utf8");
}

#[test]
fn child_process_ipc_next_tick() {
    holds("child_process_ipc_next_tick");
}

#[test]
fn child_process_internal() {
    holds("child_process_internal");
}

#[test]
fn child_process_disconnect() {
    holds("child_process_disconnect");
}

#[test]
fn child_process_fork3() {
    holds("child_process_fork3");
}

#[test]
fn child_process_fork_and_spawn() {
    holds("child_process_fork_and_spawn");
}

#[test]
fn child_process_fork_args() {
    let said = start(command(TWIN).args(["child_process_fork_args", "$HOME *", "", "a b", "--flag"])).end_with(0);
    assert!(said.contains("held"), "{said}");
}

#[test]
fn child_process_fork_close() {
    holds("child_process_fork_close");
}

#[test]
fn child_process_fork_ref() {
    holds("child_process_fork_ref");
}

#[test]
fn child_process_fork_timeout_kill_signal() {
    holds("child_process_fork_timeout_kill_signal");
}

#[test]
fn child_process_fork_advanced_serialization_largebuffer() {
    holds("child_process_fork_advanced_serialization_largebuffer");
}

#[test]
fn child_process_emfile() {
    holds("child_process_emfile");
}
