//! What a browser loads: the operator's console, and in `--dev` the developer page.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Route, Shared, public};
use crate::config::Transport;

/// A file of `page/`, packed by the build.
struct Asset {
    name: &'static str,
    /// Names these bytes among all versions of the file.
    tag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Nothing from elsewhere, nothing written into the page.
const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                              base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The developer page also speaks WebSocket, to listeners of other ports.
const DEVELOPER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                                connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The console. Its files say nothing about this gateway: what it shows it asks the API for, with the operator's token.
pub(super) fn console() -> Vec<Route> {
    let mut routes = vec![asset("/console", "console.html", Some(CONSOLE_POLICY))];
    let parts = [
        ("/console.css", "console.css"),
        ("/kit.css", "kit.css"),
        ("/api.js", "api.js"),
        ("/chart.js", "chart.js"),
        ("/confirm.js", "confirm.js"),
        ("/connections.js", "connections.js"),
        ("/console.js", "console.js"),
        ("/kit.js", "kit.js"),
        ("/nodes.js", "nodes.js"),
        ("/overview.js", "overview.js"),
        ("/push.js", "push.js"),
        ("/rooms.js", "rooms.js"),
    ];
    routes.extend(parts.map(|(path, name)| asset(path, name, None)));
    routes
}

/// The developer page, in `--dev` only.
pub(super) fn developer() -> Vec<Route> {
    vec![
        asset("/", "index.html", Some(DEVELOPER_POLICY)),
        asset("/page.css", "page.css", None),
        asset("/page.js", "page.js", None),
        asset("/goim.js", "goim.js", None),
        public("/dev.json", addresses),
    ]
}

fn asset(path: &'static str, name: &str, policy: Option<&'static str>) -> Route {
    let asset = ASSETS.iter().find(|asset| asset.name == name).expect("every file of page/ is packed");
    public(path, move |headers: HeaderMap| async move { asset.answer(&headers, policy) })
}

impl Asset {
    /// The file, compressed where the browser takes that; 304 if it has these bytes already.
    fn answer(&self, asked: &HeaderMap, policy: Option<&'static str>) -> Response {
        let has = |name: HeaderName, word: &str| {
            asked.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(word))
        };
        let mut headers = HeaderMap::new();
        let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
        // Asked for anew each time: a page that is open over an upgrade must not mix two versions.
        say(header::CACHE_CONTROL, "no-cache");
        say(header::ETAG, self.tag);
        say(header::VARY, "accept-encoding");
        if has(header::IF_NONE_MATCH, self.tag) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        say(header::CONTENT_TYPE, self.kind());
        say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        say(header::REFERRER_POLICY, "no-referrer");
        if let Some(policy) = policy {
            say(header::CONTENT_SECURITY_POLICY, policy);
        }
        if has(header::ACCEPT_ENCODING, "gzip") {
            say(header::CONTENT_ENCODING, "gzip");
            return (headers, self.gzip).into_response();
        }
        (headers, self.plain).into_response()
    }

    fn kind(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "text/javascript; charset=utf-8",
        }
    }
}

/// Where the page finds the gateway.
async fn addresses(State(app): State<Shared>) -> Json<Value> {
    let config = app.config();
    let at = |transport| app.bound.listeners.iter().position(|(other, _)| *other == transport);
    let websocket = at(Transport::Ws).map(|at| {
        let path = &config.settings.listener[at].path;
        format!("ws://{}{path}", app.bound.listeners[at].1)
    });
    let tcp = at(Transport::Tcp).map(|at| app.bound.listeners[at].1.to_string());
    Json(json!({ "websocket": websocket, "tcp": tcp, "api": format!("http://{}", app.bound.api) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Asset {
        ASSETS.iter().find(|asset| asset.name == name).unwrap()
    }

    #[test]
    fn a_browser_that_takes_gzip_gets_it_and_anybody_else_the_file() {
        let mut asked = HeaderMap::new();
        let plain = named("kit.js").answer(&asked, None);
        assert_eq!(plain.headers().get(header::CONTENT_ENCODING), None);
        asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"));
        let packed = named("kit.js").answer(&asked, None);
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(packed.headers()[header::ETAG], plain.headers()[header::ETAG]);
        assert!(named("kit.js").gzip.len() < named("kit.js").plain.len() / 2);
    }

    #[test]
    fn what_a_browser_has_already_is_not_sent_again() {
        let mut asked = HeaderMap::new();
        asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static(named("kit.css").tag));
        assert_eq!(named("kit.css").answer(&asked, None).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(named("console.css").answer(&asked, None).status(), StatusCode::OK, "another file's tag");
    }

    #[test]
    fn every_file_of_the_folder_has_an_address() {
        let routes = console().len() + developer().len() - 1; // the addresses are no file
        assert_eq!(routes, ASSETS.len());
    }
}
