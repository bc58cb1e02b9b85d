//! Ours, as `life` measures it: a minimal worker, and one that serves a port and answers with its pid.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rclust::cluster::{Child, Context, Never, Pool, Reply, Result, Supervisor, Worker, net};
use rclust::{Role, Settings};

use crate::{process, served, web};

struct Minimal;

impl Worker for Minimal {
    type Msg = Reply<u32>;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> Result<Self> {
        Ok(Minimal)
    }

    async fn on_message(&mut self, reply: Reply<u32>, _cx: &mut Context<Self>) -> Result<()> {
        reply.send(std::process::id());
        Ok(())
    }
}

struct Web;

impl Worker for Web {
    type Msg = Never;
    type Args = String;

    async fn start(address: String, cx: &mut Context<Self>) -> Result<Self> {
        let listener = net::TcpListener::bind(address).await?;
        let pid = std::process::id().to_string();
        let shutdown = cx.shutdown();
        cx.spawn_linked(async move {
            tokio::select! {
                never = async { loop { served::serve(listener.accept().await?.0, pid.clone().into()) } } => never,
                () = shutdown => Result::<()>::Ok(()),
            }
        });
        Ok(Web)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> Result<()> {
        match message {}
    }
}

/// `start minimal|web|web8 ADDRESS`, `kill N`, `serve ADDRESS`
pub(crate) fn play(args: &[&str]) -> ExitCode {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let roles = vec![Role::of::<Minimal>(), Role::of::<Web>()];
    let settings = Settings::new("life").init(web::init);
    rclust::boot(settings, rclust::tree(roles, || body(args)))
}

async fn body(args: Vec<String>) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Killed as often as we like: it must not give up.
    let tree = Supervisor::one_for_one().intensity(u32::MAX, Duration::from_secs(1));
    match args[..] {
        ["start", "minimal", _] => start(tree.child(Child::<Minimal>::new("minimal"))).await,
        ["start", "web", address] => start(tree.child(Child::<Web>::new("web").args(address.into()))).await,
        ["start", "web8", address] => start(tree.child(Pool::<Web>::new("web").size(8).args(address.into()))).await,
        ["kill", n] => kills(tree, n.parse()?).await,
        ["serve", address] => {
            Ok(tree.child(Child::<Web>::new("web").args(address.into())).start().await?.run().await?)
        }
        _ => Err("start SHAPE ADDRESS, kill N, or serve ADDRESS".into()),
    }
}

async fn start(tree: Supervisor) -> Result<()> {
    let start = Instant::now();
    let cluster = tree.start().await?;
    println!("{}", start.elapsed().as_secs_f64() * 1e3);
    cluster.stop().await;
    Ok(())
}

/// Kills the worker and asks for the new one's pid, as any user of the mailbox would.
async fn kills(tree: Supervisor, n: u32) -> Result<()> {
    let cluster = tree.child(Child::<Minimal>::new("minimal")).start().await?;
    let minimal = cluster.worker::<Minimal>("minimal")?;
    let mut pid = minimal.ask(|reply| reply).await?;
    for _ in 0..n {
        let start = Instant::now();
        process::kill(pid).map_err(|error| format!("{error:#}"))?;
        pid = loop {
            // The dying worker may have the question in hand, or even answer it: then we ask again.
            match minimal.ask(|reply| reply).await {
                Ok(other) if other != pid => break other,
                Ok(_) | Err(_) if start.elapsed() < Duration::from_secs(10) => {}
                Ok(_) => return Err("no replacement answers".into()),
                Err(error) => return Err(error.into()),
            }
        };
        println!("{}", start.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.stop().await;
    Ok(())
}
