//! Reload: a worker is replaced by a fresh incarnation, perhaps of another program, and nobody notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rclust_tests::{Running, comes_true, command, eventually, kill, procfs, start};
use rustix::process::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_reloads");
const NEXT: &str = env!("CARGO_BIN_EXE_reloads_next");
const OTHER: &str = env!("CARGO_BIN_EXE_reloads_other");

/// A directory of the test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("rclust-reload-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn passes(scenario: &str) {
    let mut running = start(command(PROGRAM).arg(scenario));
    running.line("all is well");
    let said = running.end_with(0);
    // Nobody is hostile here.
    assert!(!said.contains("spoilt") && !said.contains("not trusted"), "{said}");
}

#[test]
fn two_workers_that_send_to_each_other_and_are_replaced_at_the_same_time_lose_nothing() {
    passes("pals");
}

#[test]
fn messages_pass_over_without_loss_in_order() {
    passes("order");
}

#[test]
fn two_workers_that_are_both_replaced_lose_nothing_between_them() {
    passes("both");
}

#[test]
fn questions_are_answered_by_who_took_them_or_by_the_next_one() {
    passes("asks");
}

#[test]
fn the_message_in_hand_is_finished_or_costs_its_worker_its_life() {
    passes("in_hand");
}

#[test]
fn deaths_in_the_middle_of_a_reload_are_deaths_like_others() {
    passes("deaths");
}

#[test]
fn a_replacement_asks_and_sends_before_it_is_current() {
    passes("greets");
}

#[test]
fn one_that_does_not_become_ready_ends_the_reload_and_changes_nothing() {
    let folder = Folder::new("fails");
    let mut running = start(command(PROGRAM).arg("fails").env("START_FAILS", folder.0.join("mark")));
    running.line("all is well");
    running.end_with(0);
}

#[test]
fn nothing_grows_over_a_thousand_reloads() {
    let mut running = start(command(PROGRAM).arg("many"));
    running.line("warm");
    let resident = |pid: u32| procfs::status(pid, "VmRSS").and_then(|rss| rss.split(' ').next()?.parse::<u64>().ok());
    let held = |pid: u32| (procfs::descriptors(pid), resident(pid).expect("a resident set"));
    let before = held(running.pid());
    running.signal(Signal::USR1);
    for n in 1..=14 {
        running.line(&format!("{} reloads", 70 * n));
    }
    let mut after = held(running.pid());
    // The last one that was replaced may be on its way out.
    assert!(
        comes_true(|| {
            after = held(running.pid());
            after.0.len() <= before.0.len()
        }),
        "descriptors and KiB: {before:?}, and after 980 reloads {after:?}"
    );
    assert!(
        before.1 > 1024 && after.1 < before.1 + 1024,
        "descriptors and KiB: {before:?}, and after 980 reloads {after:?}"
    );
    running.signal(Signal::USR1);
    running.line("all is well");
    running.end_with(0);
}

/// A program under a name that can be given to another one.
fn deployed(folder: &Folder) -> (PathBuf, Running) {
    let (releases, current) = (folder.0.join("releases"), folder.0.join("current"));
    for (release, program) in [("1", PROGRAM), ("2", NEXT), ("3", OTHER)] {
        fs::create_dir_all(releases.join(release)).expect("a directory");
        fs::copy(program, releases.join(release).join("app")).expect("a copy");
    }
    symlink("releases/1", &current).expect("a link");
    let app = current.join("app");
    let running = start(command(app.to_str().expect("a path")).arg("serves"));
    (current, running)
}

fn moves(current: &Path, to: &str) {
    let new = current.with_extension("new");
    symlink(to, &new).expect("a link");
    fs::rename(new, current).expect("another link in its place");
}

#[test]
fn a_reload_runs_the_program_that_stands_at_the_path_now_and_so_do_crash_restarts_then() {
    let folder = Folder::new("deploys");
    let (current, mut running) = deployed(&folder);
    running.all(&["1 ", " reloads", "serving"]);
    let pids = running.workers();
    moves(&current, "releases/2");
    // Until it is asked for, the program is the one that was started.
    kill(pids[0], Signal::KILL);
    assert!(running.after("now 2 ").ends_with(" reloads"));
    running.signal(Signal::HUP);
    running.line("SIGHUP: reloading");
    running.all(&["now 3 ", "now 2 ", "reload: done"]);
    assert_eq!(running.said().matches(" reloads_next").count(), 2, "{}", running.said());
    let gone = |pid: &u32| !running.workers().contains(pid);
    assert!(comes_true(|| running.workers().len() == 2 && pids.iter().all(gone)), "{:?}", running.workers());
    kill(running.workers()[0], Signal::KILL);
    assert!(running.after("now ").ends_with(" reloads_next"), "a crash restart runs the new program");
    running.signal(Signal::TTIN);
    assert!(running.after("now 1 ").ends_with(" reloads_next"), "and so does a new worker");
    running.signal(Signal::TTOU);
    // One that cannot be asked the same things is refused, and nothing changes.
    let before = eventually("both", || Some(running.workers()).filter(|workers| workers.len() == 2));
    moves(&current, "releases/3");
    running.signal(Signal::HUP);
    let text = running.after("reload: failed");
    assert!(text.contains("other messages or arguments"), "{text}");
    fs::remove_file(&current).expect("the link goes");
    running.signal(Signal::HUP);
    let text = running.after("reload: failed");
    assert!(text.contains("current/app"), "{text}");
    assert_eq!(running.workers(), before);
    // And back.
    symlink("releases/1", &current).expect("a link");
    running.signal(Signal::HUP);
    running.line("reload: done");
    let back = eventually("both as the first program", || {
        let said = running.said();
        (said.matches("now ").count() == 7).then_some(said)
    });
    assert!(back.lines().rev().filter(|line| line.starts_with("now ")).take(2).all(|line| line.ends_with(" reloads")));
    running.signal(Signal::TERM);
    running.end_with(0);
}

#[test]
fn signals_give_the_pool_a_worker_more_and_one_fewer() {
    let mut running = start(command(PROGRAM).arg("serves"));
    running.line("serving");
    running.signal(Signal::TTIN);
    running.line("SIGTTIN: one worker more");
    eventually("a third", || (running.workers().len() == 3).then_some(()));
    // Orders that come while one is carried out count too.
    for _ in 0..3 {
        running.signal(Signal::TTIN);
        running.line("SIGTTIN: one worker more");
    }
    eventually("six", || (running.workers().len() == 6).then_some(()));
    for _ in 0..3 {
        running.signal(Signal::TTOU);
        running.line("SIGTTOU: one worker fewer");
    }
    eventually("three", || (running.workers().len() == 3).then_some(()));
    for left in [2, 1] {
        running.signal(Signal::TTOU);
        running.line("SIGTTOU: one worker fewer");
        eventually("one fewer", || (running.workers().len() == left).then_some(()));
    }
    running.signal(Signal::TTOU);
    running.line("SIGTTOU: ignored");
    running.signal(Signal::TERM);
    running.end_with(0);
}
