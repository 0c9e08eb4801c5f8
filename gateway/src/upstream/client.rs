//! Posts JSON to an endpoint over one connection that is kept; runs on the runtime of its thread.

use std::fmt;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use monoio::net::TcpStream;
use monoio::time::timeout;
use monoio_compat::StreamWrapper;
use monoio_compat::hyper::MonoioIo;

/// Bytes of an answer that are read to keep its connection; the status alone counts.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why the endpoint is not known to have what was posted.
#[derive(Debug)]
pub(super) enum Failure {
    /// It answered with another status than 2xx.
    Status(StatusCode),
    /// It did not answer in time.
    Late,
    /// It was not reached, or its connection broke: a sentence.
    Away(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the endpoint answered {status}"),
            Self::Late => f.write_str("the endpoint did not answer in time"),
            Self::Away(problem) => f.write_str(problem),
        }
    }
}

/// What an address of an endpoint is made of; the error is a sentence.
fn parse(url: &str) -> Result<(Uri, String, u16), String> {
    let wrong = || format!("\"{url}\" is no address to post to: write it as http://HOST:PORT/PATH");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(format!("\"{url}\": https is not spoken to endpoints: use http://, or a proxy")),
        _ => return Err(wrong()),
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok((uri, host, port))
}

/// Checks an address without connecting to it.
pub fn check_url(url: &str) -> Result<(), String> {
    parse(url).map(drop)
}

type Sender = SendRequest<Full<Bytes>>;

/// One connection to an endpoint, made when it is needed.
pub(super) struct Client {
    uri: Uri,
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
    kept: Option<Sender>,
}

impl Clone for Client {
    fn clone(&self) -> Self {
        let Self { uri, host, port, authorization, .. } = self;
        let (uri, host, authorization) = (uri.clone(), host.clone(), authorization.clone());
        Self { uri, host, port: *port, authorization, kept: None }
    }
}

impl Client {
    pub(super) fn new(url: &str, authorization: &str) -> Result<Self, String> {
        let (uri, host, port) = parse(url)?;
        let authorization = match authorization {
            "" => None,
            text => Some(HeaderValue::from_str(text).map_err(|_| "authorization is no header".to_owned())?),
        };
        Ok(Self { uri, host, port, authorization, kept: None })
    }

    /// Posts JSON and waits for the answer. A connection that the endpoint had closed before is replaced; a request that was
    /// sent is not sent again.
    pub(super) async fn post(&mut self, body: Bytes, patience: Duration) -> Result<(), Failure> {
        let kept = self.kept.take();
        let posted = timeout(patience, self.send(kept, body)).await.unwrap_or(Err(Failure::Late));
        let (sender, response) = posted?;
        let status = response.status();
        // The rest of the answer is read only to keep the connection.
        let rest = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        if timeout(patience, rest).await.is_ok_and(|rest| rest.is_ok()) {
            self.kept = Some(sender);
        }
        if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
    }

    async fn send(&self, kept: Option<Sender>, body: Bytes) -> Result<(Sender, Response<Incoming>), Failure> {
        let mut request = self.request(body);
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(away(&failed.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|error| away(&error))?;
        Ok((sender, response))
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("halley/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(body)).expect("parts that were checked")
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let problem = |error: std::io::Error| Failure::Away(format!("{}:{}: {error}", self.host, self.port));
        // Names are looked up beside the runtime.
        let (answer, answered) = oneshot::channel();
        let name = (self.host.clone(), self.port);
        drop(monoio::spawn_blocking(move || {
            let _ = answer.send(name.to_socket_addrs().map(Vec::from_iter));
        }));
        let found = answered.await.unwrap_or_else(|oneshot::Canceled| Ok(Vec::new())).map_err(problem)?;
        let stream = TcpStream::connect(&found[..]).await.map_err(problem)?;
        let _ = stream.set_nodelay(true);
        let io = MonoioIo::new(StreamWrapper::new(stream));
        let (sender, connection) = http1::handshake(io).await.map_err(|error| away(&error))?;
        monoio::spawn(async move {
            // Whoever waits for an answer hears how it ended.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn away(error: &hyper::Error) -> Failure {
    Failure::Away(format!("the connection to the endpoint: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_host_and_speaks_http() {
        let (_, host, port) = parse("http://[::1]:8080/a?b=c").expect("an address");
        assert_eq!((&*host, port), ("::1", 8080));
        assert_eq!(parse("http://hooks.example").expect("an address").2, 80);
        for wrong in ["", "hooks.example/a", "ftp://a/", "https://a/", "http://", "http:///a", "http://a b/"] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }
}
