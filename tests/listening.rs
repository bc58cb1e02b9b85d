//! Node's rules of listening: Unix sockets, UDP, IPv6, descriptors, a service manager's sockets, errors.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rclust::cluster::net;
use rclust_tests::lines::{Line, serving};
use rclust_tests::{comes_true, command, eventually, kill, start};
use rustix::io::FdFlags;
use rustix::process::Signal;

const LINES: &str = env!("CARGO_BIN_EXE_lines");

/// A directory of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("rclust-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unix(path: &Path) -> Line<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Line::over(stream)
}

#[test]
fn a_unix_socket_is_shared_outlives_its_workers_and_its_file_goes_at_the_end() {
    for dispatch in ["round_robin", "shared"] {
        let place = Place::new(&format!("unix-{dispatch}"));
        let path = place.0.join("lines.sock");
        let bind = format!("unix:{}", path.display());
        let (mut running, address) =
            serving(command(LINES).env("BIND", bind).env("DISPATCH", dispatch).env("MODE", "620"));
        assert_eq!(Path::new(&address), path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o620);
        let slots: HashSet<u32> = (0..20).map(|_| unix(&path).who("who").unwrap().0).collect();
        assert!(slots.len() == 4 || dispatch == "shared", "{slots:?}");
        for worker in running.workers() {
            kill(worker, Signal::KILL);
            assert!(path.exists());
            unix(&path).who("who").unwrap();
        }
        running.signal(Signal::TERM);
        running.line("stopping");
        running.end_with(0);
        assert!(!path.exists(), "{dispatch}");
    }
}

#[test]
fn a_shared_unix_socket_that_a_worker_shuts_down_is_bound_again() {
    let place = Place::new("unix-shut-down");
    let path = place.0.join("lines.sock");
    let bind = format!("unix:{}", path.display());
    let (mut running, _) = serving(command(LINES).env("BIND", bind).env("DISPATCH", "shared"));
    for _ in 0..3 {
        let (_, pid) = unix(&path).who("who").unwrap();
        rclust_tests::shut_listener_down(pid);
        // It says by nothing but its end that it is shut down: the kernel still calls it a listener.
        let again = || UnixStream::connect(&path).is_ok_and(|stream| Line::over(stream).who("who").is_ok());
        assert!(comes_true(again));
    }
    assert_eq!(running.workers().len(), 4);
    assert!(!running.said().contains("exited"));
}

#[test]
fn a_tree_that_gives_up_removes_the_file_too() {
    let place = Place::new("unix-give-up");
    let path = place.0.join("lines.sock");
    let (running, _) = serving(command(LINES).env("BIND", format!("unix:{}", path.display())).env("INTENSITY", "0"));
    // The pool gives up with the first death, its parent with the second of the pool.
    eventually("it gives up", || match UnixStream::connect(&path) {
        Ok(stream) => {
            // It may be closed by the end as well as by the abort.
            let _ = Line::over(stream).ask("abort");
            None
        }
        Err(_) => Some(()),
    });
    running.end_with(1);
    assert!(!path.exists());
}

#[test]
fn a_long_path_works_relative_to_the_directory_and_else_says_how_long_it_may_be() {
    let place = Place::new("unix-long");
    let deep = place.0.join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let (running, _) = serving(command(LINES).current_dir(&deep).env("BIND", "unix:lines.sock"));
    assert!(deep.join("lines.sock").exists());
    unix(Path::new(&format!("/proc/{}/cwd/lines.sock", running.pid()))).who("who").unwrap();
    running.signal(Signal::TERM);
    running.end_with(0);
    assert!(!deep.join("lines.sock").exists());
    let mut running = start(command(LINES).env("BIND", format!("unix:{}", deep.join("lines.sock").display())));
    let line = running.line("cannot bind: ");
    assert!(line.contains("may have 107"), "{line}");
}

fn answer(socket: &UdpSocket) -> (u32, u32) {
    let mut bytes = [0; 64];
    let n = socket.recv(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    let (slot, pid) = text.split_once(' ').unwrap();
    (slot.parse().unwrap(), pid.parse().unwrap())
}

#[test]
fn a_udp_socket_is_one_for_all_and_what_waits_in_it_outlives_them() {
    let (running, address) = serving(command(LINES).env("BIND", "udp:127.0.0.1:0"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.connect(&address).unwrap();
    client.send(b"who").unwrap();
    let first = answer(&client);
    // One that is stopped takes none: another does.
    kill(first.1, Signal::STOP);
    client.send(b"who").unwrap();
    assert_ne!(answer(&client), first);
    let old = running.workers();
    for worker in &old {
        kill(*worker, Signal::STOP);
    }
    for _ in 0..5 {
        client.send(b"who").unwrap();
    }
    for worker in &old {
        kill(*worker, Signal::KILL);
    }
    for _ in 0..5 {
        assert!(!old.contains(&answer(&client).1));
    }
}

#[test]
fn ipv6_alone_leaves_ipv4_free_and_both_take_both() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("no IPv6 here: not tested");
        return;
    }
    let (running, address) = serving(command(LINES).env("BIND", "[::]:0").env("V6_ONLY", "1"));
    let port = address.parse::<SocketAddr>().unwrap().port();
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("IPv4 is free");
    Line::from(IpAddr::V6(Ipv6Addr::LOCALHOST), &format!("[::1]:{port}")).unwrap().who("who").unwrap();
    drop(running);
    let (_running, address) = serving(command(LINES).env("BIND", "[::]:0"));
    let port = address.parse::<SocketAddr>().unwrap().port();
    Line::open(&format!("127.0.0.1:{port}")).unwrap().who("who").unwrap();
}

#[test]
fn who_was_refused_an_address_may_try_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut running = start(command(LINES).env("BIND", &address).env("RETRY", "1").env("WORKERS", "2"));
    for _ in 0..2 {
        assert!(running.line("cannot bind: ").contains("Address already in use"));
    }
    drop(taken);
    running.own("serving");
    let mut seen = HashSet::new();
    assert!(comes_true(|| {
        seen.insert(Line::open(&address).unwrap().who("who").unwrap().0);
        seen.len() == 2
    }));
}

/// A listener that children inherit under its number.
fn inheritable() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, FdFlags::empty()).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A shell that makes a listener the descriptor 3 of the program, as a service manager does.
fn manager(listener: &TcpListener, names: &str) -> Command {
    let mut shell = command("/bin/bash");
    let script = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={names}; exec \"$0\"",
        listener.as_raw_fd()
    );
    shell.arg("-c").arg(script).arg(LINES);
    shell
}

fn is_served(address: &str) {
    let mut seen = HashSet::new();
    assert!(comes_true(|| {
        seen.insert(Line::open(address).unwrap().who("who").unwrap().0);
        seen.len() == 4
    }));
}

#[test]
fn a_number_means_the_supervisors_descriptor_and_the_socket_outlives_the_cluster() {
    let (listener, address) = inheritable();
    let number = format!("fd:{}", listener.as_raw_fd());
    let (running, told) = serving(command(LINES).env("BIND", number).env("DISPATCH", "round_robin"));
    assert_eq!(told, address);
    is_served(&address);
    running.signal(Signal::TERM);
    running.end_with(0);
    // It is ours still: the next client waits in it.
    TcpStream::connect(&address).unwrap();
    let mut running = start(command(LINES).env("BIND", "fd:999"));
    let line = running.line("cannot bind: ");
    assert!(line.contains("descriptor 999") && line.contains("the supervisor's"), "{line}");
}

#[test]
fn a_service_managers_socket_is_adopted_by_name() {
    let (listener, address) = inheritable();
    // A client that came before the program was started.
    let mut early = Line::open(&address).unwrap();
    early.send("who\n").unwrap();
    let (running, told) = serving(manager(&listener, "web").env("BIND", "named:web").env("DISPATCH", "round_robin"));
    assert_eq!(told, address);
    early.receive().unwrap();
    is_served(&address);
    for pid in running.workers().into_iter().chain([running.pid()]) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let of_worker = pid != running.pid();
        let has = environment.windows(10).any(|word| word == b"LISTEN_FDS");
        // What /proc shows of the supervisor is what it was started with.
        assert!(!(of_worker && has), "a worker was told of descriptors that it does not have");
    }
    let mut running = start(manager(&listener, "web").env("BIND", "named:admin"));
    assert!(running.line("cannot bind: ").contains("LISTEN_FDNAMES has `web`"));
    let mut running = start(command(LINES).env("BIND", "named:web"));
    assert!(running.line("cannot bind: ").contains("no service manager passed any"));
}

#[test]
fn the_socket_of_workers_that_all_died_stays_open() {
    let (running, address) = serving(command(LINES).env("LAME", "0").env("WORKERS", "1"));
    let pid = Line::open(&address).unwrap().who("who").unwrap().1;
    kill(pid, Signal::KILL);
    eventually("its replacement, which never listens", || {
        running.workers().iter().any(|worker| *worker != pid).then_some(())
    });
    for _ in 0..20 {
        TcpStream::connect(&address).expect("the port is open");
    }
}

#[test]
fn a_bind_outside_a_runtime_is_an_error_that_says_where_it_belongs() {
    fn first<T>(bind: impl Future<Output = std::io::Result<T>>) -> String {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(bind).poll(&mut context) {
            std::task::Poll::Ready(Err(error)) => error.to_string(),
            _ => "no error".to_owned(),
        }
    }
    // This thread has no runtime, as a std::thread of a worker has none.
    let path = std::env::temp_dir().join("rclust-nowhere.sock");
    for said in [
        first(net::TcpListener::bind("127.0.0.1:0")),
        first(net::TcpListener::bind("localhost:0")),
        first(net::UdpSocket::bind("127.0.0.1:0")),
        first(net::UnixListener::bind(&path)),
    ] {
        assert!(said.contains("outside a tokio runtime: await it in the worker itself"), "{said}");
    }
    assert!(!path.exists());
}
