//! Who may call: tokens and their scopes, and the log of calls that change something.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use halley_protocol::forwarded::{self, ForwardedBy};

use super::super::http::Peer;
use super::{Fault, Shared};
use crate::config::{Api, Auth, ClientAddress, Scope, Settings, Token, TokenHash};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a token of this scope, or anybody if the configuration asks for none.
    Scope(Scope),
    /// Anybody: probes have no token.
    Anybody,
}

/// The tokens of the configuration, by hash.
#[derive(Debug)]
pub struct Tokens(Vec<Known>);

#[derive(Debug)]
struct Known {
    caller: Caller,
    hash: TokenHash,
    scopes: Vec<Scope>,
}

/// Whose call it is: the token's name; empty where none is asked for.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Arc<str>);

/// What an admin call was about and what came of it, for the audit log; a handler puts it into its response.
#[derive(Clone, Debug, Default)]
pub(super) struct Audited {
    pub(super) subject: String,
    pub(super) result: String,
}

impl Tokens {
    /// The tokens of a checked configuration. One without a name is called by its place: `token-1`.
    pub fn new(api: &Api) -> Self {
        let known = |(at, token): (usize, &Token)| {
            let name = match token {
                Token::Plain(_) => format!("token-{}", at + 1),
                Token::Hashed(token) => token.name.clone(),
            };
            Known { caller: Caller(name.into()), hash: token.hash(), scopes: token.scopes().to_vec() }
        };
        Self(api.tokens.iter().enumerate().map(known).collect())
    }

    /// Compares with every token, and every byte, so that time tells nothing.
    fn find(&self, token: &[u8]) -> Option<&Known> {
        let hash = TokenHash::of(token);
        self.0.iter().fold(None, |found, known| if known.hash.equals(&hash) { Some(known) } else { found })
    }
}

/// What an admin call asked for, and from where.
struct Asked {
    uri: String,
    from: String,
}

/// What stands before a route's handler.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) app: Shared,
    /// Whether a token is asked for, by the configuration in force.
    pub(super) auth: fn(&Settings) -> Auth,
    pub(super) scope: Scope,
    /// Method and path, for the audit log.
    pub(super) call: String,
}

/// Lets in who has a token of the scope: 401 without a known token, 403 with one of other scopes.
pub(super) async fn authorize(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let (caller, allowed) = match gate.admit(request.headers()) {
        Ok(admitted) => admitted,
        Err(fault) => return fault.into_response(),
    };
    request.extensions_mut().insert(caller.clone());
    let asked =
        (gate.scope == Scope::Admin).then(|| Asked { uri: request.uri().to_string(), from: gate.from(&request) });
    let response = if allowed { next.run(request).await } else { Fault::forbidden(gate.scope).into_response() };
    if let Some(asked) = asked {
        gate.audit(&caller, asked, &response);
    }
    response
}

impl Gate {
    /// Whose call it is, and whether it may be made.
    fn admit(&self, headers: &HeaderMap) -> Result<(Caller, bool), Fault> {
        if (self.auth)(&self.app.config().settings) == Auth::None {
            return Ok((Caller("".into()), true));
        }
        let token = bearer(headers).ok_or_else(Fault::unauthorized)?;
        let tokens = self.app.tokens();
        let known = tokens.find(token).ok_or_else(Fault::unknown_token)?;
        Ok((known.caller.clone(), known.scopes.contains(&self.scope)))
    }

    /// The caller's address, as far as proxies are believed; empty for a request without a connection.
    fn from(&self, request: &Request) -> String {
        let Some(Peer(peer)) = request.extensions().get().copied() else { return String::new() };
        let config = self.app.config();
        let Api { client_address, trusted_proxies, .. } = &config.settings.api;
        let by = match client_address {
            ClientAddress::XForwardedFor => ForwardedBy::XForwardedFor,
            ClientAddress::Forwarded => ForwardedBy::Forwarded,
            ClientAddress::Connection | ClientAddress::ProxyProtocol => return peer.to_string(),
        };
        let is_trusted = |address| trusted_proxies.iter().any(|network| network.contains(address));
        if !is_trusted(peer.ip()) {
            return peer.to_string();
        }
        let values = request.headers().get_all(by.name()).iter().map(HeaderValue::as_bytes);
        forwarded::client_of(values, by, peer, is_trusted).to_string()
    }

    /// One event for each admin call of a known token, be it allowed or not.
    fn audit(&self, caller: &Caller, Asked { uri, from }: Asked, response: &Response) {
        let known = response.extensions().get::<Audited>().cloned();
        let Audited { subject, result } = known.unwrap_or(Audited { subject: uri, result: String::new() });
        let (token, call, status) = (&*caller.0, &*self.call, response.status().as_u16());
        tracing::info!(target: "audit", event = "audit", token, from, call, subject, status, result);
    }
}

/// A response that says for the audit log what was done.
pub(super) fn audited(response: impl IntoResponse, subject: impl Into<String>, result: impl Into<String>) -> Response {
    (Extension(Audited { subject: subject.into(), result: result.into() }), response).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}
