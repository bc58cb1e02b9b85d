//! Settings of one worker's process.

use crate::holds;

#[test]
fn fork_env() {
    holds("fork_env");
}

#[test]
fn cwd() {
    holds("cwd");
}

#[test]
fn setup_primary_args() {
    holds("setup_primary_args");
}

#[test]
fn child_process_fork_stdio() {
    holds("child_process_fork_stdio");
}
