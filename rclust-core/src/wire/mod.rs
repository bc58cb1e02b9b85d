//! Bytes and what they mean: frames, the control lane's words, users' messages.

pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod payload;
#[cfg_attr(not(test), expect(dead_code, reason = "lanes do not compare fingerprints yet"))]
pub(crate) mod schema;
