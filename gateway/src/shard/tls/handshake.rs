//! Handshakes: rustls makes them, record by record, until it hands the keys over.

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};

use super::records::{BODY_BYTES_MAX, HEADER_BYTES, record_bytes};

/// What became of a handshake with the input that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on with more input.
    NeedMore,
    /// It is complete; what lies behind is the connection's.
    Done,
    /// It has failed; what the peer is told has been written.
    Failed,
}

/// Goes on with a handshake. `fed` says how much of the input it has seen before, and then what it has; what is to be
/// sent is appended to `out`. Returns how many bytes at the front of the input are done with.
///
/// It gets one record at a time: so it never sees one behind its own last, which the keys it hands over must open.
pub(super) fn step(
    handshake: &mut UnbufferedServerConnection,
    input: &mut [u8],
    fed: &mut usize,
    out: &mut Vec<u8>,
) -> (usize, Step) {
    let mut done = 0;
    loop {
        let UnbufferedStatus { discard, state } = handshake.process_tls_records(&mut input[done..*fed]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, out);
                None
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                None
            }
            Ok(ConnectionState::BlockedHandshake) => {
                let more = next_record(&input[*fed..]);
                *fed += more.unwrap_or(0);
                more.is_none().then_some(Step::NeedMore)
            }
            Ok(ConnectionState::WriteTraffic(_)) => Some(Step::Done),
            // Early data is off, and a peer that closes now has no connection to close.
            Ok(_) => Some(Step::Failed),
            Err(_) => {
                write_alert(handshake, out);
                return (done, Step::Failed);
            }
        };
        done += discard;
        if let Some(step) = step {
            return (done, step);
        }
    }
}

/// The bytes of the next whole record; all there are if they are no beginning of one.
fn next_record(input: &[u8]) -> Option<usize> {
    let (&content, rest) = input.split_first()?;
    let is_tls = matches!(content, 20..=23) && rest.first().is_none_or(|major| *major == 3);
    if !is_tls {
        return Some(input.len());
    }
    let bytes = record_bytes(input)?;
    if bytes > HEADER_BYTES + BODY_BYTES_MAX {
        return Some(input.len());
    }
    (bytes <= input.len()).then_some(bytes)
}

/// What is left to be said after a failure. Input is not looked at while something is, and must not be looked at again:
/// rustls would fail once more, or miss what it points at.
fn write_alert(handshake: &mut UnbufferedServerConnection, out: &mut Vec<u8>) {
    while handshake.wants_write() {
        let UnbufferedStatus { state, .. } = handshake.process_tls_records(&mut []);
        let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
        encode(data, out);
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        out.resize(start + required_size, 0);
        let written = data.encode(&mut out[start..]);
        out.truncate(start + written.expect("as many bytes as it asked for"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::ClientConnection;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ServerConfig};

    use super::*;
    use crate::shard::tests::tls::{tls12, tls13, trusting_server};

    /// What a client says in its flights, each answered by a server; `change` is made to a flight.
    fn shake(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        flight: usize,
        change: impl Fn(&mut Vec<u8>),
    ) -> (usize, Step) {
        let name = ServerName::try_from("gateway").expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("right");
        let mut server = UnbufferedServerConnection::new(Arc::clone(server)).expect("right");
        let (mut input, mut fed, mut lengths) = (Vec::new(), 0, 0);
        for at in 0..4 {
            let mut said = Vec::new();
            client.write_tls(&mut said).expect("taken");
            if at == flight {
                lengths = said.len();
                change(&mut said);
            }
            input.append(&mut said);
            let mut out = Vec::new();
            let (done, step) = step(&mut server, &mut input, &mut fed, &mut out);
            input.drain(..done);
            fed -= done;
            if step != Step::NeedMore {
                return (lengths, step);
            }
            client.read_tls(&mut &out[..]).expect("read");
            if client.process_new_packets().is_err() {
                break;
            }
        }
        (lengths, Step::NeedMore)
    }

    #[test]
    fn no_input_makes_a_handshake_panic() {
        for server in [trusting_server(false), trusting_server(true)] {
            for client in [tls13(), tls12()] {
                let (hello, ended) = shake(&server, &client, 0, |_| ());
                assert_ne!(ended, Step::NeedMore);
                let (finish, _) = shake(&server, &client, 1, |_| ());
                for (flight, bytes) in [(0, hello), (1, finish)] {
                    for at in 0..bytes {
                        shake(&server, &client, flight, |said| said[at] ^= 1 << (at % 8));
                        shake(&server, &client, flight, |said| said.truncate(at));
                        if at % 7 == 0 {
                            shake(&server, &client, flight, |said| drop(said.drain(at..(at + 3).min(said.len()))));
                            // The same records again, and others behind them.
                            shake(&server, &client, flight, |said| said.extend_from_within(at..));
                        }
                    }
                }
            }
        }
    }
}
