//! `reloads`, built once more: another program for a reload to find.

#[path = "reloads.rs"]
mod program;

use program::main;
