//! Listening and distribution: TCP and Unix sockets.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context as _, bail, ensure};
use rclust::cluster::{EventKind, ExitReason, WorkerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::scene::{Client, Outcome, Scene, comes_to, free_address, listen, soon, twin};
use crate::serve::At;
use crate::worker::Do;

crate::scenarios! {
    listening_port, net_listen, net_listen_backlog, net_listen_ipv6only_false, net_listen_ipv6only_rr, net_listen_ipv6only_none, net_listen_relative_path,
    listen_pipe_readable_writable, http_pipe, net_reuseport, dgram_reuseport, bind_twice_first, bind_twice, bind_privileged_port,
    shared_handle_bind_privileged_port, shared_handle_bind_error, eaccess, eaddrinuse, port_reuse_between_workers, child_index_net,
    child_index_dgram, server_restart_rr, server_restart_none, shared_leak, net_server_drop_connection, rr_handle_close,
    rr_handle_keep_loop_alive,
}

async fn listening_port() -> Outcome {
    let mut scene = Scene::new().await?;
    scene.fork("w", "listens").await?;
    let event = scene.until("its address", |event| matches!(event.kind, EventKind::Listening(_))).await?;
    let EventKind::Listening(address) = event.kind else { bail!("an address") };
    let address: SocketAddr = address.parse()?;
    ensure!(address.port() > 0 && Client::connect(address).await?.who().await? == "w");
    Ok(())
}

async fn net_listen() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let address: SocketAddr = scene.listen(std::slice::from_ref(&w), &At::tcp("0.0.0.0:0")).await?.parse()?;
    ensure!(Client::connect(("127.0.0.1", address.port())).await?.who().await? == "w");
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

/// The backlog of a TCP socket of this machine that listens, as the kernel has it (`sock_diag(7)`: a listener's `idiag_wqueue`).
fn backlog(address: &str) -> anyhow::Result<u32> {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink};
    let port = address.parse::<SocketAddr>()?.port();
    let kind = (AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG));
    let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, kind.3)?;
    // A header (length 72, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP), IPv4, TCP, the state LISTEN, and the port.
    let mut request = [0_u8; 72];
    request[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&20_u16.to_ne_bytes());
    request[6..8].copy_from_slice(&0x301_u16.to_ne_bytes());
    (request[16], request[17]) = (2, 6);
    request[20..24].copy_from_slice(&(1_u32 << 10).to_ne_bytes());
    request[24..26].copy_from_slice(&port.to_be_bytes());
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0_u8; 4096];
    let n = std::io::Read::read(&mut std::fs::File::from(socket), &mut answer)?;
    let field = |at: usize| answer[..n].get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    ensure!(
        field(4).map(|kind: [u8; 4]| [kind[0], kind[1]]) == Some(20_u16.to_ne_bytes()),
        "nobody listens on {address}"
    );
    // Behind the header: four bytes, the socket's id (48), a timer, how many wait, how many may.
    Ok(u32::from_ne_bytes(field(76).context("a whole answer")?))
}

async fn net_listen_backlog() -> Outcome {
    let (scene, [w]) = Scene::with(["w"]).await?;
    for (at, wanted) in [(At::tcp("127.0.0.1:0").backlog(7), 7), (At::tcp("127.0.0.1:0").shared().backlog(9), 9)] {
        let address = scene.listen(std::slice::from_ref(&w), &at).await?;
        ensure!(backlog(&address)? == wanted, "{address}: {}", backlog(&address)?);
    }
    Ok(())
}

async fn net_listen_ipv6only_false() -> Outcome {
    let (scene, workers) = Scene::with(["a", "b", "c"]).await?;
    let address: SocketAddr = scene.listen(&workers, &At::tcp("[::]:0")).await?.parse()?;
    Client::connect(("127.0.0.1", address.port())).await?.who().await?;
    Client::connect(("::1", address.port())).await?.who().await?;
    Ok(())
}

async fn ipv6_alone(at: At) -> Outcome {
    let (scene, workers) = Scene::with(["a", "b", "c"]).await?;
    // Another process may have IPv4's port of the number that the kernel gave: the next number then.
    for _ in 0..20 {
        let address: SocketAddr = scene.listen(&workers, &at).await?.parse()?;
        Client::connect(("::1", address.port())).await?.who().await?;
        if let Ok(free) = std::net::TcpListener::bind(("0.0.0.0", address.port())) {
            drop(free);
            return Ok(());
        }
    }
    bail!("IPv4 is taken too")
}

async fn net_listen_ipv6only_rr() -> Outcome {
    ipv6_alone(At::tcp("[::]:0").v6_only()).await
}

async fn net_listen_ipv6only_none() -> Outcome {
    ipv6_alone(At::tcp("[::]:0").v6_only().shared()).await
}

/// The test has it run in a directory with a long name.
async fn net_listen_relative_path() -> Outcome {
    let absolute = std::env::current_dir()?.join("twin.sock");
    ensure!(absolute.as_os_str().len() > 108, "{} is not long", absolute.display());
    let (mut scene, workers) = Scene::with(["a", "b"]).await?;
    scene.listen(&workers, &At::unix("twin.sock")).await?;
    let client = UnixStream::connect("twin.sock").await?;
    Client::over(client).who().await?;
    scene.ends_once(&["a", "b"]).await?;
    ensure!(!absolute.exists(), "the file is removed at the end");
    Ok(())
}

/// A path of this scenario's own, and a guard that removes what is left there.
struct Path(String);

impl Path {
    fn new() -> Path {
        Path(std::env::temp_dir().join(format!("rclust-twin-{}.sock", std::process::id())).display().to_string())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn listen_pipe_readable_writable() -> Outcome {
    let path = Path::new();
    let (scene, [w]) = Scene::with(["w"]).await?;
    scene.listen(&[w], &At::unix(&path.0).mode(0o777)).await?;
    ensure!(std::fs::metadata(&path.0)?.permissions().mode() & 0o777 == 0o777);
    Ok(())
}

async fn http_pipe() -> Outcome {
    let path = Path::new();
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    scene.listen(std::slice::from_ref(&w), &At::http(&path.0)).await?;
    let mut client = UnixStream::connect(&path.0).await?;
    ensure!(client.local_addr()?.is_unnamed());
    client.write_all(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    soon("an answer", client.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("w\n"), "{answer}");
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

/// Sockets of the workers' own; the supervisor has no part in them.
async fn reuse(tcp: bool) -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let bind = |address: String, times| move |reply| Do::Reuse { tcp, address, times, reply };
    let first = a.ask(bind("127.0.0.1:0".into(), 1)).await?.map_err(anyhow::Error::msg)?.remove(0);
    for worker in [&a, &b] {
        let all = worker.ask(bind(first.clone(), 2)).await?.map_err(anyhow::Error::msg)?;
        ensure!(all == [first.clone(), first.clone()], "{all:?}");
    }
    scene.ends_once(&["a", "b"]).await?;
    ensure!(scene.count("a", |kind| matches!(kind, EventKind::Listening(_))) == 0, "the supervisor was not asked");
    Ok(())
}

async fn net_reuseport() -> Outcome {
    reuse(true).await
}

async fn dgram_reuseport() -> Outcome {
    reuse(false).await
}

/// One of two programs: it listens until it is ended.
async fn bind_twice_first() -> Outcome {
    let (scene, [w]) = Scene::with(["w"]).await?;
    println!("bound {}", scene.listen(&[w], &At::tcp("127.0.0.1:0")).await?);
    Ok(scene.cluster.run().await?)
}

/// The other one, which is told where.
async fn bind_twice() -> Outcome {
    let address = std::env::args().nth(2).context("an address")?;
    let (_scene, [a, b]) = Scene::with(["a", "b"]).await?;
    for (worker, at) in [(&a, At::tcp(&address)), (&b, At::tcp(&address).exclusive()), (&b, At::tcp(&address).shared())]
    {
        match listen(worker, &at).await? {
            Err(refused) => ensure!(refused.code == 98, "{refused}"),
            Ok(address) => bail!("{address} is bound twice"),
        }
    }
    Ok(())
}

/// `init` has taken the right to bind such ports from every process.
async fn privileged(at: At) -> Outcome {
    let first: u32 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?.trim().parse()?;
    ensure!(first > 42, "on this machine every port may be bound by everybody");
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    w.send(Do::ListenOr(at, false)).await?;
    ensure!(scene.note().await?.2 == "refused: 13");
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn bind_privileged_port() -> Outcome {
    privileged(At::tcp("127.0.0.1:42")).await
}

async fn shared_handle_bind_privileged_port() -> Outcome {
    privileged(At::tcp("127.0.0.1:42").shared()).await
}

async fn shared_handle_bind_error() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = At::tcp(&taken.local_addr()?.to_string()).shared();
    ensure!(listen(&w, &at).await?.is_err_and(|refused| refused.code == 98));
    Ok(())
}

async fn eaccess() -> Outcome {
    let path = Path::new();
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let taken = std::os::unix::net::UnixListener::bind(&path.0)?;
    w.send(Do::ListenOr(At::unix(&path.0), false)).await?;
    ensure!(scene.note().await?.2 == "refused: 98");
    scene.exit("w").await?;
    drop(taken);
    ensure!(std::path::Path::new(&path.0).exists(), "somebody else's file stays");
    Ok(())
}

async fn eaddrinuse() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = At::tcp(&taken.local_addr()?.to_string());
    ensure!(listen(&w, &at).await?.is_err_and(|refused| refused.code == 98));
    drop(taken);
    let address = listen(&w, &at).await??;
    ensure!(Client::connect(address).await?.who().await? == "w");
    Ok(())
}

async fn port_reuse_between_workers() -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let at = At::tcp(&free_address()?);
    let address = listen(&a, &at).await??;
    // A second one in the same worker is no error here: it is the same socket once more.
    listen(&a, &at).await??;
    ensure!(Client::connect(&address).await?.who().await? == "a");
    a.ask(|reply| Do::Close(0, reply)).await?;
    a.ask(|reply| Do::Close(1, reply)).await?;
    listen(&b, &at).await??;
    ensure!(Client::connect(&address).await?.who().await? == "b");
    listen(&a, &at).await??;
    b.disconnect().await?;
    ensure!(Client::connect(&address).await?.who().await? == "a");
    scene.ends_once(&["a", "b"]).await
}

async fn several(at: impl Fn() -> At) -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let mut addresses = Vec::new();
    for n in 0..3 {
        addresses.push(listen(&w, &at()).await??);
        ensure!(addresses.iter().filter(|address| **address == addresses[n]).count() == 1, "{addresses:?}");
    }
    for n in [1, 0, 2] {
        w.ask(|reply| Do::Close(n, reply)).await?;
    }
    for _ in 0..2 {
        listen(&w, &at()).await??;
    }
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    scene.ends_once(&["w"]).await
}

async fn child_index_net() -> Outcome {
    several(|| At::tcp("127.0.0.1:0")).await
}

async fn child_index_dgram() -> Outcome {
    several(|| At::udp("127.0.0.1:0")).await
}

async fn server_restart(at: At) -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let address = scene.listen(&[a.clone(), b.clone()], &at).await?;
    for n in 0..5 {
        b.ask(|reply| Do::Close(n, reply)).await?;
        ensure!(Client::connect(&address).await?.who().await? == "a");
        listen(&b, &at).await??;
    }
    a.disconnect().await?;
    ensure!(Client::connect(&address).await?.who().await? == "b");
    b.disconnect().await?;
    for name in ["a", "b"] {
        ensure!(scene.exit(name).await? == (ExitReason::Shutdown, true));
    }
    scene.ends_once(&["a", "b"]).await
}

async fn server_restart_rr() -> Outcome {
    server_restart(At::tcp(&free_address()?).in_turn()).await
}

async fn server_restart_none() -> Outcome {
    server_restart(At::tcp(&free_address()?).shared()).await
}

async fn shared_leak() -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let address = scene.listen(&[a.clone(), b.clone()], &At::tcp("127.0.0.1:0").shared()).await?;
    let mut client = Client::connect(&address).await?;
    let (serving, other) = if client.who().await? == "a" { (a, b) } else { (b, a) };
    let stopping = tokio::spawn({
        let (serving, other) = (serving.clone(), other.clone());
        async move { tokio::join!(serving.disconnect(), other.disconnect()) }
    });
    comes_to(&serving, WorkerState::Stopping).await?;
    drop(client);
    let (one, two) = soon("both ends", stopping).await??;
    one?;
    two?;
    scene.ends_once(&["a", "b"]).await
}

async fn net_server_drop_connection() -> Outcome {
    let (scene, workers) = Scene::with(["none", "one", "nine"]).await?;
    let mut address = String::new();
    for (worker, most) in workers.iter().zip([0, 1, 9]) {
        address = scene.listen(std::slice::from_ref(worker), &At::tcp("127.0.0.1:0").most(most)).await?;
    }
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(&address).await?;
        let name = client.who().await?;
        clients.push((name, client));
    }
    let had = |name: &str| clients.iter().filter(|(who, _)| who == name).count();
    ensure!((had("none"), had("one"), had("nine")) == (0, 1, 9), "{} {} {}", had("none"), had("one"), had("nine"));
    Ok(())
}

async fn rr_handle_close() -> Outcome {
    let mut scene = Scene::new().await?;
    // What it is linked to ends with its only listener, and so does it: by itself.
    scene.add(twin("w", "ends-with-its-listener")).await?;
    ensure!(scene.exit("w").await? == (ExitReason::Normal, false));
    Ok(())
}

async fn rr_handle_keep_loop_alive() -> Outcome {
    let mut scene = Scene::new().await?;
    let w = scene.fork("w", "listens").await?;
    // A worker lives until it is told otherwise, whatever it listens on; a whole life of another one later it is there.
    for _ in 0..20 {
        scene.fork("other", "").await?.disconnect().await?;
    }
    ensure!(w.state().await? == WorkerState::Ready);
    scene.ends_once(&["w"]).await
}
