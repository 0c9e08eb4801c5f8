//! The files that are made from the table: profiles, drop-ins, and the manual's chapter.
use std::fmt::Write as _;

use crate::{
    profile::Profile,
    rule::{Concerns, Rule, Weight},
    rules::TOPICS,
};

const INTRODUCTION: &str = "\
# Tuning

This chapter is generated from the rules of `halley-tune`; a test compares it with them.

A stock Linux holds some tens of thousands of connections. Ask first, change afterwards:

```sh runnable
halley-tune report --connections 20000 || test $? -eq 1
```

The first line says how many connections this host holds as it is, and which rule stops the next one. Then come the rules
that are missed, with the arithmetic, and then all rules in a line each. `--all` explains every one, `--json` is for
programs: `capacity`, `limited_by`, and `rules` with `id`, `found`, `needed`, `ok`. Exit code 0: enough, 1: short, 2: error.
Whether the first line is right, and what each change brings, is [measured](measured.md).

The limits of a shell are not those of the service. Of a gateway that runs:

```sh as-root
halley-tune report --connections 1000000 --pid \"$(systemctl show -P MainPID halley)\"
```

To see what a profile would change, and then to change it:

```sh runnable
halley-tune apply --profile gateway --dry-run
```

```sh as-root
halley-tune apply --profile gateway --yes
halley-tune revert --yes
```

`apply` first writes down what it found (`/var/lib/halley-tune/found.json`), then changes the running kernel, and writes
`/etc/sysctl.d/90-halley.conf` and a drop-in for `halley.service`, which holds from the unit's next start after
`systemctl daemon-reload`. A second `apply` changes nothing. `revert` restores what was found, also when `apply` was
killed half way. In a container, `apply` names what only the host can change.

Without the tool: the same settings lie in [tuning/sysctl.d](../../tuning/sysctl.d), the same drop-ins in
[systemd/halley.service.d](../../systemd/halley.service.d).

The report of another host: run `halley-tune record > host.txt` there, and `halley-tune report --root host.txt` here.

## Profiles

";

const WEIGHTS: &str = "
## Rules

Each rule says what it is, what so many connections need, what happens when that is missed, how to change it, and what the
change may cost. A rule either **stops** the next connection, makes something **slow**, or is only **told**: people ask for
it, and nothing depends on it. Those we do not change, and do not recommend to change.
";

/// Path from the workspace's root, and text, of every generated file.
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![("docs/operations/tuning.md".to_owned(), manual())];
    for profile in Profile::ALL {
        files.push((format!("tuning/sysctl.d/{}", profile.sysctl_file()), profile.sysctl_text()));
        if let Some(text) = profile.drop_in() {
            files.push((format!("systemd/halley.service.d/{}.conf", profile.name()), text));
        }
    }
    files
}

/// The manual's chapter.
pub fn manual() -> String {
    let mut text = INTRODUCTION.to_owned();
    for profile in Profile::ALL {
        let _ = writeln!(text, "- **{}**: {}.", profile.name(), profile.purpose());
    }
    text.push_str(WEIGHTS);
    for topic in TOPICS {
        let _ = writeln!(text, "\n### {}\n\n{}", topic.name, topic.about);
        for rule in topic.rules {
            text.push_str(&section(rule));
        }
    }
    text
}

fn section(rule: &Rule) -> String {
    let weight = match rule.weight {
        Weight::Stops => "stops",
        Weight::Slows => "slow",
        Weight::Told => "told",
    };
    let whom = match rule.concerns {
        Concerns::Both => "",
        Concerns::Gateway => ", gateways",
        Concerns::Loadgen => ", load generators",
    };
    let mut text = format!("\n#### `{}`\n\n{} ({weight}{whom}).\n\n", rule.id, capitalised(rule.title));
    let _ = writeln!(text, "- needed: {}", rule.needs.formula());
    let _ = writeln!(text, "- when missed: {}", rule.effect);
    let _ = writeln!(text, "- change: {}", rule.how());
    for profile in Profile::ALL {
        if let Some(value) = rule.value(profile) {
            let _ = writeln!(text, "- profile {}: `{value}`", profile.name());
        }
    }
    let _ = writeln!(text, "- risk: {}", rule.risk);
    let _ = writeln!(text, "- source: {}", rule.source);
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
