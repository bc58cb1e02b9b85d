//! Sockets that are passed on.

use crate::holds;

#[test]
fn fork_stdio() {
    holds("fork_stdio");
}

#[test]
fn net_send() {
    holds("net_send");
}

#[test]
fn send_handle_twice() {
    holds("send_handle_twice");
}

#[test]
fn send_deadlock() {
    holds("send_deadlock");
}

#[test]
fn send_socket_to_worker_http_server() {
    holds("send_socket_to_worker_http_server");
}

#[test]
fn send_handle_large_payload() {
    holds("send_handle_large_payload");
}

#[test]
fn child_process_pass_fd() {
    holds("child_process_pass_fd");
}

#[test]
fn child_process_recv_handle() {
    holds("child_process_recv_handle");
}

#[test]
fn child_process_fork_closed_channel_segfault() {
    holds("child_process_fork_closed_channel_segfault");
}

#[test]
fn child_process_send_keep_open() {
    holds("child_process_send_keep_open");
}

#[test]
fn child_process_fork_net_socket() {
    holds("child_process_fork_net_socket");
}

#[test]
fn child_process_fork_net() {
    holds("child_process_fork_net");
}

#[test]
fn child_process_fork_net_server() {
    holds("child_process_fork_net_server");
}

#[test]
fn child_process_fork_dgram() {
    holds("child_process_fork_dgram");
}

#[test]
fn child_process_net_reuseport() {
    holds("child_process_net_reuseport");
}

#[test]
fn handle_pass_rate() {
    holds("handle_pass_rate");
}
