//! The worker of all scenarios: it does what it is told by message, and its manner says what it does on its own.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rclust::cluster::{self, Context, Reply, Socket, StopReason};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::serve::{self, At, Refused};

/// What the supervisor's body tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Do {
    Pid(Reply<u32>),
    Echo(String, Reply<String>),
    /// Say it back, by message.
    Note(String),
    Variable(String, Reply<Option<String>>),
    Arguments(Reply<Vec<String>>),
    Directory(Reply<String>),
    /// On standard output, and on standard error.
    Print(String),
    /// The argument of its start.
    Manner(Reply<String>),
    Exit(i32),
    Spin,
    Leave,
    /// Leave, and say that too after that.
    LeaveAndNote(String),
    Fail(String),
    /// Say it, and panic.
    NoteAndPanic(String),
    /// Shut down every socket it has.
    CutLinks,
    /// Listen and answer each line (each packet) with name and pid; where.
    Listen(At, Reply<Result<String, Refused>>),
    /// Listen; if that is refused, say so and leave, or panic.
    ListenOr(At, bool),
    /// Close the n-th of those.
    Close(usize, Reply<()>),
    /// Serve it as if it had been accepted here.
    Serve(Socket<TcpStream>),
    /// The same with HTTP.
    ServeHttp(Socket<TcpStream>),
    /// Write this and close it.
    Write(String, Socket<TcpStream>),
    /// Give it back with what came beside it.
    Return(String, Option<Socket<TcpStream>>),
    /// Connect there and give the supervisor the stream.
    Connect(String),
    /// Accept one connection and write this to it.
    AcceptOne(Socket<std::net::TcpListener>, String),
    /// Say what the next packet is.
    Receive(Socket<UdpSocket>),
    /// Read to the end, write it back in capitals.
    Shout {
        from: Socket<OwnedFd>,
        to: Socket<OwnedFd>,
    },
    /// Bind a socket of its own with SO_REUSEPORT, this often; the address.
    Reuse {
        tcp: bool,
        address: String,
        times: usize,
        reply: Reply<Result<Vec<String>, String>>,
    },
    Descriptors(Reply<usize>),
}

/// What workers tell the supervisor's body.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Note { by: String, text: String },
    Stream { text: String, stream: Option<Socket<TcpStream>> },
}

pub(crate) struct Twin {
    manner: String,
    listeners: Vec<Option<oneshot::Sender<oneshot::Sender<()>>>>,
    kept: HashMap<usize, Vec<OwnedFd>>,
}

/// Says it, at once: what follows may be the end.
async fn note<W: cluster::Worker>(cx: &Context<W>, text: impl Into<String>) -> cluster::Result<()> {
    let (by, text) = (cx.name().to_owned(), text.into());
    cx.supervisor().send(Said::Note { by, text }).await?;
    // Another reference to the same mailbox: a flush is for all that was sent there.
    cx.supervisor::<Said>().flush();
    Ok(())
}

impl Twin {
    async fn listen(&mut self, at: &At, cx: &mut Context<Self>) -> Result<String, Refused> {
        let bound = serve::bind(at).await?;
        let address = bound.address()?;
        let (close, closing) = oneshot::channel();
        self.listeners.push(Some(close));
        cx.spawn_local(bound.answer(cx.name().to_owned(), closing, cx.shutdown()));
        Ok(address)
    }
}

impl cluster::Worker for Twin {
    type Msg = Do;
    type Args = String;

    async fn start(manner: String, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let mut twin = Twin { manner, listeners: Vec::new(), kept: HashMap::new() };
        match twin.manner.as_str() {
            "hangs" => std::future::pending().await,
            "listens" => drop(twin.listen(&At::tcp("127.0.0.1:0"), cx).await?),
            "listens-shared" => drop(twin.listen(&At::tcp("127.0.0.1:0").shared(), cx).await?),
            "ends-with-its-listener" => {
                let listener = cluster::net::TcpListener::bind("127.0.0.1:0").await?;
                cx.spawn_linked(async move { drop(listener) });
            }
            _ => {}
        }
        Ok(twin)
    }

    async fn on_message(&mut self, message: Do, cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {
            Do::Pid(reply) => reply.send(std::process::id()),
            Do::Echo(text, reply) => reply.send(text),
            Do::Note(text) => note(cx, text).await?,
            Do::Variable(name, reply) => reply.send(std::env::var(name).ok()),
            Do::Arguments(reply) => reply.send(std::env::args().collect()),
            Do::Directory(reply) => reply.send(std::env::current_dir()?.display().to_string()),
            Do::Print(text) => {
                println!("{text}");
                eprintln!("{text}");
            }
            Do::Manner(reply) => reply.send(self.manner.clone()),
            Do::Exit(code) => end(code),
            Do::Spin => {
                note(cx, "spins").await?;
                loop {
                    std::hint::spin_loop();
                }
            }
            Do::Leave => cx.leave(),
            Do::LeaveAndNote(text) => {
                cx.leave();
                note(cx, text).await?;
            }
            Do::Fail(text) => return Err(text.into()),
            Do::NoteAndPanic(text) => {
                note(cx, text).await?;
                panic!("as told");
            }
            Do::CutLinks => cut_links()?,
            Do::Listen(at, reply) => {
                let listening = self.listen(&at, cx).await;
                reply.send(listening);
            }
            Do::ListenOr(at, panics) => {
                if let Err(refused) = self.listen(&at, cx).await {
                    note(cx, format!("refused: {}", refused.code)).await?;
                    assert!(!panics, "as told");
                    cx.leave();
                }
            }
            Do::Close(n, reply) => {
                let (closed, is_closed) = oneshot::channel();
                if let Some(close) = self.listeners.get_mut(n).and_then(Option::take) {
                    let _ = close.send(closed);
                    let _ = is_closed.await;
                }
                reply.send(());
            }
            Do::Serve(stream) => {
                let name = cx.name().to_owned();
                cx.spawn(async move { serve::lines(stream.into_inner(), name).await });
            }
            Do::ServeHttp(stream) => {
                let name = cx.name().to_owned();
                cx.spawn(async move { serve::http(stream.into_inner(), name).await });
            }
            Do::Write(text, stream) => stream.into_inner().write_all(text.as_bytes()).await?,
            Do::Return(text, stream) => cx.supervisor().send(Said::Stream { text, stream }).await?,
            Do::Connect(address) => {
                let stream = Some(TcpStream::connect(&address).await?.into());
                cx.supervisor().send(Said::Stream { text: address, stream }).await?;
            }
            Do::AcceptOne(listener, text) => {
                let listener = listener.into_inner();
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                listener.accept().await?.0.write_all(text.as_bytes()).await?;
            }
            Do::Receive(socket) => {
                let mut bytes = [0; 64];
                let n = socket.into_inner().recv(&mut bytes).await?;
                note(cx, String::from_utf8_lossy(&bytes[..n])).await?;
            }
            Do::Shout { from, to } => {
                let (from, to) = (from.into_inner(), to.into_inner());
                cx.spawn(async move {
                    let mut text = String::new();
                    tokio::net::unix::pipe::Receiver::from_owned_fd(from)?.read_to_string(&mut text).await?;
                    let mut to = tokio::net::unix::pipe::Sender::from_owned_fd(to)?;
                    to.write_all(text.to_uppercase().as_bytes()).await
                });
            }
            Do::Reuse { tcp, address, times, reply } => {
                let all: std::io::Result<Vec<_>> = (0..times).map(|_| serve::reuse(tcp, &address)).collect();
                reply.send(match all {
                    Ok(all) => {
                        let (sockets, addresses) = all.into_iter().unzip();
                        self.kept.insert(self.kept.len(), sockets);
                        Ok(addresses)
                    }
                    Err(error) => Err(error.to_string()),
                });
            }
            Do::Descriptors(reply) => reply.send(std::fs::read_dir("/proc/self/fd")?.count()),
        }
        Ok(())
    }

    async fn on_stop(&mut self, why: StopReason, cx: &mut Context<Self>) -> cluster::Result<()> {
        note(cx, format!("stops: {why:?}")).await?;
        if self.manner == "exits-42" {
            end(42);
        }
        Ok(())
    }
}

/// Ends the process, without the type that says so.
fn end(code: i32) {
    std::process::exit(code);
}

/// Shuts down every socket of this process, its control link among them.
fn cut_links() -> cluster::Result<()> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        // The directory's own descriptor is gone by then.
        let copy = rustix::process::pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty());
        if let Ok(copy) = copy {
            let _ = rustix::net::shutdown(copy.as_fd(), rustix::net::Shutdown::Both);
        }
    }
    std::thread::park_timeout(Duration::from_secs(60));
    Ok(())
}
