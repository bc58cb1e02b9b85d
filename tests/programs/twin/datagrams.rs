//! UDP: one socket for all workers.

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use rclust::cluster::ExitReason;
use tokio::net::UdpSocket;

use crate::scene::{Outcome, Scene, listen, soon};
use crate::serve::At;
use crate::worker::Do;

crate::scenarios! { dgram_1, dgram_2, dgram_bind_fd, dgram_ipv6only, dgram_reuse }

/// Who answers a packet that is sent there.
async fn ask(client: &UdpSocket, address: &str) -> anyhow::Result<String> {
    client.send_to(b"who", address).await?;
    let mut bytes = [0; 64];
    let n = soon("an answer", client.recv(&mut bytes)).await??;
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

async fn dgram_1() -> Outcome {
    let names = ["a", "b", "c", "d"];
    let (mut scene, workers) = Scene::with(names).await?;
    let address = scene.listen(&workers, &At::udp("127.0.0.1:0")).await?;
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    let mut had: HashMap<String, u32> = HashMap::new();
    // The kernel wakes whom it likes: whoever has had ten closes its share, and the others have the rest.
    for _ in 0..names.len() * 10 {
        let name = ask(&client, &address).await?;
        let count = had.entry(name.clone()).or_default();
        *count += 1;
        ensure!(*count <= 10, "{name} had closed its share: {had:?}");
        if *count == 10 {
            let at = names.iter().position(|known| *known == name).unwrap_or(0);
            workers[at].ask(|reply| Do::Close(0, reply)).await?;
        }
    }
    ensure!(had.len() == names.len(), "{had:?}");
    soon("the end of all", scene.cluster.disconnect()).await??;
    for name in names {
        ensure!(scene.exit(name).await? == (ExitReason::Shutdown, true));
    }
    scene.ends_once(&names).await
}

async fn dgram_2() -> Outcome {
    let (mut scene, workers) = Scene::with(["a", "b", "c", "d"]).await?;
    let address = scene.listen(&workers, &At::udp("127.0.0.1:0")).await?;
    // Each has a part in one socket: what they send has one sender, whoever sends. Who has sent closes its share.
    let own = UdpSocket::bind("127.0.0.1:0").await?;
    let mut sent = Vec::new();
    for _ in &workers {
        own.send_to(b"who", &address).await?;
        let mut bytes = [0; 64];
        let (n, from) = soon("a packet", own.recv_from(&mut bytes)).await??;
        ensure!(from.to_string() == address);
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        let worker = workers.iter().find(|worker| text.split_whitespace().next() == Some(worker.name()));
        let worker = worker.with_context(|| text.clone())?;
        worker.ask(|reply| Do::Close(0, reply)).await?;
        sent.push(worker.slot());
    }
    sent.sort();
    sent.dedup();
    ensure!(sent.len() == workers.len(), "{sent:?}");
    soon("the end of all", scene.cluster.disconnect()).await??;
    scene.ends_once(&["a", "b", "c", "d"]).await
}

/// The test gives the supervisor a bound socket, and says which number it has and where it is bound.
async fn dgram_bind_fd() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [number, bound] = &arguments[..] else { bail!("a number and an address") };
    let (scene, workers) = Scene::with(["a", "b", "c", "d"]).await?;
    let address = scene.listen(&workers, &At::udp_descriptor(number.parse()?)).await?;
    ensure!(address == *bound);
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    for _ in 0..10 {
        ask(&client, &address).await?;
    }
    Ok(())
}

async fn dgram_ipv6only() -> Outcome {
    let (scene, workers) = Scene::with(["a", "b"]).await?;
    let address = scene.listen(&workers, &At::udp("[::]:0").v6_only()).await?;
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let other = scene.listen(&workers, &At::udp(&format!("0.0.0.0:{port}"))).await?;
    for (client, address) in [("[::1]:0", format!("[::1]:{port}")), ("127.0.0.1:0", format!("127.0.0.1:{port}"))] {
        ask(&UdpSocket::bind(client).await?, &address).await?;
    }
    ensure!(other.ends_with(port));
    for worker in &workers {
        worker.ask(|reply| Do::Close(0, reply)).await?;
        worker.ask(|reply| Do::Close(1, reply)).await?;
    }
    Ok(())
}

async fn dgram_reuse() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let address = listen(&w, &At::udp(&free)).await??;
    // Twice in one worker is the same socket once more.
    ensure!(listen(&w, &At::udp(&free)).await?? == address);
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    w.ask(|reply| Do::Close(0, reply)).await?;
    ensure!(ask(&client, &address).await? == "w");
    w.ask(|reply| Do::Close(1, reply)).await?;
    scene.ends_once(&["w"]).await
}
