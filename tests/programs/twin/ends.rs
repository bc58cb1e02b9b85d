//! What becomes of all workers: `cluster.disconnect()`, the supervisor's own end, races between them.

use anyhow::{bail, ensure};
use rclust::cluster::{EventKind, ExitReason, Pool, Shutdown, StartError, Supervisor, WorkerState};

use tokio::task::JoinSet;

use crate::scene::{Client, NEVER, Outcome, Scene, comes_to, soon, twin};
use crate::serve::At;
use crate::worker::{Do, Twin};

crate::scenarios! {
    disconnect, disconnect_before_exit, disconnect_exited_after_disconnect_race, disconnect_idle_worker, disconnect_leak,
    disconnect_race, disconnect_unshared_tcp, disconnect_unshared_udp, disconnect_with_no_workers, concurrent_disconnect, primary_error, primary_exit,
    primary_kill, uncaught_exception,
}

async fn disconnect() -> Outcome {
    let mut scene = Scene::new().await?;
    let pool = Pool::<Twin>::new("p").args(String::new()).size(8).shutdown(Shutdown::Timeout(NEVER));
    scene.cluster.start_child(pool).await?;
    // The whole twice, in the same program.
    for round in 1..=2 {
        let workers: Vec<_> = scene.cluster.pool::<Twin>("p")?.iter().collect();
        for _ in 0..2 {
            let address = scene.listen(&workers, &At::tcp("127.0.0.1:0").in_turn()).await?;
            let mut answered = Vec::new();
            for _ in 0..8 {
                answered.push(Client::connect(&address).await?.who().await?);
            }
            answered.sort();
            answered.dedup();
            ensure!(answered.len() == 8, "each has one: {answered:?}");
        }
        soon("the end of all", scene.cluster.disconnect()).await??;
        for worker in &workers {
            ensure!(worker.state().await? == WorkerState::Dead);
            ensure!(scene.exit_of(worker.name(), round).await? == (ExitReason::Shutdown, true));
        }
        if round == 1 {
            scene.cluster.restart_child("p").await?;
        }
    }
    Ok(())
}

async fn disconnect_before_exit() -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    let address = scene.listen(std::slice::from_ref(&a), &At::tcp("127.0.0.1:0")).await?;
    let mut client = Client::connect(&address).await?;
    client.who().await?;
    let one = tokio::spawn({
        let a = a.clone();
        async move { a.disconnect().await }
    });
    comes_to(&a, WorkerState::Stopping).await?;
    let all = tokio::spawn({
        let cluster = scene.cluster.clone();
        async move { cluster.disconnect().await }
    });
    // The newest goes first; then it is the turn of the one that is going already.
    scene.exit("b").await?;
    ensure!(!all.is_finished() && b.is_dead().await? && client.who().await? == "a");
    drop(client);
    soon("the first order", one).await???;
    soon("the second order", all).await???;
    let mut told = [scene.note().await?.1, scene.note().await?.1];
    told.sort();
    ensure!(told == ["a", "b"], "each was told once: {told:?}");
    scene.ends_once(&["a", "b"]).await
}

async fn disconnect_exited_after_disconnect_race() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    // What it does in the same turn is done before it is told to stop, which is the supervisor's answer.
    w.send(Do::LeaveAndNote("same turn".into())).await?;
    ensure!(scene.note().await?.2 == "same turn");
    ensure!(scene.note().await?.2 == "stops: Leave");
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true), "exit code 0");
    scene.ends_once(&["w"]).await
}

async fn disconnect_idle_worker() -> Outcome {
    let (mut scene, _) = Scene::with(["a", "b"]).await?;
    soon("the end of all", scene.cluster.disconnect()).await??;
    ensure!(scene.names().await?.is_empty());
    scene.fork("a", "").await?.ask(Do::Pid).await?;
    soon("the end of all", scene.cluster.disconnect()).await??;
    scene.ends_once(&["b"]).await?;
    ensure!(scene.count("a", |kind| matches!(kind, EventKind::Exited { .. })) == 2);
    Ok(())
}

async fn disconnect_leak() -> Outcome {
    let mut scene = Scene::new().await?;
    let cluster = scene.cluster.clone();
    let starting = tokio::spawn(async move { cluster.start_child(twin("w", "listens-shared")).await });
    scene.kind("w", &EventKind::Forked).await?;
    soon("the end of all", scene.cluster.disconnect()).await??;
    // It was just ready, or its start was cancelled.
    let started = starting.await?;
    ensure!(scene.names().await?.is_empty(), "{started:?}");
    scene.ends_once(&["w"]).await
}

async fn disconnect_race() -> Outcome {
    let mut scene = Scene::new().await?;
    let first = scene.fork("first", "listens-shared").await?;
    let cluster = scene.cluster.clone();
    let starting = tokio::spawn(async move { cluster.start_child(twin("second", "listens-shared")).await });
    scene.kind("second", &EventKind::Online).await?;
    let second = scene.worker("second")?;
    let (one, other) = tokio::join!(first.disconnect(), second.disconnect());
    one?;
    other?;
    let _ = starting.await?;
    ensure!(scene.exit("first").await? == (ExitReason::Shutdown, true));
    ensure!(scene.exit("second").await?.1);
    scene.ends_once(&["first", "second"]).await
}

async fn unshared(at: At) -> Outcome {
    let (mut scene, [listens, idle]) = Scene::with(["listens", "idle"]).await?;
    scene.listen(&[listens], &at).await?;
    idle.disconnect().await?;
    ensure!(scene.exit("idle").await? == (ExitReason::Shutdown, true));
    soon("the end of all", scene.cluster.disconnect()).await??;
    ensure!(scene.exit("listens").await? == (ExitReason::Shutdown, true));
    scene.ends_once(&["listens", "idle"]).await
}

async fn disconnect_unshared_tcp() -> Outcome {
    unshared(At::tcp("127.0.0.1:0").shared()).await
}

async fn disconnect_unshared_udp() -> Outcome {
    unshared(At::udp("127.0.0.1:0")).await
}

async fn disconnect_with_no_workers() -> Outcome {
    let mut scene = Scene::new().await?;
    soon("nothing", scene.cluster.disconnect()).await??;
    soon("nothing", scene.cluster.disconnect()).await??;
    scene.fork("w", "").await?;
    scene.ends_once(&["w"]).await
}

async fn concurrent_disconnect() -> Outcome {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (mut scene, workers) = Scene::with(names).await?;
    scene.listen(&workers, &At::tcp("127.0.0.1:0")).await?;
    // Each by itself, by order, and by the order to all, at the same time; what comes too late comes back.
    let leaving = async {
        for worker in &workers {
            let _ = worker.try_send(Do::Leave);
            worker.flush();
        }
    };
    let ordered: JoinSet<_> =
        workers.clone().into_iter().map(|worker| async move { worker.disconnect().await }).collect();
    let ((), ordered, all) = tokio::join!(leaving, ordered.join_all(), scene.cluster.disconnect());
    ordered.into_iter().chain([all]).collect::<Result<(), _>>()?;
    for name in names {
        let (reason, flag) = scene.exit(name).await?;
        ensure!(reason == ExitReason::Shutdown && flag, "{name}: {reason:?}");
    }
    scene.ends_once(&names).await
}

/// Two workers that listen and are told of; one of them spins where that is asked for.
async fn two(spins: bool) -> anyhow::Result<Scene> {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    scene.listen(&[a.clone(), b.clone()], &At::tcp("127.0.0.1:0")).await?;
    let pids = [a.ask(Do::Pid).await?, b.ask(Do::Pid).await?];
    if spins {
        b.send(Do::Spin).await?;
        scene.note().await?;
    }
    println!("workers {} {}", pids[0], pids[1]);
    Ok(scene)
}

async fn primary_error() -> Outcome {
    let _scene = two(false).await?;
    bail!("the primary's error")
}

async fn primary_exit() -> Outcome {
    let _scene = two(false).await?;
    end()
}

/// Ends the process in the middle of everything.
fn end() -> Outcome {
    std::process::exit(0)
}

async fn primary_kill() -> Outcome {
    let scene = two(true).await?;
    Ok(scene.cluster.run().await?)
}

async fn uncaught_exception() -> Outcome {
    std::panic::set_hook(Box::new(|_| std::process::exit(42)));
    let _scene = two(false).await?;
    // In the supervisor a tree cannot be started twice with one name; that is no panic, this is.
    let twice = Supervisor::one_for_one().child(twin("x", "")).child(twin("x", "")).start().await;
    ensure!(matches!(twice, Err(StartError::Plan(_))), "{twice:?}");
    panic!("nobody catches this")
}
