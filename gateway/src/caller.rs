//! A call of the API from the command line: one request, its status and its body.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// `HOST:PORT` of the API's address.
pub(crate) fn host(api: &str) -> Result<&str, String> {
    Ok(api.strip_prefix("http://").ok_or("--api: write http://HOST:PORT")?.trim_end_matches('/'))
}

/// A connection to it.
pub(crate) fn connect(api: &str) -> Result<BufReader<TcpStream>, String> {
    let stream = TcpStream::connect(host(api)?).map_err(|error| format!("{api}: {error}"))?;
    Ok(BufReader::new(stream))
}

/// The head of a call up to its length; `json` says what the body is.
pub(crate) fn head(path: &str, api: &str, token: Option<&str>) -> Result<String, String> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    Ok(format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{token}", host(api)?))
}

/// One call on a connection that is kept: its status, such as `200 OK`, and its body.
pub(crate) fn call(stream: &mut BufReader<TcpStream>, head: &str, body: &str) -> Result<(String, String), String> {
    let broken = |error: io::Error| format!("the API: {error}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.get_mut().write_all(request.as_bytes()).map_err(broken)?;
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status).map_err(broken)?;
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
