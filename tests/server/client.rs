//! A client of HTTP/1.1, small enough to be slow or broken where a test wants it so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A request.
pub struct Asking {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Asking {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Asking {
        let (method, path) = (method.to_string(), path.to_string());
        Asking { address, method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Asking {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Asking {
        self.body = body.into();
        self
    }

    pub fn json(self, value: &Value) -> Asking {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    /// Sends it, and leaves the answer to the caller.
    pub fn send(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let is_named = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !is_named {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // One that refuses a body need not read it.
        let _ = stream.write_all(&self.body);
        stream
    }

    pub fn answer(&self) -> Answer {
        read(self.send())
    }
}

/// Reads an answer up to the end of the connection.
pub fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer is no matter.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status, head, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let length =
            usize::from_str_radix(str::from_utf8(&rest[..at]).unwrap().trim(), 16).unwrap();
        let Some(chunk) = rest.get(at + 2..at + 2 + length).filter(|_| length > 0) else { break };
        body.extend_from_slice(chunk);
        rest = &rest[at + 4 + length..];
    }
    body
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{e}: {} {}", self.head, String::from_utf8_lossy(&self.body))
        })
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        let value = self.value();
        assert_eq!(self.status, status, "{value}");
        value
    }
}
