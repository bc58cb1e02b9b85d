//! The supervision tree as a pure state machine: no process, no clock, no randomness of its own.
//!
//! [`machine::Tree`] is told what happened ([`event::Event`]) and when, says what is to be done
//! ([`event::Action`]) and when it wants to be woken. It follows OTP's supervisor rule for rule; `RULES n` in the
//! comments names the rule. A supervisor node of the tree behaves as an OTP supervisor process does: it has a queue
//! of its own, and handles deaths, retries and calls from it one at a time.
//!
//! The promise of this folder: whatever events come, in whatever order, nothing here panics, waits, or does work
//! that grows with what has happened before.

pub mod event;
pub mod machine;
pub mod plan;

mod calls;
mod child;
mod intensity;
mod leave;
mod node;
mod outcome;
mod pool;
mod restart;
mod rolling;
mod shutdown;
mod slots;
mod strategy;
