//! The platform's endpoints: control's questions go out, answers come back as decisions.
//!
//! Nothing waits for an endpoint but who was asked about: each question is a task of its own, and how many there are is
//! bounded by control's decisions ([`crate::control::decide::HookPolicy::pending_max`]).

mod gone;
mod stats;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use ring::hmac;

use super::decide::{About, HookAnswer, Question, Stay};
use crate::config;
use crate::endpoint::{self, CallError, Endpoint, Kind, Url};
use crate::reason::CloseReason;

use self::gone::{Gone, GoneLimits};

pub use stats::{HookStats, Outcome, Subject};
pub use wire::ListenerShown;

/// Shortest secret of signatures, bytes: that of its hash.
const SECRET_BYTES_MIN: usize = 32;

/// An answer, and the question that it belongs to.
pub type Answered = (u64, HookAnswer);

/// The endpoints; all of it belongs to the control thread.
pub struct Hooks {
    login: Option<Endpoint>,
    join: Option<Endpoint>,
    gone: Told,
    listeners: Arc<[ListenerShown]>,
    stats: Arc<HookStats>,
    answers: UnboundedSender<Answered>,
}

/// Who is told that connections are gone.
enum Told {
    Nobody,
    /// This endpoint, once control runs.
    Later(Box<endpoint::Rules>, GoneLimits),
    Now(Gone),
}

/// What a configuration says of the endpoints. The error is the key of the configuration and a sentence.
pub fn rules(hooks: &config::Hooks) -> Result<[Option<endpoint::Rules>; 3], (String, String)> {
    let key = key(hooks).map_err(|(name, problem)| (format!("hooks.{name}"), problem))?;
    let mut tls = None;
    let mut rules = |subject: Subject, url: &str| {
        if url.is_empty() {
            return Ok::<_, (String, String)>(None);
        }
        let subject = subject.name();
        let url = Url::parse(url).map_err(|problem| (format!("hooks.{subject}_url"), problem))?;
        if url.is_secure() && tls.is_none() {
            tls = Some(endpoint::tls(&hooks.ca_file).map_err(|problem| ("hooks.ca_file".to_owned(), problem))?);
        }
        Ok(Some(endpoint::Rules {
            url,
            tls: tls.clone(),
            kind: Kind::Question { subject, key: key.clone() },
            call_max: Duration::from_millis(hooks.call_ms_max.into()),
            calls_max: hooks.calls_max as usize,
            answer_bytes_max: hooks.answer_bytes_max as usize,
        }))
    };
    Ok([
        rules(Subject::Login, &hooks.login_url)?,
        rules(Subject::Join, &hooks.join_url)?,
        rules(Subject::Gone, &hooks.gone_url)?,
    ])
}

/// The key of the signatures; none: calls are not signed.
fn key(hooks: &config::Hooks) -> Result<Option<hmac::Key>, (&'static str, String)> {
    let (name, secret) = match (&*hooks.secret, &*hooks.secret_file) {
        ("", "") => return Ok(None),
        (secret, "") => ("secret", secret.as_bytes().to_vec()),
        ("", file) => {
            let read = std::fs::read(file).map_err(|cause| ("secret_file", format!("cannot read {file}: {cause}")))?;
            ("secret_file", read.trim_ascii_end().to_vec())
        }
        _ => return Err(("secret_file", "is set, and so is hooks.secret: use one of them".into())),
    };
    if secret.len() < SECRET_BYTES_MIN {
        let bytes = secret.len();
        let problem =
            format!("has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed: make one with `openssl rand -hex 32`");
        return Err((name, problem));
    }
    Ok(Some(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
}

impl Hooks {
    /// The endpoints of a configuration that was checked, and where their answers come out.
    pub fn new(
        hooks: &config::Hooks,
        listeners: Arc<[ListenerShown]>,
        stats: Arc<HookStats>,
    ) -> (Self, UnboundedReceiver<Answered>) {
        let [login, join, gone] = rules(hooks).unwrap_or_else(|(key, problem)| {
            // Read a moment ago; with a file that has changed since, every question is answered as by one that is down.
            tracing::error!(event = "hooks", key, problem, "nobody is asked");
            [None, None, None]
        });
        let (answers, answered) = unbounded();
        let limits = GoneLimits {
            batch: hooks.gone_batch_max as usize,
            queue: hooks.gone_queue_max.into(),
            tries: hooks.gone_tries_max,
        };
        let gone = gone.map_or(Told::Nobody, |rules| Told::Later(Box::new(rules), limits));
        let [login, join] = [login, join].map(|rules| rules.map(Endpoint::new));
        let hooks = Self { login, join, gone, listeners, stats, answers };
        (hooks, answered)
    }

    /// Begins to tell who is gone. Must be called within the runtime.
    pub fn start(&mut self) {
        if let Told::Later(rules, limits) = std::mem::replace(&mut self.gone, Told::Nobody) {
            let run = uuid::Uuid::new_v4().to_string().into();
            self.gone = Told::Now(Gone::new(Endpoint::new(*rules), run, limits, Arc::clone(&self.stats)));
        }
    }

    /// Tells that a connection is gone, if somebody wants to know.
    pub fn tell_gone(&mut self, stay: &Stay, peer: SocketAddr, reason: CloseReason, now_s: u64) {
        if let Told::Now(gone) = &mut self.gone {
            gone.put(stay, peer, reason, now_s);
        }
    }

    /// Puts the question, and its answer where answers come out; once, and in time. Must be called within the runtime.
    pub fn ask(&self, token: u64, question: &Question) {
        let (subject, endpoint) = match question.about {
            About::Login(_) => (Subject::Login, self.login.clone()),
            About::Join { .. } => (Subject::Join, self.join.clone()),
        };
        let body = wire::question(question, &self.listeners);
        let (stats, answers) = (Arc::clone(&self.stats), self.answers.clone());
        stats.begin(subject);
        monoio::spawn(async move {
            let since = Instant::now();
            let (answer, outcome) = match endpoint {
                Some(endpoint) => judge(subject, endpoint.url(), endpoint.call(body).await),
                // Its secret or certificates could not be read at start, which the log has told.
                None => (HookAnswer::Down, Outcome::Unreachable),
            };
            stats.end(subject, outcome, since.elapsed());
            // Control goes on as long as the process.
            let _ = answers.unbounded_send((token, answer));
        });
    }
}

/// What an answer says, or what the want of one does.
fn judge(subject: Subject, url: &Url, result: Result<bytes::Bytes, CallError>) -> (HookAnswer, Outcome) {
    let hook = subject.name();
    match result {
        Ok(body) => match wire::answer(&body) {
            Ok(wire::Answer::Allowed(allowed)) => (HookAnswer::Allowed(allowed), Outcome::Allowed),
            Ok(wire::Answer::Refused(reason)) => {
                tracing::debug!(event = "hook-refused", hook, reason);
                (HookAnswer::Refused, Outcome::Refused)
            }
            Err(problem) => {
                tracing::warn!(event = "hook-failed", hook, outcome = Outcome::Nonsense.name(), %url, %problem);
                (HookAnswer::Nonsense, Outcome::Nonsense)
            }
        },
        Err(error) => {
            let outcome = Outcome::of(error.failure);
            tracing::warn!(event = "hook-failed", hook, outcome = outcome.name(), %url, problem = %error);
            (if error.failure.is_down() { HookAnswer::Down } else { HookAnswer::Nonsense }, outcome)
        }
    }
}
