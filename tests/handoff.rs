//! Connections: one port in all workers, handed to those who have room, not lost with those who die.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use rclust_tests::client::{Connection, Failure, get};
use rclust_tests::load::Load;
use rclust_tests::{Running, await_end, command, eventually, kill, procfs, start};
use rustix::process::{Resource, Rlimit, Signal};

const HTTP: &str = env!("CARGO_BIN_EXE_http");
const SERVER: &str = env!("CARGO_BIN_EXE_server");

fn http(workers: u32, dispatch: &str) -> (Running, SocketAddr) {
    let mut command = command(HTTP);
    command.env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", workers.to_string()).env("DISPATCH", dispatch);
    let mut running = start(&mut command);
    let address = running.own("listening on 127.0.0.1:");
    (running, SocketAddr::from(([127, 0, 0, 1], address.parse().expect("a port"))))
}

#[test]
fn round_robin_goes_in_turn_and_balanced_spreads_what_stays_open() {
    let (running, address) = http(4, "round_robin");
    all_are_dispatched_to(&running, address, 4);
    let workers: Vec<u32> = (0..40).map(|_| get(address, "/").unwrap().number("x-worker")).collect();
    for pair in workers.windows(2) {
        assert_eq!(pair[1], (pair[0] + 1) % 4, "{workers:?}");
    }
    drop(running);
    let (running, address) = http(4, "balanced");
    all_are_dispatched_to(&running, address, 4);
    let mut open: Vec<Connection> = (0..40).map(|_| Connection::open(address).unwrap()).collect();
    let mut counts = HashMap::new();
    for connection in &mut open {
        *counts.entry(connection.get("/").unwrap().number("x-worker")).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert!(counts.values().all(|count| (9..=11).contains(count)), "{counts:?}");
}

/// All workers are ready when the program says that it listens; the net thread may hear of it a moment later.
fn all_are_dispatched_to(running: &Running, address: SocketAddr, workers: usize) {
    assert_eq!(running.workers().len(), workers);
    let mut seen = std::collections::HashSet::new();
    assert!(rclust_tests::comes_true(|| {
        seen.insert(get(address, "/").unwrap().number("x-worker"));
        seen.len() == workers
    }));
}

#[test]
fn the_nth_port_0_is_the_same_in_all_workers_and_exclusive_ones_are_their_own() {
    let mut running = start(command(SERVER).arg("ports").env("WEB_CONCURRENCY", "3"));
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..9 {
        let line = loop {
            let line = running.line("server[");
            if !line.starts_with("rclust:") {
                break line;
            }
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        seen.entry(words[1].to_owned()).or_default().push(words[2..].join(" "));
    }
    for kind in ["first", "second", "exclusive"] {
        let mut addresses = seen[kind].clone();
        assert_eq!(addresses.len(), 3);
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), if kind == "exclusive" { 3 } else { 1 }, "{kind}: {addresses:?}");
    }
    assert_ne!(seen["first"][0], seen["second"][0]);
    assert!(seen["exclusive"].iter().all(|address| address.ends_with("false")));
}

#[test]
fn a_bind_error_reaches_the_worker_that_asked_as_itself() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut running = start(command(SERVER).arg("bind-error").env("WEB_CONCURRENCY", "2").env("ADDR", address));
    for _ in 0..2 {
        let line = running.line("] cannot bind: ");
        assert!(line.contains("AddrInUse Some(98)"), "{line}");
    }
}

#[test]
fn outside_a_cluster_it_is_a_plain_listener() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = rclust::cluster::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(!listener.is_shared());
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, connected) = tokio::join!(listener.accept(), client);
        let (stream, peer) = accepted.unwrap();
        assert_eq!(connected.unwrap().local_addr().unwrap(), peer);
        assert!(!stream.is_handed());
    });
}

#[test]
fn handlers_see_the_clients_address_and_a_crash_costs_only_its_own_request() {
    let (mut running, address) = http(2, "balanced");
    let mut connection = Connection::open(address).unwrap();
    assert!(connection.get("/peer").unwrap().body.starts_with("127.0.0.1:"));
    assert_eq!(get(address, "/crash").unwrap_err(), Failure::Cut);
    running.line("killed by SIGABRT");
    for _ in 0..10 {
        assert_eq!(get(address, "/").unwrap().body, "hello");
    }
    // A connection that is blocked does not hold up the others' workers.
    let blocked = thread::spawn(move || get(address, "/block?ms=700").map(|response| response.number("x-worker")));
    let done = (0..20).filter(|_| get(address, "/work?ms=1").is_ok()).count();
    assert_eq!(done, 20);
    blocked.join().unwrap().unwrap();
}

#[test]
fn under_load_and_random_kills_nothing_is_refused_and_no_descriptor_leaks() {
    let (mut running, address) = http(4, "balanced");
    // Before any connection: one that was just answered may still be closing here.
    let before = procfs::descriptors(running.pid());
    for _ in 0..8 {
        get(address, "/").unwrap();
    }
    let first = running.workers();
    let load = Load::start(address, 64, "/");
    let mut killed = Vec::new();
    for n in 0..20usize {
        load.goes_on(200);
        let victim = running.workers()[n * 7 % 4];
        kill(victim, Signal::KILL);
        await_end(victim);
        killed.push(victim);
        eventually("the replacement", || {
            let workers = running.workers();
            (workers.len() == 4 && !workers.contains(&victim)).then_some(())
        });
    }
    let (answered, failures) = load.end();
    println!("{answered} answered, failures {failures:?}, 20 kills");
    assert_eq!(failures.get("refused"), None, "{failures:?}");
    assert_eq!(failures.get("timed out"), None, "{failures:?}");
    // What fails was in a program's hands: at most what four workers had open at a kill.
    let cut: u32 = failures.values().sum();
    assert!(cut <= 20 * 64, "{failures:?}");
    assert!(killed.iter().filter(|pid| first.contains(pid)).count() >= 3);
    let workers = eventually("four workers that serve", || {
        let workers = running.workers();
        (workers.len() == 4 && (0..8).all(|_| get(address, "/").is_ok())).then_some(workers)
    });
    assert!(workers.iter().all(|pid| !killed.contains(pid)));
    let mut now = Vec::new();
    let settled = rclust_tests::comes_true(|| {
        now = procfs::descriptors(running.pid());
        now.len() == before.len()
    });
    assert!(settled, "descriptors before: {before:#?}\nnow: {now:#?}\n{}", running.said());
    running.signal(Signal::TERM);
    running.line("stopping");
    running.end_with(0);
}

#[test]
fn a_worker_at_its_descriptor_limit_is_not_killed_for_it() {
    // The limit is the program's own at start; the supervisor raises its, workers get it back.
    let mut shell = command("/bin/sh");
    shell.arg("-c").arg("ulimit -Sn 64; exec \"$0\"").arg(HTTP).env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", "1");
    let mut running = start(&mut shell);
    let port = running.own("listening on 127.0.0.1:").parse().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let worker = running.workers()[0];
    let mut open: Vec<Connection> =
        (0..200).map(|_| Connection::open(address).expect("the backlog takes it")).collect();
    // Each is served in the end, as those before it close.
    for (n, mut connection) in open.drain(..).enumerate() {
        let response = connection.get("/").unwrap_or_else(|failure| panic!("connection {n}: {failure:?}"));
        assert_eq!(response.number("x-pid"), worker, "the worker was replaced");
    }
    assert!(!running.said().contains("unexpected"));
}

#[test]
fn a_stopped_or_blocked_worker_holds_no_connection_hostage() {
    let (running, address) = http(2, "round_robin");
    all_are_dispatched_to(&running, address, 2);
    let stopped = running.workers()[0];
    kill(stopped, Signal::STOP);
    let began = Instant::now();
    let answers: Vec<u32> = (0..20).map(|_| get(address, "/").unwrap().number("x-pid")).collect();
    assert!(!answers.contains(&stopped));
    // One of them waited for the stopped one, and after that none was given to it.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    kill(stopped, Signal::CONT);
    let back = rclust_tests::comes_true(|| get(address, "/").unwrap().number("x-pid") == stopped);
    assert!(back, "it is given nothing any more");
    // One that blocks has nothing to tell either until it goes on; then both have their turns again.
    let blocked = thread::spawn(move || get(address, "/block?ms=3000").map(|response| response.number("x-pid")));
    let mut before = [0; 2];
    let alone = rclust_tests::comes_true(|| {
        before = [before[1], get(address, "/").unwrap().number("x-pid")];
        before[0] == before[1]
    });
    assert!(alone && !blocked.is_finished(), "the turns go past a worker that blocks");
    let blocked = blocked.join().unwrap().unwrap();
    assert!(rclust_tests::comes_true(|| get(address, "/").unwrap().number("x-pid") == blocked));
}

#[test]
fn a_worker_that_blocks_its_thread_is_told_of_once_with_what_to_do() {
    let (running, address) = http(1, "balanced");
    for _ in 0..2 {
        let blocked = thread::spawn(move || get(address, "/block?ms=700").map(|_| ()));
        // Requests without a pause: some of them wait behind it. (One that it takes together with that one is not waiting in the queue.)
        let mut others = Vec::new();
        while !blocked.is_finished() {
            let (done, is_done) = std::sync::mpsc::channel();
            others.push(thread::spawn(move || {
                get(address, "/").unwrap();
                let _ = done.send(());
            }));
            let _ = is_done.recv_timeout(Duration::from_millis(20));
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        blocked.join().unwrap().unwrap();
    }
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    let told: Vec<&str> = said.lines().filter(|line| line.contains("has taken no connection for 150 ms")).collect();
    assert!(told.len() == 1 && told[0].contains("web[0]") && told[0].contains("tokio::task::spawn_blocking"), "{said}");
}

#[test]
fn when_all_slots_are_full_the_backlog_is_the_buffer_and_waiting_costs_nothing() {
    let (running, address) = http(2, "balanced");
    all_are_dispatched_to(&running, address, 2);
    let workers = running.workers();
    for worker in &workers {
        kill(*worker, Signal::STOP);
    }
    let mut clients: Vec<Connection> = (0..100).map(|_| Connection::open(address).unwrap()).collect();
    for client in &mut clients {
        client.send("/").unwrap();
    }
    // Two slots hold 16 each; the supervisor's own descriptors do not grow with the others.
    let cost = |pid| (procfs::switches(pid), procfs::descriptors(pid).len());
    let settled = |before: &mut (u64, usize)| {
        let now = cost(running.pid());
        std::mem::replace(before, now) == now
    };
    let mut before = cost(running.pid());
    assert_eq!(clients[0].receive_within(Duration::from_millis(400)).unwrap_err(), Failure::TimedOut);
    assert!(rclust_tests::comes_true(|| settled(&mut before)));
    assert_eq!(clients[0].receive_within(Duration::from_millis(700)).unwrap_err(), Failure::TimedOut);
    assert!(settled(&mut before), "{before:?}, now {:?}", cost(running.pid()));
    for worker in &workers {
        kill(*worker, Signal::CONT);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.receive_within(Duration::from_secs(10));
        assert_eq!(response.unwrap_or_else(|failure| panic!("client {n}: {failure:?}")).body, "hello");
    }
}

#[test]
fn a_supervisor_without_descriptors_pauses_says_so_once_a_second_and_goes_on() {
    let (mut running, address) = http(1, "balanced");
    all_are_dispatched_to(&running, address, 1);
    let pid = rustix::process::Pid::from_raw(running.pid() as i32).unwrap();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // 0, 1 and 2 are open: no number below the limit is free, and nothing new can be opened.
    let exhausted = Rlimit { current: Some(3), maximum: limit.maximum };
    rustix::process::prlimit(Some(pid), Resource::Nofile, exhausted).unwrap();
    let mut client = Connection::open(address).unwrap();
    client.send("/").unwrap();
    running.line("accept pauses, clients wait in the backlog: Too many open files");
    assert_eq!(client.receive_within(Duration::from_millis(700)).unwrap_err(), Failure::TimedOut);
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    assert_eq!(client.receive_within(Duration::from_secs(10)).unwrap().body, "hello");
    let said = running.said();
    assert_eq!(said.matches("accept pauses").count(), 1, "{said}");
}

#[test]
fn a_port_can_be_bound_again_and_twice() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut running = start(command(SERVER).arg("rebind").env("WEB_CONCURRENCY", "2").env("ADDR", free.to_string()));
    let address: SocketAddr = running.after("] rebound ").parse().expect("an address");
    running.line("] rebound ");
    for _ in 0..20 {
        assert_eq!(get(address, "/").unwrap().body, "hello");
    }
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    assert!(!said.contains("unexpected"), "{said}");
}

#[test]
fn while_a_worker_drains_every_answer_is_the_last_one_of_its_connection() {
    let mut running = start(command(SERVER).arg("last-calls").env("WEB_CONCURRENCY", "1"));
    let address: SocketAddr = running.after("] first ").parse().unwrap();
    let mut connection = Connection::open(address).unwrap();
    assert_eq!(connection.get("/").unwrap().header("connection"), None);
    running.signal(Signal::TERM);
    // The worker hears of it a moment later.
    let last = eventually("the last answer", || {
        let response = connection.get("/").expect("it is not closed before");
        response.header("connection").map(str::to_owned)
    });
    assert_eq!(last, "close");
    assert_eq!(connection.get("/").unwrap_err(), Failure::Cut);
    drop(running);
}

#[test]
fn whatever_the_policy_nobody_is_refused_or_left_waiting_when_workers_stop_and_die() {
    for dispatch in ["balanced", "round_robin", "sticky", "shared", "per_slot"] {
        let (running, address) = http(3, dispatch);
        get(address, "/").unwrap();
        let load = Load::start(address, 24, "/");
        for n in 0..6usize {
            load.goes_on(100);
            let victim = running.workers()[n % 3];
            // The kernel does not know of a stopped worker: with PerSlot its queue waits, which is documented.
            if dispatch != "per_slot" {
                kill(victim, Signal::STOP);
                // It may have taken what each client has: with Sticky they are one client, with Shared it may be the one who is awake.
                match dispatch {
                    "sticky" | "shared" => {
                        assert!(get(address, "/").is_ok(), "a client that comes now is another worker's")
                    }
                    _ => load.goes_on(100),
                }
            }
            kill(victim, Signal::KILL);
            await_end(victim);
            eventually("the replacement", || {
                let workers = running.workers();
                (workers.len() == 3 && !workers.contains(&victim)).then_some(())
            });
        }
        let (answered, failures) = load.end();
        println!("{dispatch}: {answered} answered, failures {failures:?}, 6 kills");
        assert!(failures.keys().all(|kind| kind.starts_with("cut")), "{dispatch}: {failures:?}");
        assert!(failures.values().sum::<u32>() <= 6 * 24, "{dispatch}: {failures:?}");
    }
}
