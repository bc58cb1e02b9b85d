//! Which program a file is: told by what one `fstat` says of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// Device, inode and size of a program's file. Two processes with the same one run the same program: the supervisor holds
/// the file by a descriptor and starts it through that, and the kernel lets nobody write to a file that runs.
///
/// No times: a rename, a link or a `chmod` of the file (every deploy) changes its ctime, and `touch` its mtime, without
/// changing what runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: i64,
}

impl Identity {
    /// Reads the identity of an open file.
    #[allow(clippy::unnecessary_cast)] // the fields' types differ between architectures
    pub(crate) fn of(file: impl AsFd) -> io::Result<Identity> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Identity { device: stat.st_dev as u64, inode: stat.st_ino as u64, size: stat.st_size as i64 })
    }
}

/// Opens a program without the right to read it, only to name it: replacing its path does not change what it is.
pub(crate) fn open_program(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// The identity of the program that this process runs.
pub(crate) fn own_identity() -> io::Result<Identity> {
    Identity::of(open_program(Path::new("/proc/self/exe"))?)
}
