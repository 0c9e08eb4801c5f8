//! Calls to an HTTP endpoint of the platform: connections that are kept, a few at a time, and everything bounded.
//!
//! A call is a POST with a JSON body. It is never without an end: [`Rules::call_max`] counts from asking to the last byte of
//! the answer, the wait for one of the few places included. Whoever calls bounds how many wait.

mod circuit;
mod places;
mod stream;
mod url;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use ring::hmac;
use rustls::ClientConfig;

use self::circuit::Circuit;
use self::places::Places;
use self::stream::{Addresses, Kept};

pub use self::stream::tls;
pub use self::url::Url;

/// The header with what the call is for.
const SUBJECT: &str = "halley-hook";

/// The header with the time of a signed call, seconds since 1970.
const TIMESTAMP: &str = "halley-timestamp";

/// The header with `sha256=` and the HMAC of the timestamp, a full stop and the body, in hexadecimal digits.
const SIGNATURE: &str = "halley-signature";

/// How an endpoint is called.
#[derive(Clone)]
pub struct Rules {
    /// Where it is.
    pub url: Url,
    /// How a call over TLS begins; needed where the URL says `https`.
    pub tls: Option<Arc<ClientConfig>>,
    /// Signs each call.
    pub key: Option<hmac::Key>,
    /// Longest call.
    pub call_max: Duration,
    /// Calls under way at a time, each on a connection of its own.
    pub calls_max: usize,
    /// Longest answer.
    pub answer_bytes_max: usize,
}

/// Why a call has no answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It took longer than [`Rules::call_max`].
    Late,
    /// No connection: no address, refused, or TLS failed.
    Unreachable,
    /// The connection ended before the answer did.
    Broken,
    /// The answer is no HTTP.
    Malformed,
    /// The answer is longer than [`Rules::answer_bytes_max`].
    TooBig,
    /// Another status than 200 to 299.
    Status(u16),
    /// The last calls failed, and the next is tried a little later.
    Rests,
}

impl CallFailure {
    /// Whether the endpoint is down, as far as can be seen from here; else it is there and answers what is no answer.
    pub fn is_down(self) -> bool {
        match self {
            Self::Late | Self::Unreachable | Self::Broken | Self::Rests => true,
            Self::Malformed | Self::TooBig => false,
            Self::Status(code) => matches!(code, 408 | 429 | 500..),
        }
    }
}

/// An endpoint, for the thread that calls it; clones share its connections.
#[derive(Clone)]
pub struct Endpoint(Rc<Shared>);

struct Shared {
    rules: Rules,
    places: Rc<Places>,
    /// Connections that wait for a call, the one used last at the end.
    kept: RefCell<Vec<Kept>>,
    addresses: Addresses,
    circuit: RefCell<Circuit>,
}

impl Endpoint {
    /// Nothing is connected before the first call.
    pub fn new(rules: Rules) -> Self {
        Self(Rc::new(Shared {
            places: Places::new(rules.calls_max),
            kept: RefCell::default(),
            addresses: Addresses::default(),
            circuit: RefCell::default(),
            rules,
        }))
    }

    /// Calls under way, and those that wait for a place.
    pub fn load(&self) -> (usize, usize) {
        self.0.places.load()
    }

    /// Posts this body; the body of the answer. Must be called within the runtime.
    pub async fn call(&self, subject: &'static str, body: Bytes) -> Result<Bytes, CallFailure> {
        let shared = &self.0;
        if !shared.circuit.borrow_mut().may_call(Instant::now()) {
            return Err(CallFailure::Rests);
        }
        let begun = Cell::new(false);
        let called = monoio::time::timeout(shared.rules.call_max, shared.call(subject, &body, &begun)).await;
        let result = called.unwrap_or(Err(CallFailure::Late));
        // Who never had a place knows nothing of the endpoint.
        if begun.get() {
            let down = result.as_ref().is_err_and(|failure| failure.is_down());
            shared.circuit.borrow_mut().note(!down, Instant::now());
        }
        result
    }
}

/// What became of a request over one connection.
enum Exchange {
    /// An answer, and whether the connection can be used again.
    Answered(Bytes, u16),
    /// It ended before the first byte of an answer.
    Stale,
    Failed(CallFailure),
}

impl Shared {
    async fn call(&self, subject: &'static str, body: &Bytes, begun: &Cell<bool>) -> Result<Bytes, CallFailure> {
        let _place = self.places.take().await;
        begun.set(true);
        // The endpoint may have ended a kept connection just now: then once more over a new one.
        let mut exchange = Exchange::Stale;
        if let Some(kept) = self.take_kept() {
            exchange = self.exchange(kept, subject, body).await;
        }
        if matches!(exchange, Exchange::Stale) {
            let fresh = self.addresses.connect(&self.rules.url, self.rules.tls.as_ref()).await;
            exchange = self.exchange(fresh.map_err(|_| CallFailure::Unreachable)?, subject, body).await;
        }
        match exchange {
            Exchange::Answered(answer, 200..300) => Ok(answer),
            Exchange::Answered(_, status) => Err(CallFailure::Status(status)),
            Exchange::Stale => Err(CallFailure::Broken),
            Exchange::Failed(failure) => Err(failure),
        }
    }

    /// A connection that was used a moment ago and has not ended since.
    fn take_kept(&self) -> Option<Kept> {
        let mut kept = self.kept.borrow_mut();
        kept.retain(Kept::is_good);
        kept.pop()
    }

    /// One request. Unless all of the answer came, dropping the connection ends it.
    async fn exchange(&self, mut kept: Kept, subject: &'static str, body: &Bytes) -> Exchange {
        if kept.sender.ready().await.is_err() {
            return Exchange::Stale;
        }
        let response = match kept.sender.send_request(self.request(subject, body)).await {
            Ok(response) => response,
            Err(error) if error.is_parse() || error.is_parse_too_large() => {
                return Exchange::Failed(CallFailure::Malformed);
            }
            Err(_) => return Exchange::Stale,
        };
        let status = response.status().as_u16();
        let most = self.rules.answer_bytes_max;
        let said = hyper::body::Body::size_hint(response.body()).lower();
        if usize::try_from(said).is_ok_and(|bytes| bytes > most) {
            return Exchange::Failed(CallFailure::TooBig);
        }
        match Limited::new(response.into_body(), most).collect().await {
            Ok(answer) => {
                kept.used = Instant::now();
                self.kept.borrow_mut().push(kept);
                Exchange::Answered(answer.to_bytes(), status)
            }
            Err(error) if error.is::<LengthLimitError>() => Exchange::Failed(CallFailure::TooBig),
            Err(_) => Exchange::Failed(CallFailure::Broken),
        }
    }

    fn request(&self, subject: &'static str, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.rules.url.target().clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.rules.url.authority().clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("halley/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SUBJECT, HeaderValue::from_static(subject));
        if let Some(key) = &self.rules.key {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            headers.insert(TIMESTAMP, now_s.into());
            let signature = HeaderValue::try_from(signature(key, now_s, body)).expect("hexadecimal digits");
            headers.insert(SIGNATURE, signature);
        }
        request
    }
}

/// The value of [`SIGNATURE`].
fn signature(key: &hmac::Key, now_s: u64, body: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut context = hmac::Context::with_key(key);
    context.update(now_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    context.sign().as_ref().iter().fold("sha256=".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
