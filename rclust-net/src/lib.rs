//! Listeners that belong to the supervisor, and the handoff of connections to its workers.
//!
//! This is `cluster::net` of the `rclust` crate and mirrors `tokio::net`: in a worker, `bind` asks the supervisor for a share
//! of a socket that it owns, so that the same address in several workers is one socket and a crash never closes a port.
//! Elsewhere it binds plainly.
//!
//! The supervisor accepts, and puts each connection into the queue of one slot. The queue outlives the processes on its reading
//! end: a connection that no program has taken is never lost with a worker. Who gets it, a [`Dispatch`] policy says; with two of
//! them ([`Dispatch::Shared`], [`Dispatch::PerSlot`]) workers accept themselves.
//!
//! - [`TcpListener`], [`UnixListener`] and [`UdpSocket`] are what a program has; [`TcpListener::builder`] sets the policy, limits, a name.
//! - A slot that takes none of its connections for 150 ms, while another has room, loses them to it.
//! - A slot holds at most 16 untaken connections of one listener. When nobody has room the supervisor stops accepting, and the
//!   kernel's backlog is the buffer.
//!
//! The supervisor binds what its workers ask for, with its own rights: a program whose workers have fewer than their supervisor
//! must not count on them to keep a worker from a port or a path.

mod accept;
mod answer;
#[cfg(feature = "axum")]
mod axum;
mod bind;
mod connection;
mod desk;
mod dispatch;
mod drain;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod give_way;
mod handoff;
mod house;
mod inherited;
mod kept;
mod kernel;
#[cfg(feature = "axum")]
mod last_calls;
mod listener;
mod load;
mod net;
mod open;
mod peek;
mod place;
mod quiet;
mod registry;
mod room;
mod serve;
mod share;
mod stall;
mod stats;
mod steer;
mod succession;
mod sys;
pub mod testing;
mod udp;
mod unix;

pub use connection::{Stream, TcpStream, UnixStream};
pub use desk::listeners;
pub use dispatch::custom::Policy;
pub use dispatch::{Arrival, Candidate, Dispatch};
pub use listener::{TcpListener, TcpListenerBuilder};
pub use registry::{register, register_key};
pub use stats::{SlotStats, Stats};
pub use udp::{UdpSocket, UdpSocketBuilder};
pub use unix::{UnixListener, UnixListenerBuilder};

#[cfg(feature = "axum")]
pub use crate::axum::PeerAddr;
#[cfg(feature = "axum")]
pub use crate::last_calls::{LastCalls, LastCallsFuture, LastCallsService};

use std::process::ExitCode;

use rclust_core::{Program, Settings};

/// Finds out which process this is, and plays its part: `rclust_core::boot` with listeners. The function that
/// `#[cluster::main]` expands to; any `main` may call it.
///
/// A worker is this program, started again with the same arguments and environment and a mark, so everything before the call
/// happens in every process. Call it once, early, while the process has one thread. See [`rclust_core::boot`] for the rest.
///
/// ```no_run
/// # use std::process::ExitCode;
/// # use rclust_core::{Context, Result, Settings};
/// use rclust_net::TcpListener;
///
/// fn main() -> ExitCode {
///     rclust_net::boot(Settings::new("echo"), rclust_core::body(serve))
/// }
///
/// async fn serve(cx: Context) -> Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:3000").await?;
///     loop {
///         tokio::select! {
///             connection = listener.accept() => { cx.spawn(async move { drop(connection) }); }
///             () = cx.shutdown() => return Ok(()),
///         }
///     }
/// }
/// ```
pub fn boot(settings: Settings, program: impl Program) -> ExitCode {
    rclust_core::boot_with(settings, program, vec![Box::new(net::Net)])
}
