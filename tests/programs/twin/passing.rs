//! Sockets in messages.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use anyhow::{Context as _, bail, ensure};
use rclust::cluster::{ExitReason, SendError, Socket, WorkerRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::scene::{Client, Outcome, Scene, soon};
use crate::worker::{Do, Said};

crate::scenarios! {
    fork_stdio, net_send, send_handle_twice, send_deadlock, send_socket_to_worker_http_server, send_handle_large_payload,
    child_process_pass_fd, child_process_recv_handle, child_process_fork_closed_channel_segfault, child_process_send_keep_open,
    child_process_fork_net_socket, child_process_fork_net, child_process_fork_net_server, child_process_fork_dgram,
    child_process_net_reuseport, handle_pass_rate,
}

/// Both ends of a connection: a client's, and one to give away.
async fn connection() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    Ok((client, listener.accept().await?.0))
}

/// What comes until the other end is closed.
async fn rest(mut client: TcpStream) -> anyhow::Result<String> {
    let mut text = String::new();
    soon("the end of a stream", client.read_to_string(&mut text)).await??;
    Ok(text)
}

async fn fork_stdio() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let (theirs_in, mut ours_out) = pipe()?;
    let (ours_in, theirs_out) = pipe()?;
    w.send(Do::Shout { from: Socket::new(theirs_in), to: Socket::new(theirs_out.into()) }).await?;
    std::io::Write::write_all(&mut ours_out, b"beside the mailbox")?;
    drop(ours_out);
    let mut heard = String::new();
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(ours_in)?;
    soon("the other pipe's end", reader.read_to_string(&mut heard)).await??;
    ensure!(heard == "BESIDE THE MAILBOX", "{heard}");
    Ok(())
}

/// A pipe, its reading and its writing end.
fn pipe() -> std::io::Result<(std::os::fd::OwnedFd, std::fs::File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read, write.into()))
}

async fn net_send() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    w.send(Do::Connect(listener.local_addr()?.to_string())).await?;
    let (mut peer, _) = soon("a connection", listener.accept()).await??;
    peer.write_all(b"hello").await?;
    drop(peer);
    let stream = scene.stream().await?.1.context("a stream")?;
    ensure!(rest(stream).await? == "hello");
    Ok(())
}

async fn send_handle_twice() -> Outcome {
    let (mut scene, [gone, w]) = Scene::with(["gone", "w"]).await?;
    gone.disconnect().await?;
    scene.exit("gone").await?;
    let (client, stream) = connection().await?;
    // Sending moves it. What could not be sent comes back with its socket, which can be sent then.
    let message = match gone.send(Do::Write("once".into(), stream.into())).await {
        Err(SendError::Closed { message, .. }) => message,
        other => bail!("{other:?}"),
    };
    w.send(message).await?;
    ensure!(rest(client).await? == "once");
    Ok(())
}

async fn send_deadlock() -> Outcome {
    const ROUNDS: usize = 200;
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let sending = async {
        for n in 0..ROUNDS {
            let stream = Some(connection().await?.1.into());
            w.send(Do::Return(n.to_string(), stream)).await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for n in 0..ROUNDS {
            let (text, stream) = scene.stream().await?;
            ensure!(text == n.to_string() && stream.is_some(), "{text} in place of {n}");
        }
        anyhow::Ok(())
    };
    let (sent, received) = soon("both", async { tokio::join!(sending, receiving) }).await?;
    sent?;
    received?;
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn send_socket_to_worker_http_server() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let (mut client, stream) = connection().await?;
    w.send(Do::ServeHttp(stream.into())).await?;
    client.write_all(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await?;
    let answer = rest(client).await?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nw "), "{answer}");
    Ok(())
}

async fn send_handle_large_payload() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let payload = "pay".repeat(266_668);
    ensure!(payload.len() == 800_004);
    let (client, stream) = connection().await?;
    w.send(Do::Return(payload.clone(), Some(stream.into()))).await?;
    let (text, stream) = scene.stream().await?;
    ensure!(text == payload, "the payload came back with {} bytes", text.len());
    stream.context("a stream")?.write_all(b"both ways").await?;
    ensure!(rest(client).await? == "both ways");
    Ok(())
}

async fn child_process_pass_fd() -> Outcome {
    // Node forks 80 children with one socket each; the same 80 sockets from 16 of ours.
    const WORKERS: usize = 16;
    const EACH: usize = 5;
    let mut scene = Scene::new().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let mut workers = Vec::new();
    for n in 0..WORKERS {
        workers.push(scene.fork(&format!("w{n}"), "").await?);
    }
    for worker in &workers {
        for _ in 0..EACH {
            worker.send(Do::Connect(address.clone())).await?;
        }
    }
    // Data on each, and the sender's copy closed early: it leaves.
    for _ in 0..WORKERS * EACH {
        let (mut peer, _) = soon("a connection", listener.accept()).await??;
        peer.write_all(b"data").await?;
    }
    let mut streams = Vec::new();
    for _ in 0..WORKERS * EACH {
        streams.push(scene.stream().await?.1.context("a stream")?);
    }
    scene.cluster.disconnect().await?;
    for stream in streams {
        ensure!(rest(stream).await? == "data");
    }
    Ok(())
}

async fn child_process_recv_handle() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let (client, stream) = connection().await?;
    // Three in one batch, the socket beside the second.
    w.try_send(Do::Return("one".into(), None))?;
    w.try_send(Do::Return("two".into(), Some(stream.into())))?;
    w.try_send(Do::Return("three".into(), None))?;
    w.flush();
    for (wanted, with) in [("one", false), ("two", true), ("three", false)] {
        let (text, stream) = scene.stream().await?;
        ensure!((text.as_str(), stream.is_some()) == (wanted, with), "{text}");
        if let Some(mut stream) = stream {
            stream.write_all(b"the second's").await?;
        }
    }
    ensure!(rest(client).await? == "the second's");
    Ok(())
}

async fn child_process_fork_closed_channel_segfault() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    w.send(Do::Exit(0)).await?;
    // It ends while these are on their way: errors, and the messages back, once it is known to be gone.
    let mut clients = Vec::new();
    let closed = loop {
        let (client, stream) = connection().await?;
        clients.push(client);
        match w.send(Do::Serve(stream.into())).await {
            Ok(()) => ensure!(clients.len() < 10_000, "it is never closed"),
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    ensure!(matches!(closed, SendError::Closed { message: Do::Serve(_), .. }), "{closed:?}");
    drop(closed);
    // What waited is a dead letter; no client is left hanging.
    for client in clients {
        let mut byte = [0];
        let mut client = client;
        let read = soon("the end of a client's stream", client.read(&mut byte)).await?;
        ensure!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    ensure!(scene.exit("w").await? == (ExitReason::Normal, false));
    Ok(())
}

async fn child_process_send_keep_open() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let (client, stream) = connection().await?;
    let copy = stream.as_fd().try_clone_to_owned()?;
    w.send(Do::Write("child".into(), stream.into())).await?;
    w.send(Do::Note("written".into())).await?;
    scene.note().await?;
    let mut own = TcpStream::from_std(copy.into())?;
    own.write_all(b"parent").await?;
    drop(own);
    ensure!(rest(client).await? == "childparent");
    Ok(())
}

async fn child_process_fork_net_socket() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let (client, stream) = connection().await?;
    w.send(Do::Serve(stream.into())).await?;
    let mut client = Client::over(client);
    ensure!(client.who().await? == "w" && client.who().await? == "w");
    Ok(())
}

async fn child_process_fork_net() -> Outcome {
    let (scene, workers) = Scene::with(["a", "b", "c"]).await?;
    let mut clients = Vec::new();
    for n in 0..6 {
        let (client, stream) = connection().await?;
        let worker: &WorkerRef<Do> = &workers[n % 3];
        // Half are written to and closed by the worker, half are kept until its client or its worker goes.
        match n < 3 {
            true => worker.send(Do::Write("end".into(), stream.into())).await?,
            false => worker.send(Do::Serve(stream.into())).await?,
        }
        clients.push(client);
    }
    let mut kept = clients.split_off(3);
    for client in clients {
        ensure!(rest(client).await? == "end");
    }
    let last = kept.pop().context("a client")?;
    for client in kept {
        ensure!(["a", "b"].contains(&Client::over(client).who().await?.as_str()));
    }
    let stopping = tokio::spawn({
        let cluster = scene.cluster.clone();
        async move { cluster.disconnect().await }
    });
    ensure!(Client::over(last).who().await? == "c", "what is open is finished");
    soon("the end of all", stopping).await???;
    Ok(())
}

async fn child_process_fork_net_server() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // One listener for two processes; who accepts is the kernel's choice, and each accepts in its turn here.
    for _ in 0..2 {
        w.send(Do::AcceptOne(Socket::new(listener.try_clone()?), "child".into())).await?;
        ensure!(rest(TcpStream::connect(address).await?).await? == "child");
        let client = TcpStream::connect(address).await?;
        listener.set_nonblocking(false)?;
        std::io::Write::write_all(&mut listener.accept()?.0, b"parent")?;
        ensure!(rest(client).await? == "parent");
    }
    w.disconnect().await?;
    drop(listener);
    ensure!(TcpStream::connect(address).await.is_err(), "closed on both sides");
    Ok(())
}

async fn child_process_fork_dgram() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    client.connect(socket.local_addr()?).await?;
    let copy = UdpSocket::from_std(socket.try_clone()?)?;
    w.send(Do::Receive(copy.into())).await?;
    client.send(b"child").await?;
    ensure!(scene.note().await?.2 == "child");
    client.send(b"parent").await?;
    let mut bytes = [0; 16];
    let own = UdpSocket::from_std(socket)?;
    let n = soon("a packet", own.recv(&mut bytes)).await??;
    ensure!(&bytes[..n] == b"parent");
    Ok(())
}

async fn child_process_net_reuseport() -> Outcome {
    let (_scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let (_own, address) = crate::serve::reuse(true, "127.0.0.1:0")?;
    let _: SocketAddr = address.parse()?;
    for worker in [a, b] {
        let address = address.clone();
        let bound = worker.ask(|reply| Do::Reuse { tcp: true, address, times: 1, reply }).await?;
        ensure!(bound.is_ok(), "{bound:?}");
    }
    Ok(())
}

/// Sockets a second from the supervisor to a worker and back: a floor that a hang would break.
async fn handle_pass_rate() -> Outcome {
    const COUNT: u32 = 1000;
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let (_client, stream) = connection().await?;
    let copies: Result<Vec<_>, _> = (0..COUNT).map(|_| stream.as_fd().try_clone_to_owned()).collect();
    let begun = std::time::Instant::now();
    let sending = async {
        for copy in copies? {
            let stream = TcpStream::from_std(copy.into())?;
            w.send(Do::Return(String::new(), Some(stream.into()))).await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for _ in 0..COUNT {
            match scene.said().await? {
                Said::Stream { stream: Some(_), .. } => {}
                other => bail!("{other:?}"),
            }
        }
        anyhow::Ok(())
    };
    let (sent, received) = tokio::join!(sending, receiving);
    sent?;
    received?;
    let rate = f64::from(COUNT) / begun.elapsed().as_secs_f64();
    println!("{rate:.0} sockets a second, there and back");
    ensure!(rate > 50.0, "{rate:.0} sockets a second");
    Ok(())
}
