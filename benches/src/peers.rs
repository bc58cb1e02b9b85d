//! What one would write without rclust: hyper in one process with threads, or in two processes that share a port somehow.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
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

use crate::{process, served};

/// How many connections the kernel may hold for a listener: the same as rclust's.
const BACKLOG: i32 = 1024;

/// `threads|reuseport|inherited|handoff ADDRESS N`: one process with N threads, or the parent of N with one thread each.
pub(crate) fn lead(args: &[&str]) -> Result<()> {
    process::end_with_parent(Signal::TERM)?;
    let [how, address, n] = args else { bail!("hyper HOW ADDRESS N") };
    let (address, n) = (address.parse()?, n.parse()?);
    match *how {
        "threads" => {
            let listener = bind(address, false)?;
            let runtime = Builder::new_multi_thread().worker_threads(n).enable_all().build()?;
            runtime.block_on(async { tokio::spawn(accept(listener)).await? })
        }
        "reuseport" => {
            for _ in 0..n {
                start(how, address, Stdio::null())?;
            }
            wait_for_the_end()
        }
        "inherited" => {
            let listener = bind(address, false)?;
            for _ in 0..n {
                start(how, address, OwnedFd::from(listener.try_clone()?).into())?;
            }
            wait_for_the_end()
        }
        "handoff" => {
            let mut links = Vec::new();
            for _ in 0..n {
                let (ours, theirs) = UnixStream::pair()?;
                start(how, address, OwnedFd::from(theirs).into())?;
                links.push(ours);
            }
            hand_off(&bind(address, false)?, &links)
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

/// Its children end with this process: they asked for it.
fn start(how: &str, address: SocketAddr, stdin: Stdio) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["role", "hyper-process", how, &address.to_string()]).stdin(stdin).stdout(Stdio::null());
    command.spawn().context("a hyper process")?;
    Ok(())
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
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        served::serve(stream, served::HELLO);
    }
}

/// The naive parent: accepts, gives each connection to the next process, and does nothing else.
fn hand_off(listener: &TcpListener, links: &[UnixStream]) -> Result<()> {
    listener.set_nonblocking(false)?;
    for link in links.iter().cycle() {
        let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        send_socket(link, &socket)?;
    }
    Ok(())
}

/// The other end: serves what the parent gives, until that ends.
async fn take(link: UnixStream) -> Result<()> {
    link.set_nonblocking(true)?;
    let link = tokio::net::UnixStream::from_std(link)?;
    while let Some(socket) = link.async_io(Interest::READABLE, || receive_socket(&link)).await? {
        let stream = tokio::net::TcpStream::from_std(socket.into())?;
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
