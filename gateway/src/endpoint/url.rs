//! URLs of endpoints.

use std::fmt;

use hyper::Uri;
use hyper::header::HeaderValue;

/// `http://host:port/path` or `https://…`; shown without its query, which may hold a secret.
#[derive(Clone, Debug)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
    target: Uri,
}

impl Url {
    /// Reads one; the error is a sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no URL of an endpoint: write \"http://host:port/path\"");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("has a name or password in it: use hooks.secret, or upstream.authorization".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            secure,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            target: uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| wrong())?,
            host,
        })
    }

    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Path and query.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let query = if self.target.query().is_some() { "?…" } else { "" };
        write!(f, "{scheme}://{}{}{query}", self.authority.to_str().unwrap_or_default(), self.target.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_what_is_left_out_by_default() {
        for (text, secure, host, port, target) in [
            ("http://127.0.0.1:9000/login", false, "127.0.0.1", 9000, "/login"),
            ("http://hooks.example", false, "hooks.example", 80, "/"),
            ("https://hooks.example/a?b=c", true, "hooks.example", 443, "/a?b=c"),
            ("http://[::1]:1/x", false, "::1", 1, "/x"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((url.secure, &*url.host, url.port), (secure, host, port), "{text}");
            assert_eq!(url.target.to_string(), target, "{text}");
        }
        for wrong in ["", "login", "/login", "hooks.example:80", "ftp://host/", "http://", "http://a b/", "http:///x"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Url::parse("http://me:secret@host/").is_err_and(|error| error.contains("password")));
    }

    #[test]
    fn a_url_is_shown_without_its_query() {
        for (text, shown) in [
            ("https://hooks.example:8443/a?token=secret", "https://hooks.example:8443/a?…"),
            ("http://[::1]:1", "http://[::1]:1/"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Ok(shown));
        }
    }
}
