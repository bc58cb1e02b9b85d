//! What a ring is made of: shared memory, and the fences around it. In the models (`.ci/loom`) both are loom's.

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(all(test, rclust_loom)))]
pub(crate) use {crate::sys::memory::Mapping, std::sync::atomic::fence};

#[cfg(all(test, rclust_loom))]
pub(crate) use crate::sys::model::{Mapping, fence};
