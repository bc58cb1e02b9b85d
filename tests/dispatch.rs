//! Dispatch policies: who gets a connection, and who gets it when that one dies.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rclust_tests::lines::{Line, number, serving};
use rclust_tests::{comes_true, command, eventually, kill, start};
use rustix::process::Signal;

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
