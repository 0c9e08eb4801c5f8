//! Profiles: what a host is for, and the files that set it up for that.
use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    rule::{Change, grouped},
    rules::rules,
};

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Many connections and room for their traffic: 16 GB of memory or more.
    Gateway,
    /// As many idle connections as a small machine can hold, with small socket buffers.
    GatewayLowmem,
    /// A machine that makes connections instead of taking them.
    Loadgen,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::GatewayLowmem, Self::Loadgen];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::GatewayLowmem => "gateway-lowmem",
            Self::Loadgen => "loadgen",
        }
    }

    /// What it is for, one sentence.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Gateway => "a gateway with 16 GB of memory or more, up to a million connections",
            Self::GatewayLowmem => "a gateway on a small machine: mostly idle connections, small socket buffers",
            Self::Loadgen => "a machine that runs halley-bench against another one",
        }
    }

    /// The name of its file below `sysctl.d`.
    pub fn sysctl_file(self) -> String {
        format!("90-halley-{}.conf", self.name())
    }

    /// Its sysctl settings as a file for sysctl.d(5), with the reason of each.
    pub fn sysctl_text(self) -> String {
        let mut text = format!("# Halley, profile {}: {}.\n", self.name(), self.purpose());
        text.push_str(
            "# Generated from the rules of halley-tune. `-` in front: not an error where the kernel has no such key.\n",
        );
        for rule in rules() {
            let (Some(value), Change::Sysctl(sysctl)) = (rule.value(self), &rule.change) else { continue };
            let _ = write!(text, "\n# {}: {}\n# When missed: {}\n", rule.title, rule.needs.formula(), rule.effect);
            if sysctl.memory_min > 0 {
                let _ =
                    writeln!(text, "# Only with {} GB of memory or more: leave it out below.", sysctl.memory_min >> 30);
            }
            let optional = if sysctl.namespaced { "" } else { "-" };
            let _ = writeln!(text, "{optional}{} = {value}", rule.id);
        }
        text
    }

    /// Its drop-in for `halley.service`; a load generator runs no gateway.
    pub fn drop_in(self) -> Option<String> {
        let (memory, note) = match self {
            Self::Gateway => ("80%", "a million idle connections"),
            Self::GatewayLowmem => ("90%", "a hundred thousand idle connections"),
            Self::Loadgen => return None,
        };
        let connections: u64 = if self == Self::Gateway { 1_000_000 } else { 100_000 };
        let bytes = connections * crate::CONNECTION_BYTES;
        Some(format!(
            "# Halley, profile {}. Generated from the rules of halley-tune.\n\
             [Service]\n\
             # The file table of each ring is checked against this, not the sum of them; more than 1048576 brings nothing.\n\
             LimitNOFILE={}\n\
             # Rings count as locked memory: {} bytes each.\n\
             LimitMEMLOCK=infinity\n\
             # {note} take {} × {} bytes = {} MB, kernel memory included; the rest is for traffic and slow clients.\n\
             MemoryMax={memory}\n",
            self.name(),
            crate::FILE_TABLE_MAX,
            grouped(crate::costs::RING_LOCKED_BYTES),
            grouped(connections),
            grouped(crate::CONNECTION_BYTES),
            grouped(bytes / 1_000_000),
        ))
    }
}
