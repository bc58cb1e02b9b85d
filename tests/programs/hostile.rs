//! Workers that do what no worker of ours does: it costs them their life, and nobody else anything.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use anyhow::{bail, ensure};
use rclust::cluster::{self, Child, Cluster, Context, Reply, Supervisor};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Msg {
    Pid(Reply<u32>),
    Number(Reply<u64>),
    /// The pid of `bad`, asked by this worker.
    Meet(Reply<u32>),
    /// Do it.
    Attack(String),
}

struct Life;

/// Opens one of this process's own descriptors anew, by what it is.
fn own(kind: &str) -> std::io::Result<std::fs::File> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains(kind)) {
            return std::fs::OpenOptions::new().write(true).open(path);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

/// Where all of a kind can be opened.
fn own_all(kind: &str) -> std::io::Result<Vec<std::path::PathBuf>> {
    let paths = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| Some(entry.ok()?.path()));
    let of_kind = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(kind))
    };
    Ok(paths.filter(of_kind).collect())
}

impl cluster::Worker for Life {
    type Msg = Msg;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Life)
    }

    async fn on_message(&mut self, message: Msg, cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {
            Msg::Pid(reply) => reply.send(std::process::id()),
            // Not what it is asked for.
            Msg::Number(_) => {}
            Msg::Meet(reply) => {
                // A question that is lost with a spoilt lane is no reason to end: the port is dropped, and the next one comes.
                if let Ok(pid) = cx.worker::<Life>("bad")?.ask(Msg::Pid).timeout(Duration::from_millis(500)).await {
                    reply.send(pid);
                }
            }
            Msg::Attack(way) => attack(&way, cx).await?,
        }
        Ok(())
    }
}

async fn attack(way: &str, cx: &mut Context<Life>) -> cluster::Result<()> {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    match way {
        // Both rings towards the supervisor, heads and data, with garbage; then its doorbell.
        "ring" => {
            let mut lane = own("rclust-lane")?;
            for at in (0..16 * 1024u64).step_by(8) {
                lane.seek(SeekFrom::Start(at))?;
                lane.write_all(&next().to_ne_bytes())?;
            }
            for _ in 0..1000 {
                // Rings: the supervisor looks.
                if cx.supervisor::<u64>().try_send(7).is_err() {
                    break;
                }
                cx.supervisor::<u64>().flush();
            }
            ring_all();
            std::future::pending().await
        }
        // Bytes on the control link that are no frame.
        "link" => {
            for socket in sockets() {
                let noise = next().to_ne_bytes().repeat(64);
                let _ = rustix::net::send(&socket, &noise, rustix::net::SendFlags::DONTWAIT);
            }
            std::future::pending().await
        }
        // All lanes that it can map, all of them: with the supervisor, with `good`, with `other`; its peers look, and find out.
        "lanes" => {
            for name in ["good", "other"] {
                cx.worker::<Life>(name)?.ask(Msg::Pid).await?;
            }
            for lane in own_all("rclust-lane")? {
                let mut lane = std::fs::OpenOptions::new().write(true).open(lane)?;
                lane.write_all(&[0xff; 64 << 10])?;
            }
            ring_all();
            std::future::pending().await
        }
        // The lanes with its peers alone: one of them, so that nobody knows whose fault it is.
        "peer" => {
            // A question that was in the lane when it was spoilt the last time fails, and is no reason to end.
            while cx.worker::<Life>("good")?.ask(Msg::Pid).await.is_err() {}
            let lanes = own_all("rclust-lane")?;
            for lane in lanes.iter().filter(|lane| std::fs::metadata(lane).is_ok_and(|lane| lane.len() < 1 << 20)) {
                std::fs::OpenOptions::new().write(true).open(lane)?.write_all(&[0xff; 4096])?;
            }
            Ok(())
        }
        // Doorbells that never ring again.
        "deaf" => {
            cx.worker::<Life>("good")?.ask(Msg::Pid).await?;
            for socket in sockets() {
                let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
            }
            std::future::pending().await
        }
        // Every socket that it holds (control link, doorbells, porter): blocking from now on, for everybody who has it; full of
        // garbage; and what was to come is taken away.
        "sockets" => {
            let file = std::fs::File::open("/dev/null")?;
            // So that it has a porter.
            cx.supervisor::<cluster::Socket<std::fs::File>>()
                .send(file.into())
                .await
                .map_err(|error| error.to_string())?;
            for socket in sockets() {
                let _ = rustix::io::ioctl_fionbio(&socket, false);
                let noise = next().to_ne_bytes().repeat(512);
                while rustix::net::send(&socket, &noise, rustix::net::SendFlags::DONTWAIT).is_ok() {}
                let mut sink = [0; 4096];
                while matches!(
                    rustix::net::recv(&socket, &mut sink[..], rustix::net::RecvFlags::DONTWAIT),
                    Ok((n, _)) if n > 0
                ) {}
            }
            std::future::pending().await
        }
        "flood" => loop {
            // Questions, as fast as it goes, nobody reads the answers' meaning.
            if cx.worker::<Life>("nobody").is_ok() {
                return Ok(());
            }
        },
        other => Err(format!("no attack `{other}`").into()),
    }
}

/// A byte into every socket: the doorbells are among them.
fn ring_all() {
    for socket in sockets() {
        let _ = rustix::net::send(&socket, &[1], rustix::net::SendFlags::DONTWAIT);
    }
}

/// Duplicates of all sockets of this process, by pidfd_getfd, so that no raw descriptor has to be borrowed.
fn sockets() -> Vec<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    let Ok(me) = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()) else {
        return Vec::new();
    };
    let is_socket = |fd: &i32| {
        let path = format!("/proc/self/fd/{fd}");
        std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let numbers = (3..64).filter(is_socket);
    numbers
        .filter_map(|fd| rustix::process::pidfd_getfd(me.as_fd(), fd, rustix::process::PidfdGetfdFlags::empty()).ok())
        .collect()
}

async fn survives(cluster: &Cluster, way: &str) -> anyhow::Result<()> {
    let (bad, good) = (cluster.worker::<Life>("bad")?, cluster.worker::<Life>("good")?);
    let (pid, other) = (bad.ask(Msg::Pid).await?, good.ask(Msg::Pid).await?);
    bad.send(Msg::Attack(way.to_owned())).await?;
    // It is killed and replaced; the lane serves the next incarnation.
    let begun = std::time::Instant::now();
    loop {
        match bad.ask(Msg::Pid).timeout(Duration::from_secs(1)).await {
            Ok(now) if now != pid => break,
            _ if begun.elapsed() > Duration::from_secs(15) => bail!("`{way}`: the attacker lives"),
            _ => tokio::task::yield_now().await,
        }
    }
    ensure!(good.ask(Msg::Pid).await? == other, "`{way}` cost somebody else its life");
    meet(cluster, way).await
}

/// Everybody still reaches everybody: new lanes, new processes.
async fn meet(cluster: &Cluster, way: &str) -> anyhow::Result<()> {
    let (bad, good) = (cluster.worker::<Life>("bad")?, cluster.worker::<Life>("good")?);
    let begun = std::time::Instant::now();
    loop {
        let met = good.ask(Msg::Meet).timeout(Duration::from_secs(1)).await;
        if met.is_ok() && met == bad.ask(Msg::Pid).timeout(Duration::from_secs(1)).await {
            break;
        }
        // Questions that were in a spoilt lane are lost with it.
        ensure!(begun.elapsed() < Duration::from_secs(15), "`{way}`: they do not meet: {met:?}");
    }
    for name in ["bad", "good", "other"] {
        cluster.worker::<Life>(name)?.ask(Msg::Pid).await?;
    }
    Ok(())
}

#[cluster::main(workers(Life))]
async fn main() -> anyhow::Result<()> {
    let way = std::env::args().nth(1).unwrap_or_default();
    let tree = Supervisor::one_for_one().intensity(100, Duration::from_secs(60));
    let cluster = tree
        .child(Child::<Life>::new("bad"))
        .child(Child::<Life>::new("good"))
        .child(Child::<Life>::new("other"))
        .start()
        .await?;
    let mut inbox = cluster.inbox::<u64>();
    tokio::spawn(async move {
        loop {
            inbox.recv().await;
        }
    });
    match way.as_str() {
        "peer" => {
            let (bad, good) = (cluster.worker::<Life>("bad")?, cluster.worker::<Life>("good")?);
            for _ in 0..5 {
                let pids = (bad.ask(Msg::Pid).await?, good.ask(Msg::Pid).await?);
                bad.send(Msg::Attack(way.clone())).await?;
                meet(&cluster, &way).await?;
                ensure!(pids == (bad.ask(Msg::Pid).await?, good.ask(Msg::Pid).await?), "somebody was killed for it");
            }
        }
        "ring" | "link" | "sockets" | "lanes" | "deaf" => {
            for _ in 0..3 {
                survives(&cluster, &way).await?;
            }
        }
        "flood" => {
            cluster.worker::<Life>("bad")?.send(Msg::Attack(way)).await?;
            let good = cluster.worker::<Life>("good")?;
            for _ in 0..1000 {
                good.ask(Msg::Pid).await?;
            }
        }
        other => bail!("no scenario `{other}`"),
    }
    println!("held");
    Ok(())
}
