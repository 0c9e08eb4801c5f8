//! The report: every rule against a host, how many connections it holds, and what stops the next one.
use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    demand::{Basis, CONNECTIONS_MAX, Demand},
    profile::Profile,
    rule::{Found, Needs, Rule, Weight, grouped},
    rules::{TOPICS, rules},
    tree::{HostError, Tree},
};

/// How many connections fit, and why not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Connections of one process.
    #[serde(rename = "capacity")]
    pub connections: u64,
    /// The rule that stops the next one.
    pub limited_by: &'static str,
}

/// One rule and what this host says to it.
#[derive(Serialize)]
pub struct Finding {
    /// The rule's id.
    pub id: &'static str,
    /// What was read; null: missing or hidden.
    pub found: Found,
    /// What the connections wanted need, in words; null: nothing.
    #[serde(serialize_with = "number_or_word")]
    pub needed: Option<String>,
    /// Whether that is enough. What is not known counts as enough.
    pub ok: bool,
    /// What missing it does.
    pub weight: Weight,
    /// Connections that this rule allows; null: it sets no bound.
    pub allows: Option<u64>,
    /// The arithmetic.
    pub why: Option<String>,
    /// What happens when it is missed.
    pub effect: &'static str,
    /// What to do.
    pub change: String,
    /// What that may cost.
    pub risk: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// Less than needed is enough.
    #[serde(skip)]
    at_most: bool,
}

/// A host against a demand.
#[derive(Serialize)]
pub struct Report {
    /// What was asked for.
    pub connections_wanted: u64,
    /// Of what kind.
    pub profile: Profile,
    /// Whether they fit.
    pub enough: bool,
    /// The shards they would be spread over.
    pub shards: u64,
    /// What fits.
    #[serde(flatten)]
    pub capacity: Capacity,
    /// Every rule of the profile, in the order of the table.
    pub rules: Vec<Finding>,
}

/// A number where it is one.
#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn number_or_word<S: serde::Serializer>(needed: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match needed.as_deref().map(|text| text.parse::<u64>().map_err(|_| text)) {
        None => serializer.serialize_none(),
        Some(Ok(number)) => serializer.serialize_u64(number),
        Some(Err(word)) => serializer.serialize_str(word),
    }
}

/// How many connections one rule allows; none: as many as there can ever be.
fn allowed(rule: &Rule, found: &Found, demand: &Demand, basis: &Basis) -> Option<u64> {
    let met = |connections| rule.needs.met(found, &Demand { connections, ..*demand }, basis);
    if rule.weight != Weight::Stops || met(CONNECTIONS_MAX) {
        return None;
    }
    // Needs grow with the connections, so the last number that is met can be searched by halves.
    let (mut fits, mut fails) = (0, CONNECTIONS_MAX);
    while fails - fits > 1 {
        let middle = fits + (fails - fits) / 2;
        if met(middle) { fits = middle } else { fails = middle }
    }
    Some(fits)
}

/// How many connections the host carries for this demand's kind, whatever number it asks for.
///
/// # Errors
/// If a file of the host is not as documented.
pub fn capacity(tree: &Tree, demand: &Demand) -> Result<Capacity, HostError> {
    Ok(Report::of(tree, demand)?.capacity)
}

impl Report {
    /// Reads the host and holds every rule of the profile against it.
    ///
    /// # Errors
    /// If a file of the host is not as documented.
    pub fn of(tree: &Tree, demand: &Demand) -> Result<Self, HostError> {
        let basis = Basis::read(tree)?;
        let mut findings = Vec::new();
        for rule in rules().filter(|rule| rule.is_for(demand.profile)) {
            findings.push(Finding::of(rule, (rule.read)(tree)?, demand, &basis));
        }
        let least = findings.iter().filter_map(|finding| Some((finding.allows?, finding.id))).reduce(
            // The first of equals stands first in the table.
            |least, next| if next.0 < least.0 { next } else { least },
        );
        let (connections, limited_by) = least.unwrap_or((CONNECTIONS_MAX, "io_uring.file-table"));
        Ok(Self {
            connections_wanted: demand.connections,
            profile: demand.profile,
            enough: connections >= demand.connections,
            shards: demand.rings(&basis),
            capacity: Capacity { connections, limited_by },
            rules: findings,
        })
    }

    /// For people: the answer, what is short, then every rule in a line, or in full.
    pub fn text(&self, full: bool) -> String {
        let mut text = self.first_line();
        let short = |finding: &&Finding| !finding.ok;
        for finding in self.rules.iter().filter(short) {
            let _ = write!(text, "\n{}", finding.paragraph());
        }
        for topic in TOPICS {
            let of_topic = |finding: &&Finding| topic.rules.iter().any(|rule| rule.id == finding.id);
            let mut findings = self.rules.iter().filter(of_topic).peekable();
            if findings.peek().is_some() {
                let _ = writeln!(text, "\n{}", topic.name);
            }
            text.extend(findings.map(|finding| if full { finding.paragraph() } else { finding.line() }));
        }
        text
    }

    fn first_line(&self) -> String {
        let Capacity { connections, limited_by } = self.capacity;
        let next = self.rules.iter().find(|finding| finding.id == limited_by);
        let found = next.map_or_else(String::new, |finding| format!(" ({})", finding.found.text()));
        format!(
            "{} connections fit on this host as it is; the next one is stopped by {limited_by}{found}. Wanted: {} in {} shards: {}.\n",
            grouped(connections),
            grouped(self.connections_wanted),
            self.shards,
            if self.enough { "enough" } else { "short" },
        )
    }
}

impl Finding {
    fn of(rule: &'static Rule, found: Found, demand: &Demand, basis: &Basis) -> Self {
        Self {
            id: rule.id,
            needed: rule.needs.text(demand, basis),
            ok: rule.needs.met(&found, demand, basis),
            weight: rule.weight,
            allows: allowed(rule, &found, demand, basis),
            why: rule.needs.why(demand, basis),
            effect: rule.effect,
            change: rule.how(),
            risk: rule.risk,
            source: rule.source,
            at_most: matches!(rule.needs, Needs::AtMost(_)),
            found,
        }
    }

    /// `ok    limit.nofile   found 20,000, needed 20,000, allows 1,280,000`
    fn line(&self) -> String {
        let most = if self.at_most { "at most " } else { "" };
        let number = |text: &String| text.parse().map_or_else(|_| text.clone(), grouped);
        let needed =
            self.needed.as_ref().map(|needed| format!(", needed {most}{}", number(needed))).unwrap_or_default();
        let allows = self.allows.map(|allows| format!(", allows {}", grouped(allows))).unwrap_or_default();
        let mark = match (self.ok, self.weight, &self.found) {
            (false, Weight::Stops, _) => "SHORT",
            (false, ..) => "slow",
            (true, _, Found::Unknown) => "?",
            (true, Weight::Told, _) => "-",
            (true, ..) => "ok",
        };
        format!("  {mark:<5} {:<34} found {}{needed}{allows}\n", self.id, self.found.text())
    }

    fn paragraph(&self) -> String {
        let mut text = self.line();
        let mut say = |what: &str, how: &str| {
            let _ = writeln!(text, "          {what:<8} {how}");
        };
        if let Some(why) = &self.why {
            say("why", why);
        }
        say("missed", self.effect);
        say("change", &self.change);
        say("risk", self.risk);
        say("source", self.source);
        text
    }
}
