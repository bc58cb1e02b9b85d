//! Ways to live and to end. The first argument says which; most are a worker's, some the supervisor's body's.

use std::time::Duration;

use rclust::ProcessRole;
use rclust::cluster::{self, Child, Context, Never, Pool, Restart, Shutdown, Stdin, StopReason, Supervisor};

fn way() -> String {
    std::env::args().nth(1).unwrap_or_default()
}

/// Ends the process, without the type that says so.
fn leave(code: Option<i32>) {
    match code {
        Some(code) => std::process::exit(code),
        None => std::process::abort(),
    }
}

struct Life;

impl cluster::Worker for Life {
    type Msg = Never;
    type Args = ();

    async fn start((): (), cx: &mut Context<Self>) -> cluster::Result<Self> {
        let first = cx.id().incarnation.0 == 1;
        match way().as_str() {
            "start-error" => return Err("no key".into()),
            "start-hangs" | "start-hangs-long" => std::future::pending().await,
            "spins" => loop {
                std::hint::spin_loop();
            },
            "spins-ready" if cx.slot() == 0 => {
                cx.spawn_local(async {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            "error" if first => {
                cx.spawn_linked(async { Err::<(), _>(std::io::Error::other("disk full")) });
            }
            "panic" if first => cx.spawn_linked(async move { assert!(!first, "a bug in {}", "Life") }),
            "panic-in-task" => {
                cx.spawn(async { panic!("only a task") });
            }
            "code" if first => cx.spawn_linked(async { leave(Some(42)) }),
            "abort" if first => cx.spawn_linked(async { leave(None) }),
            "returns" if first => cx.spawn_linked(async {}),
            "grandchild" => {
                let out = std::process::Command::new("/bin/sh").arg("-c").arg("env; ls -l /proc/self/fd").output()?;
                println!("{}", String::from_utf8_lossy(&out.stdout));
                println!("grandchild done");
            }
            "stdin" => {
                let text = std::io::read_to_string(std::io::stdin())?;
                println!("stdin of {}: {text:?}", cx.name());
            }
            "previous" => {
                println!("previous of {}: {:?}", cx.id().incarnation.0, cx.previous());
                if first {
                    std::process::exit(7);
                }
            }
            _ => {}
        }
        println!("{} lives as {}", cx.name(), std::process::id());
        Ok(Life)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }

    async fn on_stop(&mut self, why: StopReason, cx: &mut Context<Self>) -> cluster::Result<()> {
        println!("{} stops: {why:?}", cx.name());
        if way().starts_with("ignores-stop") {
            std::future::pending().await
        }
        Ok(())
    }
}

/// Not in the list of roles.
struct Unlisted;

impl cluster::Worker for Unlisted {
    type Msg = Never;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Unlisted)
    }

    async fn on_message(&mut self, message: Never, _cx: &mut Context<Self>) -> cluster::Result<()> {
        match message {}
    }
}

fn init(role: &ProcessRole) -> cluster::Result<()> {
    if way() == "init" {
        println!("init as {role:?}");
        if matches!(role, ProcessRole::Worker { index: 1, .. }) {
            return Err("no sandbox".into());
        }
    }
    Ok(())
}

#[cluster::main(workers(Life), init = init)]
async fn main() -> cluster::Result<()> {
    let secs = Duration::from_secs;
    let child = Child::<Life>::new;
    let one = Supervisor::one_for_one().intensity(3, secs(60));
    let tree = match way().as_str() {
        "unlisted" => {
            one.child(child("life")).child(Supervisor::one_for_all().named("sub").child(Child::<Unlisted>::new("x")))
        }
        "twice" => one.child(child("life")).child(child("life")),
        "unnamed" => one.child(Supervisor::one_for_all().child(child("life"))),
        "auto" => one.child(Pool::<Life>::new("life")),
        "start-hangs" | "spins" => one.child(child("life").start_timeout(Duration::from_millis(300))),
        "init" | "three" | "body-panics" | "body-returns" | "body-blocks" | "body-exits" | "comm" | "spins-ready" => {
            one.child(Pool::<Life>::new("life").size(3))
        }
        "ignores-stop-long" => one.child(child("life").shutdown(Shutdown::Timeout(secs(600)))),
        "ignores-stop" => one.child(child("life").shutdown(Shutdown::Timeout(Duration::from_millis(200)))),
        "stdin" => one.child(child("life").stdin(Stdin::Inherit)).child(child("other")),
        "args-panic" => one.child(child("life").args_with(|worker| assert!(worker.incarnation.0 == 1, "a bug"))),
        "nested" => {
            let none = Supervisor::one_for_one().intensity(0, secs(60));
            none.child(child("a"))
                .child(Supervisor::one_for_one().named("sub").intensity(0, secs(60)).child(child("x")))
        }
        "temporary" => one.child(child("life").restart(Restart::Temporary)),
        "returns" => one.child(child("life").restart(Restart::Transient)),
        "order" => one
            .child(child("a"))
            .child(Supervisor::rest_for_one().named("s").child(child("b")).child(child("c")))
            .child(child("d")),
        _ => one.child(child("life")),
    };
    let cluster = tree.start().await?;
    println!("up");
    match way().as_str() {
        "body-panics" => panic!("the body has a bug"),
        "body-returns" => return Ok(()),
        "body-blocks" => {
            // A body that is stuck, and an output that nobody reads.
            let filler = vec![b'x'; 1 << 20];
            std::thread::spawn(move || std::io::Write::write_all(&mut std::io::stdout(), &filler));
            std::thread::sleep(secs(60));
        }
        _ => {}
    }
    Ok(cluster.run().await?)
}
