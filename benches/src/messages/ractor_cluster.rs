//! Ractor's nodes: a process for each, connected by TCP on loopback. This one sends, a second receives, a third can
//! send to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ractor::{Actor, ActorRef, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, client_connect};
use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::drive::drive;
use super::ractor::{Actors, Counter, Job};
use super::scenario::{Orders, SCENARIOS, Side, take_cpu};
use crate::process::{self, System, free_address};

/// Nodes find each other's actors by their groups.
const RECEIVER: &str = "receiver";
const MIDDLE: &str = "middle";

/// How long nodes have to find each other.
const PATIENCE: Duration = Duration::from_secs(10);

/// `PLACES MILLISECONDS`
pub(crate) fn lead(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let Orders { places, budget } = Orders::read(args)?;
    places.take(Side::Sender)?;
    let (far, near) = (free_address()?, free_address()?);
    let node = |name: &str, side: Side, own: SocketAddr| {
        System::beside(&["ractor-cluster-node", name, &places.cpu(side), &own.to_string(), &far.to_string()])
    };
    let _receiver = node(RECEIVER, Side::Receiver, far)?;
    let _middle = node(MIDDLE, Side::Sender, near)?;
    block_on(async {
        let server = serve("sender", free_address()?).await?;
        connect(&server, far).await?;
        connect(&server, near).await?;
        let actors = Actors { receiver: member(RECEIVER).await?, middle: member(MIDDLE).await? };
        drive(&actors, &SCENARIOS, budget).await
    })
}

/// `receiver|middle CPU OWN-ADDRESS RECEIVER'S-ADDRESS`: one of the other nodes, until it is ended.
pub(crate) fn work(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::KILL)?;
    let [name, cpu, own, receiver] = args else { bail!("receiver|middle CPU ADDRESS ADDRESS") };
    take_cpu(cpu)?;
    block_on(async {
        let server = serve(name, own.parse()?).await?;
        let next = if *name == MIDDLE {
            connect(&server, receiver.parse()?).await?;
            Some(member(RECEIVER).await?)
        } else {
            None
        };
        let (actor, ended) = Actor::spawn(None, Counter, next).await?;
        pg::join((*name).to_owned(), vec![actor.get_cell()]);
        Ok(ended.await?)
    })
}

/// As `#[tokio::main]` has it.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn serve(name: &str, own: SocketAddr) -> Result<ActorRef<NodeServerMessage>> {
    let node = NodeServer::new(own.port(), "cookie".into(), name.into(), "localhost".into(), None, None);
    let (server, _) = Actor::spawn(None, node.with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST)), ()).await?;
    Ok(server)
}

/// Connects, once the other node listens.
async fn connect(server: &ActorRef<NodeServerMessage>, address: SocketAddr) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = client_connect(server, address).await {
        if start.elapsed() > PATIENCE {
            bail!("no node at {address}: {error}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The one actor of a group, as this node can reach it.
async fn member(group: &str) -> Result<ActorRef<Job>> {
    let start = Instant::now();
    loop {
        if let Some(actor) = pg::get_members(&group.to_owned()).pop() {
            return Ok(actor.into());
        }
        let waited = (start.elapsed() < PATIENCE).then_some(());
        waited.with_context(|| format!("nobody is in the group {group}"))?;
        sleep(Duration::from_millis(5)).await;
    }
}
