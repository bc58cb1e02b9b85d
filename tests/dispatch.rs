//! Dispatch policies: who gets a connection, and who gets it when that one dies.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rclust_tests::client::Connection;
use rclust_tests::lines::{Line, number, serving};
use rclust_tests::{Running, comes_true, command, eventually, kill, start};
use rustix::process::Signal;

const HTTP: &str = env!("CARGO_BIN_EXE_http");
const LINES: &str = env!("CARGO_BIN_EXE_lines");
const SERVER: &str = env!("CARGO_BIN_EXE_server");

fn client(n: u8) -> IpAddr {
    [127, 0, 0, n].into()
}

/// The slot of a client's address.
fn slot_of(address: &str, n: u8) -> u32 {
    Line::from(client(n), address).unwrap().who("who").unwrap().0
}

#[test]
fn sticky_clients_come_back_to_their_slot_also_after_its_death_and_its_neighbours() {
    let (running, address) = serving(command(LINES).env("DISPATCH", "sticky"));
    let slots: Vec<u32> = (1..40).map(|n| slot_of(&address, n)).collect();
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), 4, "{slots:?}");
    let again: Vec<u32> = (1..40).map(|n| slot_of(&address, n)).collect();
    assert_eq!(slots, again);
    let victim = Line::from(client(1), &address).unwrap().who("who").unwrap();
    kill(victim.1, Signal::KILL);
    // Meanwhile others serve its clients; everybody else stays where they are.
    for (n, slot) in (1..40).zip(&slots) {
        let now = slot_of(&address, n);
        assert!(now == *slot || *slot == victim.0, "client {n} moved from {slot} to {now}");
    }
    assert!(comes_true(|| slot_of(&address, 1) == victim.0), "its slot is back, and so are they");
    drop(running);
}

#[test]
fn first_bytes_decide_and_who_sends_none_holds_up_nobody() {
    let (_running, address) = serving(command(LINES).env("DISPATCH", "sticky_by:first_word"));
    // Few enough for one slot to hold them all untaken.
    let mut silent: Vec<_> = (0..12).map(|_| Line::open(&address).unwrap()).collect();
    let began = Instant::now();
    let mut seen = HashSet::new();
    for n in 0..20 {
        let word = format!("client{n}");
        let first = Line::open(&address).unwrap().who(&word).unwrap().0;
        seen.insert(first);
        // The same word in pieces, from elsewhere, with other words behind it.
        let mut pieces = Line::from(client(9), &address).unwrap();
        pieces.send(&word[..3]).unwrap();
        pieces.send(&word[3..]).unwrap();
        assert_eq!(pieces.who(" and more").unwrap().0, first);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(began.elapsed() < Duration::from_millis(900), "the silent ones held them up: {:?}", began.elapsed());
    // Who says no more is not waited for.
    let mut end = TcpStream::connect(&address).unwrap();
    end.write_all(b"no_word").unwrap();
    end.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    end.read_to_string(&mut answer).unwrap();
    assert!(answer.split_whitespace().count() == 2 && began.elapsed() < Duration::from_millis(950), "{answer}");
    // They go by their address when their time is up: all to one slot.
    let mut observer = Line::open(&address).unwrap();
    eventually("nobody is waited for", || (number(&observer.ask("stats").unwrap(), "waiting") == 0).then_some(()));
    let words = (0..).map(|n| format!("late{n}"));
    let slots: HashSet<u32> = silent.iter_mut().zip(words).map(|(line, word)| line.who(&word).unwrap().0).collect();
    assert_eq!(slots.len(), 1, "{slots:?}");
    // A panic is counted, and the client goes by its address too.
    let mut panics = Line::open(&address).unwrap();
    assert!(slots.contains(&panics.who("!bang").unwrap().0));
    assert_eq!(number(&panics.ask("stats").unwrap(), "panics"), 1);
}

#[test]
fn a_policy_of_ones_own_decides_and_its_panic_is_counted_and_costs_nothing() {
    let (_running, address) = serving(command(LINES).env("DISPATCH", "custom:last"));
    let mut lines: Vec<_> = (0..8).map(|_| Line::open(&address).unwrap()).collect();
    let slots: Vec<u32> = lines.iter_mut().map(|line| line.who("who").unwrap().0).collect();
    assert_eq!(slots[..2], [2, 2]);
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), 4, "{slots:?}");
    assert_eq!(number(&lines[0].ask("stats").unwrap(), "panics"), 6);
}

#[test]
fn in_the_parameter_form_policies_are_registered_by_init() {
    let mut running = start(command(SERVER).arg("custom").env("WEB_CONCURRENCY", "3").env("DISPATCH", "custom:second"));
    let address = running.after("] first ");
    let who = || rclust_tests::client::get(address.parse().unwrap(), "/").unwrap().number("x-worker");
    assert!(comes_true(|| who() == 1));
    let workers: HashSet<u32> = (0..10).map(|_| who()).collect();
    assert_eq!(workers, HashSet::from([1]));
}

#[test]
fn a_name_that_is_not_registered_is_an_error_that_says_what_to_do() {
    let mut running = start(command(LINES).env("DISPATCH", "custom:frist"));
    let line = running.line("cannot bind: ");
    assert!(line.contains("`frist`") && line.contains("cluster::net::register") && line.contains("`last`"), "{line}");
}

#[test]
fn stats_add_up() {
    let (running, address) = serving(command(LINES).env("WORKERS", "2").env("DISPATCH", "round_robin"));
    let mut lines: Vec<_> = (0..6).map(|_| Line::open(&address).unwrap()).collect();
    for line in &mut lines {
        line.who("who").unwrap();
    }
    let stats = lines[0].ask("stats").unwrap();
    assert_eq!((number(&stats, "accepted"), number(&stats, "handed"), number(&stats, "moved")), (6, 6, 0), "{stats}");
    assert_eq!(stats.matches("open: 3, untaken: 0").count(), 2, "{stats}");
    // What a stopped worker was handed is moved; what it has open is its own.
    let stopped = lines[1].who("who").unwrap();
    kill(stopped.1, Signal::STOP);
    let mut moved: Vec<_> = (0..4).map(|_| Line::open(&address).unwrap()).collect();
    for line in &mut moved {
        assert_ne!(line.who("who").unwrap(), stopped);
    }
    let stats = lines[0].ask("stats").unwrap();
    let moves = number(&stats, "moved");
    assert!((1..=2).contains(&moves), "{stats}");
    assert_eq!(number(&stats, "handed"), 10 + moves, "{stats}");
    assert!(stats.contains("takes: false") && stats.contains("open: 7") && stats.contains("open: 3"), "{stats}");
    kill(stopped.1, Signal::KILL);
    eventually("the dead count zero", || {
        let stats = lines[0].ask("stats").unwrap();
        (!stats.contains("takes: false") && stats.contains("open: 0")).then_some(())
    });
    drop(running);
}

/// All workers are stopped, and these clients wait in the kernel.
fn waiting(running: &Running, address: &str, clients: usize) -> Vec<Line<TcpStream>> {
    for worker in running.workers() {
        kill(worker, Signal::STOP);
    }
    let mut lines: Vec<_> = (0..clients).map(|_| Line::open(address).unwrap()).collect();
    for line in &mut lines {
        line.send("who\n").unwrap();
    }
    lines
}

#[test]
fn what_no_program_has_taken_outlives_every_worker() {
    for dispatch in ["balanced", "shared", "per_slot"] {
        let (running, address) = serving(command(LINES).env("DISPATCH", dispatch));
        let mut seen = HashSet::new();
        assert!(comes_true(|| {
            seen.insert(Line::open(&address).unwrap().who("who").unwrap().0);
            seen.len() == 4 || (dispatch == "shared" && !seen.is_empty())
        }));
        for _ in 0..3 {
            let mut lines = waiting(&running, &address, 20);
            let old = running.workers();
            for worker in &old {
                kill(*worker, Signal::KILL);
            }
            for line in &mut lines {
                let answer = line.receive().unwrap_or_else(|error| panic!("{dispatch}: {error}"));
                let pid = answer.split_once(' ').unwrap().1.parse().unwrap();
                assert!(!old.contains(&pid));
            }
            eventually("four workers", || (running.workers().len() == 4).then_some(()));
        }
    }
}

#[test]
fn what_a_program_has_in_hand_and_has_not_touched_outlives_two_workers_and_not_three() {
    let (mut running, address) = serving(command(LINES).env("WORKERS", "1").env("FATAL", "5"));
    let mut deadly = Line::open(&address).unwrap();
    assert!(deadly.ask("who").is_err(), "three workers have died with it");
    let mut next = Line::open(&address).unwrap();
    let (_, pid) = next.who("who").expect("two workers died with it in their hands, the third answers");
    assert_eq!(running.workers(), [pid]);
    let stats = next.ask("stats").unwrap();
    let stat = |name| number(&stats, name);
    assert_eq!((stat("refused"), stat("moved"), stat("accepted")), (1, 5, 2), "{stats}");
    assert_eq!(running.said().matches("killed by SIGABRT").count(), 5, "{}", running.said());
}

#[test]
fn what_a_slow_program_has_in_hand_stays_with_it() {
    // Longer than others are let wait for it.
    let (mut running, address) = serving(command(LINES).env("WORKERS", "2").env("SLOW", "400"));
    let mut lines: Vec<_> = (0..8).map(|_| Line::open(&address).unwrap()).collect();
    for line in &mut lines {
        line.send("who\n").unwrap();
    }
    for (n, line) in lines.iter_mut().enumerate() {
        let answer = line.receive().unwrap_or_else(|error| panic!("client {n}: {error}\n{}", running.said()));
        assert!(running.workers().iter().any(|worker| answer.ends_with(&format!(" {worker}"))), "{answer}");
    }
}

#[test]
fn the_queue_of_a_slot_that_stays_down_or_was_removed_is_for_others() {
    let (mut running, address) = serving(command(LINES).env("DISPATCH", "per_slot").env("LAME", "3"));
    let by_slot = |slot: u32| {
        eventually("its process", || {
            Line::open(&address).unwrap().who("who").ok().filter(|who| who.0 == slot).map(|who| who.1)
        })
    };
    let lame = by_slot(3);
    kill(lame, Signal::STOP);
    let mut lines: Vec<_> = (0..60).map(|_| Line::open(&address).unwrap()).collect();
    for line in &mut lines {
        line.send("who\n").unwrap();
    }
    kill(lame, Signal::KILL);
    running.line("does not come up");
    let slots: HashSet<u32> =
        lines.iter_mut().map(|line| line.receive().unwrap()[..1].parse::<u32>().unwrap()).collect();
    assert_eq!(slots, HashSet::from([0, 1, 2]));
    // New ones do not go there at all, where the system lets itself be told so.
    for _ in 0..40 {
        assert_ne!(Line::open(&address).unwrap().who("who").unwrap().0, 3);
    }
    assert!(number(&Line::open(&address).unwrap().ask("stats").unwrap(), "moved") > 0);
    // A slot that is no more: stopped, so that it cannot take what comes until the tree has killed it.
    let last = by_slot(2);
    kill(last, Signal::STOP);
    let mut lines: Vec<_> = (0..60).map(|_| Line::open(&address).unwrap()).collect();
    for size in [3, 2] {
        running.signal(Signal::USR1);
        running.line(&format!("resized to {size}: Ok"));
    }
    for line in &mut lines {
        assert!(line.who("who").unwrap().0 < 2);
    }
}

#[test]
fn a_shared_listener_that_a_worker_shuts_down_is_bound_again() {
    let (mut running, address) = serving(command(LINES).env("DISPATCH", "shared"));
    for _ in 0..3 {
        let (_, pid) = Line::open(&address).unwrap().who("who").unwrap();
        rclust_tests::shut_listener_down(pid);
        assert!(comes_true(|| Line::open(&address).is_ok_and(|mut line| line.who("who").is_ok())));
    }
    // Nobody needed to accept for that: the supervisor noticed.
    assert_eq!(running.workers().len(), 4);
    assert!(!running.said().contains("exited"));
}

#[test]
fn what_waits_when_the_tree_stops_is_answered() {
    for dispatch in ["balanced", "sticky", "shared", "per_slot"] {
        let mut running =
            start(command(HTTP).env("DISPATCH", dispatch).env("WEB_CONCURRENCY", "2").env("ADDR", "127.0.0.1:0"));
        let address = running.own("listening on ").parse().unwrap();
        let workers = running.workers();
        for worker in &workers {
            kill(*worker, Signal::STOP);
        }
        let mut clients: Vec<_> = (0..10).map(|_| Connection::open(address).unwrap()).collect();
        for client in &mut clients {
            client.send("/").unwrap();
        }
        running.signal(Signal::TERM);
        running.line("SIGTERM: stopping");
        for worker in &workers {
            kill(*worker, Signal::CONT);
        }
        for client in &mut clients {
            let response = client.receive_within(Duration::from_secs(5));
            assert_eq!(response.unwrap_or_else(|failure| panic!("{dispatch}: {failure:?}")).body, "hello");
        }
        drop(clients);
        running.end_with(0);
    }
}

#[test]
fn limits_hold_and_the_rest_waits_or_goes_to_others() {
    // Node's test of maxConnections: 0, 1 and 9 of ten.
    for dispatch in ["round_robin", "shared", "per_slot"] {
        let mut command = command(LINES);
        command.env("WORKERS", "3").env("MOST_EACH", "0,1,9").env("DISPATCH", dispatch);
        let (_running, address) = serving(&mut command);
        if dispatch == "per_slot" {
            // What the kernel put into the queue of a worker that wants no more waits there.
            continue;
        }
        let mut lines: Vec<_> = (0..10).map(|_| Line::open(&address).unwrap()).collect();
        let mut slots: Vec<u32> = lines.iter_mut().map(|line| line.who("who").unwrap().0).collect();
        slots.sort_unstable();
        assert_eq!(slots, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2], "{dispatch}");
        // The eleventh waits until one of them ends.
        let mut late = Line::open(&address).unwrap();
        late.send("who\n").unwrap();
        late.within(Duration::from_millis(300)).unwrap().receive().unwrap_err();
        lines.pop();
        late.within(Duration::from_secs(10)).unwrap().receive().unwrap();
    }
    let (_running, address) = serving(command(LINES).env("WORKERS", "3").env("MOST", "5"));
    let mut lines: Vec<_> = (0..5).map(|_| Line::open(&address).unwrap()).collect();
    for line in &mut lines {
        line.who("who").unwrap();
    }
    let mut late = Line::open(&address).unwrap();
    late.send("who\n").unwrap();
    late.within(Duration::from_millis(300)).unwrap().receive().unwrap_err();
    assert_eq!(number(&lines[0].ask("stats").unwrap(), "accepted"), 5);
    lines.remove(2);
    late.within(Duration::from_secs(10)).unwrap().receive().unwrap();
}

#[test]
fn a_limit_that_the_policy_cannot_keep_is_refused() {
    let mut running = start(command(LINES).env("DISPATCH", "shared").env("MOST", "5"));
    assert!(running.line("cannot bind: ").contains("max_connections_per_worker"));
}

#[test]
fn the_supervisors_body_sees_all_listeners() {
    let (mut running, address) = serving(&mut command(LINES));
    let line = running.line("the supervisor sees ");
    assert!(line.contains(&format!("address: \"{address}\"")) && line.matches("takes: true").count() == 4, "{line}");
    let error = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = error.block_on(rclust::cluster::net::listeners()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
}

#[test]
fn a_worker_that_lies_about_its_connections_does_not_keep_them() {
    for dispatch in ["balanced", "round_robin"] {
        let mut command = command(LINES);
        let (mut running, address) = serving(command.env("DISPATCH", dispatch).env("LIAR", "1").env("WORKERS", "3"));
        let began = Instant::now();
        let mut lines: Vec<_> = (0..100).map(|_| Line::open(&address).unwrap()).collect();
        for line in &mut lines {
            assert_ne!(line.who("who").unwrap().0, 1);
        }
        // Once it had them for a moment; after that it is given none.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(running.workers().len(), 3);
        assert!(!running.said().contains("exited"));
    }
}
