//! A client of the program `lines`, over any stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::{Running, start};

/// Starts it, and says where it listens.
pub fn serving(command: &mut std::process::Command) -> (Running, String) {
    let mut running = start(command);
    // A name, `on`, the address; before or after the supervisor's own words.
    let line = running.line("] on ");
    let address = line.split_once("] on ").map(|(_, address)| address.trim().to_owned()).expect("an address");
    running.own("serving");
    (running, address)
}

/// One connection.
pub struct Line<S>(BufReader<S>);

impl Line<TcpStream> {
    /// Connects.
    pub fn open(address: &str) -> io::Result<Line<TcpStream>> {
        Line::tcp(TcpStream::connect(address)?)
    }

    /// Connects from an address of this machine.
    pub fn from(source: IpAddr, address: &str) -> io::Result<Line<TcpStream>> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let socket = rustix::net::socket_with(
            if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 },
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
        rustix::net::connect(&socket, &address)?;
        Line::tcp(socket.into())
    }

    fn tcp(stream: TcpStream) -> io::Result<Line<TcpStream>> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Line(BufReader::new(stream)))
    }

    /// How long an answer may take.
    pub fn within(&mut self, limit: Duration) -> io::Result<&mut Line<TcpStream>> {
        self.0.get_ref().set_read_timeout(Some(limit))?;
        Ok(self)
    }
}

impl<S: Read + Write> Line<S> {
    /// Over a stream.
    pub fn over(stream: S) -> Line<S> {
        Line(BufReader::new(stream))
    }

    /// Sends a part of a line.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// The next line of the answer.
    pub fn receive(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// One line, and its answer.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(&format!("{line}\n"))?;
        self.receive()
    }

    /// Whose connection it is: slot and process.
    pub fn who(&mut self, line: &str) -> io::Result<(u32, u32)> {
        let answer = self.ask(line)?;
        let words: Vec<u32> = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match words[..] {
            [slot, pid] => Ok((slot, pid)),
            _ => Err(io::Error::other(answer)),
        }
    }
}

/// A number in the text of [`Line::ask`]`("stats")`.
pub fn number(stats: &str, name: &str) -> u64 {
    let rest = stats.split_once(&format!("{name}: ")).unwrap_or_else(|| panic!("no {name} in {stats}")).1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number {name} in {stats}"))
}
