//! A connection changes hands: HTTP in one worker, from its upgrade on WebSocket in another, in the middle of the stream.
//!
//!     cargo run --example handover                            (ADDR=127.0.0.1:3000)
//!     curl http://127.0.0.1:3000                              in another terminal: `web` answers, and says its process
//!     websocat ws://127.0.0.1:3000/chat                       or any WebSocket client: `chat` echoes, and says its process
//!
//! Kill `web` (`kill -9 PID`): it is replaced, and conversations go on, since `chat` has them. (A tree built by hand gives up at the
//! second death within 5 s, as OTP's; `.intensity(..)` says otherwise.) At Ctrl-C `web` ends at once, and
//! `chat` when nobody has said anything for a second: it has adopted its connections.

use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::{Router, routing::get};
use futures::{SinkExt, StreamExt};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use rclust::cluster::{self, Child, Context, Never, ShutdownSignal, Socket, Supervisor, WorkerRef, net};
use serde::{Deserialize, Serialize};
use std::{env, process};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message, handshake::derive_accept_key, protocol::Role};

/// A client, and what it has sent already behind its request.
#[derive(Debug, Serialize, Deserialize)]
struct Guest(Socket<net::TcpStream>, #[serde(with = "serde_bytes")] Vec<u8>);

struct Web;

impl cluster::Worker for Web {
    type Msg = Never;
    type Args = ();

    async fn start((): (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        let app = Router::new().route("/chat", get(upgrade)).with_state(cx.worker::<Chat>("chat")?);
        let app = app.route("/", get(|| async { format!("web, process {}\n", process::id()) }));
        let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
        let listener = net::TcpListener::bind(addr).await?;
        println!("listening on {}", listener.local_addr()?);
        let app = app.layer(net::LastCalls::new(cx.draining()));
        cx.spawn_linked(axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()));
        Ok(Web)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

type Upgraded = (StatusCode, [(HeaderName, String); 3]);

async fn upgrade(State(chat): State<WorkerRef<Guest>>, mut request: Request) -> Result<Upgraded, StatusCode> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // Behind the answer the connection is ours, and a client that has left by then is no news.
        let Ok(Ok(parts)) = upgraded.await.map(downcast::<TokioIo<net::TcpStream>>) else { return };
        let guest = Guest(Socket::new(parts.io.into_inner()), parts.read_buf.into());
        if let Err(error) = chat.send(guest).await {
            eprintln!("a guest is lost: {error}");
        }
    });
    let [one, two] = [(header::CONNECTION, "upgrade".into()), (header::UPGRADE, "websocket".into())];
    Ok((StatusCode::SWITCHING_PROTOCOLS, [one, two, (header::SEC_WEBSOCKET_ACCEPT, accept)]))
}

struct Chat;

impl cluster::Worker for Chat {
    type Msg = Guest;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Chat)
    }

    async fn on_message(&mut self, Guest(client, read): Guest, cx: &mut Context<Self>) -> cluster::Result<()> {
        cx.spawn(talk(client.into_inner().adopt(), read, cx.shutdown()));
        Ok(())
    }
}

async fn talk(client: net::TcpStream, read: Vec<u8>, mut close: ShutdownSignal) -> Result<(), tungstenite::Error> {
    let mut client = WebSocketStream::from_partially_read(client, read, Role::Server, None).await;
    while let Some(said) = tokio::select! { said = client.next() => said, () = &mut close => None } {
        if let Message::Text(text) = said? {
            client.send(Message::text(format!("chat, process {}: {text}", process::id()))).await?;
        }
    }
    client.close(None).await
}

#[cluster::main(workers(Web, Chat))]
async fn main() -> cluster::Result<()> {
    let tree = Supervisor::one_for_one().child(Child::<Chat>::new("chat")).child(Child::<Web>::new("web"));
    Ok(tree.start().await?.run().await?)
}
