//! Every example runs, says what its header promises, and ends in order.

use rclust_tests::client::get;
use rclust_tests::{await_end, command, kill, start};
use rustix::process::Signal;

#[test]
fn hello_serves_one_port_from_several_processes() {
    let mut running = start(command(env!("CARGO_BIN_EXE_hello")).env("WEB_CONCURRENCY", "2"));
    running.line("ready");
    running.line("ready");
    let address = ([127, 0, 0, 1], 3000).into();
    // Both answer, as soon as the net thread has heard that both are ready.
    let mut answers = std::collections::HashSet::new();
    assert!(rclust_tests::comes_true(|| {
        answers.insert(get(address, "/").expect("an answer").body);
        answers.len() == 2
    }));
    assert!(answers.iter().all(|answer| answer.starts_with("hello from rclust")), "{answers:?}");
    kill(running.workers()[0], Signal::KILL);
    running.line("(unexpected)");
    running.line("ready");
    running.signal(Signal::INT);
    running.end_with(0);
}

#[test]
fn counter_goes_on_with_what_waited() {
    let said = start(&mut command(env!("CARGO_BIN_EXE_counter"))).end_with(0);
    for line in ["the total is 101", "with the ten that waited: 110", "dead: Died(Signal { signal: 6"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn tree_takes_down_who_belongs_together() {
    let mut running = start(&mut command(env!("CARGO_BIN_EXE_tree")));
    let mut pid = |name: &str| running.after(&format!("{name:<15} is process ")).parse::<u32>().expect("a process id");
    let (_clock, disk, index) = (pid("clock"), pid("store/disk"), pid("store/index"));
    running.line("the supervisor  is process");
    kill(disk, Signal::KILL);
    running.line("store/index     stops: Group");
    await_end(index);
    running.line("store/disk      is process");
    running.all(&["store/index     is process", "store/index ready"]);
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    let stops: Vec<&str> = said.lines().filter(|line| line.contains("stops: Shutdown")).collect();
    assert_eq!(stops.len(), 5, "{said}");
    assert!(stops[0].starts_with("ingest/writer") && stops[4].starts_with("clock"), "{stops:?}");
}
