//! The name in a path, and query parameters as goim reads them: repeated keys are lists, an empty number is zero.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;

use super::Fault;

/// The one parameter of a path, percent-decoded.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let name = Path::from_request_parts(parts, state).await;
        name.map(|Path(name)| Self(name))
            .map_err(|_| Fault::bad_request("the name in the path is not percent-encoded UTF-8"))
    }
}

/// The parameters of a query, in order.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| Fault::bad_request("the query is malformed"))
    }
}

impl Params {
    /// The first value of a key.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a key.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value that must be there.
    pub(super) fn required<'a>(&'a self, name: &str) -> Result<&'a str, Fault> {
        self.text(name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name))
    }

    /// A number; 0 if the key is missing or empty.
    pub(super) fn number<T: std::str::FromStr + Default>(&self, name: &str) -> Result<T, Fault> {
        self.text(name).map_or_else(|| Ok(T::default()), number)
    }

    /// A number that must be there and must not be 0, by goim's rule for required fields.
    pub(super) fn required_number<T: std::str::FromStr + Default + PartialEq>(&self, name: &str) -> Result<T, Fault> {
        let value = self.number(name)?;
        if value == T::default() { Err(missing(name)) } else { Ok(value) }
    }

    /// Every value of a key, as numbers.
    pub(super) fn numbers<T: std::str::FromStr + Default>(&self, name: &str) -> Result<Vec<T>, Fault> {
        self.all(name).map(number).collect()
    }
}

fn number<T: std::str::FromStr + Default>(text: &str) -> Result<T, Fault> {
    if text.is_empty() {
        return Ok(T::default());
    }
    text.parse().map_err(|_| Fault::bad_request(format!("{text:?} is no number in range")))
}

fn missing(name: &str) -> Fault {
    Fault::bad_request(format!("the query parameter {name} is required and must not be empty or 0"))
}
