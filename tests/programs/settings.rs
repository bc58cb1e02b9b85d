//! Children whose processes are not as their supervisor's. The environment's WAY says which: arguments are a setting themselves.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use rclust::cluster::{self, Child, Context, Dynamic, Output, Pool, Process, Reply, Restart, Supervisor, net};
use serde::{Deserialize, Serialize};

fn way() -> String {
    std::env::var("WAY").unwrap_or_default()
}

#[derive(Debug, Serialize, Deserialize)]
enum Do {
    Say(String),
    Complain(String),
    Flood(u64),
    Allocate(usize),
    Open { files: usize, reply: Reply<usize> },
    Listen(Reply<std::net::SocketAddr>),
    Leave,
}

struct Hand;

impl cluster::Worker for Hand {
    type Msg = Do;
    type Args = ();

    async fn start((): (), _cx: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Hand)
    }

    async fn on_message(&mut self, order: Do, cx: &mut Context<Self>) -> cluster::Result<()> {
        match order {
            Do::Say(text) => println!("{text}"),
            Do::Complain(text) => eprintln!("{text}"),
            Do::Flood(lines) => {
                let text = format!("{}\n", "x".repeat(999)).repeat(64);
                for _ in 0..lines / 64 {
                    std::io::stdout().lock().write_all(text.as_bytes())?;
                }
                eprintln!("flooded");
            }
            Do::Allocate(bytes) => println!("allocated {}", vec![1u8; bytes].len()),
            Do::Open { files, reply } => {
                let open: Vec<_> = (0..files).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
                reply.send(open.len());
            }
            Do::Listen(reply) => {
                let listener = net::TcpListener::bind("127.0.0.1:0").await?;
                reply.send(listener.local_addr()?);
                cx.spawn_linked(async move {
                    loop {
                        let (mut stream, _) = listener.accept().await?;
                        let uid = rustix::process::getuid().as_raw();
                        let signal = rustix::process::parent_process_death_signal()?.map(|signal| signal.as_raw());
                        tokio::io::AsyncWriteExt::write_all(
                            &mut stream,
                            format!("uid {uid}, dies by {signal:?}\n").as_bytes(),
                        )
                        .await?;
                    }
                    #[expect(unreachable_code, reason = "the type of the task's errors")]
                    Ok::<(), std::io::Error>(())
                });
            }
            Do::Leave => {
                // It holds the outputs for a minute longer.
                let child = std::process::Command::new("/bin/sleep").arg("60").spawn()?;
                println!("last words, child {}", child.id());
                std::process::exit(0);
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let program = rclust::Settings::new("settings").workers(2);
    if way() == "body" {
        let settings = program.process_with(|worker, index| {
            Process::new().nice(index as i32 + 3).env("TURN", format!("{}", worker.incarnation.0))
        });
        return rclust::boot(settings, rclust::body(serve));
    }
    if way() == "body-refused" {
        return rclust::boot(program.process(Process::new().nice(40)), rclust::body(serve));
    }
    if way() == "threaded" {
        // What a library may do before `main` gets to boot.
        std::thread::spawn(|| {
            loop {
                std::thread::park()
            }
        });
    }
    rclust::boot(program, rclust::tree(vec![rclust::Role::of::<Hand>()], supervise))
}

async fn serve(cx: Context) -> cluster::Result<()> {
    println!("{} has turn {}", cx.name(), std::env::var("TURN")?);
    cx.ready();
    cx.shutdown().await;
    Ok(())
}

async fn supervise() -> cluster::Result<()> {
    let hand = |process: Process| Child::<Hand>::new("hand").process(process);
    let usual = Process::new;
    let one = Supervisor::one_for_one().intensity(1000, Duration::from_secs(60)).child(Child::<Hand>::new("other"));
    let tree = match way().as_str() {
        "started-with" => one.child(hand(usual().env("GIVEN", "a b").env_remove("TAKEN").argv(["-x", "two words"]))),
        "empty-env" => one.child(hand(usual().env("BEFORE", "1").env_clear().env("ONLY", "1"))),
        "applied" => one
            .child(hand(usual().directory("/usr").nice(7).cpus([0]).address_space(3 << 30).open_files(200).core(4096))),
        "relative" => one.child(hand(usual().directory("share"))),
        "each" => Supervisor::one_for_one().intensity(1000, Duration::from_secs(60)).child(
            Pool::<Hand>::new("hand")
                .size(2)
                .process_with(|worker, index| Process::new().env("WHO", format!("{index}/{}", worker.incarnation.0))),
        ),
        "each-wrong" => one.child(Child::<Hand>::new("hand").restart(Restart::Temporary).process_with(|worker, _| {
            if worker.incarnation.0 > 1 { Process::new().directory("/nowhere") } else { Process::new() }
        })),
        "each-panics" => one.child(Child::<Hand>::new("hand").process_with(|_, _| panic!("a bug"))),
        "copies" => one.child(
            Dynamic::<Hand>::new("hand").process_with(|_, index| Process::new().nice(4).env("COPY", index.to_string())),
        ),
        "copies-wrong" => one.child(Dynamic::<Hand>::new("hand").process(Process::new().nice(40))),
        "nobody" => one.child(hand(usual().uid(65534).gid(65533).groups([65531, 65532]))),
        "nobody-alone" | "unprivileged-uid" | "threaded" => one.child(hand(usual().uid(65534).gid(65533))),
        "unprivileged-gid" => one.child(hand(usual().gid(65533))),
        "unprivileged-directory" => one.child(hand(usual().directory(std::env::var_os("CLOSED").unwrap_or_default()))),
        "unprivileged-nice" => one.child(hand(usual().nice(-5))),
        "unprivileged-same" => one.child(hand(usual().uid(65534).gid(65534).nice(19))),
        "small" => one.child(hand(usual().address_space(1 << 30).open_files(64))),
        "null" => one.child(hand(usual().stdout(Output::Null))),
        "log" => one.child(Pool::<Hand>::new("hand").size(2).process(usual().output(Output::Log))),
        "stream" => one.child(hand(usual().stdout(Output::Stream).stderr(Output::Log))),
        "no-directory" => one.child(hand(usual().directory("/nowhere"))),
        "no-directory-but-a-file" => one.child(hand(usual().directory("/etc/passwd"))),
        "nul-directory" => one.child(hand(usual().directory("/a\0b"))),
        "nul-argument" => one.child(hand(usual().argv(["a\0b"]))),
        "nul-env" => one.child(hand(usual().env("A", "a\0b"))),
        "env-name" => one.child(hand(usual().env("A=B", "c"))),
        "env-mark" => one.child(hand(usual().env("RCLUST_WORKER_DEPTH", "1"))),
        "no-cpu" => one.child(hand(usual().cpus([]))),
        "cpu-beyond" => one.child(hand(usual().cpus([5000]))),
        "cpu-none" => one.child(hand(usual().cpus([1023]))),
        "argument-long" => one.child(hand(usual().argv(["x".repeat(200_000)]))),
        "cpu-missing" => one.child(hand(usual().cpus([0, 1023]))),
        "nice-beyond" => one.child(hand(usual().nice(20))),
        "files-beyond" => one.child(hand(usual().open_files(u64::MAX - 1))),
        "files-few" => one.child(hand(usual().open_files(10))),
        "space-little" => one.child(hand(usual().address_space(1 << 20))),
        "uid-none" => one.child(hand(usual().uid(u32::MAX).gid(1))),
        "uid-without-gid" => one.child(hand(usual().uid(65534))),
        other => return Err(format!("no such way: {other}").into()),
    };
    let cluster = tree.start().await?;
    println!("up");
    let send =
        async |name: &str, order: Do| cluster.worker::<Hand>(name)?.send(order).await.map_err(cluster::Error::from);
    match way().as_str() {
        "nobody" => {
            let address = cluster.worker::<Hand>("hand")?.ask(Do::Listen).await?;
            println!("listens on {address}");
        }
        "small" => {
            let hand = cluster.worker::<Hand>("hand")?;
            println!("opened {}", hand.ask(|reply| Do::Open { files: 100, reply }).await?);
            hand.send(Do::Allocate(2 << 30)).await?;
        }
        "copies" => {
            for _ in 0..2 {
                let copy = cluster.dynamic::<Hand>("hand")?.start(()).await?;
                copy.send(Do::Say(format!("copy of COPY={}", copy.name()))).await?;
            }
        }
        "null" => {
            send("hand", Do::Say("nobody hears this".into())).await?;
            send("hand", Do::Complain("but this".into())).await?;
        }
        "log" => {
            send("hand[0]", Do::Say("a line\r\n\x1b[31mred\nä".into())).await?;
            send("hand[1]", Do::Complain("a complaint".into())).await?;
            send("hand[1]", Do::Say("long ".repeat(1000))).await?;
            send("hand[0]", Do::Flood(64_000)).await?;
            send("hand[1]", Do::Say("heard beside a flood".into())).await?;
        }
        "stream" => {
            let mut lines = cluster.output();
            send("hand", Do::Say("first\nsecond".into())).await?;
            for _ in 0..2 {
                let line = lines.next().await.ok_or("no line")?;
                println!("{} {} {}: {}", line.name, line.worker.incarnation, line.from, line.text);
            }
            // Nobody reads meanwhile.
            send("hand", Do::Flood(50_000)).await?;
            let hand = cluster.worker::<Hand>("hand")?;
            hand.ask(|reply| Do::Open { files: 0, reply }).await?;
            let (mut read, mut dropped) = (0, 0);
            while read + dropped < 50_000 / 64 * 64 {
                let line = lines.next().await.ok_or("no line")?;
                read += 1;
                dropped += line.dropped;
            }
            println!("read {read}, dropped {dropped}");
            for _ in 0..20 {
                send("hand", Do::Leave).await?;
                let mut line = lines.next().await.ok_or("no line")?;
                while !line.text.starts_with("last words") {
                    line = lines.next().await.ok_or("no line")?;
                }
                println!("{}", line.text);
            }
            println!("left twenty times");
        }
        _ => {}
    }
    Ok(cluster.run().await?)
}
