//! `docs/metrics.md`, written from the table of families.

use std::fmt::Write as _;

use halley_protocol::job::JobReject;

use super::{Family, GROUPS};
use crate::control::decide::Refusal;
use crate::control::hooks::{Outcome, Subject};
use crate::identity::TokenReject;
use crate::reason::{CloseReason, DropReason, Handshake, Reject};
use crate::source::stats::{ProducerState, State};
use crate::stats::Pool;

const OPENING: &str = "\
# Metrics

Written from the code, and compared with it by a test (`gateway/tests/metrics.rs`); `HALLEY_WRITE_TABLES=1` writes it anew.

`GET /metrics` answers in OpenMetrics. Values are sums over the shards unless there is a label `shard`. Counters begin at 0 with
the process. Histograms have a bucket for each power of two of what is measured (microseconds, milliseconds or messages), so a
quantile is right to a factor of two. A scrape reads counters that the shards publish anyway; it asks nothing of a shard. How
to watch them: [observe](operations/observe.md), with a [dashboard](operations/dashboard.json) and
[alerts](operations/alerts.yml).
";

/// The whole document.
pub fn document() -> String {
    let mut out = OPENING.to_owned();
    for group in GROUPS {
        let _ =
            write!(out, "\n## {}\n\n| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n", group.title);
        for family in group.families {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let unit = family.parts().1.map_or("", |unit| unit.as_str());
            let (name, kind, labels) = (family.sample(), family.kind.name(), labels.join(", "));
            let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {unit} | {} |", family.help);
        }
    }
    out.push_str("\n## Values of labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in values() {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        let _ = writeln!(out, "| {label} | {} |", values.join(", "));
    }
    out
}

/// The closed lists that labels have their values from.
fn values() -> Vec<(String, Vec<&'static str>)> {
    let of = |family: &str, label: &str| format!("`{label}` of `{family}`");
    let mut logins = vec!["admitted"];
    logins.extend(Refusal::ALL.map(Refusal::name));
    logins.extend(TokenReject::ALL.map(TokenReject::name));
    vec![
        (of("halley_dropped_total", "reason"), DropReason::ALL.map(DropReason::name).to_vec()),
        (of("halley_closes_total", "reason"), CloseReason::ALL.map(CloseReason::name).to_vec()),
        (of("halley_tls_handshakes_total", "result"), Handshake::ALL.map(Handshake::name).to_vec()),
        (of("halley_rejects_total", "reason"), Reject::ALL.map(Reject::name).to_vec()),
        (of("halley_logins_total", "result"), logins),
        ("`hook`".into(), Subject::ALL.map(Subject::name).to_vec()),
        (of("halley_hook_calls_total", "result"), Outcome::ALL.map(Outcome::name).to_vec()),
        ("`pool`".into(), Pool::ALL.map(Pool::name).to_vec()),
        (of("halley_kafka_state", "state"), State::ALL.map(State::name).to_vec()),
        (of("halley_kafka_producer_state", "state"), ProducerState::ALL.map(ProducerState::name).to_vec()),
        (of("halley_kafka_rejects_total", "reason"), JobReject::ALL.map(JobReject::name).to_vec()),
    ]
}

impl Family {
    /// Every name that its samples have.
    pub fn sample_names(&self) -> Vec<String> {
        match self.kind {
            super::Kind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.name)).to_vec(),
            _ => vec![self.sample()],
        }
    }
}
