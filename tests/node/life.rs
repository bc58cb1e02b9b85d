//! Life cycle and events: one worker after the other.

use crate::holds;

#[test]
fn basic() {
    holds("basic");
}

#[test]
fn worker_init() {
    holds("worker_init");
}

#[test]
fn worker_events() {
    holds("worker_events");
}

#[test]
fn worker_death() {
    holds("worker_death");
}

#[test]
fn worker_exit() {
    holds("worker_exit");
}

#[test]
fn worker_kill() {
    holds("worker_kill");
}

#[test]
fn worker_kill_signal() {
    holds("worker_kill_signal");
}

#[test]
fn kill_infinite_loop() {
    holds("kill_infinite_loop");
}

#[test]
fn kill_disconnect() {
    holds("kill_disconnect");
}

#[test]
fn worker_destroy() {
    holds("worker_destroy");
}

#[test]
fn call_and_destroy() {
    holds("call_and_destroy");
}

#[test]
fn worker_isdead() {
    holds("worker_isdead");
}

#[test]
fn worker_isconnected() {
    holds("worker_isconnected");
}

#[test]
fn worker_no_exit() {
    holds("worker_no_exit");
}

#[test]
fn worker_forced_exit() {
    holds("worker_forced_exit");
}

#[test]
fn worker_disconnect() {
    holds("worker_disconnect");
}

#[test]
fn worker_disconnect_on_error() {
    holds("worker_disconnect_on_error");
}

#[test]
fn worker_wait_server_close() {
    holds("worker_wait_server_close");
}

#[test]
fn worker_handle_close() {
    holds("worker_handle_close");
}

#[test]
fn process_disconnect() {
    holds("process_disconnect");
}

#[test]
fn setup_primary() {
    holds("setup_primary");
}

#[test]
fn setup_primary_cumulative() {
    holds("setup_primary_cumulative");
}

#[test]
fn message() {
    holds("message");
}

#[test]
fn invalid_message() {
    holds("invalid_message");
}

#[test]
fn ipc_throw() {
    holds("ipc_throw");
}
