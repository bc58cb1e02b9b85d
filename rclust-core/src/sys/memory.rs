//! Shared memory: a sealed memfd, and a mapping of it that is only ever read and written through copies and atomics.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, ptr};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Makes a memfd of `len` bytes whose size nobody can change any more (so that no mapping of it can fault).
///
/// # Source
/// `memfd_create(2)`, `F_ADD_SEALS` in `fcntl(2)`. MFD_NOEXEC_SEAL is Linux 6.3's; older kernels answer EINVAL.
pub fn create(name: &str, len: u64) -> io::Result<OwnedFd> {
    let fd = unsealed(name, len)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Makes a memfd of these bytes, which nobody can change any more.
pub(crate) fn create_sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = unsealed(name, 0)?;
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(&fd, &bytes[written..])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => written += n,
        }
    }
    rustix::fs::fcntl_add_seals(&fd, CONSTANT | SealFlags::SEAL)?;
    Ok(fd)
}

/// The seals of a memfd whose content is for ever what it is.
const CONSTANT: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// The size of a memfd that nobody can change any more; an error for any other descriptor.
pub(crate) fn sealed_size(fd: impl AsFd) -> io::Result<u64> {
    if !rustix::fs::fcntl_get_seals(&fd)?.contains(CONSTANT) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a payload's memory is not sealed"));
    }
    Ok(u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0))
}

fn unsealed(name: &str, len: u64) -> io::Result<OwnedFd> {
    // MFD_NOEXEC_SEAL, which rustix knows only by its number.
    let noexec = MemfdFlags::from_bits_retain(0x0008);
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, base | noexec) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, base),
        other => other,
    }
    .map_err(|error| {
        io::Error::other(format!(
            "memfd_create failed ({error}): rclust keeps mailboxes in memfds, a seccomp filter must allow memfd_create"
        ))
    })?;
    rustix::fs::ftruncate(&fd, len)?;
    Ok(fd)
}

/// A mapping of a memfd that nobody can change any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: memory that is only read, by this process and by everybody else.
unsafe impl Send for Sealed {}
// SAFETY: the same.
unsafe impl Sync for Sealed {}

impl Sealed {
    /// Maps the first `len` bytes of a memfd that is sealed against every change.
    pub(crate) fn new(fd: OwnedFd, len: usize) -> io::Result<Sealed> {
        let size = sealed_size(&fd)?;
        if len as u64 > size || len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a payload's memory is too small"));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice, within the file, whose size is sealed: no access can
        // raise SIGBUS. The mapping outlives the descriptor.
        // Private, because kernels before 6.7 refuse shared mappings of write-sealed files; never written, it is the same pages.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, &fd, 0)? };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Sealed { start, len })
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until the drop, initialised by the kernel, and constant: F_SEAL_WRITE is refused while anybody has a
        // writable mapping, and forbids new ones and every write.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: made in `new`, unmapped nowhere else; no reference into it outlives `self`. An error could only mean that
        // it is not mapped.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Reads a word of a memfd without mapping it.
pub(crate) fn peek(fd: impl AsFd, at: u64) -> io::Result<u64> {
    let mut word = [0; 8];
    peek_bytes(fd, at, &mut word)?;
    Ok(u64::from_ne_bytes(word))
}

/// Reads bytes of a memfd without mapping it.
pub(crate) fn peek_bytes(fd: impl AsFd, at: u64, into: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::pread(&fd, &mut into[filled..], at + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
    Ok(())
}

/// Writes a word of a memfd without mapping it.
pub(crate) fn poke(fd: impl AsFd, at: u64, word: u64) -> io::Result<()> {
    match rustix::io::pwrite(fd, &word.to_ne_bytes(), at)? {
        8 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// A shared, writable mapping of a whole memfd.
///
/// No reference into it is ever made but to its atomic words: the other side may write at any time.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    fd: Arc<OwnedFd>,
}

// SAFETY: the mapping is plain memory that stays valid until the drop; every access goes through copies and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods that write ordinary bytes are, like a peer's writes, races that readers tolerate
// because they copy first and check what they copied.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a memfd, which must have at least that many and be sealed against shrinking.
    pub fn new(fd: Arc<OwnedFd>, len: usize) -> io::Result<Mapping> {
        let seals = rustix::fs::fcntl_get_seals(&fd)?;
        let size = rustix::fs::fstat(&fd)?.st_size;
        if !seals.contains(SealFlags::SHRINK) || size < 0 || (size as u64) < len as u64 || len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a mailbox memory is not sealed or too small"));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice; the length is within the file, whose size is
        // sealed, so that no access can raise SIGBUS.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len, fd })
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at % 8 == 0 && at.checked_add(8).is_some_and(|end| end <= self.len), "word {at} is inside the mapping");
        // SAFETY: in bounds and aligned (the mapping begins at a page); all accesses to header words are atomic.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast::<u64>()) }
    }

    /// Reads a word.
    #[inline]
    pub fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }

    /// Writes a word.
    #[inline]
    pub fn store(&self, at: usize, value: u64, order: Ordering) {
        self.word(at).store(value, order);
    }

    /// Exchanges a word.
    #[inline]
    pub fn swap(&self, at: usize, value: u64, order: Ordering) -> u64 {
        self.word(at).swap(value, order)
    }

    /// Writes a word if it is `old`; whether it was.
    #[inline]
    pub fn exchange(&self, at: usize, old: u64, new: u64) -> bool {
        self.word(at).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Adds to a word and returns what it was.
    pub fn add(&self, at: usize, value: u64, order: Ordering) -> u64 {
        self.word(at).fetch_add(value, order)
    }

    /// Copies `bytes` in.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len), "a write stays inside the mapping");
        // SAFETY: in bounds; the source is a Rust slice and cannot overlap memory that no Rust reference points to.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len()) };
    }

    /// Copies bytes out, appending them to `into`.
    #[inline]
    pub fn read(&self, at: usize, len: usize, into: &mut Vec<u8>) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "a read stays inside the mapping");
        into.reserve(len);
        let old = into.len();
        // SAFETY: in bounds; `reserve` made room for `len` bytes behind `old`, and the copy initialises them. A peer
        // that writes meanwhile makes the copy garbage, nothing worse: it is checked afterwards.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(at), into.as_mut_ptr().add(old), len);
            into.set_len(old + len);
        }
    }

    /// Gives the pages of a byte range back to the system; they read as zero afterwards.
    pub fn release(&self, at: usize, len: usize) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.fd, flags, at as u64, len as u64)?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `new`, is unmapped nowhere else, and no reference into it outlives `self`.
        // An error could only mean that it is not mapped, which leaves nothing to do.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
