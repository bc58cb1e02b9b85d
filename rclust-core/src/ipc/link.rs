//! The control lane's two ends: frames, and in one direction descriptors.
//!
//! It is a local-socket stream over a socket pair. The supervisor reads it with ordinary reads, for which the kernel drops
//! descriptors that a worker might send along; the worker reads with `recvmsg`, because its lanes arrive here.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use crate::sys::descriptors::{self, MAX_DESCRIPTORS};
use crate::sys::link::Socket;
use crate::sys::readiness;
use crate::wire::frame::{self, Decoder};

/// Read at once.
const CHUNK: usize = 4096;

/// How long a worker waits for its supervisor to read before it takes it for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// A frame on its way, with the descriptors that go with its first byte.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
}

impl Outgoing {
    pub(crate) fn new<T: Serialize>(value: &T, fds: Vec<Arc<OwnedFd>>) -> Result<Outgoing, postcard::Error> {
        Ok(Outgoing { bytes: frame::encode(value, fds.len())?, fds })
    }
}

/// The supervisor's end.
pub(crate) struct SupervisorEnd(AsyncFd<Socket>);

impl SupervisorEnd {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<SupervisorEnd> {
        Ok(SupervisorEnd(readiness::register(Socket::new(fd))?))
    }

    /// A decoder for what a worker may say.
    pub(crate) fn decoder() -> Decoder {
        Decoder::new(frame::LARGEST_UP)
    }

    /// Reads what is there, without waiting. `Ok(false)`: nothing more will come.
    pub(crate) fn read_now(&self, decoder: &mut Decoder) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match self.0.get_ref().stream().read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(n) => {
                decoder.push(&chunk[..n]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to read, and reads it. `Ok(false)`: the worker has closed its end.
    ///
    /// Cancel safe: what was read is in the decoder.
    pub(crate) async fn read(&self, decoder: &mut Decoder) -> io::Result<bool> {
        loop {
            let mut guard = self.0.readable().await?;
            match self.read_now(decoder) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                other => return other,
            }
        }
    }

    /// Writes as much of the frames as goes without waiting; `WouldBlock` when some are left.
    pub(crate) fn write_now(&self, queue: &mut VecDeque<Outgoing>) -> io::Result<()> {
        while let Some(frame) = queue.front_mut() {
            if write_some(self.0.get_ref(), frame)? {
                queue.pop_front();
            }
        }
        Ok(())
    }

    /// Waits until writing may go on, and writes. Cancel safe.
    pub(crate) async fn write(&self, queue: &mut VecDeque<Outgoing>) -> io::Result<()> {
        let mut guard = self.0.writable().await?;
        match self.write_now(queue) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                guard.clear_ready();
                Ok(())
            }
            other => other,
        }
    }
}

/// Writes some bytes of a frame; `true`: it is out.
fn write_some(socket: &Socket, frame: &mut Outgoing) -> io::Result<bool> {
    let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(|fd| fd.as_fd()).collect();
    match descriptors::send_with(socket, &frame.bytes, &fds) {
        Ok(n) => {
            frame.fds.clear();
            frame.bytes.drain(..n);
            Ok(frame.bytes.is_empty())
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// The worker's reading end: blocking for the boot message, asynchronous afterwards.
pub(crate) struct WorkerReader {
    socket: Arc<Socket>,
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    /// Closed for the moment of reading, so that a lane's descriptors have room in a process that is at its limit.
    spares: Vec<OwnedFd>,
}

/// The most descriptors that a frame has.
const SPARES: usize = 3;

impl WorkerReader {
    pub(crate) fn new(socket: Arc<Socket>) -> WorkerReader {
        WorkerReader { socket, decoder: Decoder::new(frame::LARGEST_DOWN), fds: VecDeque::new(), spares: Vec::new() }
    }

    /// Reads what is there. `Ok(false)`: the supervisor is gone.
    pub(crate) fn read_now(&mut self) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let mut fds = Vec::with_capacity(MAX_DESCRIPTORS);
        self.spares.clear();
        let received = descriptors::receive_with(&*self.socket, &mut chunk, &mut fds, RecvFlags::DONTWAIT);
        while self.spares.len() < SPARES {
            match rustix::io::fcntl_dupfd_cloexec(&*self.socket, 3) {
                Ok(spare) => self.spares.push(spare),
                // At the limit: what is there has to do.
                Err(_) => break,
            }
        }
        let received = received?;
        if received.truncated {
            return Err(io::Error::other(
                "descriptors of a control frame were dropped: this process is at its descriptor limit",
            ));
        }
        self.fds.extend(fds);
        self.decoder.push(&chunk[..received.bytes]);
        Ok(received.bytes > 0)
    }

    /// The next whole frame, with its descriptors.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let invalid = |error: frame::FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
        let Some((value, count)) = self.decoder.next::<T>().map_err(invalid)? else { return Ok(None) };
        if count > self.fds.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a control frame without its descriptors"));
        }
        Ok(Some((value, self.fds.drain(..count).collect())))
    }

    /// Waits, holding the thread, for the next frame.
    pub(crate) fn next_blocking<T: DeserializeOwned>(&mut self) -> io::Result<(T, Vec<OwnedFd>)> {
        loop {
            if let Some(frame) = self.next()? {
                return Ok(frame);
            }
            wait(&self.socket, PollFlags::IN, None)?;
            match self.read_now() {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The worker's writing end. Any thread may write; a write waits until the supervisor reads, which it always does.
pub(crate) struct WorkerWriter {
    socket: Arc<Socket>,
    one: Mutex<()>,
}

impl WorkerWriter {
    pub(crate) fn new(socket: Arc<Socket>) -> WorkerWriter {
        WorkerWriter { socket, one: Mutex::new(()) }
    }

    /// Sends a frame.
    pub(crate) fn send<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut frame = Outgoing::new(value, Vec::new()).map_err(io::Error::other)?;
        let _one = self.one.lock();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match write_some(&self.socket, &mut frame) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the supervisor does not read its control lane",
                        ));
                    }
                    wait(&self.socket, PollFlags::OUT, Some(left))?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn wait(socket: &Socket, what: PollFlags, limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut [PollFd::new(socket, what)], limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
