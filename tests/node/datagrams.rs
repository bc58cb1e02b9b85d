//! Listening and distribution: UDP.

use std::os::fd::AsRawFd;

use rclust_tests::{command, start};
use rustix::io::FdFlags;

use crate::{TWIN, holds};

#[test]
fn dgram_1() {
    holds("dgram_1");
}

#[test]
fn dgram_2() {
    holds("dgram_2");
}

#[test]
fn dgram_bind_fd() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (number, address) = (socket.as_raw_fd().to_string(), socket.local_addr().unwrap().to_string());
    // Inherited under its number.
    rustix::io::fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let said = start(command(TWIN).args(["dgram_bind_fd", &number, &address])).end_with(0);
    assert!(said.contains("held"), "{said}");
}

#[test]
fn dgram_ipv6only() {
    holds("dgram_ipv6only");
}

#[test]
fn dgram_reuse() {
    holds("dgram_reuse");
}
