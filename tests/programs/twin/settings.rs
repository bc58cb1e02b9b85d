//! Settings of one worker's process: environment, directory, arguments, outputs.

use anyhow::{Context as _, ensure};
use rclust::cluster::{EventKind, Output, Process, Standard};

use crate::scene::{Outcome, Scene, soon, twin};
use crate::worker::Do;

crate::scenarios! { fork_env, cwd, setup_primary_args, child_process_fork_stdio }

async fn fork_env() -> Outcome {
    let scene = Scene::new().await?;
    scene.add(twin("plain", "")).await?;
    scene.add(twin("given", "").process(Process::new().env("TWIN", "added").env("PATH", "overridden"))).await?;
    let (plain, given) = (scene.worker("plain")?, scene.worker("given")?);
    let of = |name: &'static str| move |reply| Do::Variable(name.into(), reply);
    ensure!(given.ask(of("TWIN")).await?.as_deref() == Some("added"));
    ensure!(given.ask(of("PATH")).await?.as_deref() == Some("overridden"));
    // The others have the supervisor's, and it its own.
    ensure!(plain.ask(of("TWIN")).await?.is_none() && std::env::var_os("TWIN").is_none());
    ensure!(plain.ask(of("PATH")).await? == std::env::var("PATH").ok());
    given.send(Do::Note("sent".into())).await?;
    Ok(())
}

async fn cwd() -> Outcome {
    let scene = Scene::new().await?;
    let elsewhere = std::env::temp_dir().canonicalize()?.display().to_string();
    let own = std::env::current_dir()?.display().to_string();
    ensure!(own != elsewhere, "the test runs elsewhere");
    scene.add(twin("before", "")).await?;
    scene.add(twin("moved", "").process(Process::new().directory(&elsewhere))).await?;
    ensure!(scene.worker("moved")?.ask(Do::Directory).await? == elsewhere);
    ensure!(scene.worker("before")?.ask(Do::Directory).await? == own);
    ensure!(std::env::current_dir()?.display().to_string() == own);
    Ok(())
}

/// Node's `setupPrimary({args})` is for all workers that are forked later; here it is each child's own.
async fn setup_primary_args() -> Outcome {
    let scene = Scene::new().await?;
    let arguments = ["custom argument", "$HOME *"];
    for name in ["a", "b"] {
        scene.add(twin(name, "").process(Process::new().argv(arguments))).await?;
        ensure!(scene.worker(name)?.ask(Do::Arguments).await?[1..] == arguments);
    }
    Ok(())
}

async fn child_process_fork_stdio() -> Outcome {
    let mut scene = Scene::new().await?;
    let mut output = scene.cluster.output();
    scene.add(twin("w", "").process(Process::new().stdout(Output::Stream).stderr(Output::Null))).await?;
    let w = scene.worker("w")?;
    w.send(Do::Print("beside the mailbox".into())).await?;
    let line = soon("a line", output.next()).await?.context("a line")?;
    ensure!((line.name.as_str(), line.text.as_str(), line.from) == ("w", "beside the mailbox", Standard::Output));
    w.disconnect().await?;
    scene.kind("w", &EventKind::Disconnected).await?;
    Ok(())
}
