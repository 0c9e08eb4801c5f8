//! SASL credentials that a reload brings: librdkafka takes them from the next authentication on, so that nothing is
//! dropped that is connected, and whoever was refused is let in.
//!
//! One call of librdkafka that its crate does not wrap. It copies the texts, and the client that is borrowed keeps its
//! handle alive meanwhile; a test rotates a password on a real broker (`gateway/tests/kafka/states.rs`).
#![allow(unsafe_code, reason = "a function of librdkafka that has no wrapper")]

use std::ffi::{CStr, CString};

use rdkafka::bindings::{rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_sasl_set_credentials};
use rdkafka::client::{Client, ClientContext};

use crate::config;

/// What `kafka.client` calls them.
const NAMES: [&str; 2] = ["sasl.username", "sasl.password"];

/// A name and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials([String; 2]);

impl Credentials {
    /// Those of the settings, if there are any.
    pub(super) fn of(settings: &config::Kafka) -> Option<Self> {
        let properties = settings.properties().ok()?;
        let value = |wanted: &str| properties.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        Some(Self([value(NAMES[0])?, value(NAMES[1])?]))
    }

    /// Puts them into settings from which a client is made.
    pub(super) fn put(&self, settings: &mut config::Kafka) {
        for (name, value) in NAMES.iter().zip(&self.0) {
            settings.client.insert((*name).into(), value.clone().into());
        }
    }

    /// A client authenticates with them from now on.
    pub(super) fn set<C: ClientContext>(&self, client: &Client<C>) {
        let [Ok(name), Ok(password)] = self.0.each_ref().map(|text| CString::new(text.as_str())) else {
            tracing::error!(event = "kafka", "credentials with a NUL byte are not taken");
            return;
        };
        // SAFETY: the handle lives as long as the client, which is borrowed; both texts end in NUL and are copied.
        let error = unsafe { rd_kafka_sasl_set_credentials(client.native_ptr(), name.as_ptr(), password.as_ptr()) };
        if error.is_null() {
            return;
        }
        // SAFETY: the error is whole, is this function's alone, and is read before it is destroyed, once.
        let problem = unsafe {
            let text = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
            rd_kafka_error_destroy(error);
            text
        };
        tracing::error!(event = "kafka", problem, "credentials are not taken: a restart brings them");
    }
}

/// The credentials in force, for clients that belong to threads of their own.
#[derive(Debug)]
pub(super) struct Renewed(std::sync::Mutex<(u64, Option<Credentials>)>);

impl Renewed {
    /// Those that clients are made with.
    pub(super) fn new(settings: &config::Kafka) -> Self {
        Self(std::sync::Mutex::new((0, Credentials::of(settings))))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Option<Credentials>)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Others from now on; `None`: they are the same.
    pub(super) fn renew(&self, new: &Credentials) -> Option<()> {
        let mut now = self.lock();
        if now.1.as_ref() == Some(new) {
            return None;
        }
        *now = (now.0 + 1, Some(new.clone()));
        Some(())
    }

    /// Those in force.
    pub(super) fn now(&self) -> Option<Credentials> {
        self.lock().1.clone()
    }

    /// Those in force, if they came after those of this number, which is theirs then.
    pub(super) fn since(&self, number: &mut u64) -> Option<Credentials> {
        let now = self.lock();
        if now.0 == *number {
            return None;
        }
        *number = now.0;
        now.1.clone()
    }
}
