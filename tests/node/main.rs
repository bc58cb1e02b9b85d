//! Twins of Node's own tests of its cluster, each named after one, and the page that says what became of all of them.
//!
//! The program `twin` plays the scenarios and checks them from inside, with processes.

mod datagrams;
mod ends;
mod life;
mod listening;
mod messages;
mod page;
mod passing;
mod settings;

use rclust_tests::{command, start};

const TWIN: &str = env!("CARGO_BIN_EXE_twin");

/// Plays a scenario to its end.
fn holds(scenario: &str) {
    let said = start(command(TWIN).arg(scenario)).end_with(0);
    assert!(said.contains("held"), "{said}");
}
