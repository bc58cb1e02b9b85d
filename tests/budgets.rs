//! Budgets: descriptors, and the system's choice of whom to kill.

use rclust_tests::client::get;
use rclust_tests::{command, procfs, start};

const HTTP: &str = env!("CARGO_BIN_EXE_http");

fn supervisor_of(workers: u32) -> (usize, Vec<String>) {
    let mut command = command(HTTP);
    command.env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", workers.to_string());
    let mut running = start(&mut command);
    let port: u16 = running.own("listening on 127.0.0.1:").parse().expect("a port");
    for _ in 0..2 * workers {
        get(([127, 0, 0, 1], port).into(), "/").expect("an answer");
    }
    assert_eq!(running.workers().len() as u32, workers);
    for worker in running.workers() {
        let score = std::fs::read_to_string(format!("/proc/{worker}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "300", "the supervisor must not be the kernel's first choice");
    }
    let fds = procfs::descriptors(running.pid());
    (fds.len(), fds)
}

#[test]
fn an_idle_worker_costs_the_supervisor_at_most_eight_descriptors_and_two_per_listener() {
    let (two, _) = supervisor_of(2);
    let (ten, fds) = supervisor_of(10);
    let each = (ten - two) as f64 / 8.0;
    println!("{each} descriptors for a worker and its share of one listener; {two} with 2 workers");
    assert!(each <= 8.0 + 2.0, "{each} per worker: {fds:#?}");
}

#[test]
fn the_supervisor_raises_its_descriptor_limit_and_workers_get_the_old_one_back() {
    let mut shell = command("/bin/sh");
    shell.arg("-c").arg("ulimit -Sn 100; exec \"$0\"").arg(HTTP).env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", "1");
    let mut running = start(&mut shell);
    running.own("listening on 127.0.0.1:");
    let soft = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    assert_eq!(soft(running.workers()[0]), "100");
    assert_ne!(soft(running.pid()), "100");
}
