//! Every example runs, says what its header promises, and ends in order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rclust_tests::client::get;
use rclust_tests::{DEADLINE, await_end, command, kill, start};
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
    running.line("web ready");
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
