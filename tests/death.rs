//! Deaths: how they are told apart, what follows, and that nobody outlives the supervisor.

use std::time::{Duration, Instant};

use rclust_tests::{await_end, command, ends_within, kill, procfs, start};
use rustix::process::Signal;

const LIVES: &str = env!("CARGO_BIN_EXE_lives");
const SERVER: &str = env!("CARGO_BIN_EXE_server");

#[test]
fn exit_reasons_are_told_apart() {
    for (way, text) in [
        ("error", "exited, pid {pid}: error: Custom { kind: Other, error: \"disk full\" } (unexpected)"),
        ("panic", "a bug in Life (unexpected)"),
        ("code", "exited, pid {pid}: exit code 42 (unexpected)"),
        ("abort", "exited, pid {pid}: killed by SIGABRT"),
    ] {
        let mut running = start(command(LIVES).arg(way));
        let exit = running.line("life exited");
        let pid = exit.split("pid ").nth(1).and_then(|rest| rest.split(':').next()).expect("its process id").to_owned();
        assert!(exit.contains(&text.replace("{pid}", &pid)), "{way}: {exit}");
        // What it said itself comes by another output, before that or after it.
        while running.after("life lives as ") == pid {}
        running.signal(Signal::TERM);
        running.end_with(0);
    }
}

#[test]
fn a_panic_says_where_and_with_which_backtrace() {
    let mut running = start(command(LIVES).arg("panic"));
    let exit = running.line("life exited");
    assert!(exit.contains("panic at tests/programs/lives.rs:"), "{exit}");
}

#[test]
fn a_linked_task_that_ends_well_is_a_normal_end() {
    let mut running = start(command(LIVES).arg("returns"));
    let exit = running.line("life exited");
    assert!(exit.ends_with(": normal"), "{exit}");
    // Transient: it stays down, and the tree is still there to be stopped.
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(!said.contains("restarting"), "{said}");
}

#[test]
fn a_panic_in_a_spawned_task_costs_nobody_else_anything() {
    let mut running = start(command(LIVES).arg("panic-in-task"));
    running.line("only a task");
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(said.contains("shutdown") && !said.contains("unexpected"), "{said}");
}

#[test]
fn a_failed_start_at_boot_is_the_error_of_start() {
    let said = start(command(LIVES).arg("start-error")).end_with(1);
    assert!(said.contains("child `life` failed to start: error: no key (at tests/programs/lives.rs:"), "{said}");
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_has_failed() {
    for way in ["start-hangs", "spins"] {
        let said = start(command(LIVES).arg(way)).end_with(1);
        assert!(said.contains("child `life` failed to start: not ready within 300ms"), "{way}: {said}");
    }
}

#[test]
fn the_next_incarnation_knows_why_its_predecessor_ended() {
    let mut running = start(command(LIVES).arg("previous"));
    assert_eq!(running.after("previous of 1: "), "None");
    // Exiting before it was ready at boot ends the tree.
    let said = running.end_with(1);
    assert!(said.contains("exit code 7"), "{said}");
}

#[test]
fn a_killed_worker_is_replaced_and_the_others_go_on() {
    let mut running = start(command(LIVES).arg("three"));
    running.line("up");
    let before = running.workers();
    for victim in &before {
        kill(*victim, Signal::KILL);
        await_end(*victim);
        running.line("(unexpected)");
        running.line("ready");
    }
    let after = running.workers();
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    // The fourth restart within 60 s is one too many for... a pool of its own counter: still there.
    running.signal(Signal::TERM);
    running.end_with(0);
}

#[test]
fn giving_up_says_which_child_how_often_and_why() {
    let mut running = start(command(LIVES).arg("one"));
    for _ in 0..4 {
        running.line("life ready");
        let worker = running.workers()[0];
        kill(worker, Signal::KILL);
        await_end(worker);
    }
    let said = running.end_with(1);
    assert!(said.contains("`life` ended once more after 3 restarts within 60s"), "{said}");
    assert!(said.contains("killed by SIGKILL"), "{said}");
}

#[test]
fn a_body_that_is_stuck_with_a_full_output_does_not_delay_healing() {
    let mut child = command(LIVES);
    // Nobody reads: both outputs are one pipe that the body fills.
    let (reader, writer) = std::io::pipe().unwrap();
    child.arg("body-blocks").stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = child.spawn().unwrap();
    let workers = rclust_tests::eventually("three workers", || {
        Some(procfs::children(child.id())).filter(|workers| workers.len() == 3)
    });
    // The body has begun to block when the pipe is full.
    let size = rustix::pipe::fcntl_getpipe_size(&reader).unwrap() as u64;
    rclust_tests::eventually("a full pipe", || {
        rustix::io::ioctl_fionread(&reader).ok().filter(|bytes| *bytes >= size - 4096)
    });
    for victim in workers {
        let begun = Instant::now();
        kill(victim, Signal::KILL);
        await_end(victim);
        rclust_tests::eventually("a replacement", || {
            let now = procfs::children(child.id());
            (now.len() == 3 && !now.contains(&victim)).then_some(())
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "healing took {:?}", begun.elapsed());
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn no_worker_outlives_a_killed_supervisor() {
    for way in ["three", "spins", "start-hangs", "spins-ready"] {
        let mut running = start(command(LIVES).arg(way));
        // The two outputs have no order between them.
        match way.ends_with("ready") || way == "three" {
            true => running.all(&["started", "up"]),
            false => drop(running.line("started")),
        }
        let workers = running.workers();
        assert!(!workers.is_empty());
        running.signal(Signal::KILL);
        for worker in workers {
            assert!(ends_within(worker, Duration::from_secs(1)), "{way}: worker {worker} outlives its supervisor");
        }
    }
}

#[test]
fn a_spinning_body_dies_with_the_supervisor() {
    let mut running = start(command(SERVER).arg("spins").env("WEB_CONCURRENCY", "2"));
    running.line(" is ");
    running.line(" is ");
    let workers = running.workers();
    assert_eq!(workers.len(), 2);
    running.signal(Signal::KILL);
    for worker in workers {
        assert!(ends_within(worker, Duration::from_secs(1)), "worker {worker} outlives its supervisor");
    }
}

#[test]
fn a_renamed_replaced_or_removed_program_file_does_not_change_what_a_restart_runs() {
    let folder = std::env::temp_dir().join(format!("rclust-moved-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (at, moved) = (folder.join("a program"), folder.join("moved"));
    std::fs::copy(LIVES, &at).unwrap();
    let mut running = start(command(at.to_str().unwrap()).arg("three"));
    running.line("up");
    let steps: [&dyn Fn(); 3] =
        [&|| std::fs::rename(&at, &moved).unwrap(), &|| std::fs::write(&at, "not a program").unwrap(), &|| {
            std::fs::remove_file(&moved).unwrap()
        }];
    for step in steps {
        step();
        let victim = running.workers()[0];
        kill(victim, Signal::KILL);
        await_end(victim);
        running.line("(unexpected)");
        running.line("ready");
    }
    running.signal(Signal::TERM);
    running.end_with(0);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_panic_in_args_with_is_that_childs_failed_start() {
    let mut running = start(command(LIVES).arg("args-panic"));
    running.line("up");
    kill(running.workers()[0], Signal::KILL);
    let said = running.end_with(1);
    assert!(said.contains("the function that makes its arguments panicked"), "{said}");
    assert!(said.contains("gave up: `life`"), "{said}");
}

#[test]
fn a_give_up_below_names_the_worker_that_began_it() {
    let mut running = start(command(LIVES).arg("nested"));
    running.line("ready");
    running.line("ready");
    kill(running.workers()[1], Signal::KILL);
    let said = running.end_with(1);
    assert!(said.contains("Error: gave up: `sub/x` ended once more after 0 restarts within 60s"), "{said}");
}
