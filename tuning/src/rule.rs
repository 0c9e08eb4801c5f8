//! What a rule is: a reading, what it must be for so many connections, and the words to say about it.
use std::fmt;

use serde::{Serialize, Serializer};

use crate::{
    demand::{Basis, Demand, Quantity},
    profile::Profile,
    tree::{HostError, Tree},
};

/// One thing that a host has and connections need.
pub struct Rule {
    /// The sysctl's own name, or a name in the same style.
    pub id: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Whose host is concerned.
    pub concerns: Concerns,
    /// What missing it does.
    pub weight: Weight,
    /// Reads it; the only code of a rule.
    pub read: fn(&Tree) -> Result<Found, HostError>,
    /// What it must be.
    pub needs: Needs,
    /// What happens when it is not.
    pub effect: &'static str,
    /// How to change it.
    pub change: Change,
    /// What a change may cost.
    pub risk: &'static str,
    /// Where the kernel, or another authority, documents it.
    pub source: &'static str,
}

/// Whose host a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Gateways and load generators.
    Both,
    /// Gateways.
    Gateway,
    /// Load generators.
    Loadgen,
}

/// What missing a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// The next connection fails, or none is possible: counts for the capacity.
    Stops,
    /// Connections are held, but something gets slower, or fails at a peak.
    Slows,
    /// Shown because people ask; nothing depends on it.
    Told,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A number in the rule's unit.
    Number(u64),
    /// A version, major and minor.
    Version(u64, u64),
    /// A word.
    Word(String),
    /// The host sets no bound.
    Unlimited,
    /// Present, but not in force; why.
    Unused(&'static str),
    /// Missing or hidden.
    Unknown,
}

/// What a rule demands.
pub enum Needs {
    /// The sum of these, or more.
    AtLeast(&'static [Term]),
    /// This number, or less.
    AtMost(u64),
    /// This version, or a later one.
    Version(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// None of these words.
    NoneOf(&'static [&'static str]),
    /// Nothing.
    Nothing,
}

/// `times` of a quantity.
pub struct Term {
    /// How many of it.
    pub times: u64,
    /// Of what.
    pub of: Quantity,
    /// What that is, for the reader of the arithmetic.
    pub what: &'static str,
}

/// How a rule's value is changed.
pub enum Change {
    /// A sysctl named like the rule.
    Sysctl(Sysctl),
    /// By hand: the sentence says how.
    ByHand(&'static str),
}

/// Values of one sysctl.
pub struct Sysctl {
    /// For each profile that sets it.
    pub values: &'static [(Profile, &'static str)],
    /// Whether a value of the host that is higher (field by field) stays.
    pub raises: bool,
    /// Whether a container has its own; the others belong to the host.
    pub namespaced: bool,
    /// Bytes of memory that a host must have for this value.
    pub memory_min: u64,
}

impl Needs {
    /// What is needed for this demand, in words; numbers without separators.
    pub fn text(&self, demand: &Demand, basis: &Basis) -> Option<String> {
        match self {
            Self::AtLeast(terms) => Some(sum(terms, demand, basis).to_string()),
            Self::AtMost(most) => Some(most.to_string()),
            Self::Version(major, minor) => Some(format!("{major}.{minor}")),
            Self::OneOf(words) => Some(words.join(" or ")),
            Self::NoneOf(words) => Some(format!("not {}", words.join(", "))),
            Self::Nothing => None,
        }
    }

    /// Whether `found` is enough. What is not known counts as enough: it is shown as not known.
    pub fn met(&self, found: &Found, demand: &Demand, basis: &Basis) -> bool {
        match (self, found) {
            (_, Found::Unknown | Found::Unused(_) | Found::Unlimited) | (Self::Nothing, _) => true,
            (Self::AtLeast(terms), Found::Number(found)) => *found >= sum(terms, demand, basis),
            (Self::AtMost(most), Found::Number(found)) => found <= most,
            (Self::Version(major, minor), Found::Version(m, n)) => (m, n) >= (major, minor),
            (Self::OneOf(words), found) => words.contains(&found.to_string().as_str()),
            (Self::NoneOf(words), found) => !words.contains(&found.to_string().as_str()),
            _ => false,
        }
    }

    /// The arithmetic: every term with its numbers, and the sum.
    pub fn why(&self, demand: &Demand, basis: &Basis) -> Option<String> {
        let Self::AtLeast(terms) = self else { return None };
        let parts: Vec<String> = terms.iter().map(|term| term.shown(demand, basis)).collect();
        let sum = grouped(sum(terms, demand, basis));
        Some(if terms.len() == 1 && terms[0].times == 1 {
            parts.concat()
        } else {
            format!("{} = {sum}", parts.join(" + "))
        })
    }

    /// The arithmetic without numbers, for the manual.
    pub fn formula(&self) -> String {
        match self {
            Self::AtLeast(terms) => terms.iter().map(Term::formula).collect::<Vec<_>>().join(" + "),
            Self::AtMost(most) => format!("at most {most}"),
            Self::Version(major, minor) => format!("{major}.{minor} or later"),
            Self::OneOf(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
            Self::NoneOf(words) => {
                format!("not {}", words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))
            }
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

impl Term {
    fn shown(&self, demand: &Demand, basis: &Basis) -> String {
        let value = grouped(self.of.value(demand, basis));
        match (self.of, self.times) {
            (Quantity::One, times) => format!("{} {}", grouped(times), self.what),
            (of, 1) => format!("{value} {}", if self.what.is_empty() { of.name() } else { self.what }),
            (of, times) => format!("{value} {} × {} {}", of.name(), grouped(times), self.what),
        }
    }

    fn formula(&self) -> String {
        match (self.of, self.times) {
            (Quantity::One, times) => format!("{} {}", grouped(times), self.what),
            (of, 1) if self.what.is_empty() => of.name().to_owned(),
            (_, 1) => self.what.to_owned(),
            (of, times) => format!("{} × {} {}", of.name(), grouped(times), self.what),
        }
    }
}

fn sum(terms: &[Term], demand: &Demand, basis: &Basis) -> u64 {
    terms.iter().fold(0, |sum: u64, term| sum.saturating_add(term.times.saturating_mul(term.of.value(demand, basis))))
}

impl Rule {
    /// Whether hosts of this profile are concerned.
    pub fn is_for(&self, profile: Profile) -> bool {
        match self.concerns {
            Concerns::Both => true,
            Concerns::Gateway => profile != Profile::Loadgen,
            Concerns::Loadgen => profile == Profile::Loadgen,
        }
    }

    /// The sysctl's value in this profile, if it sets one.
    pub fn value(&self, profile: Profile) -> Option<&'static str> {
        let Change::Sysctl(sysctl) = &self.change else { return None };
        sysctl.values.iter().find(|(of, _)| *of == profile).map(|(_, value)| *value)
    }

    /// One sentence: what to do.
    pub fn how(&self) -> String {
        match &self.change {
            Change::ByHand(text) => (*text).to_owned(),
            Change::Sysctl(sysctl) => {
                let (_, value) = sysctl.values.first().expect("checked by a test: a sysctl has a value");
                format!("`sysctl -w {}='{value}'`, or `halley-tune apply`", self.id)
            }
        }
    }
}

impl Found {
    /// For people: numbers in groups of three digits.
    pub fn text(&self) -> String {
        if let Self::Number(number) = self { grouped(*number) } else { self.to_string() }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(out, "{number}"),
            Self::Version(major, minor) => write!(out, "{major}.{minor}"),
            Self::Word(word) => out.write_str(word),
            Self::Unlimited => out.write_str("unlimited"),
            Self::Unused(why) => write!(out, "not in force: {why}"),
            Self::Unknown => out.write_str("not known"),
        }
    }
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Unknown => serializer.serialize_none(),
            other => serializer.collect_str(other),
        }
    }
}

/// `1,000,000`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
