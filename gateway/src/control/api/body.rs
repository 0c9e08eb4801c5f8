//! Reads a request's body whole, within its limits in bytes and time, before the handler runs.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::rt::Timer as _;
use monoio_compat::hyper::MonoioTimer;

use super::{Fault, Shared};

/// Replaces the body by its bytes, or answers 408, 413 or 400.
pub(super) async fn read(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let config = app.config();
    let api = &config.settings.api;
    let (bytes_max, time_max) = (api.body_bytes_max as usize, Duration::from_millis(api.request_ms_max.into()));
    drop((app, config));
    let (parts, body) = request.into_parts();
    match collect(body, bytes_max, time_max).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(fault) => fault.into_response(),
    }
}

async fn collect(body: Body, bytes_max: usize, time_max: Duration) -> Result<Bytes, Fault> {
    let too_large = || Fault::too_large(format!("the body has more than {bytes_max} bytes (api.body_bytes_max)"));
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut collected = pin!(Limited::new(body, bytes_max).collect());
    let mut late = MonoioTimer.sleep(time_max);
    poll_fn(|cx| {
        if let Poll::Ready(done) = collected.as_mut().poll(cx) {
            return Poll::Ready(done.map(http_body_util::Collected::to_bytes).map_err(|error| {
                if error.is::<LengthLimitError>() { too_large() } else { Fault::bad_request("the body broke off") }
            }));
        }
        late.as_mut().poll(cx).map(|()| Err(Fault::timeout()))
    })
    .await
}
