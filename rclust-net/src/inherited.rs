//! Sockets that the process was started with: those of a service manager by name, others by number.
//!
//! # Source
//! `sd_listen_fds(3)`: LISTEN_PID is for whom, LISTEN_FDS how many from 3 on, LISTEN_FDNAMES their names with colons between.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use crate::sys::inherited::duplicate;

/// The first descriptor of a service manager (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// Descriptors that a service manager passes at most, as far as we look.
const MOST: i32 = 1024;

/// What this process was started with.
#[derive(Debug, Default)]
struct Inherited {
    /// Duplicates: what a number meant at the start is what it means later, whatever is closed and opened meanwhile.
    numbers: BTreeMap<i32, OwnedFd>,
    names: Vec<(String, i32)>,
}

static INHERITED: OnceLock<Inherited> = OnceLock::new();

/// What a service manager says in the environment. Pure.
fn names(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Vec<(String, i32)> {
    let number = |name: &str| variable(name)?.parse::<i64>().ok();
    if number("LISTEN_PID") != Some(i64::from(pid)) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST.into()) as i32;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..FIRST + count)
        .map(|number| {
            let name = names.next().filter(|name| !name.is_empty());
            (name.unwrap_or("unknown").to_owned(), number)
        })
        .collect()
}

/// Looks at what the process has. The supervisor calls it at boot, while it has one thread and before it opens anything.
pub(crate) fn look(variable: impl Fn(&str) -> Option<String>) {
    INHERITED.get_or_init(|| {
        let mut numbers = BTreeMap::new();
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let open: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for number in open.into_iter().filter(|number| *number > 2) {
            if let Some(socket) = duplicate(number).ok().filter(is_bound) {
                numbers.insert(number, socket);
            }
        }
        Inherited { numbers, names: names(variable, std::process::id()) }
    });
}

/// Whether it is a socket that listens, or one of datagrams that is nobody's other end.
fn is_bound(socket: &OwnedFd) -> bool {
    let socket = socket2::SockRef::from(socket);
    match socket.r#type() {
        Ok(socket2::Type::STREAM) => socket.is_listener().unwrap_or(false),
        Ok(socket2::Type::DGRAM) => {
            socket.domain().is_ok_and(|domain| domain != socket2::Domain::UNIX) && socket.peer_addr().is_err()
        }
        _ => false,
    }
}

fn here() -> &'static Inherited {
    // A process that is no cluster's: what it has when it first asks.
    look(|name| std::env::var(name).ok());
    INHERITED.get_or_init(Inherited::default)
}

/// The socket that had this number at the start.
pub(crate) fn descriptor(number: i32) -> io::Result<OwnedFd> {
    match here().numbers.get(&number) {
        Some(socket) => socket.try_clone(),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "descriptor {number} was no bound socket when this program started (in a cluster: the supervisor's): pass one, or listen \
                 on a socket of your own with from_std"
            ),
        )),
    }
}

/// The socket that the service manager gave this name; of several, the first.
pub(crate) fn named(name: &str) -> io::Result<OwnedFd> {
    let here = here();
    if let Some((_, number)) = here.names.iter().find(|(known, _)| known == name) {
        return descriptor(*number);
    }
    let known: Vec<_> = here.names.iter().map(|(name, _)| format!("`{name}`")).collect();
    let text = if known.is_empty() {
        format!("no socket `{name}`: no service manager passed any (LISTEN_FDS, LISTEN_PID)")
    } else {
        format!("no socket `{name}` was passed: LISTEN_FDNAMES has {}", known.join(", "))
    };
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

#[cfg(test)]
mod tests {
    use super::names;

    fn of(pid: &str, fds: &str, given: Option<&str>) -> Vec<(String, i32)> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(fds.to_owned()),
            _ => given.map(str::to_owned),
        };
        names(variable, 7)
    }

    #[test]
    fn names_go_with_descriptors_from_3_on_and_only_to_whom_they_are_meant_for() {
        let all = of("7", "3", Some("http:admin"));
        assert_eq!(all, [("http".into(), 3), ("admin".into(), 4), ("unknown".into(), 5)]);
        assert_eq!(of("7", "1", None), [("unknown".into(), 3)]);
        for (pid, fds) in [("8", "3"), ("", "3"), ("7", "-2"), ("7", "many")] {
            assert_eq!(of(pid, fds, None), []);
        }
        assert_eq!(of("7", "99999999", None).len(), 1024);
    }
}
