//! Listeners of every kind, behind which each line (or packet) is answered with the worker's name and process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rclust::cluster::net::{Dispatch, TcpListener, UdpSocket, UnixListener};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Where and how to listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct At {
    kind: Kind,
    address: String,
    dispatch: Way,
    v6_only: bool,
    exclusive: bool,
    backlog: Option<u32>,
    most: Option<u64>,
    mode: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Kind {
    Tcp,
    Udp,
    UdpDescriptor,
    Unix,
    Http,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Way {
    Balanced,
    RoundRobin,
    Shared,
}

impl At {
    fn new(kind: Kind, address: &str) -> At {
        let address = address.to_owned();
        let dispatch = Way::Balanced;
        At { kind, address, dispatch, v6_only: false, exclusive: false, backlog: None, most: None, mode: None }
    }

    pub(crate) fn tcp(address: &str) -> At {
        At::new(Kind::Tcp, address)
    }

    pub(crate) fn udp(address: &str) -> At {
        At::new(Kind::Udp, address)
    }

    /// A descriptor of the supervisor's.
    pub(crate) fn udp_descriptor(number: i32) -> At {
        At::new(Kind::UdpDescriptor, &number.to_string())
    }

    pub(crate) fn unix(path: &str) -> At {
        At::new(Kind::Unix, path)
    }

    /// HTTP over a Unix path.
    pub(crate) fn http(path: &str) -> At {
        At::new(Kind::Http, path)
    }

    /// Node's SCHED_NONE.
    pub(crate) fn shared(self) -> At {
        At { dispatch: Way::Shared, ..self }
    }

    pub(crate) fn in_turn(self) -> At {
        At { dispatch: Way::RoundRobin, ..self }
    }

    pub(crate) fn v6_only(self) -> At {
        At { v6_only: true, ..self }
    }

    pub(crate) fn exclusive(self) -> At {
        At { exclusive: true, ..self }
    }

    pub(crate) fn backlog(self, backlog: u32) -> At {
        At { backlog: Some(backlog), ..self }
    }

    /// Connections that this worker has at most.
    pub(crate) fn most(self, most: u64) -> At {
        At { most: Some(most), ..self }
    }

    pub(crate) fn mode(self, mode: u32) -> At {
        At { mode: Some(mode), ..self }
    }
}

/// Why a bind failed: the system's number, and words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused { code: error.raw_os_error().unwrap_or(0), text: error.to_string() }
    }
}

pub(crate) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
    Http(UnixListener),
}

pub(crate) async fn bind(at: &At) -> io::Result<Bound> {
    let dispatch = match at.dispatch {
        Way::Balanced => Dispatch::Balanced,
        Way::RoundRobin => Dispatch::RoundRobin,
        Way::Shared => Dispatch::Shared,
    };
    Ok(match at.kind {
        Kind::Tcp => {
            let mut builder = TcpListener::builder().dispatch(dispatch).v6_only(at.v6_only).exclusive(at.exclusive);
            if let Some(backlog) = at.backlog {
                builder = builder.backlog(backlog);
            }
            if let Some(most) = at.most {
                builder = builder.max_connections_per_worker(most);
            }
            Bound::Tcp(builder.bind(&at.address).await?)
        }
        Kind::Udp => Bound::Udp(UdpSocket::builder().v6_only(at.v6_only).bind(&at.address).await?),
        Kind::UdpDescriptor => {
            let number = at.address.parse().map_err(io::Error::other)?;
            Bound::Udp(UdpSocket::builder().descriptor(number).await?)
        }
        Kind::Unix | Kind::Http => {
            let mut builder = UnixListener::builder().dispatch(dispatch);
            if let Some(mode) = at.mode {
                builder = builder.mode(mode);
            }
            let listener = builder.bind(&at.address).await?;
            if at.kind == Kind::Http { Bound::Http(listener) } else { Bound::Unix(listener) }
        }
    })
}

impl Bound {
    pub(crate) fn address(&self) -> io::Result<String> {
        match self {
            Bound::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Bound::Udp(socket) => Ok(socket.local_addr()?.to_string()),
            Bound::Unix(listener) | Bound::Http(listener) => {
                let address = listener.local_addr()?;
                Ok(address.as_pathname().map_or_else(String::new, |path| path.display().to_string()))
            }
        }
    }

    /// Answers until it is closed or the worker stops. Open connections are finished after a stop; a close ends none.
    pub(crate) async fn answer(
        self,
        name: String,
        mut closing: oneshot::Receiver<oneshot::Sender<()>>,
        shutdown: impl Future<Output = ()> + Clone + Send + 'static,
    ) -> io::Result<()> {
        let mut open = JoinSet::new();
        let mut closed = None;
        if let Bound::Http(listener) = self {
            let app = axum::Router::new().route("/", axum::routing::get(move || async move { format!("{name}\n") }));
            return axum::serve(listener, app).with_graceful_shutdown(shutdown).await;
        }
        let answering = async {
            loop {
                match &self {
                    Bound::Tcp(listener) => drop(open.spawn(lines(listener.accept().await?.0, name.clone()))),
                    Bound::Unix(listener) => drop(open.spawn(lines(listener.accept().await?.0, name.clone()))),
                    Bound::Udp(socket) => {
                        let from = socket.recv_from(&mut [0; 64]).await?.1;
                        socket.send_to(who(&name).as_bytes(), from).await?;
                    }
                    Bound::Http(_) => return Ok(()),
                }
            }
        };
        let outcome = tokio::select! {
            outcome = answering => outcome,
            done = &mut closing => { closed = done.ok(); Ok(()) }
            () = shutdown => Ok(()),
        };
        drop(self);
        if let Some(closed) = closed {
            let _ = closed.send(());
        }
        while open.join_next().await.is_some() {}
        outcome
    }
}

fn who(name: &str) -> String {
    format!("{name} {}\n", std::process::id())
}

/// Answers each line.
pub(crate) async fn lines(stream: impl AsyncRead + AsyncWrite, name: String) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    while lines.next_line().await?.is_some() {
        write.write_all(who(&name).as_bytes()).await?;
    }
    Ok(())
}

/// Answers each HTTP request.
pub(crate) async fn http(stream: tokio::net::TcpStream, name: String) -> io::Result<()> {
    use http_body_util::Full;
    use hyper::service::service_fn;
    let answer = service_fn(move |_| {
        let response = hyper::Response::new(Full::new(hyper::body::Bytes::from(who(&name))));
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let stream = hyper_util::rt::TokioIo::new(stream);
    hyper::server::conn::http1::Builder::new().serve_connection(stream, answer).await.map_err(io::Error::other)
}

/// A socket of this process's own, which others may share the address of.
pub(crate) fn reuse(tcp: bool, address: &str) -> io::Result<(OwnedFd, String)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    if tcp {
        rustix::net::listen(&socket, 16)?;
    }
    let bound: SocketAddr = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, bound.to_string()))
}
