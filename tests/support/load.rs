//! Clients in closed loops, and what became of their requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::{Connection, Failure};
use crate::eventually;

/// Clients until [`Load::end`]: half of them keep their connection, half open one for each request.
pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answered: AtomicU32,
    failures: Mutex<HashMap<&'static str, u32>>,
}

/// How many ports there are.
pub const PORTS: usize = 1 << 16;

/// Told of the first outcome of each connection, by the client's port; 0, if there was no connection.
pub trait Witness: Fn(u16, Result<(), Failure>) + Send + Sync + 'static {}

impl<F: Fn(u16, Result<(), Failure>) + Send + Sync + 'static> Witness for F {}

impl Load {
    /// So many clients, who ask for this path.
    pub fn start(address: SocketAddr, clients: usize, path: &'static str) -> Load {
        Load::witnessed(address, clients, path, |_, _| ())
    }

    /// The same, and somebody is told of every connection's outcome.
    pub fn witnessed(address: SocketAddr, clients: usize, path: &'static str, witness: impl Witness) -> Load {
        let (tally, witness) = (Arc::new(Tally::default()), Arc::new(witness));
        let client = |n: usize| {
            let (tally, witness) = (tally.clone(), witness.clone());
            let keeps = n % 2 == 1;
            thread::spawn(move || run(address, path, keeps, &tally, &*witness))
        };
        Load { clients: (0..clients).map(client).collect(), tally: tally.clone() }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> u32 {
        self.tally.answered.load(Ordering::Relaxed)
    }

    /// Waits for more answers than now by so many.
    pub fn goes_on(&self, answers: u32) {
        let so_far = self.answered();
        eventually("more answers", || (self.answered() > so_far + answers).then_some(()));
    }

    /// Waits for the clients to end; how many requests were answered, and how many failed in which way.
    pub fn end(self) -> (u32, HashMap<&'static str, u32>) {
        self.tally.stop.store(true, Ordering::Release);
        for client in self.clients {
            client.join().expect("a client");
        }
        let failures = self.tally.failures.lock().expect("no client panics with it").clone();
        (self.tally.answered.load(Ordering::Relaxed), failures)
    }
}

fn run(address: SocketAddr, path: &str, keeps: bool, tally: &Tally, witness: &dyn Witness) {
    let mut kept: Option<Connection> = None;
    while !tally.stop.load(Ordering::Acquire) {
        let fresh = kept.is_none();
        let outcome = match kept.take().map_or_else(|| Connection::open(address), Ok) {
            Ok(mut connection) => {
                let outcome = if keeps { connection.get(path) } else { connection.last(path) };
                if fresh {
                    witness(connection.port(), outcome.as_ref().map(|_| ()).map_err(|failure| *failure));
                }
                // The server may say that this was the last answer.
                if outcome.as_ref().is_ok_and(|response| response.header("connection") != Some("close")) && keeps {
                    kept = Some(connection);
                }
                outcome
            }
            Err(failure) => {
                witness(0, Err(failure));
                Err(failure)
            }
        };
        match outcome {
            Ok(response) => {
                assert!(response.header("content-length").is_some());
                tally.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                let kind = match failure {
                    Failure::Refused => "refused",
                    Failure::TimedOut => "timed out",
                    Failure::Cut if keeps => "cut keep-alive",
                    Failure::Cut => "cut short",
                };
                *tally.failures.lock().expect("no client panics with it").entry(kind).or_default() += 1;
            }
        }
    }
}
