//! Every recorded scenario of OTP's supervisor, played on the pure machine; the traces have to be the same.

#[path = "../examples/otp_scenario/mod.rs"]
mod otp_scenario;

use std::fs;
use std::path::PathBuf;

use otp_scenario::{Scenario, play};

/// Where ours differs on purpose (RULES.md, last section).
const EXCEPTIONS: &[(&str, &str)] = &[
    ("h61-simple-auto-shutdown", "simple_one_for_one with auto_shutdown is refused, as by later OTP releases"),
    ("h68", "terminating a restarting copy makes OTP count one active child too few"),
];

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
        let excepted =
            EXCEPTIONS.iter().any(|(exception, _)| name == *exception || name.starts_with(&format!("{exception}-")));
        match (trace == expected, excepted) {
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
