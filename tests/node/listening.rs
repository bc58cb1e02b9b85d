//! Listening and distribution: TCP and Unix sockets.

use rclust_tests::{command, start};
use rustix::process::Signal;

use crate::{TWIN, holds};

#[test]
fn listening_port() {
    holds("listening_port");
}

#[test]
fn net_listen() {
    holds("net_listen");
}

#[test]
fn net_listen_backlog() {
    holds("net_listen_backlog");
}

#[test]
fn net_listen_ipv6only_false() {
    holds("net_listen_ipv6only_false");
}

#[test]
fn net_listen_ipv6only_rr() {
    holds("net_listen_ipv6only_rr");
}

#[test]
fn net_listen_ipv6only_none() {
    holds("net_listen_ipv6only_none");
}

#[test]
fn net_listen_relative_path() {
    let deep = std::env::temp_dir().join(format!("rclust-node-{}", std::process::id())).join("d".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let said = start(command(TWIN).arg("net_listen_relative_path").current_dir(&deep)).end_with(0);
    std::fs::remove_dir_all(deep.parent().unwrap()).unwrap();
    assert!(said.contains("held"), "{said}");
}

#[test]
fn listen_pipe_readable_writable() {
    holds("listen_pipe_readable_writable");
}

#[test]
fn http_pipe() {
    holds("http_pipe");
}

#[test]
fn net_reuseport() {
    holds("net_reuseport");
}

#[test]
fn dgram_reuseport() {
    holds("dgram_reuseport");
}

#[test]
fn bind_twice() {
    let mut first = start(command(TWIN).arg("bind_twice_first"));
    let address = first.own("bound");
    let said = start(command(TWIN).arg("bind_twice").arg(&address)).end_with(0);
    assert!(said.contains("held"), "{said}");
    first.signal(Signal::TERM);
    first.end_with(0);
}

#[test]
fn bind_privileged_port() {
    holds("bind_privileged_port");
}

#[test]
fn shared_handle_bind_privileged_port() {
    holds("shared_handle_bind_privileged_port");
}

#[test]
fn shared_handle_bind_error() {
    holds("shared_handle_bind_error");
}

#[test]
fn eaccess() {
    holds("eaccess");
}

#[test]
fn eaddrinuse() {
    holds("eaddrinuse");
}

#[test]
fn port_reuse_between_workers() {
    holds("port_reuse_between_workers");
}

#[test]
fn child_index_net() {
    holds("child_index_net");
}

#[test]
fn child_index_dgram() {
    holds("child_index_dgram");
}

#[test]
fn server_restart_rr() {
    holds("server_restart_rr");
}

#[test]
fn server_restart_none() {
    holds("server_restart_none");
}

#[test]
fn shared_leak() {
    holds("shared_leak");
}

#[test]
fn net_server_drop_connection() {
    holds("net_server_drop_connection");
}

#[test]
fn rr_handle_close() {
    holds("rr_handle_close");
}

#[test]
fn rr_handle_keep_loop_alive() {
    holds("rr_handle_keep_loop_alive");
}
