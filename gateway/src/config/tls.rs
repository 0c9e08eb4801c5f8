//! The `tls` table of a listener and of the API.

use serde::{Deserialize, Serialize};

/// `tls`: certificates, and who may come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Of several, a client gets the one with the name it asks for.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// Whether clients have certificates.
    pub client_auth: ClientAuth,
    /// PEM file with those who sign the certificates of clients.
    pub client_ca: String,
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the certificate, and behind it those that lead to a root.
    pub certificate: String,
    /// PEM file with its private key.
    pub key: String,
}

/// `tls.version_min`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 alone.
    #[serde(rename = "1.3")]
    Tls13,
}

/// `tls.client_auth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// They are asked; one that has none gets in, one whose certificate is bad does not.
    Optional,
    /// Only those with a good certificate get in.
    Required,
}
