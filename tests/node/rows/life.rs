//! B.1: life cycle and events.

use super::{Row, adapted, met, none};

pub(crate) const ROWS: &[Row] = &[
    met(
        "basic",
        "the events of one worker, once each and in order; its states; the mark of a worker is not in its environment",
        &["life::basic"],
    ),
    none("worker-constructor", "defaults of a bare record", "types: there is no worker that was not started"),
    met(
        "worker-init",
        "a message that is sent when the worker is online reaches it, however early",
        &["life::worker_init"],
    ),
    adapted(
        "worker-events",
        "a message and an error are seen on both levels, and equal",
        &["life::worker_events"],
        "the worker's mailbox and the supervisor's inbox; an error is an exit reason",
    ),
    met("worker-death", "exit code 42 is told as 42, of the right worker", &["life::worker_death"]),
    met(
        "worker-exit",
        "one that exits while it listens: one disconnect, one exit, the flag false, the process gone",
        &["life::worker_exit"],
    ),
    met(
        "worker-kill",
        "SIGKILL to the process: one disconnect, one exit, the signal, the flag false, nobody left in the list",
        &["life::worker_kill"],
    ),
    met(
        "worker-kill-signal",
        "`worker.kill(signal)` passes the signal on; the flag is false",
        &["life::worker_kill_signal"],
    ),
    adapted(
        "kill-infinite-loop",
        "a spinning worker is ended by SIGTERM",
        &["life::kill_infinite_loop", "tests/end.rs::a_worker_that_is_sent_sigterm_drains_and_is_replaced"],
        "SIGTERM asks for a drain; a second one kills, as does the deadline of the first (5 s)",
    ),
    adapted(
        "kill-disconnect",
        "who disconnects itself has the flag at its exit",
        &["life::kill_disconnect"],
        "`cx.leave()`; then the restart type decides: a permanent one is replaced",
    ),
    adapted(
        "worker-destroy",
        "destroying oneself works, connected or not",
        &["life::worker_destroy"],
        "`cx.leave()` twice, and stopped meanwhile",
    ),
    met("call-and-destroy", "destroying who is disconnected crashes nothing", &["life::call_and_destroy"]),
    adapted(
        "worker-isdead",
        "false while it lives, true when its exit is told",
        &["life::worker_isdead"],
        "a reference names the slot: of a child that is restarted, the next incarnation may be starting when the exit is told",
    ),
    met(
        "worker-isconnected",
        "true right after the fork, false when its disconnect is told",
        &["life::worker_isconnected"],
    ),
    adapted(
        "worker-no-exit",
        "a disconnected worker with an open connection lives until that is closed",
        &["life::worker_no_exit"],
        "it drains; here, and not in Node, the deadline of its `Shutdown` ends that",
    ),
    adapted(
        "worker-forced-exit",
        "a channel that closes without the flag ends the worker at once; with the flag its own exit code stands",
        &["life::worker_forced_exit", "ends::primary_kill"],
        "the channel closes with the supervisor's end, or by the worker's own doing (process-disconnect)",
    ),
    met(
        "worker-disconnect",
        "`disconnect()`: seen by both sides, the flag true, the process gone",
        &["life::worker_disconnect"],
    ),
    adapted(
        "worker-disconnect-on-error",
        "a worker that disconnects because its port is taken does not hang",
        &["life::worker_disconnect_on_error"],
        "`Dispatch::Shared`, `cx.leave()`",
    ),
    met(
        "worker-wait-server-close",
        "a disconnect waits for the open connection, and the channel for the server",
        &["life::worker_wait_server_close"],
    ),
    met(
        "worker-handle-close",
        "a connection that comes while the server closes is not leaked",
        &["life::worker_handle_close"],
    ),
    adapted(
        "process-disconnect",
        "a worker that closes its raw channel while it listens ends",
        &["life::process_disconnect"],
        "its own control thread ends it, or the supervisor does: whichever is first; so it is no exit code 0",
    ),
    met(
        "disconnect",
        "8 workers with 2 servers each answer; `cluster.disconnect()`; the whole again in the same program",
        &["ends::disconnect"],
    ),
    met(
        "disconnect-before-exit",
        "`cluster.disconnect()` tells nobody twice who is going already",
        &["ends::disconnect_before_exit"],
    ),
    met(
        "disconnect-exitedAfterDisconnect-race",
        "who disconnects itself goes when the supervisor has heard it, with exit code 0",
        &["ends::disconnect_exited_after_disconnect_race"],
    ),
    met(
        "disconnect-idle-worker",
        "idle workers; afterwards the list is empty and a fork works",
        &["ends::disconnect_idle_worker"],
    ),
    met("disconnect-leak", "`cluster.disconnect()` right after a fork", &["ends::disconnect_leak"]),
    met(
        "disconnect-race",
        "one disconnects when it is online, another one that listens at the same time",
        &["ends::disconnect_race"],
    ),
    met(
        "disconnect-unshared-tcp",
        "one that never listened goes while another one listens",
        &["ends::disconnect_unshared_tcp"],
    ),
    met("disconnect-unshared-udp", "the same with UDP", &["ends::disconnect_unshared_udp"]),
    met("disconnect-with-no-workers", "it returns", &["ends::disconnect_with_no_workers"]),
    met(
        "concurrent-disconnect",
        "all are told, and go by themselves, at the same moment",
        &["ends::concurrent_disconnect"],
    ),
    met(
        "primary-error",
        "an error of the supervisor's program: exit code 1, and no worker stays",
        &["ends::primary_error", "tests/end.rs::the_bodys_return_and_its_panic_stop_the_tree_in_order"],
    ),
    met(
        "primary-kill",
        "the supervisor ends, is killed too: no worker stays, not even one that spins",
        &["ends::primary_exit", "ends::primary_kill", "tests/death.rs::no_worker_outlives_a_killed_supervisor"],
    ),
    adapted(
        "uncaught-exception",
        "the program's own hook decides the exit code",
        &["ends::uncaught_exception"],
        "a panic hook",
    ),
    met("fork-env", "variables of one worker are added and overridden", &["settings::fork_env"]),
    adapted(
        "fork-stdio",
        "a pipe beside the channel, used both ways",
        &["passing::fork_stdio"],
        "descriptors are fields of messages",
    ),
    none("fork-windowsHide", "no console window", "Linux alone"),
    met("cwd", "the working directory of a worker; an earlier one keeps the supervisor's", &["settings::cwd"]),
    adapted(
        "setup-primary",
        "two workers receive the arguments of their settings",
        &["life::setup_primary", "settings::setup_primary_args"],
        "settings are a child's or a pool's: typed `.args(..)`, and `Process::argv`",
    ),
    none(
        "setup-primary-argv",
        "settings take argv as it is at the call",
        "nothing is taken at a call: the supervisor's own, unless `Process::argv` says otherwise",
    ),
    adapted(
        "setup-primary-cumulative",
        "what is not set again stays",
        &["life::setup_primary_cumulative"],
        "a builder",
    ),
    none("setup-primary-emit", "a `setup` event for each call", "a builder tells nobody"),
    none("setup-primary-multiple", "the same for several calls", "a builder tells nobody"),
    met("message", "messages both ways, and whose it is", &["life::message"]),
    adapted(
        "invalid-message",
        "a forged control message is ignored, and the worker disconnects cleanly",
        &["life::invalid_message", "tests/hostile.rs::a_worker_that_writes_garbage_to_its_control_link_is_replaced"],
        "user messages cannot be control messages: another lane, other types; a worker that writes garbage there is replaced",
    ),
    met("ipc-throw", "a worker that fails in the handler of a bind error ends alone", &["life::ipc_throw"]),
    none(
        "advanced-serialization",
        "a circular object survives",
        "serde: what a type cannot say does not compile, or fails to encode",
    ),
];
