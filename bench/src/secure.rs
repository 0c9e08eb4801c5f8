//! TLS of the clients: tls:// and wss:// targets, by rustls.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use halley_ring::client::{Actions, Client};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use serde::Serialize;

use crate::target::Target;

/// How clients of tls:// and wss:// targets judge the server.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct TlsArgs {
    /// PEM file with the certificates that clients of tls:// and wss:// targets trust.
    #[arg(long, conflicts_with = "tls_insecure")]
    pub tls_ca: Option<PathBuf>,
    /// Clients of tls:// and wss:// targets trust any certificate.
    #[arg(long)]
    pub tls_insecure: bool,
    /// Clients come back with their tickets; without it every handshake is a full one.
    #[arg(long)]
    pub tls_resume: bool,
}

impl TlsArgs {
    /// What handshakes begin with; `None` if no target has TLS.
    ///
    /// # Errors
    /// A sentence, if nobody said whom to trust, or the file cannot be used.
    pub fn config(&self, targets: &[Target]) -> Result<Option<Arc<ClientConfig>>, String> {
        if !targets.iter().any(|target| target.secure) {
            return Ok(None);
        }
        let provider = Arc::new(provider::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = match &self.tls_ca {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let wrong = |why: String| format!("--tls-ca {}: {why}", path.display());
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            None if self.tls_insecure => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth()
            }
            None => return Err("say whom tls:// and wss:// clients trust: --tls-ca FILE, or --tls-insecure".to_owned()),
        };
        if !self.tls_resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Some(Arc::new(config)))
    }
}

/// Trusts any server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A handshake with a target, not begun.
fn connection(config: &Arc<ClientConfig>, target: &Target) -> io::Result<ClientConnection> {
    let host = target.host.rsplit_once(':').map_or(&*target.host, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}

/// The TLS of a thread's clients.
#[derive(Default)]
pub(crate) struct Secured {
    connections: HashMap<u32, Box<ClientConnection>>,
    records: Vec<u8>,
}

impl Secured {
    /// A client's socket is connected: it begins its handshake.
    pub(crate) fn begin(
        &mut self,
        actions: &mut Actions,
        client: Client,
        config: &Arc<ClientConfig>,
        target: &Target,
    ) -> io::Result<()> {
        self.connections.insert(client.0, Box::new(connection(config, target)?));
        self.send(actions, client, &[])
    }

    /// Sends bytes, as records if the client speaks TLS, and what TLS itself has to say.
    pub(crate) fn send(&mut self, actions: &mut Actions, client: Client, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = self.connections.get_mut(&client.0) else { return actions.send(client, bytes) };
        tls.writer().write_all(bytes)?;
        self.records.clear();
        while tls.wants_write() {
            tls.write_tls(&mut self.records)?;
        }
        if self.records.is_empty() { Ok(()) } else { actions.send(client, &self.records) }
    }

    /// Appends the data of records that have arrived; whether the handshake is complete.
    pub(crate) fn open(&mut self, client: Client, mut records: &[u8], data: &mut Vec<u8>) -> io::Result<bool> {
        let Some(tls) = self.connections.get_mut(&client.0) else { return Ok(false) };
        while !records.is_empty() {
            if tls.read_tls(&mut records)? == 0 {
                break; // behind the server's close nothing counts
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let start = data.len();
            data.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut data[start..])?;
        }
        Ok(!tls.is_handshaking())
    }
}

/// A blocking connection with or without TLS.
pub(crate) struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Over a socket that is connected to the target.
    pub(crate) fn over(stream: TcpStream, target: &Target, config: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let config = config.filter(|_| target.secure);
        let tls = config.map(|config| connection(config, target).map(Box::new)).transpose()?;
        Ok(Self { stream, tls })
    }

    /// The longest that a read waits.
    pub(crate) fn set_read_timeout(&self, patience: Duration) {
        let _ = self.stream.set_read_timeout(Some(patience)); // then it reads without one
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(into),
            None => self.stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).write(bytes),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).flush(),
            None => self.stream.flush(),
        }
    }
}
