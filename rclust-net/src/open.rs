//! Makes the socket of a place: binds it, or takes one that the process was started with.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::inherited;
use crate::place::{Kind, Local, Place, shorter};

/// Beside the place: how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) v6_only: bool,
    pub(crate) backlog: u32,
    /// Mode bits of a Unix socket's file.
    pub(crate) mode: Option<u32>,
    /// Others of ours may listen there too (SO_REUSEPORT).
    pub(crate) group: bool,
}

/// A socket, non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: OwnedFd,
    pub(crate) local: Local,
    pub(crate) file: Option<SocketFile>,
}

/// The file of a Unix socket: removed with this value, if it is still the same file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<SocketFile> {
        // What is removed at the end, perhaps from another directory.
        let path = std::path::absolute(path)?;
        let identity = identity(&path)?;
        Ok(SocketFile { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Whoever removed it meanwhile has done our work.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses a bind that nothing would wake: tokio panics there.
pub(crate) fn in_runtime() -> io::Result<()> {
    let text = "a socket is bound outside a tokio runtime: await it in the worker itself (`start`, `on_message`, a body, a spawned task), \
                or enter the worker's runtime in your own thread with `tokio::runtime::Handle::block_on`";
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| io::Error::other(text))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens a place.
pub(crate) fn open(place: &Place, manner: Manner) -> io::Result<Opened> {
    match place {
        Place::Tcp(address) => {
            let socket = ip(*address, Type::STREAM, manner)?;
            socket.listen(i32::try_from(manner.backlog).unwrap_or(i32::MAX))?;
            opened(socket, None)
        }
        Place::Udp(address) => opened(ip(*address, Type::DGRAM, manner)?, None),
        Place::Unix(path) => unix(path, manner),
        Place::Descriptor(number, kind) => adopt(inherited::descriptor(*number)?, *kind, place),
        Place::Named(name, kind) => adopt(inherited::named(name)?, *kind, place),
    }
}

fn opened(socket: Socket, file: Option<SocketFile>) -> io::Result<Opened> {
    let local = socket.local_addr()?;
    let local = match local.as_socket() {
        Some(address) => Local::Ip(address),
        None => Local::Unix(local.as_pathname().map_or_else(Vec::new, |path| path.as_os_str().as_bytes().to_vec())),
    };
    Ok(Opened { socket: socket.into(), local, file })
}

fn ip(address: SocketAddr, kind: Type, manner: Manner) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        // Connections of a predecessor that are still closing do not hold the port. (With UDP it would let others share it.)
        socket.set_reuse_address(true)?;
    }
    if manner.group {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(manner.v6_only)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unix(path: &[u8], manner: Manner) -> io::Result<Opened> {
    let path = shorter(path, &std::env::current_dir()?)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile::new(path.clone())?;
    if let Some(mode) = manner.mode {
        // Before it listens: until then nobody can connect.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))?;
    }
    socket.listen(i32::try_from(manner.backlog).unwrap_or(i32::MAX))?;
    opened(socket, Some(file))
}

fn adopt(socket: OwnedFd, kind: Kind, place: &Place) -> io::Result<Opened> {
    let socket = Socket::from(socket);
    let (domain, stream) = (socket.domain()?, socket.r#type()? == Type::STREAM);
    let fits = match kind {
        Kind::Tcp => stream && domain != Domain::UNIX && socket.is_listener()?,
        Kind::Unix => stream && domain == Domain::UNIX && socket.is_listener()?,
        Kind::Udp => !stream && domain != Domain::UNIX,
    };
    if !fits {
        let wanted = match kind {
            Kind::Tcp => "a TCP socket that listens",
            Kind::Unix => "a Unix socket that listens",
            Kind::Udp => "a UDP socket",
        };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{place} is not {wanted}")));
    }
    socket.set_nonblocking(true)?;
    opened(socket, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sockets_file_has_its_mode_and_goes_with_it_unless_it_is_another_by_then() {
        let directory = std::env::temp_dir().join(format!("rclust-net-open-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.sock");
        let place = Place::unix(&path, &directory).unwrap();
        let manner = Manner { backlog: 1, mode: Some(0o640), ..Manner::default() };
        let opened = open(&place, manner).unwrap();
        assert_eq!(opened.local.path(), path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(open(&place, manner).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(opened);
        assert!(!path.exists());
        let opened = open(&place, manner).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "of somebody else").unwrap();
        drop(opened);
        assert!(path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
