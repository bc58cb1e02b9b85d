//! System calls that rustix and socket2 do not have: the only `unsafe` of this crate.

pub(crate) mod inherited;
pub(crate) mod reuseport;
