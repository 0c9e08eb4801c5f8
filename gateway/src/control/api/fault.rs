//! What a caller is told when a call fails: one JSON shape, and goim's envelope under `/goim/`.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use halley_protocol::job::JobReject;
use serde_json::json;

use super::goim::{REQUEST_ERROR, SERVER_ERROR, envelope};
use super::v1::INTERNAL_ERROR;
use crate::config::Scope;
use crate::dispatch::DispatchError;
use crate::source::kafka::ProduceError;

/// A failed call.
#[derive(Clone, Debug)]
pub(in super::super) struct Fault {
    status: StatusCode,
    /// For programs.
    code: &'static str,
    /// For people: what is wrong and what would be right.
    message: Cow<'static, str>,
    /// What the caller should authenticate with, in the header of RFC 6750.
    challenge: Option<&'static str>,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), challenge: None }
    }

    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    pub(super) fn unauthorized() -> Self {
        let message = "send a token of api.tokens as `Authorization: Bearer TOKEN`";
        Self { challenge: Some("Bearer"), ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message) }
    }

    pub(super) fn unknown_token() -> Self {
        let message = "the token is none of api.tokens";
        let challenge = Some("Bearer error=\"invalid_token\"");
        Self { challenge, ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message) }
    }

    pub(super) fn forbidden(needed: Scope) -> Self {
        let message = format!("the token has not the scope {}", needed.name());
        let challenge = Some(match needed {
            Scope::Push => "Bearer error=\"insufficient_scope\", scope=\"push\"",
            Scope::Read => "Bearer error=\"insufficient_scope\", scope=\"read\"",
            Scope::Admin => "Bearer error=\"insufficient_scope\", scope=\"admin\"",
        });
        Self { challenge, ..Self::new(StatusCode::FORBIDDEN, "forbidden", message) }
    }

    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "this path takes other methods; see the Allow header";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message)
    }

    pub(super) fn timeout() -> Self {
        let message = "the body did not arrive within api.request_ms_max";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    }

    pub(super) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    pub(super) fn not_json() -> Self {
        let message = "send JSON, with `content-type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", message)
    }

    pub(super) fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    pub(super) fn broken_configuration(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "broken-configuration", message)
    }

    pub(super) fn no_reload() -> Self {
        let message = "the gateway drains: what is in force stays";
        Self::new(StatusCode::CONFLICT, "draining", message)
    }

    fn too_fast(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-fast", message)
    }

    pub(super) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the gateway drains and takes no more connections")
    }

    /// With the place of an array's element before the message.
    pub(super) fn at(mut self, index: usize) -> Self {
        self.message = format!("push {index}: {}", self.message).into();
        self
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({ "code": self.code, "message": self.message })
    }

    fn headers(&self, mut response: Response) -> Response {
        let again = matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let header = match self.challenge {
            Some(challenge) => Some((header::WWW_AUTHENTICATE, challenge)),
            None => again.then_some((header::RETRY_AFTER, "1")),
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<DispatchError> for Fault {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::Full => Self::busy("a shard's queue is full and nobody got the push; try again"),
            DispatchError::RoomTooFast => Self::too_fast(error.to_string()),
            DispatchError::PayloadTooBig | DispatchError::TooManyTargets => Self::too_large(error.to_string()),
        }
    }
}

impl From<ProduceError> for Fault {
    fn from(error: ProduceError) -> Self {
        match error {
            ProduceError::TooLarge => Self::too_large("the push is larger than the brokers take"),
            ProduceError::Refused(why) => {
                let message = format!("Kafka refused the push, and it is not written: {why}");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "refused", message)
            }
            ProduceError::Away => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unacknowledged",
                "Kafka did not acknowledge the push within kafka.produce_ms_max; try again, with its id or it may come twice",
            ),
        }
    }
}

impl From<JobReject> for Fault {
    fn from(reject: JobReject) -> Self {
        match reject {
            JobReject::TooLarge => DispatchError::PayloadTooBig.into(),
            JobReject::TooManyTargets => DispatchError::TooManyTargets.into(),
            _ => Self::bad_request("the push names nobody, or somebody by a name that is empty or too long"),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = axum::Json(json!({ "error": self.to_json() }));
        let mut response = self.headers((self.status, body).into_response());
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives faults the shape that callers of goim v1 read: its `ret`, and beside it what is wrong.
pub(super) async fn shape_v1(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(fault) = response.extensions_mut().remove::<Fault>() else { return response };
    if fault.status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(header::ALLOW).cloned();
        let mut shaped = (fault.status, "Method Not Allowed\n").into_response();
        if let Some(allow) = allow {
            shaped.headers_mut().insert(header::ALLOW, allow);
        }
        return shaped;
    }
    let answer = json!({ "ret": INTERNAL_ERROR, "message": fault.message });
    fault.headers((fault.status, answer.to_string()).into_response())
}

/// Gives faults under `/goim/` the shape that goim's callers read.
pub(super) async fn shape(request: Request, next: Next) -> Response {
    let is_goim = request.uri().path().starts_with("/goim/");
    let mut response = next.run(request).await;
    if !is_goim {
        return response;
    }
    let Some(fault) = response.extensions_mut().remove::<Fault>() else { return response };
    let allow = response.headers().get(header::ALLOW).cloned();
    let code = if fault.status.is_server_error() { SERVER_ERROR } else { REQUEST_ERROR };
    let mut shaped = fault.headers((fault.status, envelope(code, &fault.message, None)).into_response());
    if let Some(allow) = allow {
        shaped.headers_mut().insert(header::ALLOW, allow);
    }
    shaped
}
