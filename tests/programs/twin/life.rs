//! Life cycle and events: the workers' part. What becomes of them all is in `ends`.

use anyhow::{bail, ensure};
use rclust::cluster::{
    Child, EventKind, ExitReason, ManageError, Pool, Refusal, Restart, Shutdown, Signal, WorkerState,
};

use crate::scene::{Client, NEVER, Outcome, Scene, comes_to, free_address, listen, lives, soon, twin};
use crate::serve::At;
use crate::worker::{Do, Said, Twin};

crate::scenarios! {
    basic, worker_init, worker_events, worker_death, worker_exit, worker_kill, worker_kill_signal, kill_infinite_loop,
    kill_disconnect, worker_destroy, call_and_destroy, worker_isdead, worker_isconnected, worker_no_exit, worker_forced_exit,
    worker_disconnect, worker_disconnect_on_error, worker_wait_server_close, worker_handle_close, process_disconnect,
    setup_primary, setup_primary_cumulative, message, invalid_message, ipc_throw,
}

async fn basic() -> Outcome {
    let mut scene = Scene::new().await?;
    let name = "w";
    let starting = scene.fork(name, "listens").await?;
    let mut kinds = Vec::new();
    let ready = scene.kind(name, &EventKind::Ready).await?;
    for event in &scene.seen {
        ensure!((event.worker, event.pid) == (ready.worker, ready.pid) && event.name == name, "{event:?}");
        kinds.push(event.kind.clone());
    }
    match &kinds[..] {
        [EventKind::Forked, EventKind::Online, EventKind::Listening(address), EventKind::Ready] => {
            let address: std::net::SocketAddr = address.parse()?;
            ensure!(address.is_ipv4() && address.port() > 0);
        }
        other => bail!("{other:?}"),
    }
    let status = starting.status().await?;
    ensure!((status.state, status.worker, status.pid) == (WorkerState::Ready, ready.worker, ready.pid), "{status:?}");
    // What marks a worker is not the program's to see, nor to hand on.
    ensure!(starting.ask(|reply| Do::Variable("RCLUST_WORKER_DEPTH".into(), reply)).await?.is_none());
    starting.send(Do::Exit(1)).await?;
    ensure!(scene.exit(name).await? == (ExitReason::Code(1), false));
    comes_to(&starting, WorkerState::Gone).await?;
    scene.ends_once(&[name]).await?;
    for once in [EventKind::Forked, EventKind::Online, EventKind::Ready] {
        ensure!(scene.count(name, |kind| *kind == once) == 1, "{once:?}");
    }
    Ok(())
}

async fn worker_init() -> Outcome {
    let mut scene = Scene::new().await?;
    let cluster = scene.cluster.clone();
    let starting = tokio::spawn(async move { cluster.start_child(twin("w", "")).await });
    scene.kind("w", &EventKind::Online).await?;
    // It may not be ready yet: the message waits for it.
    let worker = scene.worker("w")?;
    worker.send(Do::Note("hello".into())).await?;
    ensure!(scene.note().await?.2 == "hello");
    starting.await??;
    worker.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn worker_events() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let text = "equal: ä \u{1f980} \0".to_owned();
    ensure!(w.ask(|reply| Do::Echo(text.clone(), reply)).await? == text);
    w.send(Do::Note(text.clone())).await?;
    let (slot, by, noted) = scene.note().await?;
    ensure!((slot, by.as_str(), noted) == (w.slot(), "w", text));
    w.send(Do::Fail("as told".into())).await?;
    let (reason, flag) = scene.exit("w").await?;
    ensure!(matches!(&reason, ExitReason::Error(text) if text.contains("as told")) && !flag, "{reason:?}");
    Ok(())
}

async fn worker_death() -> Outcome {
    let (mut scene, [w, watcher]) = Scene::with(["w", "watcher"]).await?;
    w.send(Do::Exit(42)).await?;
    ensure!(scene.exit("w").await? == (ExitReason::Code(42), false));
    ensure!(watcher.state().await? == WorkerState::Ready);
    scene.ends_once(&["w", "watcher"]).await
}

async fn worker_exit() -> Outcome {
    let mut scene = Scene::new().await?;
    let w = scene.fork("w", "listens").await?;
    let pid = w.ask(Do::Pid).await?;
    w.send(Do::Exit(42)).await?;
    ensure!(scene.exit("w").await? == (ExitReason::Code(42), false));
    ensure!(!lives(pid));
    scene.ends_once(&["w"]).await
}

const KILLED: ExitReason = ExitReason::Signal { signal: 9, core: false };

async fn worker_kill() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let pid = w.ask(Do::Pid).await?;
    rclust_tests::kill(pid, rustix::process::Signal::KILL);
    ensure!(scene.exit("w").await? == (KILLED, false));
    comes_to(&w, WorkerState::Gone).await?;
    ensure!(!lives(pid) && scene.names().await?.is_empty());
    scene.ends_once(&["w"]).await
}

async fn worker_kill_signal() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let status = w.status().await?;
    ensure!(Some(w.kill(Signal::KILL).await?) == status.worker);
    ensure!(scene.exit("w").await? == (KILLED, false));
    // A permanent one is replaced: its death was not asked for.
    scene.add(twin("p", "").restart(Restart::Permanent)).await?;
    let p = scene.worker("p")?;
    p.kill(Signal::ABRT).await?;
    let (reason, flag) = scene.exit("p").await?;
    ensure!(matches!(reason, ExitReason::Signal { signal: 6, .. }) && !flag, "{reason:?}");
    ensure!(p.ask(|reply| Do::Echo("again".into(), reply)).await? == "again");
    scene.ends_once(&["w"]).await
}

async fn kill_infinite_loop() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    w.send(Do::Spin).await?;
    ensure!(scene.note().await?.2 == "spins");
    // The first SIGTERM asks for a drain that a spinning thread never hears; the second one means now.
    w.kill(Signal::TERM).await?;
    comes_to(&w, WorkerState::Stopping).await?;
    w.kill(Signal::TERM).await?;
    ensure!(scene.exit("w").await?.0 == KILLED);
    scene.ends_once(&["w"]).await
}

async fn kill_disconnect() -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    a.send(Do::Leave).await?;
    ensure!(scene.exit("a").await? == (ExitReason::Shutdown, true));
    scene.add(twin("p", "").restart(Restart::Permanent)).await?;
    let p = scene.worker("p")?;
    let before = p.ask(Do::Pid).await?;
    // What a permanent one has: it recycles itself.
    p.send(Do::Leave).await?;
    ensure!(scene.exit("p").await? == (ExitReason::Shutdown, true));
    ensure!(p.ask(Do::Pid).await? != before && b.state().await? == WorkerState::Ready);
    scene.ends_once(&["a", "b"]).await
}

async fn worker_destroy() -> Outcome {
    let (mut scene, [once, twice]) = Scene::with(["once", "twice"]).await?;
    once.send(Do::Leave).await?;
    // Twice, and stopped by the supervisor while it goes.
    twice.send(Do::LeaveAndNote("left".into())).await?;
    twice.send(Do::Leave).await?;
    twice.disconnect().await?;
    for name in ["once", "twice"] {
        ensure!(scene.exit(name).await? == (ExitReason::Shutdown, true));
    }
    scene.ends_once(&["once", "twice"]).await
}

async fn call_and_destroy() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    w.disconnect().await?;
    scene.exit("w").await?;
    match w.kill(Signal::TERM).await {
        Err(ManageError::Refused { refusal: Refusal::NotRunning, .. }) => {}
        other => bail!("{other:?}"),
    }
    w.disconnect().await?;
    scene.ends_once(&["w"]).await
}

async fn worker_isdead() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    ensure!(!w.is_dead().await?);
    w.send(Do::Exit(0)).await?;
    scene.exit("w").await?;
    ensure!(w.is_dead().await?, "when its exit is told");
    Ok(())
}

async fn worker_isconnected() -> Outcome {
    let mut scene = Scene::new().await?;
    let cluster = scene.cluster.clone();
    let starting = tokio::spawn(async move { cluster.start_child(twin("w", "hangs")).await });
    scene.kind("w", &EventKind::Forked).await?;
    let w = scene.worker("w")?;
    ensure!(w.is_connected().await? && !w.is_dead().await?, "right after the fork");
    scene.kind("w", &EventKind::Online).await?;
    ensure!(w.state().await? == WorkerState::Online);
    w.disconnect().await?;
    scene.kind("w", &EventKind::Disconnected).await?;
    ensure!(!w.is_connected().await?);
    ensure!(starting.await?.is_err(), "a start that was cancelled");
    Ok(())
}

async fn worker_no_exit() -> Outcome {
    let mut scene = Scene::new().await?;
    let w = scene.fork("w", "").await?;
    let address = scene.listen(std::slice::from_ref(&w), &At::tcp("127.0.0.1:0")).await?;
    let mut client = Client::connect(&address).await?;
    client.who().await?;
    let disconnecting = tokio::spawn({
        let w = w.clone();
        async move { w.disconnect().await }
    });
    comes_to(&w, WorkerState::Stopping).await?;
    // It serves whom it has; nobody cuts that before the deadline, which is never here.
    ensure!(client.who().await? == "w" && !w.is_dead().await?);
    drop(client);
    soon("its end", disconnecting).await???;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn worker_forced_exit() -> Outcome {
    let mut scene = Scene::new().await?;
    let w = scene.fork("w", "exits-42").await?;
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Code(42), true), "its own code, though it was asked to go");
    scene.ends_once(&["w"]).await
}

async fn worker_disconnect() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let pid = w.ask(Do::Pid).await?;
    w.disconnect().await?;
    let (_, by, text) = scene.note().await?;
    ensure!((by.as_str(), text.as_str()) == ("w", "stops: Terminated"));
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true) && !lives(pid));
    ensure!(w.state().await? == WorkerState::Gone);
    scene.ends_once(&["w"]).await
}

async fn worker_disconnect_on_error() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = At::tcp(&taken.local_addr()?.to_string()).shared();
    w.send(Do::ListenOr(at, false)).await?;
    ensure!(scene.note().await?.2 == "refused: 98");
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn worker_wait_server_close() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let address = scene.listen(std::slice::from_ref(&w), &At::tcp("127.0.0.1:0")).await?;
    let mut client = Client::connect(&address).await?;
    client.who().await?;
    let stopping = tokio::spawn({
        let w = w.clone();
        async move { w.disconnect().await }
    });
    ensure!(scene.note().await?.2 == "stops: Terminated");
    // It has been told, and its link is open as long as its client is there.
    client.who().await?;
    ensure!(w.state().await? == WorkerState::Stopping);
    drop(client);
    scene.kind("w", &EventKind::Disconnected).await?;
    soon("its end", stopping).await???;
    Ok(())
}

async fn worker_handle_close() -> Outcome {
    let (scene, [closing, other]) = Scene::with(["closing", "other"]).await?;
    let at = At::tcp(&free_address()?).in_turn();
    let own = || Ok::<_, std::io::Error>(std::fs::read_dir("/proc/self/fd")?.count());
    let address = scene.listen(&[closing.clone(), other.clone()], &at).await?;
    let (before, worker) = (own()?, closing.ask(Do::Descriptors).await?);
    for round in 0..20 {
        let clients: Vec<_> = (0..8).map(|_| tokio::spawn(Client::connect(address.clone()))).collect();
        closing.ask(|reply| Do::Close(round, reply)).await?;
        for client in clients {
            // Whoever was on its way to the server that closed is answered by the other one.
            let mut client = client.await??;
            ensure!(["closing", "other"].contains(&client.who().await?.as_str()));
        }
        listen(&closing, &at).await??;
    }
    let flat = async {
        while own()? > before + 2 || closing.ask(Do::Descriptors).await? > worker + 2 {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    soon("descriptors as before", flat).await?
}

async fn process_disconnect() -> Outcome {
    let mut scene = Scene::new().await?;
    let w = scene.fork("w", "listens").await?;
    let pid = w.ask(Do::Pid).await?;
    w.send(Do::CutLinks).await?;
    let (reason, _) = scene.exit("w").await?;
    // Without a link it is nobody's worker: it ends itself, or is ended, whichever is first.
    ensure!(!lives(pid), "{reason:?}");
    scene.ends_once(&["w"]).await
}

async fn setup_primary() -> Outcome {
    // What all members are started with: the settings of their child.
    let scene = Scene::new().await?;
    let pool = Pool::<Twin>::new("p").args("given to all".into()).size(2);
    scene.cluster.start_child(pool).await?;
    let given: Vec<String> = std::env::args().skip(1).collect();
    for name in ["p[0]", "p[1]"] {
        let worker = scene.worker(name)?;
        ensure!(worker.ask(Do::Manner).await? == "given to all");
        let arguments = worker.ask(Do::Arguments).await?;
        ensure!(arguments[1..] == given, "{arguments:?}");
    }
    Ok(())
}

async fn setup_primary_cumulative() -> Outcome {
    let scene = Scene::new().await?;
    let child = Child::<Twin>::new("w").restart(Restart::Temporary).args(String::new());
    scene.add(child.shutdown(Shutdown::Timeout(NEVER)).restart(Restart::Transient)).await?;
    let spec = scene.cluster.child_spec("w").await?;
    ensure!((spec.restart, spec.shutdown) == (Restart::Transient, Shutdown::Timeout(NEVER)), "{spec:?}");
    Ok(())
}

async fn message() -> Outcome {
    let (mut scene, [a, b]) = Scene::with(["a", "b"]).await?;
    for worker in [&a, &b] {
        worker.send(Do::Note(format!("to {}", worker.name()))).await?;
        let (slot, by, text) = scene.note().await?;
        ensure!((slot, by.as_str(), text) == (worker.slot(), worker.name(), format!("to {}", worker.name())));
    }
    Ok(())
}

async fn invalid_message() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    // What is a control message elsewhere is text here: the control lane is another socket, and its types cannot be named.
    for forged in [r#"{"cmd":"NODE_CLUSTER","ack":-1}"#, "\u{1}\0\0\0stop", "NODE_HANDLE_ACK"] {
        ensure!(w.ask(|reply| Do::Echo(forged.into(), reply)).await? == forged);
    }
    w.disconnect().await?;
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true));
    Ok(())
}

async fn ipc_throw() -> Outcome {
    let (mut scene, [w, other]) = Scene::with(["w", "other"]).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    w.send(Do::ListenOr(At::tcp(&taken.local_addr()?.to_string()), true)).await?;
    match scene.said().await? {
        Said::Note { by, text } => ensure!((by.as_str(), text.as_str()) == ("w", "refused: 98")),
        other => bail!("{other:?}"),
    }
    let (reason, flag) = scene.exit("w").await?;
    ensure!(matches!(&reason, ExitReason::Panic { message, .. } if message == "as told") && !flag, "{reason:?}");
    ensure!(other.state().await? == WorkerState::Ready);
    Ok(())
}
