//! `Sec-WebSocket-Extensions`: what a client offers, and what of it is taken (RFC 6455 9.1, RFC 7692 7.1).

/// A compression that is agreed on; neither side keeps anything between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The client asked for a bound on the window, which has to be answered; its bound is the largest there is.
    pub(super) window: bool,
}

/// The header is not written as RFC 6455 9.1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = PLAIN.len() + WINDOW.len();

const NAME: &[u8] = b"permessage-deflate";
const PLAIN: &[u8] =
    b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const WINDOW: &[u8] = b"; server_max_window_bits=15";

impl Agreed {
    /// Writes the line of the response, with the end of the line before it, and returns its length.
    pub fn answer(self, out: &mut [u8; ANSWER_BYTES_MAX]) -> usize {
        let window = if self.window { WINDOW } else { b"" };
        let bytes = PLAIN.len() + window.len();
        out[..PLAIN.len()].copy_from_slice(PLAIN);
        out[PLAIN.len()..bytes].copy_from_slice(window);
        bytes
    }
}

/// The first offer that can be taken, of all headers of the name in their order. `Ok(None)`: there is none.
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Agreed>, Malformed> {
    let mut agreed = None;
    for value in values {
        let mut text = Text(value);
        loop {
            // A list may have empty places.
            while text.eat(b',') {}
            if text.0.is_empty() {
                break;
            }
            let offer = offer(&mut text)?;
            agreed = agreed.or(offer);
            if !text.0.is_empty() && !text.eat(b',') {
                return Err(Malformed);
            }
        }
    }
    Ok(agreed)
}

/// Reads one offer to its end; `None`: another extension, or not in these words.
fn offer(text: &mut Text<'_>) -> Result<Option<Agreed>, Malformed> {
    let mut good = text.token()?.eq_ignore_ascii_case(NAME);
    let mut agreed = Agreed { window: false };
    let mut seen = [false; 4];
    while text.eat(b';') {
        let name = text.token()?;
        let value = if text.eat(b'=') { Some(text.value()?) } else { None };
        let which = match name {
            b"server_no_context_takeover" => (value.is_none()).then_some(0),
            b"client_no_context_takeover" => (value.is_none()).then_some(1),
            // Each message is compressed once for everybody, in the largest window.
            b"server_max_window_bits" => (value == Some(b"15")).then_some(2),
            b"client_max_window_bits" => value.is_none_or(is_window).then_some(3),
            _ => None,
        };
        match which {
            Some(which) if !seen[which] => seen[which] = true,
            _ => good = false,
        }
    }
    agreed.window = seen[2];
    Ok(good.then_some(agreed))
}

/// Whether it is a number from 8 to 15 without a zero before it.
fn is_window(value: &[u8]) -> bool {
    matches!(value, [b'8' | b'9'] | [b'1', b'0'..=b'5'])
}

/// What is left to read. Space around words means nothing.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        self.skip_space();
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        self.skip_space();
        let end = self.0.iter().position(|byte| !is_token(*byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        self.skip_space();
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or one in quotes.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        if self.0.first() != Some(&b'"') {
            return self.token();
        }
        self.0 = &self.0[1..];
        let value = self.token()?;
        if self.eat(b'"') { Ok(value) } else { Err(Malformed) }
    }
}

/// A character of a token (RFC 9110 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
