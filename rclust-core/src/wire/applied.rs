//! What a worker makes of its own process before any of the user's code: a part of its boot message.

use std::collections::BTreeSet;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// See the module. `None` is left as the supervisor has it. In the order in which it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// RLIMIT_AS, in bytes; soft and hard, as the other limits.
    pub(crate) address_space: Option<u64>,
    /// RLIMIT_NOFILE.
    pub(crate) open_files: Option<u64>,
    /// RLIMIT_CORE, in bytes.
    pub(crate) core: Option<u64>,
    /// Niceness, absolute.
    pub(crate) nice: Option<i32>,
    /// The CPUs it may run on.
    pub(crate) cpus: Option<BTreeSet<u32>>,
    /// The working directory.
    pub(crate) directory: Option<OsString>,
    /// Supplementary groups.
    pub(crate) groups: Option<Vec<u32>>,
    /// Real, effective and saved group.
    pub(crate) gid: Option<u32>,
    /// Real, effective and saved user.
    pub(crate) uid: Option<u32>,
}

impl Applied {
    /// Whether something of it is a thread's, so that threads that run already would keep what they have.
    pub(crate) fn is_per_thread(&self) -> bool {
        let ids = self.groups.is_some() || self.gid.is_some() || self.uid.is_some();
        ids || self.nice.is_some() || self.cpus.is_some()
    }
}
