//! A small blocking HTTP client that tells apart what went wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A header's value as a number.
    pub fn number(&self, name: &str) -> u32 {
        self.header(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name}: {self:?}"))
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// Closed or reset before a whole answer.
    Cut,
    /// Nothing came.
    TimedOut,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::ConnectionRefused => Failure::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::TimedOut,
            _ => Failure::Cut,
        }
    }
}

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Connection, Failure> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// One request and its answer.
    pub fn get(&mut self, path: &str) -> Result<Response, Failure> {
        self.request(path, "keep-alive")
    }

    /// One request that says that no other follows, and its answer.
    pub fn last(&mut self, path: &str) -> Result<Response, Failure> {
        self.request(path, "close")
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |address| address.port())
    }

    /// One request, whose answer is for [`Connection::receive_within`].
    pub fn send(&mut self, path: &str) -> Result<(), Failure> {
        self.ask(path, "keep-alive")
    }

    /// The answer to a request, which may be late.
    pub fn receive_within(&mut self, limit: Duration) -> Result<Response, Failure> {
        self.stream.set_read_timeout(Some(limit))?;
        self.receive()
    }

    fn ask(&mut self, path: &str, connection: &str) -> Result<(), Failure> {
        Ok(write!(self.stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: {connection}\r\n\r\n")?)
    }

    fn request(&mut self, path: &str, connection: &str) -> Result<Response, Failure> {
        self.ask(path, connection)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Response, Failure> {
        let mut chunk = [0; 4096];
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(Failure::Cut),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let response = Response { head, body: String::new() };
        let length: usize = response.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while self.buffer.len() < end + length {
            match self.stream.read(&mut chunk)? {
                0 => return Err(Failure::Cut),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
        let body = String::from_utf8_lossy(&self.buffer[end..end + length]).into_owned();
        self.buffer.drain(..end + length);
        Ok(Response { body, ..response })
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Result<Response, Failure> {
    Connection::open(address)?.last(path)
}

/// The same with one more header, such as `cookie: a=b`.
pub fn get_with(address: SocketAddr, path: &str, header: &str) -> Result<Response, Failure> {
    Connection::open(address)?.request(path, &format!("close\r\n{header}"))
}
