//! Settings of a child's process: what /proc says of it, what is refused, and where its output goes.

use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rclust_tests::lines::Line;
use rclust_tests::{Running, await_end, command, ends_within, eventually, kill, procfs, start};
use rustix::process::Signal;

const SETTINGS: &str = env!("CARGO_BIN_EXE_settings");

fn way(way: &str) -> Command {
    let mut command = command(SETTINGS);
    command.env("WAY", way);
    command
}

/// A program that is up, and its children's processes: `other`, which has no settings, and `hand`.
fn up(way: &mut Command) -> (Running, u32, u32) {
    up_and(way, &[])
}

/// The same, when it has also said this, on any of its outputs.
fn up_and(way: &mut Command, said: &[&str]) -> (Running, u32, u32) {
    let mut running = start(way);
    running.all(&[&["up"], said].concat());
    let find = |name: &str| running.workers().into_iter().find(|pid| procfs::comm(*pid) == name);
    let pids = (find("other").expect("the other"), find("hand").expect("the hand"));
    (running, pids.0, pids.1)
}

fn down(running: Running) -> String {
    running.signal(Signal::TERM);
    running.end_with(0)
}

fn words(pid: u32, file: &str) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("a file of /proc");
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into())
        .collect()
}

/// Soft and hard limit, as /proc/PID/limits writes them.
fn limit(pid: u32, name: &str) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit of this name");
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

/// The niceness of a process or thread.
fn nice(pid: u32) -> i64 {
    procfs::stat(pid, 19).expect("a niceness")
}

/// Whether this is root: changing ids needs it. Said, because a test that does nothing must not look like one that passed.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not root: {what} is not tested here");
    }
    root
}

#[test]
fn environment_and_arguments_are_the_childs_own() {
    let (running, other, hand) = up(way("started-with").arg("mine").env("TAKEN", "1"));
    let (theirs, env) = (words(other, "environ"), words(hand, "environ"));
    assert!(theirs.contains(&"TAKEN=1".to_owned()) && env.contains(&"GIVEN=a b".to_owned()), "{env:?}");
    assert!(!env.iter().any(|variable| variable.starts_with("TAKEN=")), "{env:?}");
    assert_eq!(words(other, "cmdline")[1..], ["mine"]);
    assert_eq!(words(hand, "cmdline")[1..], ["-x", "two words"]);
    down(running);

    let (running, _, hand) = up(&mut way("empty-env"));
    let env = words(hand, "environ");
    assert_eq!(env.len(), 2, "{env:?}");
    assert!(env.contains(&"ONLY=1".to_owned()) && env.contains(&"RCLUST_WORKER_DEPTH=1".to_owned()), "{env:?}");
    down(running);
}

#[test]
fn limits_niceness_cpus_and_directory_are_applied_and_the_others_keep_theirs() {
    let (running, other, hand) = up(&mut way("applied"));
    let both = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(limit(hand, "Max address space"), both("3221225472"));
    assert_eq!(limit(hand, "Max open files"), both("200"));
    assert_eq!(limit(hand, "Max core file size"), both("4096"));
    assert_eq!((nice(hand), nice(other)), (7, nice(running.pid())));
    assert_eq!(procfs::status(hand, "Cpus_allowed_list").as_deref(), Some("0"));
    assert_eq!(procfs::status(other, "Cpus_allowed_list"), procfs::status(running.pid(), "Cpus_allowed_list"));
    let directory = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).expect("a directory");
    assert_eq!((directory(hand), directory(other)), ("/usr".into(), directory(running.pid())));
    assert_eq!(limit(other, "Max address space"), limit(std::process::id(), "Max address space"));
    assert_eq!(limit(other, "Max open files"), limit(std::process::id(), "Max open files"));
    // All of its threads have what is a thread's.
    for task in std::fs::read_dir(format!("/proc/{hand}/task")).unwrap().flatten() {
        let tid: u32 = task.file_name().to_str().and_then(|tid| tid.parse().ok()).unwrap();
        assert_eq!((nice(tid), procfs::status(tid, "Cpus_allowed_list").as_deref()), (7, Some("0")));
    }
    down(running);

    let (running, _, hand) = up(way("relative").current_dir("/usr"));
    assert_eq!(directory(hand), std::path::PathBuf::from("/usr/share"));
    down(running);
}

#[test]
fn what_is_beyond_a_limit_is_refused_to_the_worker_alone() {
    let (mut running, other, _) = up(&mut way("small"));
    running.all(&["opened ", "hand exited", "incarnation 2"]);
    let said = running.said();
    let opened = said.lines().find_map(|line| line.strip_prefix("opened ")?.parse::<usize>().ok()).unwrap();
    assert!((10..60).contains(&opened), "{opened}");
    assert!(said.lines().any(|line| line.contains("hand exited") && line.contains("SIGABRT")), "{said}");
    assert_eq!(procfs::comm(other), "other");
    down(running);
}

#[test]
fn a_function_makes_a_fresh_process_for_each_incarnation() {
    let mut running = start(&mut way("each"));
    running.line("up");
    let who = |pid: u32| {
        words(pid, "environ").into_iter().find_map(|variable| Some(variable.strip_prefix("WHO=")?.to_owned()))
    };
    let find = |running: &Running, name: &str| running.workers().into_iter().find(|pid| procfs::comm(*pid) == name);
    let second = find(&running, "hand[1]").unwrap();
    assert_eq!(
        (who(find(&running, "hand[0]").unwrap()).as_deref(), who(second).as_deref()),
        (Some("0/1"), Some("1/1"))
    );
    kill(second, Signal::KILL);
    running.line("(unexpected)");
    running.line("hand[1] ready");
    assert_eq!(who(find(&running, "hand[1]").unwrap()).as_deref(), Some("1/2"));
    down(running);

    let (mut running, _, hand) = up(&mut way("each-wrong"));
    kill(hand, Signal::KILL);
    running.line("(unexpected)");
    down(running);
    let said = start(&mut way("each-panics")).end_with(1);
    assert!(said.contains("child `hand` failed to start") && said.contains("describes its process panicked"), "{said}");
}

#[test]
fn copies_have_their_template_s_settings() {
    let mut running = start(&mut way("copies"));
    running.all(&["copy of COPY=hand/hand[0]", "copy of COPY=hand/hand[1]"]);
    let pids = eventually("two copies", || Some(running.workers()).filter(|pids| pids.len() == 3));
    let copy = |pid: &u32| {
        let env = words(*pid, "environ");
        env.iter().find_map(|variable| Some((variable.strip_prefix("COPY=")?.to_owned(), nice(*pid))))
    };
    let mut copies: Vec<(String, i64)> = pids.iter().filter_map(copy).collect();
    copies.sort();
    assert_eq!(copies, [("0".to_owned(), 4), ("1".to_owned(), 4)]);
    down(running);
    let said = start(&mut way("copies-wrong")).end_with(1);
    assert!(said.contains("the process of child `hand/") && said.contains("nice(40) is no niceness"), "{said}");
}

#[test]
fn a_body_has_settings_too() {
    let mut running = start(&mut way("body"));
    running.all(&["settings[0] has turn 1", "settings[1] has turn 1", "settings[0] ready", "settings[1] ready"]);
    let mut values: Vec<i64> = running.workers().into_iter().map(nice).collect();
    values.sort_unstable();
    assert_eq!(values, [3, 4]);
    kill(running.workers()[0], Signal::KILL);
    running.line("has turn 2");
    down(running);
    let said = start(&mut way("body-refused")).end_with(1);
    assert!(
        said.contains("`settings/settings[0]`") && said.contains("nice(40) is no niceness: say -20 to 19"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_fails_the_start_with_the_childs_name_and_what_to_do() {
    // Known before anything is started.
    for (wrong, text) in [
        ("no-directory", "directory(\"/nowhere\"): No such file or directory (os error 2): make it, or name another"),
        ("no-directory-but-a-file", "directory(\"/etc/passwd\"): it is no directory: make it, or name another"),
        ("nul-directory", "directory(\"/a\\0b\"): "),
        ("nul-argument", "argv: \"a\\0b\" has a NUL byte, which no process can be given: take it out"),
        ("nul-env", "env: \"A\" or its value has a NUL byte"),
        ("env-name", "env: \"A=B\" is no name of a variable"),
        ("env-mark", "env: \"RCLUST_WORKER_DEPTH\" is rclust's own: choose another"),
        ("no-cpu", "cpus([]) leaves it no CPU to run on: name one"),
        ("cpu-beyond", "cpus: there is no CPU 5000: the highest number is 1023"),
        ("nice-beyond", "nice(20) is no niceness: say -20 to 19"),
        ("files-beyond", "is above the supervisor's hard limit"),
        ("files-few", "open_files(10) is too few for a worker: say at least 64"),
        ("uid-none", "4294967295 is no user or group"),
    ] {
        let said = start(&mut way(wrong)).end_with(1);
        let error = said.lines().find(|line| line.contains("the process of child `hand` cannot be as it is described"));
        assert!(error.is_some_and(|error| error.contains(text)), "{wrong}: {said}");
        assert!(!said.contains("started, pid"), "{wrong}: {said}");
    }
    // Known to the process itself.
    for (wrong, text) in [
        ("cpu-missing", "cpus({0, 1023}): of these this machine or container lets it use only {0}: name those"),
        ("cpu-none", "cpus({1023}): this machine or container has none of these for it; it runs on {0"),
        ("argument-long", "its arguments and environment are more than the system lets a process have"),
        ("space-little", "address_space(1048576) is too little to begin with: say at least "),
    ] {
        let said = start(&mut way(wrong)).end_with(1);
        let error = said.lines().find(|line| line.contains("child `hand` failed to start"));
        assert!(error.is_some_and(|error| error.contains(text)), "{wrong}: {said}");
    }
}

#[test]
fn a_supervisor_without_the_right_to_it_refuses_another_user() {
    if !is_root("a supervisor that gave its rights up") {
        return;
    }
    for (wrong, text) in [
        (
            "unprivileged-uid",
            "uid(65534): the supervisor runs as user 65530 and lacks CAP_SETUID or CAP_KILL: start it as root",
        ),
        ("unprivileged-gid", "gid and groups: the supervisor lacks CAP_SETGID"),
        ("unprivileged-nice", "nice(-5) is below the supervisor's own, "),
    ] {
        let said = start(way(wrong).uid(65530).gid(65530)).end_with(1);
        assert!(said.contains("the process of child `hand`") && said.contains(text), "{wrong}: {said}");
    }
    let closed = std::env::temp_dir().join(format!("rclust-closed-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let said = start(way("unprivileged-directory").uid(65530).gid(65530).env("CLOSED", &closed)).end_with(1);
    std::fs::remove_dir(&closed).unwrap();
    assert!(said.contains("child `hand` failed to start") && said.contains("user may not enter it"), "{said}");
    // To stay who it is needs no right.
    let (running, _, hand) = up(way("unprivileged-same").uid(65534).gid(65534));
    assert_eq!(nice(hand), 19);
    down(running);
    let said = start(&mut way("uid-without-gid")).end_with(1);
    assert!(said.contains("uid(65534) without a group would keep root's: say gid(..) too"), "{said}");
}

#[test]
fn another_user_s_worker_has_no_way_back_dies_with_its_supervisor_and_binds_through_it() {
    if !is_root("a worker of another user") {
        return;
    }
    let (mut running, other, hand) = up(&mut way("nobody"));
    let four = |id: &str| Some([id; 4].join("\t"));
    assert_eq!(procfs::status(hand, "Uid"), four("65534"));
    assert_eq!(procfs::status(hand, "Gid"), four("65533"));
    assert_eq!(procfs::status(hand, "Groups").as_deref(), Some("65531 65532"));
    assert_eq!(procfs::status(hand, "CapPrm").as_deref(), Some("0000000000000000"));
    assert_eq!(procfs::status(other, "Uid"), four("0"));
    for task in std::fs::read_dir(format!("/proc/{hand}/task")).unwrap().flatten() {
        let tid: u32 = task.file_name().to_str().and_then(|tid| tid.parse().ok()).unwrap();
        assert_eq!(procfs::status(tid, "Uid"), four("65534"));
    }
    let address = running.after("listens on ");
    assert_eq!(Line::open(&address).unwrap().receive().unwrap(), "uid 65534, dies by Some(9)");
    // It can be killed and is replaced, as another user again.
    kill(hand, Signal::KILL);
    await_end(hand);
    running.line("(unexpected)");
    running.line("hand ready");
    let hand = running.workers().into_iter().find(|pid| procfs::comm(*pid) == "hand").unwrap();
    assert_eq!(procfs::status(hand, "Uid"), four("65534"));
    // The kernel's signal would be enough, which a change of user takes back (asked above); the control link's end is beside it.
    running.signal(Signal::KILL);
    assert!(ends_within(hand, Duration::from_secs(1)), "worker {hand} outlives its supervisor");
}

#[test]
fn a_change_of_user_leaves_no_groups_and_no_thread_behind() {
    if !is_root("a worker of another user") {
        return;
    }
    let (running, _, hand) = up(&mut way("nobody-alone"));
    assert_eq!(procfs::status(hand, "Groups").as_deref(), Some(""));
    down(running);
    let said = start(&mut way("threaded")).end_with(1);
    assert!(said.contains("this process has 2 already: start none before rclust::boot"), "{said}");
}

#[test]
fn output_can_go_nowhere() {
    let (running, _, hand) = up_and(&mut way("null"), &["but this"]);
    let descriptors = procfs::descriptors(hand);
    assert!(descriptors.contains(&"1 /dev/null".to_owned()), "{descriptors:?}");
    let said = down(running);
    assert!(!said.contains("nobody hears this"), "{said}");
}

#[test]
fn output_is_told_line_by_line_under_its_worker_s_name_and_a_flood_costs_only_its_own() {
    let mut running = start(&mut way("log"));
    let supervisor = running.pid();
    running.all(&[
        "rclust: hand[0]: a line",
        "rclust: hand[1]: a complaint",
        "rclust: hand[1]: heard beside a flood",
        "rclust: hand[0]: flooded",
    ]);
    let mut said = running.said();
    if !said.contains("lines of its output were dropped") {
        running.line("lines of its output were dropped");
        said = running.said();
    }
    assert!(said.contains("rclust: hand[0]: \\u{1b}[31mred") && said.contains("rclust: hand[0]: ä"), "{said}");
    let long: Vec<&str> = said.lines().filter(|line| line.starts_with("rclust: hand[1]: long")).collect();
    assert_eq!(long.iter().map(|line| line.matches("long ").count()).sum::<usize>(), 1000);
    let peak: u64 =
        procfs::status(supervisor, "VmHWM").and_then(|peak| peak.trim_end_matches(" kB").parse().ok()).unwrap();
    assert!(peak < 40 << 10, "the supervisor held {peak} KiB");
    down(running);
}

#[test]
fn output_can_be_read_by_the_program_is_counted_when_it_is_not_and_ends_with_its_worker() {
    let pipes =
        |running: &Running| procfs::descriptors(running.pid()).iter().filter(|name| name.contains(" pipe:")).count();
    let (mut running, _, _) = up(&mut way("stream"));
    let before = pipes(&running);
    running.line("hand #1 stdout: first");
    running.line("hand #1 stdout: second");
    let counted = running.line("read ");
    let numbers: Vec<u64> = counted.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] < 1000 && numbers[1] > 40_000, "{counted}");
    // Twenty incarnations leave children behind that hold their pipes: the supervisor's ends are closed.
    let (mut children, mut replaced) = (Vec::new(), false);
    while children.len() < 20 || !replaced {
        // Two outputs, between which there is no order.
        let line = running.line("");
        replaced |= line.contains("incarnation 21");
        children.extend(line.strip_prefix("last words, child ").map(|pid| pid.parse::<u32>().unwrap()));
    }
    eventually("no pipes of the dead", || (pipes(&running) == before).then_some(()));
    for child in children {
        assert!(!ends_within(child, Duration::ZERO), "{child} has ended: nothing was shown");
        kill(child, Signal::KILL);
    }
    down(running);
}
