//! As much of HTTP/1.1 as a generator needs: keep-alive requests, answers with a length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use crate::target::resolve;

/// Longest body of an answer that is read.
const BODY_BYTES_MAX: usize = 16 << 20;

/// `http://host:port/path`, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port as given.
    pub host: String,
    /// Empty, or a path that begins with a slash.
    pub path: String,
    /// What the host resolved to.
    pub address: SocketAddr,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("write http://HOST:PORT")?;
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = if host.contains(':') { resolve(host)? } else { resolve(&format!("{host}:80"))? };
        Ok(Self { host: host.to_owned(), path: path.to_owned(), address })
    }
}

impl Url {
    /// Connects, with a timeout for connecting only.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        stream.map_err(|error| format!("http://{} cannot be reached: {error}", self.host))
    }

    /// Head of a request, with further header lines; the body is appended by the caller.
    pub fn head(&self, method: &str, path: &str, token: Option<&str>, headers: &str, body_bytes: usize) -> String {
        let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\n{authorization}{headers}Content-Length: {body_bytes}\r\n\r\n",
            self.path, self.host
        )
    }

    /// One GET on a connection of its own.
    ///
    /// # Errors
    /// A sentence.
    pub fn get(&self, path: &str, token: Option<&str>) -> Result<Answer, String> {
        let stream = self.connect()?;
        let exchange = || -> io::Result<Answer> {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            (&stream).write_all(self.head("GET", path, token, "", 0).as_bytes())?;
            read_answer(&mut BufReader::new(&stream))
        };
        exchange().map_err(|error| format!("http://{}{}{path}: {error}", self.host, self.path))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Reads one answer; its body has a `Content-Length` or comes in chunks.
///
/// # Errors
/// `InvalidData` if it is no HTTP/1.1, `UnexpectedEof` if the server closes before its end.
pub fn read_answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let first = line(stream)?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(':') {
            Some(("content-length", value)) => {
                length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
            }
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        read_part(stream, length, &mut body)?;
        return Ok(Answer { status, body });
    }
    loop {
        let size = usize::from_str_radix(line(stream)?.trim(), 16);
        let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
        read_part(stream, size, &mut body)?;
        line(stream)?;
        if size == 0 {
            return Ok(Answer { status, body });
        }
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.take(16 << 10).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_part(stream: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() + length > BODY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let start = body.len();
    body.resize(start + length, 0);
    stream.read_exact(&mut body[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other_from_one_stream() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 503 Busy\r\n\
            content-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let mut stream = &stream[..];
        let mut next = || read_answer(&mut stream).map(|answer| (answer.status, answer.body));
        assert_eq!(next().unwrap(), (200, b"ok".to_vec()));
        assert_eq!(next().unwrap(), (503, vec![]));
        assert_eq!(next().unwrap(), (200, b"abcde".to_vec()));
        assert_eq!(next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in ["SSH-2.0\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"] {
            assert!(read_answer(&mut bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_split_and_keeps_its_path() {
        let url: Url = "http://127.0.0.1:3111/base/".parse().unwrap();
        assert_eq!((url.host.as_str(), url.path.as_str()), ("127.0.0.1:3111", "/base"));
        assert!("https://127.0.0.1:1".parse::<Url>().is_err());
    }
}
