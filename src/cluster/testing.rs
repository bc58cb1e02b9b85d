//! Tests of your own workers: in the test's process with a thread for each worker, or with real processes.
//!
//! # Unit tests: a thread for each worker
//!
//! Make the tree in a function of its own, and a test can start it: no `#[cluster::main]`, no list of roles, no `LocalSet`.
//!
//! ```
//! use rclust::cluster::{self, Child, Context, Reply, Supervisor, testing};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # enum Job { Add(u64), Total(Reply<u64>) }
//! # struct Sum(u64);
//! # impl cluster::Worker for Sum {
//! #     type Msg = Job;
//! #     type Args = u64;
//! #     async fn start(from: u64, _: &mut Context<Self>) -> cluster::Result<Self> { Ok(Sum(from)) }
//! #     async fn on_message(&mut self, job: Job, _: &mut Context<Self>) -> cluster::Result<()> {
//! #         match job { Job::Add(n) => self.0 += n, Job::Total(reply) => reply.send(self.0) }
//! #         Ok(())
//! #     }
//! # }
//!
//! fn tree() -> Supervisor {
//!     Supervisor::one_for_one().child(Child::<Sum>::new("sum").args(40))
//! }
//!
//! # /*
//! #[tokio::test]
//! # */
//! # #[tokio::main(flavor = "current_thread")]
//! async fn a_sum_begins_again_after_a_crash() {
//!     let cluster = testing::start(tree()).await.unwrap();
//!     let sum = cluster.worker::<Sum>("sum").unwrap();
//!     sum.send(Job::Add(2)).await.unwrap();
//!     assert_eq!(sum.ask(Job::Total).await.unwrap(), 42);
//!     cluster.crash("sum").await.unwrap();
//!     assert_eq!(sum.ask(Job::Total).await.unwrap(), 40);
//! }
//! # a_sum_begins_again_after_a_crash();
//! ```
//!
//! [`body`] is the same for a program whose body is the worker. [`probe`] gives a reference that a worker can be handed, and the
//! inbox behind it. Listeners work: bind to port 0 (each cluster has ports of its own), and take the address from the worker or
//! from an [`EventKind::Listening`](super::EventKind::Listening). The test's own code is no worker and binds plainly.
//!
//! Messages are encoded as between processes, so that what postcard cannot decode (`#[serde(untagged)]`, `flatten`) fails here.
//! Mailboxes, restarts, dead letters and exit reasons are those of processes, and so is the code behind them. What differs:
//!
//! | | with processes | here |
//! |---|---|---|
//! | a crash | also an abort, a fault in foreign code, `exit` | a panic that unwinds, a returned error, [`TestCluster::crash`]; the others end the test |
//! | a kill (a deadline, a start timeout, `crash`) | SIGKILL | that exit reason. The worker reads, sends and accepts nothing more at once, and its future is dropped at its next await, so that destructors run. A thread that is blocked is abandoned after 200 ms and stays until the test process ends |
//! | a worker's memory | its own | shared with the test: statics, environment, working directory |
//! | signals, limits, standard input | each process has its own | no signal is caught, no limit is set. What a child's settings demand of its process is refused by name ([`StartError::NeedsProcess`](super::StartError::NeedsProcess)) |
//! | who a thread belongs to | its process | the worker whose runtime it is of: spawned, local and blocking tasks. A bare `std::thread::spawn` belongs to nobody |
//! | the pid in events | the worker's | the test's |
//!
//! Several clusters in one test binary do not meet, also with equal names. Each worker costs two threads and some twenty
//! descriptors of the test's process. Time is real: do not pause tokio's clock, the workers'
//! clocks go on and the test's own questions time out at once.
//!
//! # Integration tests: real processes
//!
//! Cargo builds a package's binaries before its integration tests (`tests/*.rs`) and says where they are. Nothing of rclust is
//! needed there: start yours, wait for a line that it prints when it is ready, talk to it, stop it, look at its exit code.
//!
//! ```no_run
//! use std::io::{BufRead, BufReader, Read, Write};
//! use std::net::TcpStream;
//! use std::process::{Child, Command, Stdio};
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! /// Killed when the test ends, however it does; workers die with their supervisor.
//! struct Server(Child);
//!
//! impl Drop for Server {
//!     fn drop(&mut self) {
//!         let _ = self.0.kill();
//!         let _ = self.0.wait();
//!     }
//! }
//!
//! fn signal(name: &str, pid: u32) {
//!     let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
//!     assert!(status.success());
//! }
//!
//! # /*
//! #[test]
//! # */
//! fn the_server_answers_and_ends_in_order() {
//!     # macro_rules! env { ($name:literal) => { "the path of the binary `server`" } }
//!     let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
//!     // Port 0, so that tests can run side by side; a number of workers that does not depend on the machine.
//!     command.env("ADDR", "127.0.0.1:0").env("WEB_CONCURRENCY", "2");
//!     let mut server = Server(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
//!     let pid = server.0.id();
//!
//!     // Whatever hangs below hangs for so long only: killed, the server closes its output and its connections.
//!     let (finished, watched) = mpsc::channel::<()>();
//!     std::thread::spawn(move || {
//!         if watched.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
//!             signal("KILL", pid);
//!         }
//!     });
//!
//!     let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines().map_while(Result::ok);
//!     let ready = lines.find(|line| line.starts_with("listening on ")).expect("a server that is ready");
//!
//!     let mut client = TcpStream::connect(&ready["listening on ".len()..]).unwrap();
//!     client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
//!     let mut answer = String::new();
//!     client.read_to_string(&mut answer).unwrap();
//!     assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
//!
//!     signal("TERM", pid);
//!     // The output ends with the last of its processes.
//!     lines.for_each(drop);
//!     assert_eq!(server.0.wait().unwrap().code(), Some(0));
//!     drop(finished);
//! }
//! ```
//!
//! To crash a worker of it, have the program print its pid or read it from [`Cluster::events`](super::Cluster::events), and
//! send that a signal.

pub use rclust_net::testing::{TestCluster, body, body_with, probe, start, start_with};
