//! The two loops, and how a process comes to run one of them: where decisions become effects.

pub(crate) mod boot;
pub(crate) mod bury;
pub(crate) mod collect;
pub(crate) mod decider;
pub(crate) mod ground;
pub(crate) mod hear;
pub(crate) mod init;
pub(crate) mod keeper;
pub(crate) mod live;
pub(crate) mod open;
pub(crate) mod orders;
pub(crate) mod panic;
pub(crate) mod perform;
pub(crate) mod porter;
pub(crate) mod probe;
pub(crate) mod recycle;
pub(crate) mod reload;
pub(crate) mod seats;
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod supervise;
pub(crate) mod tell;
pub(crate) mod tend;
pub(crate) mod tracks;
pub(crate) mod work;
