//! Bytes and what they mean: frames, the control lane's words, users' messages.

pub(crate) mod applied;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod payload;
pub(crate) mod schema;
