//! Ours: the `hello` of the README over bare hyper. `#[cluster::main]` expands to the same call of `rclust::boot`.

use std::net::SocketAddr;
use std::process::ExitCode;

use rclust::cluster::{Context, Result, net};
use rclust::{ProcessRole, Settings};
use rustix::process::Signal;

use crate::process;
use crate::served::{self, Notes};

/// `balanced|round_robin|sticky|shared|per_slot ADDRESS WORKERS`
pub(crate) fn play(args: &[&str]) -> ExitCode {
    let [dispatch, address, workers] = args else { return ExitCode::from(2) };
    let (Ok(address), Ok(workers)) = (address.parse(), workers.parse()) else { return ExitCode::from(2) };
    let dispatch = match *dispatch {
        "balanced" => net::Dispatch::Balanced,
        "round_robin" => net::Dispatch::RoundRobin,
        "sticky" => net::Dispatch::Sticky,
        "shared" => net::Dispatch::Shared,
        "per_slot" => net::Dispatch::PerSlot,
        _ => return ExitCode::from(2),
    };
    let settings = Settings::new("web").workers(workers).init(init);
    rclust::boot(settings, rclust::body(move |cx: Context| serve(cx, dispatch.clone(), address)))
}

/// The cluster ends with the harness, also if that is killed. Workers end with their supervisor anyway.
pub(crate) fn init(role: &ProcessRole) -> Result<()> {
    if *role == ProcessRole::Supervisor {
        process::end_with_parent(Signal::TERM)?;
    }
    Ok(())
}

async fn serve(cx: Context, dispatch: net::Dispatch, address: SocketAddr) -> Result<()> {
    let listener = net::TcpListener::builder().dispatch(dispatch).bind(address).await?;
    let (shutdown, notes) = (cx.shutdown(), Notes::open()?);
    let serving = async {
        loop {
            let (stream, peer) = listener.accept().await?;
            notes.note(peer);
            served::serve(stream, served::HELLO);
        }
    };
    tokio::select! {
        never = serving => never,
        () = shutdown => Ok(()),
    }
}
