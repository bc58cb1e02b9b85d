//! Calls to the operating system. This folder holds the only `unsafe` of the crate; what it offers is safe to call.

pub(crate) mod alarm;
pub(crate) mod applied;
pub(crate) mod descriptors;
pub(crate) mod identity;
pub(crate) mod link;
pub(crate) mod memory;
#[cfg(all(test, rclust_loom))]
pub(crate) mod model;
pub(crate) mod process;
pub(crate) mod readiness;
pub(crate) mod shared;
