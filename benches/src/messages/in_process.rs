//! Where the two sides of a system within one process run.

use std::future;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::runtime::{Builder, Handle};

use super::drive::{Peer, drive};
use super::scenario::{Orders, Places, SCENARIOS, Side};
use crate::process;

/// Plays a system to its end. `build` is given the receiver's runtime, and makes its middle worker in its own, the
/// sender's.
///
/// Unpinned that is one runtime of several threads, as `#[tokio::main]` makes it; on one CPU it is one of one thread;
/// and on two CPUs it is a thread with a runtime for each side.
pub(super) fn play<P: Peer>(args: &[&str], build: impl AsyncFnOnce(&Handle) -> Result<P>) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let Orders { places, budget } = Orders::read(args)?;
    places.take(Side::Sender)?;
    let runtime = match places {
        Places::Unpinned => Builder::new_multi_thread().enable_all().build()?,
        Places::Pinned { .. } => Builder::new_current_thread().enable_all().build()?,
    };
    let receiver = match places {
        Places::Pinned { .. } if !places.are_same() => far(places)?,
        _ => runtime.handle().clone(),
    };
    runtime.block_on(async {
        let peer = build(&receiver).await?;
        drive(&peer, &SCENARIOS, budget).await
    })
}

/// A runtime in a thread of its own on the receiver's CPU, for as long as the process lives.
fn far(places: Places) -> Result<Handle> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let built =
            places.take(Side::Receiver).and_then(|()| Ok(Builder::new_current_thread().enable_all().build()?));
        match built {
            Ok(runtime) => {
                // The other side waits for it.
                let _ = tell.send(Ok(runtime.handle().clone()));
                runtime.block_on(future::pending::<()>());
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    });
    told.recv().context("the receiver's thread")?
}
