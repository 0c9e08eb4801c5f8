//! Tokens as a platform issues them, and its keys as the gateway reads them.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ring::{hmac, pkcs8};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Of `HS256`.
pub(crate) const SECRET: &str = "a secret of this test, long enough";

/// What stands before the bytes of a public key in its DER.
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0,
];

/// Whoever issues tokens: a key of each algorithm, named `hs`, `ed`, `es` and `rs`.
pub(crate) struct Platform {
    folder: TempDir,
    ed: Ed25519KeyPair,
    es: EcdsaKeyPair,
    rs: RsaKeyPair,
}

/// Now, as tokens say it.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A header and claims as they are signed.
pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A token with this signature.
pub(crate) fn signed(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

impl Platform {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let fresh = |document: pkcs8::Document| document.as_ref().to_vec();
        let ed = fresh(Ed25519KeyPair::generate_pkcs8(&random).expect("a key"));
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let es = fresh(EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key"));
        let platform = Self {
            folder: tempfile::tempdir().expect("a folder"),
            ed: Ed25519KeyPair::from_pkcs8(&ed).expect("a key"),
            es: EcdsaKeyPair::from_pkcs8(algorithm, &es, &random).expect("a key"),
            // ring makes none of these; this one was made for tests.
            rs: RsaKeyPair::from_pkcs8(include_bytes!("rsa-2048.pk8")).expect("a key"),
        };
        let write = |name: &str, text: String| std::fs::write(platform.file(name), text).expect("written");
        let public = |prefix: &[u8], key: &[u8]| pem("PUBLIC KEY", &[prefix, key].concat());
        write("ed", public(&ED25519, platform.ed.public_key().as_ref()));
        write("es", public(&P256, platform.es.public_key().as_ref()));
        write("rs", pem("RSA PUBLIC KEY", platform.rs.public_key().as_ref()));
        write("hs", format!("{SECRET}\n"));
        platform
    }

    pub(crate) fn file(&self, kid: &str) -> PathBuf {
        self.folder.path().join(kid)
    }

    /// `[jwt]` with the keys, and two listeners that ask for tokens.
    pub(crate) fn configuration(&self) -> String {
        let file = |kid: &str| self.file(kid).display().to_string();
        let public = |kid: &str, algorithm: &str| {
            let file = file(kid);
            format!("[[jwt.keys]]\nkid = \"{kid}\"\nalgorithm = \"{algorithm}\"\npublic_key_file = \"{file}\"\n")
        };
        let secret = format!("[[jwt.keys]]\nkid = \"hs\"\nalgorithm = \"HS256\"\nsecret_file = \"{}\"\n", file("hs"));
        let keys = [public("ed", "EdDSA"), public("es", "ES256"), public("rs", "RS256"), secret].concat();
        let listeners = crate::support::LISTENERS.replace("open", "jwt");
        format!("{}[jwt]\nissuer = \"id\"\naudience = \"push\"\n{keys}{listeners}", crate::support::OPEN)
    }

    /// A token of one of the keys; what `claims` does not say is good.
    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        let algorithm = match kid {
            "ed" => "EdDSA",
            "es" => "ES256",
            "rs" => "RS256",
            _ => "HS256",
        };
        self.sign(kid, &message(&json!({ "typ": "JWT", "alg": algorithm, "kid": kid }), &with_defaults(claims)))
    }

    pub(crate) fn sign(&self, kid: &str, message: &str) -> String {
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let signature = match kid {
            "ed" => self.ed.sign(bytes).as_ref().to_vec(),
            "es" => self.es.sign(&random, bytes).expect("signed").as_ref().to_vec(),
            "rs" => {
                let mut signature = vec![0; self.rs.public().modulus_len()];
                self.rs.sign(&signature::RSA_PKCS1_SHA256, &random, bytes, &mut signature).expect("signed");
                signature
            }
            _ => hs256(SECRET.as_bytes(), bytes),
        };
        signed(message, &signature)
    }
}

/// What a good token claims, unless `claims` says otherwise; `null` leaves a claim out.
pub(crate) fn with_defaults(claims: &Value) -> Value {
    let mut all = json!({ "iss": "id", "aud": "push", "iat": now_s(), "exp": now_s() + 600 });
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    let kept = all.as_object().expect("claims").iter().filter(|(_, value)| !value.is_null());
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

pub(crate) fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
