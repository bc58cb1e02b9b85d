//! The control link's socket: interprocess's local socket over one end of a socket pair.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use interprocess::local_socket::Stream;
use interprocess::os::unix::uds_local_socket::Stream as UnixStream;

/// One end of the link.
pub(crate) struct Socket(Stream);

impl Socket {
    pub(crate) fn new(fd: OwnedFd) -> Socket {
        Socket(Stream::UdSocket(UnixStream::from(fd)))
    }

    /// For ordinary reads, which drop descriptors that come along.
    pub(crate) fn stream(&self) -> &Stream {
        &self.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Stream::UdSocket(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
