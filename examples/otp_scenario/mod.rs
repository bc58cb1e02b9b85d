//! Plays recorded OTP scenarios on our tree and prints the same traces.
//!
//! [`scenario`] reads a file, [`player`] plays it: it feeds the pure machine, and puts a [`world`] beneath it in which
//! workers live. The simulated world has a clock of its own; another world may start real processes.
//!
//! Source of both formats: FORMAT.md beside the recorded scenarios.

mod calls;
pub(crate) mod player;
pub(crate) mod scenario;
mod terms;
mod trace;
mod who;
pub(crate) mod world;

pub(crate) use player::play;
pub(crate) use scenario::Scenario;
