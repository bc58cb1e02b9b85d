//! Every example runs, says what its header promises, and ends in order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rclust_tests::client::{get, get_with};
use rclust_tests::{DEADLINE, await_end, command, kill, procfs, start};
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

#[test]
fn hello_serves_one_port_from_several_processes() {
    let mut running = start(command(env!("CARGO_BIN_EXE_hello")).env("WEB_CONCURRENCY", "2"));
    running.line("ready");
    running.line("ready");
    let address = ([127, 0, 0, 1], 3000).into();
    // Both answer, as soon as the net thread has heard that both are ready.
    let mut answers = std::collections::HashSet::new();
    assert!(rclust_tests::comes_true(|| {
        answers.insert(get(address, "/").expect("an answer").body);
        answers.len() == 2
    }));
    assert!(answers.iter().all(|answer| answer.starts_with("hello from rclust")), "{answers:?}");
    kill(running.workers()[0], Signal::KILL);
    running.line("(unexpected)");
    running.line("ready");
    running.signal(Signal::INT);
    running.end_with(0);
}

#[test]
fn counter_goes_on_with_what_waited() {
    let said = start(&mut command(env!("CARGO_BIN_EXE_counter"))).end_with(0);
    for line in ["the total is 101", "with the ten that waited: 110", "dead: Died(Signal { signal: 6"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn tree_takes_down_who_belongs_together() {
    let mut running = start(&mut command(env!("CARGO_BIN_EXE_tree")));
    let mut pid = |name: &str| running.after(&format!("{name:<15} is process ")).parse::<u32>().expect("a process id");
    let (_clock, disk, index) = (pid("clock"), pid("store/disk"), pid("store/index"));
    running.line("the supervisor  is process");
    kill(disk, Signal::KILL);
    running.line("store/index     stops: Group");
    await_end(index);
    running.line("store/disk      is process");
    running.all(&["store/index     is process", "store/index ready"]);
    running.signal(Signal::TERM);
    let said = running.end_with(0);
    let stops: Vec<&str> = said.lines().filter(|line| line.contains("stops: Shutdown")).collect();
    assert_eq!(stops.len(), 5, "{said}");
    assert!(stops[0].starts_with("ingest/writer") && stops[4].starts_with("clock"), "{stops:?}");
}

/// The process that answers, and the answer.
fn echo(client: &mut WebSocket<TcpStream>) -> (u32, String) {
    let said = client.read().expect("an answer").into_text().expect("text").to_string();
    let (process, text) = said.strip_prefix("chat, process ").and_then(|rest| rest.split_once(": ")).expect("of chat");
    (process.parse().expect("a number"), text.to_owned())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

#[test]
fn handover_moves_a_connection_in_the_middle_of_its_stream() {
    let mut running = start(command(env!("CARGO_BIN_EXE_handover")).env("ADDR", "127.0.0.1:0"));
    let address: SocketAddr = running.own("listening on ").parse().unwrap();
    let web: u32 = get(address, "/").unwrap().body.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
    let (mut client, _) = tungstenite::client(format!("ws://{address}/chat"), connect(address)).expect("an upgrade");
    client.send(Message::text("hello")).unwrap();
    let (chat, text) = echo(&mut client);
    assert!(text == "hello" && chat != web && running.workers().contains(&chat), "{text} of {chat}, web is {web}");

    // What came with the request, in one piece with it, is passed along: a whole frame, and the beginning of another.
    let mut eager = connect(address);
    let head = "GET /chat HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // Text of five bytes behind a mask of zeroes (RFC 6455, 5.2).
    let frame = |text: &[u8; 5]| [&[0x81, 0x85, 0, 0, 0, 0], &text[..]].concat();
    eager.write_all(&[head.as_bytes(), &frame(b"first"), &frame(b"other")[..3]].concat()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        eager.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    eager.write_all(&frame(b"other")[3..]).unwrap();
    let mut eager = WebSocket::from_raw_socket(eager, Role::Client, None);
    assert_eq!([echo(&mut eager).1, echo(&mut eager).1], ["first", "other"]);

    // The worker that took it has nothing to do with it any more.
    kill(web, Signal::KILL);
    running.line("(unexpected)");
    running.line("web ready");
    client.send(Message::text("again")).unwrap();
    assert_eq!(echo(&mut client), (chat, "again".to_owned()));
    running.signal(Signal::TERM);
    // Adopted, they are closed in order by whoever has them.
    for mut client in [client, eager] {
        assert!(matches!(client.read(), Ok(Message::Close(_))));
    }
    let said = running.end_with(0);
    assert!(!said.contains("is lost"), "{said}");
}

#[test]
fn greet_greets_every_worker_and_each_replacement() {
    let mut running = start(command(env!("CARGO_BIN_EXE_greet")).env("WEB_CONCURRENCY", "2"));
    running.all(&[
        "worker[0], incarnation 1, was told: good morning, 0",
        "worker[1], incarnation 1, was told: good morning, 1",
    ]);
    let victim = running.workers()[0];
    kill(victim, Signal::KILL);
    let answer = running.line("incarnation 2, was told: welcome in your predecessor's place");
    assert!(!answer.contains(&format!("process {victim}:")), "{answer}");
    running.signal(Signal::TERM);
    running.end_with(0);
}

#[test]
fn cpu_answers_while_every_worker_is_busy() {
    let mut running =
        start(command(env!("CARGO_BIN_EXE_cpu")).env("WEB_CONCURRENCY", "2").env("ADDR", "127.0.0.1:0").env("N", "32"));
    let first = running.after("fibonacci(32) is 2178309 after ");
    let measured = running.line("GET / with 2 workers busy: ");
    let requests: u32 =
        measured.split_whitespace().find_map(|word| word.parse().ok().filter(|n| *n > 2)).expect("requests");
    assert!(requests >= 10, "{requests} requests in {first}: {measured}");
    let address = running.own("listening on ").parse().expect("an address");
    assert_eq!(get(address, "/fib/20").expect("an answer").body, "6765\n");
    // A worker that dies at work costs its own request, and no other.
    let math: Vec<u32> = running.workers().into_iter().filter(|pid| procfs::comm(*pid).starts_with("math")).collect();
    let used = |pid: &u32| procfs::stat(*pid, 14).unwrap_or(0);
    let before: Vec<i64> = math.iter().map(used).collect();
    let asked = std::thread::spawn(move || get(address, "/fib/50"));
    // Ticks of the clock: it has the question in hand.
    let busy = || math.iter().zip(&before).find(|(pid, before)| used(pid) > **before + 5).map(|(pid, _)| *pid);
    let victim = rclust_tests::eventually("a busy worker", busy);
    kill(victim, Signal::KILL);
    let answer = asked.join().expect("no panic").expect("an answer");
    assert!(
        answer.head.contains("503") && answer.body.contains("died with the question: killed by SIGKILL"),
        "{answer:?}"
    );
    assert_eq!(get(address, "/").expect("an answer").body, "hello\n");
    running.signal(Signal::TERM);
    running.end_with(0);
}

/// A Redis of a test's own; killed with it.
struct Redis {
    server: std::process::Child,
    url: String,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Starts one on a free port; `None` where there is none to start.
fn redis() -> Option<Redis> {
    for _ in 0..10 {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let mut server = std::process::Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        let mut server = match server.stdout(std::process::Stdio::null()).spawn() {
            Ok(server) => server,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("redis-server: {error}"),
        };
        let url = format!("redis://127.0.0.1:{port}/");
        let answers = rclust_tests::eventually("a Redis that answers or ends", || {
            let client = redis::Client::open(url.as_str()).expect("a URL");
            let answers = client.get_connection().is_ok_and(|mut redis| redis::cmd("PING").exec(&mut redis).is_ok());
            if answers { Some(true) } else { server.try_wait().expect("a child").map(|_| false) }
        });
        let redis = Redis { server, url };
        if answers {
            return Some(redis);
        }
        // Somebody else took the port in between.
    }
    panic!("no free port for Redis in ten tries");
}

#[test]
fn sessions_survive_the_death_of_every_worker() {
    const SESSIONS: &str = env!("CARGO_BIN_EXE_sessions");
    let mut without = command(SESSIONS);
    let said = start(without.env("ADDR", "127.0.0.1:0").env("REDIS_URL", "redis://127.0.0.1:1/")).end_with(1);
    assert!(said.contains("no Redis answers at redis://127.0.0.1:1/") && said.contains("start one"), "{said}");

    let Some(redis) = redis() else {
        assert!(
            std::env::var_os("TESTS_NEED_REDIS").is_none(),
            "TESTS_NEED_REDIS is set, and no redis-server is installed"
        );
        println!("no redis-server is installed: the example `sessions` is not tested here");
        return;
    };
    let mut running = start(command(SESSIONS).env("ADDR", "127.0.0.1:0").env("REDIS_URL", &redis.url));
    let address = running.own("listening on ").parse().expect("an address");
    let login = get(address, "/login/ada").expect("an answer");
    let cookie = login.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let visit = |cookie: &str| {
        let answer = get_with(address, "/", &format!("cookie: {cookie}")).expect("an answer").body;
        let (name, rest) = answer.split_once(", visit ").expect("a visit");
        let (number, pid) = rest.trim().split_once(", process ").expect("a process");
        (name.to_owned(), number.parse::<u32>().expect("a number"), pid.parse::<u32>().expect("a process id"))
    };
    assert_eq!(visit("other=1").0, "nobody");
    let (name, visits, _) = visit(&cookie);
    assert_eq!((name.as_str(), visits), ("ada", 2));
    let before = running.workers();
    for worker in &before {
        kill(*worker, Signal::KILL);
        running.line("(unexpected)");
        running.line("ready");
    }
    let (name, visits, pid) = visit(&cookie);
    assert_eq!((name.as_str(), visits), ("ada", 3));
    assert!(!before.contains(&pid));
    running.signal(Signal::TERM);
    running.end_with(0);
}
