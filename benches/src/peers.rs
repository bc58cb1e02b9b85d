//! What one would write without rclust: hyper in one process with threads, or in two processes that share a port somehow.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, accept_with, recvmsg, sendmsg,
};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::runtime::Builder;

use crate::process::{self, System};
use crate::served::{self, Notes};

/// How many connections the kernel may hold for a listener: the same as rclust's.
const BACKLOG: i32 = 1024;

/// `threads|reuseport|inherited|handoff ADDRESS N`: one process with N threads, or the parent of N with one thread each.
pub(crate) fn lead(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [how, address, n] = args else { bail!("hyper HOW ADDRESS N") };
    let (address, n): (SocketAddr, usize) = (address.parse()?, n.parse()?);
    match *how {
        "threads" => {
            let listener = bind(address, false)?;
            let runtime = Builder::new_multi_thread().worker_threads(n).enable_all().build()?;
            runtime.block_on(async { tokio::spawn(accept(listener)).await? })
        }
        "reuseport" => {
            for _ in 0..n {
                keep(how, address, || Ok(Stdio::null()))?;
            }
            wait_for_the_end()
        }
        "inherited" => {
            let listener = bind(address, false)?;
            for _ in 0..n {
                let listener = listener.try_clone()?;
                keep(how, address, move || Ok(OwnedFd::from(listener.try_clone()?).into()))?;
            }
            wait_for_the_end()
        }
        "handoff" => {
            let (sender, links) = mpsc::channel();
            for n in 0..n {
                let sender = sender.clone();
                keep(how, address, move || {
                    let (ours, theirs) = UnixStream::pair()?;
                    sender.send((n, ours))?;
                    Ok(OwnedFd::from(theirs).into())
                })?;
            }
            hand_off(&bind(address, false)?, n, &links)
        }
        _ => bail!("hyper threads|reuseport|inherited|handoff"),
    }
}

/// One of the parent's processes. What it was given is its standard input: a listener, or the link that brings connections.
pub(crate) fn work(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::KILL)?;
    let [how, address] = args else { bail!("hyper-process HOW ADDRESS") };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let given = || io::stdin().as_fd().try_clone_to_owned();
    match *how {
        "reuseport" => runtime.block_on(accept(bind(address.parse()?, true)?)),
        "inherited" => runtime.block_on(accept(TcpListener::from(given()?))),
        "handoff" => runtime.block_on(take(UnixStream::from(given()?))),
        _ => bail!("hyper-process reuseport|inherited|handoff"),
    }
}

/// Starts a process, and another one whenever it ends. They end with this process: they asked for it.
fn keep(how: &str, address: SocketAddr, mut stdin: impl FnMut() -> Result<Stdio> + Send + 'static) -> Result<()> {
    let mut command = System::command(&["hyper-process", how, &address.to_string()])?;
    let mut next =
        move || -> Result<Child> { command.stdin(stdin()?).stdout(Stdio::null()).spawn().context("a hyper process") };
    // Its parent is the thread that starts it, and that one waits for it.
    let (started, first) = mpsc::channel();
    thread::spawn(move || {
        let mut child = next();
        let _ = started.send(child.as_ref().map(|_| ()).map_err(|error| format!("{error:#}")));
        while let Ok(running) = &mut child {
            if running.wait().is_err() {
                return;
            }
            child = next();
        }
    });
    first.recv()?.map_err(anyhow::Error::msg)
}

fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts and serves.
async fn accept(listener: TcpListener) -> Result<()> {
    let (listener, notes) = (tokio::net::TcpListener::from_std(listener)?, Notes::open()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        notes.note(peer);
        served::serve(stream, served::HELLO);
    }
}

/// The naive parent: accepts, gives each connection to the next process, and does nothing else. One that cannot be given to a process
/// that has ended is given to the next one.
fn hand_off(listener: &TcpListener, processes: usize, renewed: &mpsc::Receiver<(usize, UnixStream)>) -> Result<()> {
    listener.set_nonblocking(false)?;
    let mut links: Vec<Option<UnixStream>> = (0..processes).map(|_| None).collect();
    let mut turn = (0..processes).cycle();
    loop {
        let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        for (n, link) in renewed.try_iter() {
            links[n] = Some(link);
        }
        for n in turn.by_ref().take(processes) {
            if links[n].as_ref().is_some_and(|link| send_socket(link, &socket).is_ok()) {
                break;
            }
        }
    }
}

/// The other end: serves what the parent gives, until that ends.
async fn take(link: UnixStream) -> Result<()> {
    link.set_nonblocking(true)?;
    let (link, notes) = (tokio::net::UnixStream::from_std(link)?, Notes::open()?);
    while let Some(socket) = link.async_io(Interest::READABLE, || receive_socket(&link)).await? {
        let stream = tokio::net::TcpStream::from_std(socket.into())?;
        if notes.wanted() {
            // A client that has left has no address.
            let _ = stream.peer_addr().map(|peer| notes.note(peer));
        }
        served::serve(stream, served::HELLO);
    }
    Ok(())
}

fn send_socket(link: &UnixStream, socket: &OwnedFd) -> io::Result<()> {
    let sockets = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut aside = SendAncillaryBuffer::new(&mut space);
    aside.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(link, &[IoSlice::new(b"c")], &mut aside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_socket(link: &tokio::net::UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut aside = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let received = recvmsg(link, &mut [IoSliceMut::new(&mut byte)], &mut aside, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = aside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    match sockets.next() {
        Some(socket) => Ok(Some(socket)),
        None if received.bytes == 0 => Ok(None),
        None => Err(Errno::BADMSG.into()),
    }
}
