//! Which process is this: roles, marks, settings, and what a new process has and has not.

use rclust::cluster::{self, Child, Context, Never, StartError, Supervisor};
use rclust_tests::{await_end, command, procfs, start};
use std::process::Stdio;

const LIVES: &str = env!("CARGO_BIN_EXE_lives");
const EMBEDDED: &str = env!("CARGO_BIN_EXE_embedded");

struct Nobody;

impl cluster::Worker for Nobody {
    type Msg = Never;
    type Args = ();
    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Nobody)
    }
    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

#[test]
fn a_process_that_never_passed_boot_starts_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Other tests of this file start other programs meanwhile.
    let own = std::env::current_exe().unwrap();
    let copies = || {
        let children = procfs::children(std::process::id()).into_iter();
        children.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own)).count()
    };
    let outcome = runtime.block_on(Supervisor::one_for_one().child(Child::<Nobody>::new("n")).start());
    assert!(matches!(outcome, Err(StartError::NotBooted)), "{outcome:?}");
    // A program that another test starts looks like a copy for a moment, between its start and its exec.
    assert!(rclust_tests::comes_true(|| copies() == 0), "something of this program was started");
}

#[test]
fn a_forged_mark_is_refused() {
    for (mark, text) in [
        ("1", "standard input is not the control link"),
        ("9", "the deepest allowed is 8"),
        ("0", "rclust's own"),
        ("yes", "rclust's own"),
    ] {
        let said = start(command(LIVES).env("RCLUST_WORKER_DEPTH", mark)).end_with(1);
        assert!(said.contains(text) && said.contains("RCLUST_WORKER_DEPTH"), "{mark}: {said}");
    }
}

#[test]
fn a_socket_that_is_not_the_parents_is_refused() {
    // A socket pair whose other end belongs to this process: it is the parent. So a shell stands between.
    let (theirs, _ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut shell = command("/bin/sh");
    // Not `exec`, and not the last command: the shell is the parent, this process the peer.
    shell.arg("-c").arg("\"$0\"; echo left $?").arg(LIVES).env("RCLUST_WORKER_DEPTH", "1");
    shell.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    let said = start(&mut shell).end_with(0);
    assert!(said.contains("is not the parent") && said.contains("left 1"), "{said}");
}

#[test]
fn a_type_that_is_not_listed_is_refused_before_anything_starts() {
    let said = start(command(LIVES).arg("unlisted")).end_with(1);
    assert!(said.contains("child `sub/x` is a lives::Unlisted"), "{said}");
    assert!(said.contains("#[cluster::main(workers(..))]") && said.contains("lives::Life"), "{said}");
    assert!(!said.contains("started"), "{said}");
}

#[test]
fn trees_that_cannot_be_are_refused_before_anything_starts() {
    for (way, text) in [("twice", "two children are named `life`"), ("unnamed", "needs a name")] {
        let said = start(command(LIVES).arg(way)).end_with(1);
        assert!(said.contains(text) && !said.contains("started"), "{way}: {said}");
    }
}

#[test]
fn the_worker_count_is_the_variables_or_an_error_that_names_it() {
    let mut running = start(command(LIVES).arg("auto").env("WEB_CONCURRENCY", "3"));
    running.line("up");
    assert_eq!(running.workers().len(), 3);
    for wrong in ["0", "many", ""] {
        let said = start(command(LIVES).arg("auto").env("WEB_CONCURRENCY", wrong)).end_with(1);
        assert!(said.contains("WEB_CONCURRENCY") && said.contains(&format!("`{wrong}`")), "{said}");
    }
}

#[test]
fn init_runs_in_every_process_and_its_error_is_a_failed_start() {
    let said = start(command(LIVES).arg("init")).end_with(1);
    assert!(
        said.contains("init as Supervisor") && said.contains("name: \"life[1]\", index: 1, incarnation: 1"),
        "{said}"
    );
    assert!(said.contains("`life[1]` failed to start: error: init: no sandbox"), "{said}");
}

#[test]
fn a_worker_has_its_name_its_group_and_no_descriptor_it_was_not_given() {
    // A descriptor without close-on-exec, as a shell leaves them: it must not reach workers.
    let mut shell = command("/bin/sh");
    shell.arg("-c").arg("exec 7</etc/hostname 9</etc/passwd; exec \"$0\" three").arg(LIVES);
    let mut running = start(&mut shell);
    running.line("up");
    let supervisor = running.pid();
    assert!(procfs::descriptors(supervisor).iter().any(|fd| fd.contains("/etc/passwd")));
    for (place, worker) in running.workers().into_iter().enumerate() {
        assert_eq!(procfs::comm(worker), format!("life[{place}]"));
        assert_eq!(procfs::group(worker), Some(worker));
        let fds = procfs::descriptors(worker);
        assert!(fds.contains(&"0 /dev/null".to_owned()), "{fds:?}");
        assert!(!fds.iter().any(|fd| fd.contains("/etc/")), "{fds:?}");
        // Outputs; link; epoll and waker of two runtimes; the pair for signals; three spares: nothing else.
        let odd: Vec<_> = fds
            .iter()
            .filter(|fd| !["0 /dev/null", "pipe:", "socket:", "anon_inode:"].iter().any(|kind| fd.contains(kind)))
            .collect();
        assert!(odd.is_empty() && fds.len() <= 17, "{fds:?}");
    }
}

#[test]
fn grandchildren_inherit_neither_descriptors_nor_the_mark() {
    let mut running = start(command(LIVES).arg("grandchild").env("MINE", "kept"));
    running.line("grandchild done");
    let said = running.said();
    assert!(said.contains("MINE=kept") && !said.contains("RCLUST"), "{said}");
    let odd =
        said.lines().filter(|line| line.contains("socket:") || line.contains("memfd") || line.contains("anon_inode"));
    assert_eq!(odd.count(), 0, "{said}");
}

#[test]
fn standard_input_is_null_unless_inherited() {
    let mut command = command(LIVES);
    let mut running = start(command.arg("stdin").stdin(std::fs::File::open("/etc/hostname").unwrap()));
    running.line("up");
    let said = running.said();
    let host = std::fs::read_to_string("/etc/hostname").unwrap();
    assert!(said.contains(&format!("stdin of life: {host:?}")) && said.contains("stdin of other: \"\""), "{said}");
}

#[test]
fn any_main_may_call_boot() {
    let mut running = start(command(EMBEDDED).arg("serve"));
    running.line("] is ");
    running.line("] is ");
    running.signal(rustix::process::Signal::TERM);
    running.end_with(0);
}

#[test]
fn a_body_that_returns_before_it_is_ready_is_a_failed_start() {
    let said = start(command(EMBEDDED).arg("returns-at-once")).end_with(1);
    assert!(said.contains("failed to start") && said.contains("serves until cx.shutdown()"), "{said}");
    // A body has no line that brought the error: none of rclust's own is named in its place.
    assert!(!said.contains("boot.rs"), "{said}");
}

#[test]
fn an_exit_before_the_worker_is_ready_is_told_as_what_it_is() {
    let said = start(command(EMBEDDED).arg("exits-at-once")).end_with(1);
    assert!(said.contains("failed to start: it ended by itself before it was ready (normal)"), "{said}");
}

#[test]
fn ten_failed_starts_in_a_row_end_the_default_supervisor() {
    let mut running = start(command(EMBEDDED).arg("fails-later"));
    running.line("ready");
    running.line("ready");
    let workers = running.workers();
    let first = workers.iter().find(|pid| procfs::comm(**pid) == "embedded[0]").copied().expect("embedded[0] runs");
    rclust_tests::kill(first, rustix::process::Signal::KILL);
    await_end(first);
    let said = running.end_with(1);
    assert!(said.contains("`embedded[0]` failed to start 10 times in a row") && said.contains("no more"), "{said}");
}

#[test]
fn with_a_subscriber_life_cycle_events_are_tracing_events_and_nothing_else_is_written() {
    let mut running = start(command(EMBEDDED).arg("traced"));
    running.line("message=ready");
    running.line("message=ready");
    let worker = running.workers()[0];
    rclust_tests::kill(worker, rustix::process::Signal::KILL);
    let exit = running.line("message=exited");
    assert!(exit.starts_with("rclust::supervisor") && exit.contains(&format!("pid={worker}")), "{exit}");
    assert!(exit.contains("reason=killed by SIGKILL") && exit.contains("incarnation=1"), "{exit}");
    running.line("message=restarting");
    running.line("message=ready");
    running.signal(rustix::process::Signal::TERM);
    let said = running.end_with(0);
    assert!(said.contains("message=ended") && !said.contains("rclust: "), "{said}");
}
