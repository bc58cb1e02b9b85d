//! B.2: listening and distribution.

use super::{Row, adapted, met, none};

pub(crate) const ROWS: &[Row] = &[
    met("listening-port", "the event tells the port that port 0 became", &["listening::listening_port"]),
    met("net-listen", "listening without a port", &["listening::net_listen"]),
    met("net-listen-backlog", "the worker's backlog is the socket's", &["listening::net_listen_backlog"]),
    met(
        "net-listen-ipv6only-false",
        "`::` takes IPv4 clients, the same address in all workers",
        &["listening::net_listen_ipv6only_false"],
    ),
    met(
        "net-listen-ipv6only-rr",
        "IPv6 alone: IPv4's port of that number stays free",
        &["listening::net_listen_ipv6only_rr"],
    ),
    met("net-listen-ipv6only-none", "the same with a shared socket", &["listening::net_listen_ipv6only_none"]),
    met(
        "net-listen-relative-path",
        "a relative Unix path whose absolute form is too long; the file is removed at the end",
        &["listening::net_listen_relative_path"],
    ),
    adapted(
        "listen-pipe-readable-writable",
        "a path for everybody",
        &["listening::listen_pipe_readable_writable"],
        "`.mode(0o777)`",
    ),
    met("http-pipe", "HTTP over a Unix path, then a clean exit", &["listening::http_pipe"]),
    adapted(
        "net-reuseport",
        "`reusePort` leaves the supervisor out; two servers of one worker share a port",
        &["listening::net_reuseport"],
        "a socket of the worker's own; `Dispatch::PerSlot` is the supervised kind",
    ),
    adapted("dgram-reuseport", "the same with UDP", &["listening::dgram_reuseport"], "a socket of the worker's own"),
    met("bind-twice", "two programs, one port: the second one's worker hears EADDRINUSE", &["listening::bind_twice"]),
    met("bind-privileged-port", "EACCES reaches the worker that asked", &["listening::bind_privileged_port"]),
    met(
        "shared-handle-bind-privileged-port",
        "the same with a shared socket",
        &["listening::shared_handle_bind_privileged_port"],
    ),
    met(
        "shared-handle-bind-error",
        "a port that the supervisor itself has: EADDRINUSE in the worker",
        &["listening::shared_handle_bind_error"],
    ),
    met(
        "eaccess",
        "a Unix path that somebody has: EADDRINUSE in the worker, which tells its code",
        &["listening::eaccess"],
    ),
    met(
        "eaddrinuse",
        "when the holder has closed, the same process can bind",
        &["listening::eaddrinuse", "tests/listening.rs::who_was_refused_an_address_may_try_again"],
    ),
    adapted(
        "port-reuse-between-workers",
        "one closes, another one takes the port over, the first listens again",
        &["listening::port_reuse_between_workers"],
        "a second listener on one address in one worker is the same socket once more, and no error",
    ),
    met(
        "child-index-net",
        "several port-0 servers of one worker are opened, closed and opened again",
        &["listening::child_index_net"],
    ),
    met("child-index-dgram", "the same with UDP", &["listening::child_index_dgram"]),
    met(
        "server-restart-rr",
        "one closes and listens again while another one serves",
        &["listening::server_restart_rr"],
    ),
    met("server-restart-none", "the same with a shared socket", &["listening::server_restart_none"]),
    met("shared-leak", "two disconnect while a connection is open", &["listening::shared_leak"]),
    adapted(
        "accept-fail",
        "an error of accept is survived",
        &["tests/handoff.rs::a_supervisor_without_descriptors_pauses_says_so_once_a_second_and_goes_on"],
        "the supervisor accepts: it pauses, says so, and no client is refused",
    ),
    met(
        "net-server-drop-connection",
        "limits of 0, 1 and 9 in three workers, 10 clients: exactly 0, 1 and 9",
        &["listening::net_server_drop_connection"],
    ),
    adapted(
        "rr-handle-close",
        "a worker that closes its only server ends",
        &["listening::rr_handle_close"],
        "if it is linked to it: `cx.spawn_linked`",
    ),
    adapted(
        "rr-handle-keep-loop-alive",
        "a server alone keeps the worker",
        &["listening::rr_handle_keep_loop_alive"],
        "a worker lives until it is told to end or what it is linked to ends",
    ),
    none("rr-handle-ref-unref", "ref and unref of a server", "nothing here ends because nothing is left to do"),
    none("rr-ref", "the same, and close after ref", "nothing here ends because nothing is left to do"),
    none("rr-domain-listen", "listening under a domain", "there are no domains"),
    adapted(
        "dgram-1",
        "4 workers share a UDP port and each gets 10 packets",
        &["datagrams::dgram_1"],
        "the kernel wakes whom it likes: whoever has had 10 closes its share, and the others get the rest",
    ),
    met("dgram-2", "what 4 workers send from the shared socket arrives; then all disconnect", &["datagrams::dgram_2"]),
    adapted(
        "dgram-bind-fd",
        "4 workers bind the supervisor's descriptor",
        &["datagrams::dgram_bind_fd"],
        "one that it had when it started",
    ),
    met("dgram-ipv6only", "IPv6 alone and IPv4 on one port", &["datagrams::dgram_ipv6only"]),
    adapted(
        "dgram-reuse",
        "the same address twice in one worker",
        &["datagrams::dgram_reuse"],
        "it is the same socket once more",
    ),
];
