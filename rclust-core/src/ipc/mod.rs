//! The control lane: small frames between supervisor and worker, always read.

pub(crate) mod boot;
pub(crate) mod control;
pub(crate) mod link;
pub(crate) mod porter;
pub(crate) mod wear;
