//! Where a socket is. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes that the path of a Unix socket may have (`sun_path` in `unix(7)`, without its end).
pub(crate) const PATH: usize = 107;

/// What a worker wants to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// An absolute path.
    Unix(Vec<u8>),
    /// A descriptor that the supervisor was started with.
    Descriptor(i32, Kind),
    /// A socket that the service manager passed under this name.
    Named(String, Kind),
}

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Place {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Place::Tcp(_) => Kind::Tcp,
            Place::Udp(_) => Kind::Udp,
            Place::Unix(_) => Kind::Unix,
            Place::Descriptor(_, kind) | Place::Named(_, kind) => *kind,
        }
    }

    /// Whether each bind of one worker is another socket: the system chooses the address.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self, Place::Tcp(address) | Place::Udp(address) if address.port() == 0)
    }

    /// A Unix socket's place, from a path and the directory that it may be relative to.
    pub(crate) fn unix(path: &Path, directory: &Path) -> io::Result<Place> {
        let absolute = directory.join(path);
        let bytes = absolute.as_os_str().as_bytes();
        if path.as_os_str().is_empty() || bytes.contains(&0) {
            let text = "the path of a Unix socket is not empty and has no byte 0 (abstract names are not supported)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Place::Unix(bytes.to_vec()))
    }
}

/// The shorter of a path's absolute form and the one relative to `directory`, as Node does.
///
/// # Source
/// Node's `cluster`: net-listen-relative-path.
pub(crate) fn shorter(path: &[u8], directory: &Path) -> io::Result<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let relative = path.strip_prefix(directory).ok().filter(|rest| !rest.as_os_str().is_empty());
    let fits = |path: &&Path| path.as_os_str().len() <= PATH;
    let shorter = Some(path).filter(fits).or(relative.filter(fits));
    shorter.map(Path::to_owned).ok_or_else(|| {
        let bytes = path.as_os_str().len();
        let text = format!(
            "the path {} has {bytes} bytes, and that of a Unix socket may have {PATH}: take a shorter one, or one in the supervisor's \
             directory",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Udp(address) => write!(f, "udp:{address}"),
            Place::Unix(path) => write!(f, "unix:{}", Path::new(OsStr::from_bytes(path)).display()),
            Place::Descriptor(number, _) => write!(f, "descriptor {number}"),
            Place::Named(name, _) => write!(f, "socket `{name}`"),
        }
    }
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Local {
    Ip(SocketAddr),
    /// Empty: it has no path.
    Unix(Vec<u8>),
}

impl Local {
    pub(crate) fn ip(&self) -> io::Result<SocketAddr> {
        match self {
            Local::Ip(address) => Ok(*address),
            Local::Unix(_) => Err(io::Error::other("a Unix socket has no IP address")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Local::Ip(_) => Path::new(""),
            Local::Unix(path) => Path::new(OsStr::from_bytes(path)),
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Ip(address) => address.fmt(f),
            Local::Unix(_) => write!(f, "unix:{}", self.path().display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_may_be_relative_to_the_directory_and_else_is_a_clear_error() {
        let deep = "/".to_owned() + &"d".repeat(120);
        let place = Place::unix(Path::new("a.sock"), Path::new(&deep)).unwrap();
        let Place::Unix(path) = &place else { panic!("{place:?}") };
        assert_eq!(shorter(path, Path::new(&deep)).unwrap(), Path::new("a.sock"));
        let error = shorter(path, Path::new("/elsewhere")).unwrap_err().to_string();
        assert!(error.contains("has 128 bytes") && error.contains("may have 107"), "{error}");
        assert_eq!(shorter(b"/tmp/a.sock", Path::new("/tmp")).unwrap(), Path::new("/tmp/a.sock"));
        assert!(Place::unix(Path::new(""), Path::new("/tmp")).is_err());
        assert!(Place::unix(Path::new("\0abstract"), Path::new("/tmp")).is_err());
    }
}
