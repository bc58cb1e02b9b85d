//! State that outlives every worker, and is every worker's: a counter and sessions, in Redis.
//!
//!     cargo run --example sessions                        (ADDR=127.0.0.1:3000, REDIS_URL=redis://127.0.0.1:6379/)
//!     curl -c jar http://127.0.0.1:3000/login/ada         a session of an hour, its key in a cookie
//!     curl -b jar http://127.0.0.1:3000/                  who you are, the how manieth visit it is, which worker answered
//!     curl http://127.0.0.1:3000/crash                    aborts a worker; you are still logged in, and no visit is lost
//!
//! No Redis? `apt install redis-server`, `brew install redis`, or `docker run -p 6379:6379 redis`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Router, response::IntoResponse, routing::get};
use rclust::cluster::{self, Context, Pool, Reply, Supervisor, net};
use redis::{AsyncCommands, aio::ConnectionManager, aio::ConnectionManagerConfig};
use std::{env, fs::File, io::Read, net::SocketAddr, process};

type Failed = (StatusCode, String);

fn unavailable(error: redis::RedisError) -> Failed {
    (StatusCode::SERVICE_UNAVAILABLE, format!("Redis: {error}\n"))
}

async fn login(
    Path(name): Path<String>,
    State(mut redis): State<ConnectionManager>,
) -> Result<impl IntoResponse, Failed> {
    let mut key = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key));
    random.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let key = format!("{:032x}", u128::from_ne_bytes(key));
    let () = redis.set_ex(format!("session:{key}"), &name, 3600).await.map_err(unavailable)?;
    Ok(([(header::SET_COOKIE, format!("session={key}; Path=/; HttpOnly; SameSite=Lax"))], format!("hello {name}\n")))
}

async fn home(headers: HeaderMap, State(mut redis): State<ConnectionManager>) -> Result<String, Failed> {
    let visits: u64 = redis.incr("visits", 1).await.map_err(unavailable)?;
    let cookies = headers.get(header::COOKIE).and_then(|cookies| cookies.to_str().ok()).unwrap_or_default();
    let name: Option<String> = match cookies.split("; ").find_map(|cookie| cookie.strip_prefix("session=")) {
        Some(key) => redis.get(format!("session:{key}")).await.map_err(unavailable)?,
        None => None,
    };
    Ok(format!("{}, visit {visits}, process {}\n", name.as_deref().unwrap_or("nobody"), process::id()))
}

struct Web(SocketAddr);

impl cluster::Worker for Web {
    type Msg = Reply<SocketAddr>;
    type Args = ();

    async fn start((): (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379/".into());
        let redis = match redis::Client::open(url.as_str()) {
            Ok(client) => {
                let config = ConnectionManagerConfig::new().set_number_of_retries(1);
                client.get_connection_manager_with_config(config).await
            }
            Err(error) => Err(error),
        };
        let redis = redis.map_err(|error| {
            let server = "`apt install redis-server`, `brew install redis` or `docker run -p 6379:6379 redis`";
            format!("no Redis answers at {url} ({error}): start one ({server}), or say where it is in REDIS_URL")
        })?;
        let app = Router::new().route("/", get(home)).route("/login/{name}", get(login));
        let app = app.route("/crash", get(async || -> &'static str { process::abort() })).with_state(redis);
        let listener = net::TcpListener::bind(env::var("ADDR").as_deref().unwrap_or("127.0.0.1:3000")).await?;
        let local = listener.local_addr()?;
        cx.spawn_linked(axum::serve(listener, app).with_graceful_shutdown(cx.shutdown()));
        Ok(Web(local))
    }

    async fn on_message(&mut self, reply: Reply<SocketAddr>, _cx: &mut Context<Self>) -> cluster::Result<()> {
        reply.send(self.0);
        Ok(())
    }
}

#[cluster::main(workers(Web))]
async fn main() -> cluster::Result<()> {
    let cluster = Supervisor::one_for_one().child(Pool::<Web>::new("web").size(2)).start().await?;
    println!("listening on {}", cluster.pool::<Web>("web")?.ask(|reply| reply).await?);
    Ok(cluster.run().await?)
}
