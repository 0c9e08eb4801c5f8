//! From certificates and keys in files to what handshakes begin with.

use std::fs;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};

use super::validity;
use crate::config::{CertificateFiles, ClientAuth, Tls, TlsVersion};

/// Certificates of one listener; they are looked through in each handshake.
pub const CERTIFICATES_MAX: usize = 64;

/// Days before its end from which a certificate is worth a warning.
const DAYS_BEFORE: u64 = 7;

/// What is wrong with a key of a `tls` table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Problem {
    /// The key, such as `certificates[0].key`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Problem {
    fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }

    pub(super) fn under(self, table: &str) -> Self {
        Self { key: format!("{table}.{}", self.key), ..self }
    }
}

/// What is spoken over TLS; told in the handshake where it has a name (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// goim's packets, which have no name.
    Packets,
    /// HTTP and then WebSocket, on a shard.
    Http,
    /// HTTP, on control.
    Api,
}

/// The TLS of one listener.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What handshakes begin with.
    pub config: Arc<ServerConfig>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Tickets name the key's owner, so they must not outlive a change of whom to trust.
    trusts: (ClientAuth, String),
}

/// Reads and checks what a `tls` table names. Clients keep their tickets over a change of certificates, unless clients
/// have certificates too.
pub fn load(tls: &Tls, speaks: Speaks, before: Option<&Loaded>) -> Result<Loaded, Problem> {
    let provider = Arc::new(provider::default_provider());
    let mut warnings = Vec::new();
    let certificates = certificates(tls, &provider, &mut warnings)?;
    let versions: &[_] = match tls.version_min {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let wrong = |problem: rustls::Error| Problem::new("version_min", problem.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(wrong)?;
    let builder = match clients(tls, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName { certificates }));
    if speaks != Speaks::Packets {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    // A client keeps what is needed to come back; the gateway keeps nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.ticketer = ticketer(tls, before)?;
    // A shard seals and opens records itself.
    config.enable_secret_extraction = speaks != Speaks::Api;
    Ok(Loaded { config: Arc::new(config), warnings, trusts: (tls.client_auth, tls.client_ca.clone()) })
}

/// Keys of tickets change every six hours; those before are taken as long again.
fn ticketer(tls: &Tls, before: Option<&Loaded>) -> Result<Arc<dyn ProducesTickets>, Problem> {
    let same = before.filter(|before| tls.client_auth == ClientAuth::None && before.trusts.0 == ClientAuth::None);
    match same {
        Some(before) => Ok(Arc::clone(&before.config.ticketer)),
        None => provider::Ticketer::new().map_err(|error| Problem::new("certificates", error.to_string())),
    }
}

fn certificates(
    tls: &Tls,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> Result<Vec<Arc<CertifiedKey>>, Problem> {
    let count = tls.certificates.len();
    if count == 0 {
        return Err(Problem::new(
            "certificates",
            "is empty: add { certificate = \"chain.pem\", key = \"key.pem\" }, the server's own certificate first in its file",
        ));
    }
    if count > CERTIFICATES_MAX {
        return Err(Problem::new(
            "certificates",
            format!("{count} certificates: at most {CERTIFICATES_MAX} are possible"),
        ));
    }
    let one = |(at, files): (usize, &CertificateFiles)| {
        let certified = certificate(files, provider, warnings, at);
        certified.map(Arc::new).map_err(|(key, problem)| Problem::new(format!("certificates[{at}].{key}"), problem))
    };
    tls.certificates.iter().enumerate().map(one).collect()
}

fn certificate(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
    at: usize,
) -> Result<CertifiedKey, (&'static str, String)> {
    let chain = chain(&files.certificate).map_err(|problem| ("certificate", problem))?;
    let name = &files.key;
    let text = read(name).map_err(|problem| ("key", problem))?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| ("key", format!("{name} holds no private key: a PEM file with BEGIN PRIVATE KEY is needed")))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        ("key", format!("the key in {name} cannot be used ({error}): use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"))
    })?;
    warnings.extend(
        lifetime(&chain[0], UnixTime::now().as_secs())
            .map(|it| format!("certificates[{at}].certificate: {} {it}", files.certificate)),
    );
    let certified = CertifiedKey::new(chain, key);
    let matches = ParsedCertificate::try_from(&certified.cert[0]).and(certified.keys_match());
    match matches {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            "key",
            format!(
                "the key in {name} is not that of the first certificate in {}: put the server's own certificate first, or name its key",
                files.certificate
            ),
        )),
        Err(error) => {
            Err(("certificate", format!("the first certificate in {} cannot be used: {error}", files.certificate)))
        }
    }
}

fn lifetime(certificate: &[u8], now: u64) -> Option<String> {
    let (from, until) = validity::of(certificate)?;
    let days = |seconds: u64| seconds / 86_400;
    if now >= until {
        Some(format!("expired {} days ago: clients will refuse it", days(now - until)))
    } else if now < from {
        Some("is not valid yet: clients will refuse it".into())
    } else if until - now < DAYS_BEFORE * 86_400 {
        Some(format!("expires in {} days", days(until - now)))
    } else {
        None
    }
}

fn read(name: &str) -> Result<Vec<u8>, String> {
    if name.is_empty() {
        return Err("is empty: name a PEM file".into());
    }
    fs::read(name).map_err(|cause| format!("cannot read {name}: {cause}"))
}

fn chain(name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(name)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("{name} holds no certificate: a PEM file with BEGIN CERTIFICATE is needed")),
    }
}

/// Who judges the certificates of clients, if they are asked for one.
fn clients(
    tls: &Tls,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, Problem> {
    if tls.client_auth == ClientAuth::None {
        return if tls.client_ca.is_empty() {
            Ok(None)
        } else {
            Err(Problem::new("client_ca", "is of no use with client_auth = \"none\": use \"optional\" or \"required\""))
        };
    }
    let wrong = |problem: String| Problem::new("client_ca", problem);
    let mut roots = RootCertStore::empty();
    for certificate in chain(&tls.client_ca).map_err(wrong)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("a certificate in {} cannot be used: {error}", tls.client_ca)))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if tls.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| wrong(error.to_string()))
}

/// Chooses the certificate that has the name a client asks for; without one the first that it can check.
#[derive(Debug)]
struct ByName {
    certificates: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let usable = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |it: &&Arc<CertifiedKey>| name.as_ref().is_some_and(|name| has_name(it, name));
        let all = || self.certificates.iter();
        all().filter(usable).find(named).or_else(|| all().find(usable)).or_else(|| all().next()).cloned()
    }
}

fn has_name(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    certified
        .cert
        .first()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn put(&self, name: &str, text: &str) -> String {
            let path = self.0.path().join(name);
            fs::write(&path, text).expect("written");
            path.display().to_string()
        }

        fn certificate(&self, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateFiles {
            let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
            change(&mut params);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("signed").pem();
            CertificateFiles {
                certificate: self.put(&format!("{name}.pem"), &certificate),
                key: self.put(&format!("{name}.key"), &key.serialize_pem()),
            }
        }
    }

    fn tls(certificates: Vec<CertificateFiles>) -> Tls {
        Tls { certificates, ..Tls::default() }
    }

    fn problem(tls: &Tls) -> String {
        load(tls, Speaks::Http, None).expect_err("a problem").to_string()
    }

    #[test]
    fn what_is_wrong_with_files_is_said_with_key_file_and_reason() {
        let files = Files::new();
        let (a, b) = (files.certificate("a", |_| ()), files.certificate("b", |_| ()));
        let with = |certificate: &str, key: &str| {
            problem(&tls(vec![a.clone(), CertificateFiles { certificate: certificate.into(), key: key.into() }]))
        };
        let empty = files.put("empty.pem", "nothing here");
        for (said, parts) in [
            (problem(&tls(Vec::new())), ["certificates: is empty", "own certificate first"]),
            (with("no-such.pem", &b.key), ["certificates[1].certificate: cannot read no-such.pem", "No such file"]),
            (with(&b.certificate, "no-such.key"), ["certificates[1].key: cannot read no-such.key", "No such file"]),
            (with(&b.certificate, ""), ["certificates[1].key: is empty", "PEM"]),
            (with(&empty, &b.key), ["certificates[1].certificate:", "empty.pem holds no certificate"]),
            (with(&b.certificate, &empty), ["certificates[1].key:", "empty.pem holds no private key"]),
            (with(&b.certificate, &a.key), ["certificates[1].key:", "is not that of the first certificate"]),
            (problem(&tls(vec![a.clone(); CERTIFICATES_MAX + 1])), ["certificates: 65", "at most 64"]),
            (
                problem(&Tls { client_auth: ClientAuth::Required, ..tls(vec![a.clone()]) }),
                ["client_ca: is empty", "PEM"],
            ),
            (problem(&Tls { client_ca: a.certificate.clone(), ..tls(vec![a.clone()]) }), ["client_ca:", "client_auth"]),
        ] {
            for part in parts {
                assert!(said.contains(part), "{said:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_certificate_that_has_expired_or_soon_will_is_a_warning() {
        let files = Files::new();
        let year = |from, until| {
            move |params: &mut rcgen::CertificateParams| {
                params.not_before = rcgen::date_time_ymd(from, 1, 1);
                params.not_after = rcgen::date_time_ymd(until, 1, 1);
            }
        };
        let warnings = |files| load(&tls(vec![files]), Speaks::Http, None).expect("loaded").warnings;
        assert!(warnings(files.certificate("old", year(2001, 2002)))[0].contains("old.pem expired"));
        assert!(warnings(files.certificate("young", year(4000, 4001)))[0].contains("not valid yet"));
        assert_eq!(warnings(files.certificate("right", year(2001, 4000))), [""; 0]);
        assert_eq!(lifetime(b"no certificate", 0), None);
    }

    #[test]
    fn tickets_outlive_a_change_of_certificates_but_none_of_whom_to_trust() {
        let files = Files::new();
        let (a, ca) = (files.certificate("a", |_| ()), files.certificate("ca", |_| ()));
        let open = tls(vec![a]);
        let first = load(&open, Speaks::Http, None).expect("loaded");
        let second = load(&open, Speaks::Http, Some(&first)).expect("loaded");
        assert!(Arc::ptr_eq(&first.config.ticketer, &second.config.ticketer));
        let closed = Tls { client_auth: ClientAuth::Required, client_ca: ca.certificate, ..open };
        let third = load(&closed, Speaks::Http, Some(&second)).expect("loaded");
        let fourth = load(&closed, Speaks::Http, Some(&third)).expect("loaded");
        assert!(!Arc::ptr_eq(&second.config.ticketer, &third.config.ticketer));
        assert!(!Arc::ptr_eq(&third.config.ticketer, &fourth.config.ticketer));
    }
}
