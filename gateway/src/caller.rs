//! A call of the API from the command line: one request, its status and its body.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;

use gateway::endpoint::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// Plain or over TLS.
pub(crate) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A connection to the API.
pub(crate) type Line = BufReader<Box<dyn Wire>>;

/// `HOST:PORT` of the API's address, and whether it speaks TLS.
fn place(api: &str) -> Result<(&str, bool), String> {
    let plain = api.strip_prefix("http://").map(|host| (host, false));
    let place = plain.or_else(|| api.strip_prefix("https://").map(|host| (host, true)));
    let (host, secure) = place.ok_or("--api: write http://HOST:PORT, or https://HOST:PORT")?;
    Ok((host.trim_end_matches('/'), secure))
}

/// A connection to it; over TLS its certificate is checked against those in `ca`, or of the system.
pub(crate) fn connect(api: &str, ca: Option<&str>) -> Result<Line, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{api}: {error}");
    let (host, secure) = place(api)?;
    let stream = TcpStream::connect(host).map_err(|error| failed(&error))?;
    if !secure {
        return Ok(BufReader::new(Box::new(stream)));
    }
    let config = tls(ca.unwrap_or_default()).map_err(|problem| format!("--ca: {problem}"))?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
    let session = ClientConnection::new(config, name).map_err(|error| failed(&error))?;
    Ok(BufReader::new(Box::new(StreamOwned::new(session, stream))))
}

/// The head of a call up to its length; `json` says what the body is.
pub(crate) fn head(path: &str, api: &str, token: Option<&str>) -> Result<String, String> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    Ok(format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{token}", place(api)?.0))
}

/// One call on a connection that is kept: its status, such as `200 OK`, and its body.
pub(crate) fn call(stream: &mut Line, head: &str, body: &str) -> Result<(String, String), String> {
    let broken = |error: io::Error| format!("the API: {error}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.get_mut().write_all(request.as_bytes()).map_err(broken)?;
    let (mut first, mut length) = (Vec::new(), 0);
    stream.read_until(b'\n', &mut first).map_err(broken)?;
    let status = String::from_utf8_lossy(&first);
    if !status.starts_with("HTTP/1.") {
        return Err("the API: no answer in HTTP; if it speaks TLS, write https://HOST:PORT".into());
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).map_err(broken)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| format!("the API: {}", line.trim_end()))?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(broken)?;
    let status = status.trim_end().split_once(' ').map_or_else(String::new, |(_, status)| status.to_owned());
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
