//! Every recorded scenario of OTP's supervisor, played on the pure machine and with real processes; the traces have to
//! be the same.

#[path = "../examples/otp_scenario/mod.rs"]
mod otp_scenario;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;

use otp_scenario::{Scenario, play};
use rclust_tests::command;

/// Where ours differs on purpose (RULES.md, last section).
const EXCEPTIONS: &[(&str, &str)] = &[
    ("h61-simple-auto-shutdown", "simple_one_for_one with auto_shutdown is refused, as by later OTP releases"),
    ("h68", "terminating a restarting copy makes OTP count one active child too few"),
];

fn is_excepted(name: &str) -> bool {
    EXCEPTIONS.iter().any(|(exception, _)| name == *exception || name.starts_with(&format!("{exception}-")))
}

/// The scenarios, with their recorded traces less the line that names the OTP release.
fn recorded(folder: &str) -> Vec<(String, String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("the recorded scenarios are part of the repository") {
        let path = entry.expect("a folder can be read to its end").path();
        if path.extension().is_some_and(|extension| extension == "scn") {
            let name = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("it was listed");
            let trace = fs::read_to_string(path.with_extension("trace")).expect("each scenario has a trace");
            let trace =
                trace.lines().filter(|line| !line.starts_with("oracle")).map(|line| format!("{line}\n")).collect();
            all.push((name, text, trace));
        }
    }
    all.sort();
    all
}

#[test]
fn traces_are_otps() {
    let mut different = Vec::new();
    for (name, text, expected) in recorded("scenarios") {
        let scenario = Scenario::read(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let trace = play(&scenario);
        match (trace == expected, is_excepted(&name)) {
            (true, true) => panic!("{name} is the same: it is no exception"),
            (false, false) => different.push(format!("{name}\n--- OTP\n{expected}--- ours\n{trace}")),
            _ => {}
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

/// Scenarios of our own, for rules that the recorded ones do not show. Their traces were made by this player and read
/// against the rules, line by line; they guard what was found right.
#[test]
fn derived_traces_stay_as_they_are() {
    for (name, text, expected) in recorded("derived") {
        let scenario = Scenario::read(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(play(&scenario), expected, "{name}");
    }
}

/// Plays files with real processes. Its end of output means that no process is left: each of them holds it.
fn play_with_processes(files: &[PathBuf]) -> Output {
    let mut player = command(env!("CARGO_BIN_EXE_otp_scenario"));
    player.arg("--processes").args(files).output().expect("the player starts")
}

fn file(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name).with_extension("scn")
}

/// Players that run at the same time.
const AT_ONCE: usize = 4;

#[test]
fn processes_leave_the_same_traces() {
    let mut all = Vec::new();
    for folder in ["scenarios", "derived"] {
        for (name, text, mut expected) in recorded(folder) {
            if is_excepted(&name) {
                expected = play(&Scenario::read(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}")));
            }
            all.push((file(folder, &name), expected));
        }
    }
    let (queue, different) = (Mutex::new(all), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("nobody panics with it").pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((file, expected)) = next() {
                    let Output { status, stdout, stderr } = play_with_processes(std::slice::from_ref(&file));
                    let (trace, told) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
                    if trace != expected || !status.success() {
                        let text = format!("--- expected\n{expected}--- {status}\n{trace}--- told\n{told}");
                        different.lock().expect("nobody panics with it").push(format!("{}\n{text}", file.display()));
                    }
                }
            });
        }
    });
    let different = different.into_inner().expect("nobody panics with it");
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn one_player_plays_file_after_file() {
    let all = [("scenarios", "h01-permanent-any-reason"), ("derived", "boot-error"), ("derived", "copies-limit")];
    let files: Vec<PathBuf> = all.iter().map(|(folder, name)| file(folder, name)).collect();
    let recorded: Vec<_> = [recorded("scenarios"), recorded("derived")].concat();
    let trace = |(_, name): &(&str, &str)| {
        let found = recorded.iter().find(|(other, ..)| other == name);
        found.map(|(_, _, trace)| trace.as_str()).expect("it is among the recorded ones")
    };
    let expected: String = all.iter().map(trace).collect();
    let Output { status, stdout, stderr } = play_with_processes(&files);
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {told}");
    assert_eq!(String::from_utf8_lossy(&stdout), expected);
    // No other supervisor is in them, so each good or failed start was that of a process.
    let starts = expected.lines().filter(|line| line.starts_with(" + ") || line.starts_with(" ! ")).count();
    assert_eq!(told.matches(" started, pid ").count(), starts, "{told}");
}

#[test]
fn a_player_that_cannot_read_a_file_says_which_line_and_fails() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unreadable.scn");
    fs::write(&path, "sup top\nworker a in=top colour=red\n").expect("the folder is for this");
    for options in [&[][..], &["--processes"]] {
        let mut player = command(env!("CARGO_BIN_EXE_otp_scenario"));
        let Output { status, stdout, stderr } = player.args(options).arg(&path).output().expect("the player starts");
        let told = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{told}");
        assert_eq!(told.trim_end(), format!("{}: line 2: `colour=` is no key of a worker", path.display()));
        assert!(stdout.is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_read_names_the_line() {
    let error = |text: &str| Scenario::read("x", text).expect_err("it cannot be read").to_string();
    assert_eq!(error("sup top\nworker a in=top colour=red"), "line 2: `colour=` is no key of a worker");
    assert_eq!(error("# no top\nworker a in=b"), "line 2: `a` is in `b`, which is no supervisor");
    assert_eq!(error("sup top\n\n> crash a error"), "line 3: `a` is not declared");
    assert_eq!(
        error("sup top\nworker a in=top\n> crash a badly"),
        "line 3: `badly` is no exit reason: normal, shutdown, shutdown:T, error, kill are"
    );
    assert_eq!(error("sup top\n> explode"), "line 2: `explode` is no event, or not with these arguments");
    assert_eq!(error("sup a in=b\nsup b in=a\nsup top"), "line 1: `a` is not below the top supervisor");
    assert_eq!(error(""), "line 1: there is no supervisor without in=");
}
