//! The recipe for users' integration tests, as the docs of `cluster::testing` have it: plain std, a binary of one's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Killed when the test ends, however it does; workers die with their supervisor.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_server_answers_and_ends_in_order() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_http"));
    // Port 0, so that tests can run side by side; a number of workers that does not depend on the machine.
    command.env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", "2");
    let mut server = Server(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let pid = server.0.id();

    // Whatever hangs below hangs for so long only: killed, the server closes its output and its connections.
    let (finished, watched) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal("KILL", pid);
        }
    });

    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.starts_with("listening on ")).expect("a server that is ready");

    let mut client = TcpStream::connect(&ready["listening on ".len()..]).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");

    signal("TERM", pid);
    // The output ends with the last of its processes.
    lines.for_each(drop);
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    drop(finished);
}

/// The docs' copy and this one are the same, but for the name of the binary.
#[test]
fn the_docs_have_this_recipe() {
    let docs: Vec<String> = include_str!("../src/cluster/testing.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.trim().replace("CARGO_BIN_EXE_server", "CARGO_BIN_EXE_http"))
        .collect();
    let own = include_str!("recipe.rs").split("/// The docs' copy").next().unwrap();
    for line in own.lines().skip(2).map(str::trim) {
        assert!(docs.iter().any(|doc| doc == line), "the docs lack: {line}");
    }
}
