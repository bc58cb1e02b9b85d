//! Workers that are replaced at a limit, under load: no request fails, one worker at a time.

use std::net::SocketAddr;

use rclust_tests::client::get;
use rclust_tests::load::Load;
use rclust_tests::{Running, comes_true, command, procfs, start};
use rustix::process::Signal;

fn recycling(limit: &str, value: &str) -> (Running, SocketAddr) {
    let mut running = start(command(env!("CARGO_BIN_EXE_recycle")).env("ADDR", "127.0.0.1:0").env(limit, value));
    let address = running.own("listening on ").parse().expect("an address");
    (running, address)
}

/// Loads it until so many were recycled for this reason.
fn loses_nothing(limit: &str, value: &str, reason: &str, times: usize) {
    let (mut running, address) = recycling(limit, value);
    let load = Load::start(address, 8, "/");
    for _ in 0..times {
        let line = running.line(" is recycled: ");
        assert!(line.contains(reason), "{line}");
        // One more than there are: the next one waits for its turn (and the replaced ones drain).
        let starting = procfs::children(running.pid()).len();
        assert!(starting <= 3 + 1 + 3, "{starting} processes:\n{}", running.said());
    }
    load.goes_on(100);
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} were answered, and of others {failures:?}:\n{}", running.said());
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(!said.contains("(unexpected)") && !said.contains("restarting"), "{said}");
}

#[test]
fn by_messages() {
    loses_nothing("MAX_MESSAGES", "200", "it has handled", 4);
}

#[test]
fn by_connections() {
    loses_nothing("MAX_CONNECTIONS", "150", "it has taken", 4);
}

#[test]
fn by_age() {
    loses_nothing("MAX_AGE_MS", "700", "it is old enough", 4);
}

#[test]
fn by_memory_and_only_who_lost_it() {
    let (mut running, address) = recycling("MAX_RSS_MIB", "48");
    running.all_said(&["web[0] ready", "web[1] ready"]);
    let leaked = get(address, "/?leak=64").expect("an answer").body;
    let (who, rest) = leaked.split_once('#').expect("who answered");
    assert!(rest.contains("67108864 bytes lost"), "{leaked}");
    assert!(running.line(" is recycled: ").contains(&format!("{who} is recycled: its resident set is ")));
    let successor = format!("{who}#2:");
    assert!(comes_true(|| get(address, "/").is_ok_and(|answer| answer.body.starts_with(&successor))));
    let said = running.said();
    assert_eq!(said.matches(" is recycled").count(), 1, "{said}");
    running.signal(Signal::TERM);
    running.end_with(0);
}
