//! B.3: handles and messages.

use super::{Row, adapted, met, none};

pub(crate) const ROWS: &[Row] = &[
    met(
        "net-send",
        "a worker sends a connected socket to the supervisor, which reads to its end",
        &["passing::net_send"],
    ),
    adapted(
        "send-handle-twice",
        "the same socket twice crashes nothing",
        &["passing::send_handle_twice"],
        "sending moves it; only what could not be sent can be sent again",
    ),
    met("send-deadlock", "sockets both ways at the same time", &["passing::send_deadlock"]),
    adapted(
        "send-socket-to-worker-http-server",
        "a socket that was sent is served by a worker's HTTP server",
        &["passing::send_socket_to_worker_http_server"],
        "hyper's `serve_connection`",
    ),
    met("send-handle-large-payload", "800 004 bytes and a socket, both ways", &["passing::send_handle_large_payload"]),
    adapted(
        "child-process-pass-fd",
        "80 sockets from many children, each gets its data though the sender closes early",
        &["passing::child_process_pass_fd"],
        "16 workers with 5 each",
    ),
    met(
        "child-process-recv-handle",
        "of three messages in one batch the second has the socket",
        &["passing::child_process_recv_handle"],
    ),
    met(
        "child-process-fork-closed-channel-segfault",
        "the worker ends while sockets are sent to it: errors, no crash",
        &["passing::child_process_fork_closed_channel_segfault"],
    ),
    adapted(
        "child-process-send-keep-open",
        "both processes write to one socket",
        &["passing::child_process_send_keep_open"],
        "an explicit duplicate",
    ),
    met(
        "child-process-fork-net-socket",
        "a socket accepted here is served there",
        &["passing::child_process_fork_net_socket"],
    ),
    met(
        "child-process-fork-net",
        "6 sockets over 3 workers, some closed, some ended with the worker",
        &["passing::child_process_fork_net"],
    ),
    met(
        "child-process-fork-net-server",
        "a listener that was passed on: both accept",
        &["passing::child_process_fork_net_server"],
    ),
    met(
        "child-process-fork-dgram",
        "a UDP socket that was passed on: both receive",
        &["passing::child_process_fork_dgram"],
    ),
    none(
        "child-process-fork-getconnections",
        "closing what was passed on is seen in the sender's count",
        "it is the receiver's: `listener.stats()` counts connections where they are",
    ),
    none(
        "child-process-http-socket-leak",
        "passing a request's socket frees its parser",
        "there is no parser that holds it",
    ),
    none(
        "child-process-server-close",
        "a socket as a child's standard output closes when all end",
        "an output is inherited, null, logged or streamed; a socket goes in a message, and is the receiver's",
    ),
    met("child-process-net-reuseport", "parent and children bind one port", &["passing::child_process_net_reuseport"]),
    adapted("child-process-send-cb", "no error after a send", &["messages::child_process_send_cb"], "`send(..).await`"),
    adapted(
        "child-process-send-after-close",
        "an error for who sends to one that is gone",
        &["messages::child_process_send_after_close"],
        "for one that is gone for good; the mailbox of one that can be started again keeps what is sent",
    ),
    adapted(
        "child-process-send-returns-boolean",
        "a sender learns that the receiver does not follow",
        &["messages::child_process_send_returns_boolean"],
        "`try_send` gives the message back, `send` waits; memory is bounded",
    ),
    none("child-process-send-type-error", "bad types of arguments are refused", "by the compiler"),
    met(
        "child-process-send-utf8",
        "400 000 characters of several bytes arrive intact",
        &["messages::child_process_send_utf8"],
    ),
    adapted(
        "child-process-ipc-next-tick",
        "10 messages whose handler throws: all 10 are delivered",
        &["messages::child_process_ipc_next_tick"],
        "a panic costs the incarnation, and the messages behind it wait for the next one",
    ),
    adapted(
        "child-process-internal",
        "messages with a reserved prefix are not the program's",
        &["messages::child_process_internal"],
        "no prefix is reserved: every message is the program's",
    ),
    met(
        "child-process-disconnect",
        "asynchronous, seen by both sides; the child ends by itself",
        &["messages::child_process_disconnect"],
    ),
    none("child-process-fork", "values that cannot be sent throw", "types"),
    met("child-process-fork3", "forking a program that does nothing", &["messages::child_process_fork3"]),
    met(
        "child-process-fork-and-spawn",
        "fork, then spawn: nothing hangs",
        &[
            "messages::child_process_fork_and_spawn",
            "tests/boot.rs::grandchildren_inherit_neither_descriptors_nor_the_mark",
        ],
    ),
    adapted(
        "child-process-fork-args",
        "arguments arrive as they are, no shell in between",
        &["messages::child_process_fork_args", "settings::setup_primary_args"],
        "they are the program's own, or those of `Process::argv`",
    ),
    none("child-process-fork-exec-argv", "the runtime's flags", "no runtime stands in between"),
    adapted(
        "child-process-fork-exec-path",
        "another binary",
        &["tests/death.rs::a_renamed_replaced_or_removed_program_file_does_not_change_what_a_restart_runs"],
        "workers are this program, whatever becomes of its file",
    ),
    adapted(
        "child-process-fork-no-shell",
        "no shell expands arguments",
        &["messages::child_process_fork_args"],
        "as fork-args",
    ),
    none("child-process-fork-url", "a module by its URL", "workers are types of this program"),
    met(
        "child-process-fork-close",
        "all messages of one that is gone are delivered; disconnect comes before exit",
        &["messages::child_process_fork_close"],
    ),
    none("child-process-fork-detached", "a child outlives its parent", "no worker outlives its supervisor: a promise"),
    adapted(
        "child-process-fork-stdio",
        "layouts of standard input and output beside the channel",
        &["settings::child_process_fork_stdio", "tests/boot.rs::standard_input_is_null_unless_inherited"],
        "`Process::{stdout, stderr}`; the channel is always there",
    ),
    none(
        "child-process-fork-stdio-string-variant",
        "the same, as a word",
        "`Output` is an enum: a word that is none does not compile",
    ),
    adapted(
        "child-process-fork-ref2",
        "after a disconnect in the child no message arrives",
        &["messages::child_process_fork_ref"],
        "what was not read becomes a dead letter, or waits for the next incarnation",
    ),
    adapted(
        "child-process-fork-ref",
        "the channel keeps the child; after a disconnect no message arrives and it ends",
        &["messages::child_process_fork_ref"],
        "its mailbox keeps it",
    ),
    adapted(
        "child-process-fork-timeout-kill-signal",
        "a start that takes too long is killed",
        &["messages::child_process_fork_timeout_kill_signal"],
        "`start_timeout`; SIGKILL",
    ),
    adapted(
        "child-process-fork-abort-signal",
        "a start is cancelled",
        &["tests/manage.rs::a_start_is_cancelled_by_terminate_and_reads_answer_meanwhile"],
        "`terminate_child`, or `disconnect` on its reference",
    ),
    met(
        "child-process-fork-advanced-header-serialization",
        "lengths that lie do not crash the parent",
        &[
            "rclust-core/src/wire/frame.rs::lengths_that_lie_are_refused_before_anything_is_kept",
            "tests/hostile.rs::a_worker_that_writes_garbage_to_its_control_link_is_replaced",
        ],
    ),
    met(
        "child-process-advanced-serialization-splitted-length-field",
        "a length that is split over two reads",
        &["rclust-core/src/wire/frame.rs::frames_survive_any_cut"],
    ),
    none(
        "child-process-advanced-serialization",
        "types survive",
        "serde: a message is decoded as the type that was sent, or not at all",
    ),
    adapted(
        "child-process-advanced-serialization-largebuffer",
        "4 buffers of 8 MiB in order",
        &["messages::child_process_fork_advanced_serialization_largebuffer"],
        "they travel beside the ring",
    ),
    met(
        "child-process-emfile",
        "a fork without descriptors is an error, and no exit",
        &["messages::child_process_emfile"],
    ),
    none("child-process-set-blocking", "blocking mode of inherited output", "standard streams are not changed"),
    none("child-process-ipc", "echo over plain pipes", "a program's own pipes are its own"),
    none("inspect-brk", "the debugger stops at the first line", "no runtime with a debugger's port"),
    none("inspector-port-cluster", "one debugger's port for each worker", "no runtime with a debugger's port"),
];
