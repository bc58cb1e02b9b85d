//! What Node's tests of `child_process` say of the channel: here of mailboxes, starts and ends.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rclust::cluster::{
    Child, EventKind, ExitReason, Mailbox, ManageError, Refusal, Restart, SendError, TrySendError, WorkerState,
};
use rustix::process::{Resource, Rlimit};
use tokio::io::AsyncReadExt;

use crate::scene::{Outcome, Scene, comes_to, soon, twin};
use crate::worker::{Do, Twin};

crate::scenarios! {
    child_process_send_cb, child_process_send_after_close, child_process_send_returns_boolean, child_process_send_utf8,
    child_process_ipc_next_tick, child_process_internal, child_process_disconnect, child_process_fork3, child_process_fork_and_spawn,
    child_process_fork_args, child_process_fork_close, child_process_fork_ref, child_process_fork_timeout_kill_signal,
    child_process_fork_advanced_serialization_largebuffer, child_process_emfile,
}

async fn child_process_send_cb() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    w.send(Do::Note("sent".into())).await?;
    ensure!(scene.note().await?.2 == "sent");
    Ok(())
}

async fn child_process_send_after_close() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    w.disconnect().await?;
    match w.send(Do::Note("late".into())).await {
        Err(SendError::Closed { message: Do::Note(text), to }) => {
            ensure!((text.as_str(), to.as_str()) == ("late", "w"))
        }
        other => bail!("{other:?}"),
    }
    ensure!(w.ask(Do::Pid).await.is_err());
    Ok(())
}

async fn child_process_send_returns_boolean() -> Outcome {
    let mut scene = Scene::new().await?;
    let small = Child::<Twin>::new("w").args(String::new()).mailbox(Mailbox::new().lane(4096).largest(1024));
    scene.add(small.restart(Restart::Temporary)).await?;
    let w = scene.worker("w")?;
    let pid = w.ask(Do::Pid).await?;
    rclust_tests::kill(pid, rustix::process::Signal::STOP);
    // It is stopped: some go, then one comes back, and memory is bounded.
    let mut sent = 0;
    let full = loop {
        match w.try_send(Do::Note("x".repeat(200))) {
            Ok(()) => sent += 1,
            Err(full) => break full,
        }
    };
    ensure!(matches!(full, TrySendError::Full { message: Do::Note(_), .. }) && (1..100).contains(&sent), "{sent}");
    rclust_tests::kill(pid, rustix::process::Signal::CONT);
    for _ in 0..sent {
        scene.note().await?;
    }
    w.send(Do::Note("drained".into())).await?;
    ensure!(scene.note().await?.2 == "drained");
    Ok(())
}

async fn child_process_send_utf8() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let text = "ßü🦀".repeat(133_334);
    ensure!(text.chars().count() >= 400_000);
    ensure!(w.ask(|reply| Do::Echo(text.clone(), reply)).await? == text);
    Ok(())
}

async fn child_process_ipc_next_tick() -> Outcome {
    let mut scene = Scene::new().await?;
    scene.add(twin("w", "").restart(Restart::Permanent)).await?;
    let w = scene.worker("w")?;
    for n in 0..10 {
        w.send(Do::NoteAndPanic(n.to_string())).await?;
    }
    // Each costs an incarnation, and none the messages behind it.
    for n in 0..10 {
        ensure!(scene.note().await?.2 == n.to_string());
    }
    Ok(())
}

async fn child_process_internal() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    for text in ["NODE_", "NODE_CLUSTER", "rclust", "Stop", "Ready"] {
        w.send(Do::Note(text.into())).await?;
        ensure!(scene.note().await?.2 == text, "every message is the program's");
    }
    ensure!(w.state().await? == WorkerState::Ready);
    Ok(())
}

async fn child_process_disconnect() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    let order = w.disconnect();
    // Nothing has happened before it is awaited; then both sides see it.
    ensure!(w.is_connected().await?);
    soon("its end", order).await??;
    ensure!(scene.note().await?.2 == "stops: Terminated");
    scene.kind("w", &EventKind::Disconnected).await?;
    ensure!(!w.is_connected().await?);
    ensure!(scene.exit("w").await? == (ExitReason::Shutdown, true), "it ends by itself, with exit code 0");
    Ok(())
}

async fn child_process_fork3() -> Outcome {
    let (mut scene, _) = Scene::with(["w"]).await?;
    scene.cluster.disconnect().await?;
    scene.ends_once(&["w"]).await
}

async fn child_process_fork_and_spawn() -> Outcome {
    let (scene, [_a]) = Scene::with(["a"]).await?;
    // A program whose output ends when it does: the worker that was started meanwhile has not inherited the other end.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    scene.fork("b", "").await?;
    let mut child = std::process::Command::new("echo").arg("spawned").stdout(write).spawn()?;
    let mut text = String::new();
    let mut read = tokio::net::unix::pipe::Receiver::from_owned_fd(read)?;
    soon("the end of its output", read.read_to_string(&mut text)).await??;
    ensure!(text == "spawned\n" && child.wait()?.success());
    Ok(())
}

/// The test gives arguments that a shell would change.
async fn child_process_fork_args() -> Outcome {
    let (_scene, [w]) = Scene::with(["w"]).await?;
    let arguments = w.ask(Do::Arguments).await?;
    ensure!(arguments == std::env::args().collect::<Vec<_>>(), "{arguments:?}");
    ensure!(arguments[2..] == ["$HOME *", "", "a b", "--flag"], "{arguments:?}");
    Ok(())
}

async fn child_process_fork_close() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    for n in 0..100 {
        w.send(Do::Note(n.to_string())).await?;
    }
    w.send(Do::Exit(0)).await?;
    ensure!(scene.exit("w").await? == (ExitReason::Normal, false));
    // What it had said is there, also after its end.
    for n in 0..100 {
        ensure!(scene.note().await?.2 == n.to_string());
    }
    let first = scene.seen.iter().position(|event| event.kind == EventKind::Disconnected).context("disconnected")?;
    let last = scene.seen.iter().position(|event| event.exited_after_disconnect().is_some()).context("exited")?;
    ensure!(first < last, "{:?}", scene.seen);
    Ok(())
}

async fn child_process_fork_ref() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    // Nothing but its mailbox keeps it, and that does.
    ensure!(w.ask(|reply| Do::Echo("alive".into(), reply)).await? == "alive");
    w.send(Do::LeaveAndNote("left".into())).await?;
    ensure!(scene.note().await?.2 == "left");
    scene.exit("w").await?;
    comes_to(&w, WorkerState::Gone).await?;
    ensure!(w.send(Do::Note("late".into())).await.is_err());
    ensure!(scene.note().await?.2 == "stops: Leave", "and nothing after that");
    scene.ends_once(&["w"]).await
}

async fn child_process_fork_timeout_kill_signal() -> Outcome {
    let mut scene = Scene::new().await?;
    let limit = Duration::from_millis(200);
    match scene.cluster.start_child(twin("w", "hangs").start_timeout(limit)).await {
        Err(ManageError::Refused { refusal: Refusal::Failed(ExitReason::StartTimeout(after)), .. }) => {
            ensure!(after == limit);
        }
        other => bail!("{other:?}"),
    }
    ensure!(scene.exit("w").await? == (ExitReason::StartTimeout(limit), false));
    scene.ends_once(&["w"]).await
}

async fn child_process_fork_advanced_serialization_largebuffer() -> Outcome {
    let (mut scene, [w]) = Scene::with(["w"]).await?;
    for n in 0..4_u8 {
        w.send(Do::Return(char::from(b'a' + n).to_string().repeat(8 << 20), None)).await?;
    }
    for n in 0..4_u8 {
        let text = scene.stream().await?.0;
        ensure!(text.len() == 8 << 20 && text.bytes().all(|byte| byte == b'a' + n), "{n}: {} bytes", text.len());
    }
    Ok(())
}

async fn child_process_emfile() -> Outcome {
    let mut scene = Scene::new().await?;
    let before = rustix::process::getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd")?.flatten();
    let highest = open.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max().unwrap_or(3);
    let mut fill = Vec::new();
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(highest + 1), ..before })?;
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fill.push(file);
    }
    let refused = scene.cluster.start_child(twin("w", "")).await;
    rustix::process::setrlimit(Resource::Nofile, before)?;
    drop(fill);
    match refused {
        Err(ManageError::Refused { refusal: Refusal::Failed(ExitReason::Spawn(text)), .. }) => {
            ensure!(text.contains("Too many open files"), "{text}");
        }
        other => bail!("{other:?}"),
    }
    scene.fork("w", "").await?.ask(Do::Pid).await?;
    scene.ends_once(&["w"]).await
}
