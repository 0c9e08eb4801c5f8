//! Calls to an HTTP endpoint of the platform: connections that are kept, a few at a time, and everything bounded.
//!
//! A call is a POST with a JSON body. It is never without an end: [`Rules::call_max`] counts from asking to the last byte of
//! the answer, the wait for one of the few places included. Whoever calls bounds how many wait.

mod circuit;
mod error;
mod places;
mod stream;
mod url;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use monoio::time::{Instant as Deadline, timeout_at};
use ring::hmac;
use rustls::ClientConfig;

use self::circuit::Circuit;
use self::places::Places;
use self::stream::{Addresses, Kept};

pub use self::error::{CallError, CallFailure};
pub use self::stream::tls;
pub use self::url::Url;

/// The header with what a question is about.
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
    /// What it is called for.
    pub kind: Kind,
    /// Longest call.
    pub call_max: Duration,
    /// Calls under way at a time, each on a connection of its own.
    pub calls_max: usize,
    /// Longest answer that is read.
    pub answer_bytes_max: usize,
}

/// What an endpoint is called for, and what follows from that.
#[derive(Clone)]
pub enum Kind {
    /// To be asked, or told what may be told twice: a call whose kept connection had ended is made once more. An endpoint
    /// that is down is left alone for a moment. The answer counts.
    Question {
        /// What it is about.
        subject: &'static str,
        /// Signs each call.
        key: Option<hmac::Key>,
    },
    /// To be given something: what may have arrived is not sent again, and each call is tried. Of the answer the status alone counts.
    Delivery {
        /// `Authorization` of each call.
        authorization: Option<HeaderValue>,
    },
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

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.0.rules.url
    }

    /// Calls under way, and those that wait for a place.
    pub fn load(&self) -> (usize, usize) {
        self.0.places.load()
    }

    /// Posts this body; the body of the answer, empty where it does not count. Must be called within the runtime.
    pub async fn call(&self, body: Bytes) -> Result<Bytes, CallError> {
        let shared = &self.0;
        let rests = matches!(shared.rules.kind, Kind::Question { .. });
        if rests && !shared.circuit.borrow_mut().may_call(Instant::now()) {
            return Err(CallFailure::Rests.into());
        }
        let until = Deadline::now() + shared.rules.call_max;
        // Who never had a place knows nothing of the endpoint.
        let Ok(_place) = timeout_at(until, shared.places.take()).await else { return Err(CallFailure::Late.into()) };
        let result = shared.call(&body, until).await;
        let down = result.as_ref().is_err_and(|error| error.failure.is_down());
        shared.circuit.borrow_mut().note(!down, Instant::now());
        result
    }
}

impl Shared {
    async fn call(&self, body: &Bytes, until: Deadline) -> Result<Bytes, CallError> {
        let (kept, response) = in_time(until, self.send(body)).await?;
        let status = response.status();
        // Of another answer the rest is read only to keep its connection.
        let answer = in_time(until, self.read(kept, response)).await;
        if !status.is_success() {
            return Err(CallFailure::Status(status.as_u16()).into());
        }
        match self.rules.kind {
            Kind::Question { .. } => answer,
            Kind::Delivery { .. } => Ok(Bytes::new()),
        }
    }

    /// Sends a request; the head of its answer, and the connection that the rest comes on.
    async fn send(&self, body: &Bytes) -> Result<(Kept, Response<Incoming>), CallError> {
        if let Some(mut kept) = self.take_kept() {
            match self.send_over(&mut kept, body).await {
                Ok(response) => return Ok((kept, response)),
                // The endpoint has ended it just now: once more over a new one.
                Err((_, true)) => {}
                Err((error, false)) => return Err(error),
            }
        }
        let fresh = self.addresses.connect(&self.rules.url, self.rules.tls.as_ref()).await;
        let mut fresh = fresh.map_err(|error| CallError::new(CallFailure::Unreachable, &error))?;
        match self.send_over(&mut fresh, body).await {
            Ok(response) => Ok((fresh, response)),
            Err((error, _)) => Err(error),
        }
    }

    /// One request over one connection. With the error: whether it may be sent over another.
    async fn send_over(&self, kept: &mut Kept, body: &Bytes) -> Result<Response<Incoming>, (CallError, bool)> {
        if let Err(error) = kept.sender.ready().await {
            return Err((CallError::new(CallFailure::Broken, &error), true));
        }
        kept.sender.try_send_request(self.request(body)).await.map_err(|mut failed| {
            let unsent = failed.take_message().is_some();
            let error = failed.into_error();
            if error.is_parse() || error.is_parse_too_large() {
                return (CallError::new(CallFailure::Malformed, &error), false);
            }
            let again = unsent || matches!(self.rules.kind, Kind::Question { .. });
            (CallError::new(CallFailure::Broken, &error), again)
        })
    }

    /// A connection that was used a moment ago and has not ended since.
    fn take_kept(&self) -> Option<Kept> {
        let mut kept = self.kept.borrow_mut();
        kept.retain(Kept::is_good);
        kept.pop()
    }

    /// The rest of an answer. Unless all of it comes, dropping the connection ends it.
    async fn read(&self, mut kept: Kept, response: Response<Incoming>) -> Result<Bytes, CallError> {
        let most = self.rules.answer_bytes_max;
        let said = response.body().size_hint().lower();
        if usize::try_from(said).is_ok_and(|bytes| bytes > most) {
            return Err(CallFailure::TooBig.into());
        }
        match Limited::new(response.into_body(), most).collect().await {
            Ok(answer) => {
                kept.used = Instant::now();
                self.kept.borrow_mut().push(kept);
                Ok(answer.to_bytes())
            }
            Err(error) if error.is::<LengthLimitError>() => Err(CallFailure::TooBig.into()),
            Err(error) => Err(CallError::new(CallFailure::Broken, &*error)),
        }
    }

    fn request(&self, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.rules.url.target().clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.rules.url.authority().clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("halley/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match &self.rules.kind {
            Kind::Question { subject, key } => {
                headers.insert(SUBJECT, HeaderValue::from_static(subject));
                if let Some(key) = key {
                    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    headers.insert(TIMESTAMP, now_s.into());
                    let signature = HeaderValue::try_from(signature(key, now_s, body)).expect("hexadecimal digits");
                    headers.insert(SIGNATURE, signature);
                }
            }
            Kind::Delivery { authorization } => {
                if let Some(authorization) = authorization {
                    headers.insert(AUTHORIZATION, authorization.clone());
                }
            }
        }
        request
    }
}

async fn in_time<T>(until: Deadline, step: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout_at(until, step).await.unwrap_or_else(|_| Err(CallFailure::Late.into()))
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
